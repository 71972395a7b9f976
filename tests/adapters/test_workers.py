"""The worker processes of a DataLoader: the loader's order, each block read once, one ceiling for all."""

import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oocload
from oocload.errors import ChunkError, InvalidArgumentError, MemoryCeilingError, StateError
from oocload.loader import pipeline
from oocload.loader.team import pickled
from tests.adapters.frameworks import BATCH, N_BATCHES, N_ROWS, WINDOW, assert_same, damage, stream, write

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader, get_worker_info  # noqa: E402

pytestmark = [
    pytest.mark.framework,
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "t.h5")


@pytest.fixture(autouse=True)
def no_workers_left() -> Iterator[None]:
    yield
    gc.collect()  # an error's traceback may hold the DataLoader's iterator, which ends its workers when it goes
    for child in multiprocessing.active_children():
        child.join(10)
    assert not multiprocessing.active_children()


def over(loader: Any, n_workers: int, **options: Any) -> Any:
    return DataLoader(loader.to_torch(), **{"batch_size": None, "num_workers": n_workers, **options})


@contextmanager
def iterated(loader: Any, n_workers: int, **options: Any) -> Iterator[Any]:
    """Iterate over a DataLoader whose workers end at once: where the collector ends them, that takes seconds each."""
    batches = iter(over(loader, n_workers, **options))
    try:
        yield batches
    finally:
        batches._shutdown_workers()


def taken(batches: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(x.numpy().copy(), y.numpy().copy()) for x, y in batches]


def pair(path: Path, **options: Any) -> tuple[oocload.Loader, oocload.Loader]:
    return tuple(oocload.Loader(path, **{"batch_size": BATCH, "seed": 1, "shuffle": WINDOW, **options}) for _ in "ab")


# Order


@pytest.mark.parametrize("n_workers", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [WINDOW, False])
@pytest.mark.parametrize("persistent", [False, True])
def test_forked_workers_give_the_stream_of_the_iterator(
    path: Path, n_workers: int, shuffle: object, persistent: bool
) -> None:
    plain, loader = pair(path, shuffle=shuffle)
    with plain, loader:
        batches = over(loader, n_workers, persistent_workers=persistent, multiprocessing_context="fork")
        assert len(batches) == N_BATCHES
        got = []
        for epoch in range(3):
            assert loader.epoch == epoch
            got += taken(batches)
        assert_same(stream(plain, 3), got)
        assert (loader.epoch, loader.state_dict()["batch"]) == (3, 0)
        assert_same(stream(plain, 1), stream(loader, 1))  # and in this process it goes on from there


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_spawned_workers_give_the_stream_of_the_iterator(path: Path, method: str) -> None:
    plain, loader = pair(path)
    with plain, loader:
        batches = over(loader, 2, multiprocessing_context=method, persistent_workers=method == "spawn")
        assert_same(stream(plain, 2), [batch for _ in range(2) for batch in taken(batches)])


@settings(max_examples=25)
@given(st.data())
def test_whatever_the_sizes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    n_rows = data.draw(st.integers(1, 300), "rows")
    chunk_rows = data.draw(st.integers(1, n_rows), "rows of a chunk")
    batch_size = data.draw(st.integers(1, n_rows), "rows of a batch")
    n_workers = data.draw(st.integers(1, 4), "workers")
    start = data.draw(st.integers(0, -(-n_rows // batch_size)), "first batch")
    window = oocload.Shuffle(window_rows=data.draw(st.integers(1, n_rows), "rows of a window"))
    path = tmp_path_factory.mktemp("sizes") / "s.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(n_rows * 3).reshape(n_rows, 3), chunks=(chunk_rows, 3))
        file.create_dataset("y", data=np.arange(n_rows), chunks=(chunk_rows,))
    plain, loader = pair(
        path, batch_size=batch_size, shuffle=data.draw(st.sampled_from([window, False]), "shuffle"), memory="64 MiB"
    )
    with plain, loader:
        state = plain.state_dict(epoch=2, batch=start)
        plain.load_state_dict(state)
        loader.load_state_dict(state)
        assert_same(stream(plain, 2), [batch for _ in range(2) for batch in taken(over(loader, n_workers))])


def test_ways_to_choose_rows(path: Path, tmp_path: Path) -> None:
    few = write(tmp_path / "few.h5", labels=np.arange(N_ROWS) % 4)
    ways: list[tuple[Path, dict[str, Any]]] = [
        (path, {"drop_last": True}),
        (path, {"weights": "w"}),
        (path, {"shuffle": oocload.Shuffle(streams=4, window_rows=500)}),
        (path, {"rank": 1, "world_size": 2}),
        (few, {"balanced": "y"}),
    ]
    for store, options in ways:
        plain, loader = pair(store, **options)
        with plain, loader:
            assert_same(stream(plain, 1), taken(over(loader, 2)))


def test_a_mix_and_what_cannot_be_shared_come_from_the_first_worker(path: Path, tmp_path: Path) -> None:
    def mixed() -> oocload.Mix:
        return oocload.mix([oocload.Loader(path, BATCH, seed=s) for s in (1, 2)], weights=[1, 3], seed=0)

    with mixed() as plain, mixed() as loader:
        batches = over(loader, 2)
        assert_same(stream(plain, 2), taken(batches) + taken(batches))
        assert loader.epoch == 2
    with h5py.File(tmp_path / "text.h5", "w") as file:
        file["text"] = [str(i) * (i % 5) for i in range(100)]

    def lengths(batch: Any) -> np.ndarray:
        return np.array([len(text) for text in batch])

    with oocload.Loader(tmp_path / "text.h5", 8, x="text", seed=0, transform=lengths) as plain:
        expected = [x.tolist() for x in plain]
    with oocload.Loader(tmp_path / "text.h5", 8, x="text", seed=0, transform=lengths) as loader:
        assert [x.tolist() for x in over(loader, 2)] == expected


# Who does what


def test_each_block_is_read_once_by_one_worker(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = multiprocessing.get_context("fork").Array("q", 2)
    read = pipeline._read_blocks

    def counted(job: Any, first: int, last: int, *args: Any) -> int:
        with counts.get_lock():
            counts[get_worker_info().id] += sum(stop - start for start, stop in job.ranges(first, last))
        return read(job, first, last, *args)

    monkeypatch.setattr(pipeline, "_read_blocks", counted)
    _, loader = pair(path)
    with loader:
        for _ in over(loader, 2):
            pass
        assert sum(counts) == N_ROWS
        assert min(counts) > N_ROWS // 3


def test_the_transform_runs_in_all_workers_and_may_write_in_place(path: Path) -> None:
    def transform(batch: Any) -> Any:
        x, y = batch
        x += 1
        return x, y, np.full(len(y), get_worker_info().id)

    plain, loader = pair(path)
    loader = oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, transform=transform)
    with plain, loader:
        for number, ((x, y), (x1, y1, worker)) in enumerate(zip(plain, over(loader, 2), strict=True)):
            assert (x + 1).tobytes() == x1.numpy().tobytes()
            assert y.tobytes() == y1.numpy().tobytes()
            assert set(worker.tolist()) == {number % 2}


def test_batches_may_be_kept(path: Path) -> None:
    plain, loader = pair(path)
    with plain, loader:
        kept = list(over(loader, 2))
        assert_same(stream(plain, 1), taken(kept))


def busy(loader: oocload.Loader) -> int:
    """Return how many buffers hold a batch that is on its way or alive."""
    return int(np.count_nonzero(loader.board._buffers["n_tensors"]))


def test_batches_come_in_buffers_that_are_used_again(path: Path) -> None:
    _, loader = pair(path)
    with loader:
        seen = set()
        for _ in range(3):
            for batch in over(loader, 2):
                assert type(batch[0]) is torch.Tensor
                seen.add(batch[0].data_ptr())
        del batch
        assert len(seen) <= 2 * (2 + 2)  # workers, batches asked for ahead
        assert busy(loader) == 0


def test_kept_batches_stay_as_they_are_over_passes_and_dropped_iterators(path: Path) -> None:
    """Kept at random, for a while each, from two passes at once of which one is left early."""
    plain, loader = pair(path)
    random = np.random.default_rng(0)
    with plain, loader:
        whole: dict[bytes, bytes] = {y.tobytes(): x.tobytes() for x, y in stream(plain, 9)}
        kept: list[Any] = []
        for n_workers in (2, 1, 3):
            dataset = loader.to_torch()
            one, other = (iter(DataLoader(dataset, batch_size=None, num_workers=n_workers)) for _ in "ab")
            for (x, y), (x2, _) in zip(one, other, strict=False):
                kept += [(x, y)] if random.random() < 0.2 else []
                kept += [(x2, None)] if random.random() < 0.05 else []
                while len(kept) > 12:
                    del kept[random.integers(len(kept))]
                for held, numbers in kept:
                    if numbers is not None:
                        assert whole[numbers.numpy().tobytes()] == held.numpy().tobytes()
                if random.random() < 0.02:
                    break
            del one, other
        del x, y, x2, held, numbers
        assert busy(loader) > 0
        kept.clear()
        for _ in loader:  # where this process reads, what was on its way to iterators that are gone is forgotten
            break
        assert busy(loader) == 0


# Positions


@pytest.mark.parametrize("batch", [1, 30, N_BATCHES - 1])
def test_a_loaded_state_goes_on_in_workers(path: Path, batch: int) -> None:
    plain, loader = pair(path)
    with plain, loader:
        loader.load_state_dict(plain.state_dict(epoch=1, batch=batch))
        expected = stream(plain, 3)[N_BATCHES + batch :]
        assert_same(expected, taken(over(loader, 2)) + taken(over(loader, 3)))


def test_left_early_the_next_is_the_next_epoch(path: Path) -> None:
    plain, loader = pair(path)
    with plain, loader:
        batches = over(loader, 2)
        for _ in batches:
            break
        assert loader.epoch == 0
        assert_same(stream(plain, 2)[N_BATCHES:], taken(batches))
        for _ in loader:
            break
        assert loader.epoch == 2
        loader.load_state_dict(loader.state_dict(epoch=0, batch=0))
        with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as again:
            assert_same(stream(again, 1), taken(batches))


def test_workers_of_the_same_seed(path: Path) -> None:
    plain, loader = pair(path)
    with plain, loader:
        got = []
        for _ in range(3):
            torch.manual_seed(0)
            got += taken(over(loader, 2))
        torch.manual_seed(0)
        abandoned = iter(over(loader, 2))
        next(abandoned)
        del abandoned
        torch.manual_seed(0)
        got += taken(over(loader, 2))
        expected = stream(plain, 5)
        assert_same(expected[: 3 * N_BATCHES] + expected[4 * N_BATCHES :], got)


@pytest.mark.parametrize(("n_workers", "prefetch_factor"), [(1, 5), (2, 1), (2, 4), (3, 2)])
def test_the_position_is_the_models_whatever_workers_have_made(
    path: Path, n_workers: int, prefetch_factor: int
) -> None:
    plain, loader = pair(path)
    with plain, loader:
        for number, _ in enumerate(over(loader, n_workers, prefetch_factor=prefetch_factor)):
            state = loader.state_dict()
            assert (state["epoch"], state["batch"]) == divmod(number + 1, N_BATCHES)
        assert loader.epoch == 1
        expected, got = stream(plain, 4), []
        for stop in (1, 20, N_BATCHES - 2, N_BATCHES):  # left early there, and gone on with
            loader.load_state_dict(loader.state_dict(epoch=0, batch=0))
            batches = over(loader, n_workers, prefetch_factor=prefetch_factor)
            got = taken(itertools.islice(batches, stop))
            loader.load_state_dict(loader.state_dict())
            got += taken(batches)
            assert_same(expected[: N_BATCHES * (1 + (stop == N_BATCHES))], got)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_persistent_workers_go_where_the_loader_is(path: Path, method: str) -> None:
    plain, loader = pair(path)
    with plain, loader:
        expected = stream(plain, 4)
        epochs = [expected[n * N_BATCHES : (n + 1) * N_BATCHES] for n in range(4)]
        start = loader.state_dict()
        batches = over(loader, 2, persistent_workers=True, multiprocessing_context=method)
        assert_same(epochs[0], taken(batches))
        loader.load_state_dict(start)
        assert_same(epochs[0], taken(batches))
        assert_same(epochs[1], stream(loader, 1))
        for number, _ in enumerate(batches):
            if number == 9:
                break
        assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (2, 10)
        assert_same(epochs[3], taken(batches))
        assert loader.epoch == 4


def test_an_older_pass_does_not_move_the_position(path: Path) -> None:
    plain, loader = pair(path)
    with plain, loader:
        batches = over(loader, 2)
        old = iter(batches)
        next(old)
        assert len(list(batches)) == N_BATCHES
        assert loader.epoch == 2
        next(old)
        assert (loader.epoch, loader.state_dict()["batch"]) == (2, 0)
        loader.load_state_dict(loader.state_dict(epoch=5, batch=3))
        next(old)
        assert (loader.epoch, loader.state_dict()["batch"]) == (5, 3)
        del old


def test_a_pass_that_is_dropped_at_once_takes_one_epoch(path: Path) -> None:
    plain, loader = pair(path)
    with plain, loader:
        expected = stream(plain, 12)
        for epoch in range(0, 12, 2):
            dropped = iter(over(loader, 3))
            while not loader.board.place.of_pass or loader.epoch != epoch:
                pass  # until the first of its workers has begun
            del dropped
            assert_same(expected[(epoch + 1) * N_BATCHES : (epoch + 2) * N_BATCHES], taken(over(loader, 3)))


def test_what_a_broken_pass_held_is_given_back(path: Path) -> None:
    _, loader = pair(path)
    with loader:
        for _ in over(loader, 2):
            break
        held = os.fstat(loader.board._descriptor).st_blocks
        for _ in loader:
            break
        assert os.fstat(loader.board._descriptor).st_blocks < held


def _two_epochs_by_workers(dataset: Any, queue: Any) -> None:
    batches = DataLoader(dataset, batch_size=None, num_workers=2)
    got = [y.tolist() for _ in range(2) for _, y in batches]
    queue.put((got, dataset.loader.epoch, busy(dataset.loader)))


def test_processes_forked_with_a_dataset_go_on_by_themselves(path: Path) -> None:
    plain, loader = pair(path)
    with plain, loader:
        dataset = loader.to_torch()
        assert len(taken(DataLoader(dataset, batch_size=None, num_workers=1))) == N_BATCHES
        expected = [y.tolist() for _, y in stream(plain, 3)[N_BATCHES:]]
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        processes = [context.Process(target=_two_epochs_by_workers, args=(dataset, queue)) for _ in "ab"]
        for process in processes:
            process.start()
        for _ in processes:
            assert queue.get(timeout=60) == (expected, 3, 0)
        for process in processes:
            process.join()
        assert loader.epoch == 1


def test_two_at_once(path: Path) -> None:
    plain, loader = pair(path)
    with plain, loader:
        dataset = loader.to_torch()
        passes = []
        for pause_s in (0.0, 0.1):  # the workers of one start among those of the other
            torch.manual_seed(0)
            options = {"worker_init_fn": lambda worker, pause_s=pause_s: time.sleep(worker * (0.2 - pause_s))}
            passes.append(iter(DataLoader(dataset, batch_size=None, num_workers=2, **options)))
        one, other = passes
        pairs = list(zip(one, other, strict=True))
        epochs = [stream(plain, 1) for _ in range(2)]
        got = [taken(half) for half in zip(*pairs, strict=True)]
        assert sorted(half[0][1].tolist() for half in got) == sorted(epoch[0][1].tolist() for epoch in epochs)
        for half in got:
            assert_same(next(e for e in epochs if e[0][1].tolist() == half[0][1].tolist()), half)


def test_the_state_of_one_worker_is_not_that_of_the_dataset(path: Path) -> None:
    _, loader = pair(path)
    with loader:
        state = {**loader.state_dict(), "worker": [0, 7]}
        with pytest.raises(StateError, match="state must be that of the dataset, and is that of one worker"):
            loader.to_torch().load_state_dict(state)


# What goes wrong


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_a_damaged_chunk_is_named_at_its_window(path: Path, n_workers: int) -> None:
    damage(path, 60)
    plain, loader = pair(path, shuffle=False)
    with plain, loader:
        expected = []
        with pytest.raises(ChunkError, match="field 'x'"):
            for batch in plain:
                expected.append(batch[1].copy())
        got = []
        with iterated(loader, n_workers) as batches:
            with pytest.raises(ChunkError, match=r"(?s)Caught ChunkError in DataLoader worker.*field 'x'"):
                for _, y in batches:
                    got.append(y.numpy().copy())
        assert [y.tolist() for y in got] == [y.tolist() for y in expected]


class Attached(ChunkError):
    """Takes its cause along, as all errors do where tblib is installed (by distributed)."""

    def __reduce__(self) -> Any:
        return Attached, self.args, {"cause": self.__cause__}


def test_an_error_keeps_its_class_where_its_cause_cannot_go_along() -> None:
    error = Attached("field 'x'")
    error.__cause__ = OSError(threading.Lock())  # type: ignore[arg-type]
    told = pickle.loads(pickled(error))
    assert (type(told), told.args) == (Attached, ("field 'x'",))
    told = pickle.loads(pickled(ValueError(threading.Lock())))
    assert type(told) is RuntimeError
    assert str(told).startswith("ValueError: <unlocked _thread.lock")


@pytest.mark.parametrize("failing", [0, 1, 40, N_BATCHES - 1])
def test_a_transform_that_raises_comes_at_its_batch(path: Path, failing: int) -> None:
    def transform(batch: Any) -> Any:
        if batch[1][0] == failing * BATCH:
            raise RuntimeError("not this one")
        return batch

    loader = oocload.Loader(path, BATCH, shuffle=False, transform=transform)
    with loader:
        got = 0
        with iterated(loader, 2) as batches:
            with pytest.raises(RuntimeError, match=r"(?s)not this one.*raised by transform .* at batch"):
                for _ in batches:
                    got += 1
        assert got == failing


@pytest.mark.parametrize("at", [0, 5, 40])
def test_a_worker_that_is_killed(path: Path, at: int) -> None:
    plain, loader = pair(path)
    with plain, loader:
        with pytest.raises(RuntimeError, match="exited unexpectedly|killed by signal"):
            with iterated(loader, 2) as batches:  # PyTorch may raise it once more while the others are joined
                for number, _ in enumerate(batches):
                    if number == at:
                        os.kill(batches._workers[1].pid, signal.SIGKILL)
        assert_same(stream(plain, 2)[N_BATCHES:], taken(over(loader, 2)))


def test_a_worker_that_ends_while_it_writes_where_it_is(path: Path) -> None:
    _, loader = pair(path)
    with loader:
        loader.to_torch()
        loader.board._header["writes"] |= 1  # and nothing after
        assert loader.epoch == 0
        assert len(taken(over(loader, 2))) == N_BATCHES
        assert loader.epoch == 1
        assert loader.board._header["writes"] % 2 == 0


def test_workers_agree_on_the_memory_for_slabs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``memory=`` the ceiling follows from what is free, which each process sees for itself."""
    from oocload.loader.runtime import Runtime

    monkeypatch.setattr(Runtime, "slots_of_team", lambda self, n_workers, n_ahead: 2 + get_worker_info().id)
    plain, loader = pair(path)
    with plain, loader:
        assert_same(stream(plain, 2), taken(over(loader, 3)) + taken(over(loader, 2)))


def test_a_worker_that_never_begins(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oocload.loader.team.MEETING_S", 0.3)
    monkeypatch.setattr("oocload.loader.team._TELL_AFTER_S", 0.1)

    def init(worker: int) -> None:
        if worker == 1:
            raise RuntimeError("no room here")

    _, loader = pair(path)
    with loader:
        with iterated(loader, 2, worker_init_fn=init) as batches:
            with pytest.raises(RuntimeError, match=r"all workers of a DataLoader must begin, and \[1\] did not"):
                for _ in batches:
                    pass


def test_a_ceiling_too_small_for_workers(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as roomy:
        least = roomy.min_memory()
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, memory=least) as loader:
        with pytest.raises(
            MemoryCeilingError, match=r"memory must be at least \d+ bytes .* for 2 workers .* num_workers=0"
        ):
            with iterated(loader, 2) as batches:
                next(batches)


def test_batches_that_would_be_batched(path: Path) -> None:
    _, loader = pair(path)
    with loader:
        with pytest.raises(InvalidArgumentError, match="batch_size of the DataLoader must be None"):
            with iterated(loader, 2, batch_size=4) as batches:
                next(batches)
