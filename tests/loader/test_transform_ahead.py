"""Transforms ahead of the consumer, in threads and in processes: the same batches as in its own thread."""

import gc
import multiprocessing
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oocload
from oocload.errors import ClosedError, InvalidArgumentError
from tests.conftest import our_threads

WINDOW = oocload.Shuffle(window_rows=150)
AHEAD = ["threads", 1, 2]


def children() -> list[str]:
    return [c.name for c in multiprocessing.active_children() if c.name.startswith("oocload")]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert not children()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.h5"
    x = np.random.default_rng(0).integers(0, 255, (1003, 40), "u1")
    oocload.convert({"x": x, "y": np.arange(1003)}, path, chunk_bytes=2000)
    return path


def augment(batch: Any, rng: np.random.Generator) -> Any:
    x, y = batch
    return x + rng.random(x.shape, dtype="f4"), y


def change(batch: Any) -> Any:
    batch[0][...] = 255 - batch[0]
    return batch


def views(batch: Any) -> Any:
    return {"x": batch[0][:, ::-1], "more": [batch[1], 0.5, "text", None]}


class Pair(NamedTuple):
    x: Any
    y: Any


def pair(batch: Any) -> Pair:
    return Pair(batch[0].T.copy().T, batch[1].astype(str))


def leaves(batch: Any) -> list[Any]:
    if isinstance(batch, dict):
        return [leaf for key in batch for leaf in (key, *leaves(batch[key]))]
    if isinstance(batch, tuple | list):
        return [type(batch).__name__, *(leaf for part in batch for leaf in leaves(part))]
    if isinstance(batch, np.ndarray):
        return [batch.dtype.str, batch.shape, batch.tolist() if batch.dtype.hasobject else batch.tobytes()]
    return [batch]


def stream(loader: oocload.Loader, n_epochs: int = 1) -> list[Any]:
    return [leaves(batch) for _ in range(n_epochs) for batch in loader]


@pytest.mark.parametrize("workers", [None, "threads", 1, 2, 3])
@pytest.mark.parametrize("function", [augment, change, views, pair])
@pytest.mark.parametrize("shuffle", [False, WINDOW])
def test_the_same_batches_in_the_same_order(path: Path, workers: int | None, function: Any, shuffle: Any) -> None:
    options: dict[str, Any] = {"seed": 1, "shuffle": shuffle, "transform": function}
    with oocload.Loader(path, 32, transform_workers=0, **options) as plain:
        expected = stream(plain, 2)
    with oocload.Loader(path, 32, transform_workers=workers, threads=3, **options) as loader:
        assert stream(loader, 2) == expected
        assert loader.stats.memory.parts().get("transformed", (0, 0))[0] == 0 or workers
        assert loader.stats.memory.peak <= loader.memory
        assert loader.stats.transform_s > 0
        assert "transforms ran for" in repr(loader.stats)


@pytest.mark.parametrize("workers", AHEAD)
def test_resume_at_every_batch_with_augmentation(path: Path, workers: int | None) -> None:
    options: dict[str, Any] = {"seed": 1, "shuffle": WINDOW, "transform": augment}
    with oocload.Loader(path, 64, transform_workers=0, **options) as plain:
        whole = stream(plain, 2)
    states = []
    with oocload.Loader(path, 64, transform_workers=workers, **options) as loader:
        batches = iter(loader)
        for number in range(len(loader)):
            states.append(loader.state_dict())
            assert leaves(next(batches)) == whole[number]
        batches.close()
        for number, state in enumerate(states):
            assert state["batch"] == number
            loader.load_state_dict(state)
            assert stream(loader, 2) == whole[number:]
        assert [leaves(loader[i]) for i in range(len(loader))] == stream(loader)


@settings(max_examples=15)
@given(st.data())
def test_any_ceiling_threads_and_start(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("any") / "a.h5"
    rows = data.draw(st.integers(50, 700))
    oocload.convert({"x": np.arange(rows * 9).reshape(rows, 9), "y": np.arange(rows)}, path, chunk_bytes=600)
    batch_size = data.draw(st.integers(1, 50))
    options: dict[str, Any] = {"seed": 2, "shuffle": data.draw(st.booleans()), "transform": augment}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", oocload.ShuffleQualityWarning)
        with oocload.Loader(path, batch_size, **options) as roomy:
            memory = roomy.min_memory() + data.draw(st.integers(0, 20_000))
        with oocload.Loader(path, batch_size, memory=memory, transform_workers=0, **options) as plain:
            start = plain.state_dict(epoch=1, batch=data.draw(st.integers(0, len(plain) - 1)))
            plain.load_state_dict(start)
            expected = stream(plain, 2)
        threads = data.draw(st.integers(1, 4))
        with oocload.Loader(
            path, batch_size, memory=memory, threads=threads, transform_workers="threads", **options
        ) as loader:
            loader.load_state_dict(start)
            assert stream(loader, 2) == expected
            assert loader.stats.memory.peak <= loader.memory


@pytest.mark.parametrize("workers", AHEAD)
@pytest.mark.parametrize("failing", [0, 1, 9, 31])
def test_an_error_comes_after_the_batches_before_it(path: Path, workers: int | None, failing: int) -> None:
    def fail(batch: Any) -> Any:
        if batch[1][0] == failing * 32:
            raise KeyError("mine")
        return batch

    with oocload.Loader(path, 32, shuffle=False, transform=fail, transform_workers=workers) as loader:
        got = []
        with pytest.raises(KeyError, match="mine") as caught:
            for _, y in loader:
                got.append(int(y[0]))
        assert got == [32 * i for i in range(failing)]
        name = fail.__qualname__
        assert caught.value.__notes__[0] == f"raised by transform {name!r} at batch {failing} of epoch 0"
        if isinstance(workers, int) and workers:
            assert "Traceback" in caught.value.__notes__[1]
        assert loader.state_dict()["batch"] == failing
        assert not our_threads()
        del caught


@pytest.mark.parametrize("workers", AHEAD)
@pytest.mark.parametrize(("made", "message"), [(None, "return a batch, got None"), ("short", "and made 31 of 32")])
def test_what_it_may_not_return(path: Path, workers: int | None, made: Any, message: str) -> None:
    def wrong(batch: Any) -> Any:
        if batch[1][0] != 96:
            return batch
        return None if made is None else (batch[0][1:], batch[1])

    with oocload.Loader(path, 32, shuffle=False, transform=wrong, transform_workers=workers) as loader:
        batches = iter(loader)
        for _ in range(3):
            next(batches)
        with pytest.raises(InvalidArgumentError, match=rf"wrong' must .*{message} at batch 3 of epoch 0"):
            next(batches)


@pytest.mark.parametrize("workers", AHEAD)
def test_what_reading_raises_comes_at_its_place(path: Path, workers: int | None) -> None:
    with oocload.Loader(path, 32, seed=0, shuffle=WINDOW, transform=augment, transform_workers=workers) as loader:
        assert sum(1 for _ in loader.slabs()) > 4
        take, n = oocload.loader.filled.SlabStream.__next__, 0

        def broken(self: Any) -> Any:
            nonlocal n
            n += 1
            if n == 4:
                raise OSError("no such sector")
            return take(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(oocload.loader.filled.SlabStream, "__next__", broken)
            got = 0
            with pytest.raises(OSError, match="no such sector"):
                for _ in loader:
                    got += 1
        assert loader.state_dict()["batch"] == got > 3


@pytest.mark.parametrize("workers", AHEAD)
def test_abandoned_iterators_leave_nothing(path: Path, workers: int | None) -> None:
    with oocload.Loader(path, 32, seed=0, shuffle=WINDOW, transform=augment, transform_workers=workers) as loader:
        for n in range(100):
            batches = iter(loader)
            for _ in range(n % 5):
                next(batches)
            if n % 2:
                cycle = [batches]
                cycle.append(cycle)
                del cycle
            del batches
        gc.collect()
        assert not our_threads()
        assert len(children()) == (workers if isinstance(workers, int) else 0)
        assert len(stream(loader)) == 32
        assert loader.stats.memory.peak <= loader.memory


@pytest.mark.parametrize("workers", AHEAD)
def test_close_ends_what_a_kept_iterator_runs(path: Path, workers: int | None) -> None:
    loader = oocload.Loader(path, 32, seed=0, shuffle=WINDOW, transform=augment, transform_workers=workers)
    batches = iter(loader)
    next(batches)
    loader.close()
    assert not our_threads()
    assert not children()
    with pytest.raises(ClosedError):
        for _ in batches:
            pass
    del batches


@pytest.mark.parametrize("workers", AHEAD)
def test_a_forgotten_loader_leaves_nothing(path: Path, workers: int | None) -> None:
    loader = oocload.Loader(path, 32, seed=0, transform=augment, transform_workers=workers)
    batches = iter(loader)
    next(batches)
    del loader, batches
    gc.collect()
    assert not our_threads()
    assert not children()


@pytest.mark.parametrize("workers", AHEAD)
def test_batches_may_be_kept(path: Path, workers: int | None) -> None:
    options: dict[str, Any] = {"seed": 1, "shuffle": WINDOW, "transform": augment}
    with oocload.Loader(path, 32, x="x", y="y", transform_workers=0, **options) as plain:
        expected = stream(plain)
    with oocload.Loader(path, 32, x="x", y="y", transform_workers=workers, **options) as loader:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", oocload.KeptBatchesWarning)
            kept = list(loader)
        list(loader)
        assert [leaves(batch) for batch in kept] == expected


@pytest.mark.parametrize("workers", AHEAD)
@pytest.mark.filterwarnings("ignore::oocload.errors.KeptBatchesWarning")
def test_two_iterators_in_two_threads(path: Path, workers: int | None) -> None:
    options: dict[str, Any] = {"seed": 1, "shuffle": WINDOW, "transform": augment}
    with oocload.Loader(path, 32, transform_workers=0, **options) as plain:
        expected = stream(plain, 2)
    with oocload.Loader(path, 32, transform_workers=workers, **options) as loader:
        streams = [iter(loader), iter(loader)]
        first = [next(s) for s in streams]
        got: list[list[Any]] = [[leaves(batch)] for batch in first]
        del first

        def take(batches: Any, into: list[Any]) -> None:
            into.extend(map(leaves, batches))

        threads = [threading.Thread(target=take, args=pair) for pair in zip(streams, got, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got[0] + got[1] == expected
        del streams, threads


@pytest.mark.parametrize("workers", AHEAD)
def test_nothing_crosses_a_fork(path: Path, workers: int | None) -> None:
    """The iterator says so; the loader goes on, without processes of its own."""
    with oocload.Loader(path, 32, seed=1, transform=augment, transform_workers=workers) as loader:
        expected = stream(loader, 2)[32:]
        loader.load_state_dict(loader.state_dict(epoch=0, batch=0))
        batches = iter(loader)
        next(batches)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                next(batches)
            except ClosedError as error:
                code = 2 if "crossed a fork" in str(error) else 3
            same = stream(loader) == expected
            os._exit(code + 10 * same + 20 * (len(children()) == 0 or not workers))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code % 10 == 2
        assert code // 10 % 2 == 1
        assert len(list(batches)) == 31


def test_a_tight_loader_transforms_in_the_consumers_thread(path: Path) -> None:
    seen = set()

    def note(batch: Any) -> Any:
        seen.add(threading.current_thread())
        return batch

    with oocload.Loader(path, 32, seed=1, shuffle=WINDOW) as roomy:
        least = roomy.min_memory()
    with oocload.Loader(path, 32, seed=1, shuffle=WINDOW, memory=least, transform=note) as loader:
        assert loader.tight
        list(map(len, loader))
        assert seen == {threading.current_thread()}
        assert loader.stats.memory.peak <= loader.memory


def test_threads_do_run_ahead(path: Path) -> None:
    begun: list[int] = []
    both = threading.Barrier(2, timeout=60)

    def meet(batch: Any) -> Any:
        begun.append(int(batch[1][0]))
        if batch[1][0] in (32, 64):
            both.wait()  # only if two run at once
        return batch

    with oocload.Loader(path, 32, shuffle=False, transform=meet, threads=2, transform_workers="threads") as loader:
        assert [int(y[0]) for _, y in loader] == list(range(0, 1003, 32))
    assert sorted(begun) == list(range(0, 1003, 32))


def test_one_thread_keeps_the_order_of_batches(path: Path) -> None:
    begun: list[int] = []
    seen = set()

    def note(batch: Any) -> Any:
        begun.append(int(batch[1][0]))
        seen.add(threading.current_thread())
        return batch

    with oocload.Loader(path, 32, shuffle=False, transform=note, threads=2) as loader:
        list(loader)
    assert begun == list(range(0, 1003, 32))
    assert threading.current_thread() not in seen
