"""Processes that run transforms: what ends them, what they cannot send, and what they leave behind."""

import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from oocload.errors import InvalidArgumentError, TransformError
from oocload.loader import transform_processes
from oocload.loader.parcel import Parcel, opened
from tests.loader.test_transform_ahead import augment, children, leaves, nothing_left, path, stream

__all__ = ["nothing_left", "path"]

Open = Callable[..., oocload.Loader]


@pytest.fixture
def loader(path: Path) -> Iterator[Open]:
    """Return a function transform → loader of 32 batches in order, with two processes."""
    made: list[oocload.Loader] = []

    def make(transform: Any, workers: int = 2, **options: Any) -> oocload.Loader:
        options = {"shuffle": False, **options}
        made.append(oocload.Loader(path, 32, transform=transform, transform_workers=workers, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_they_are_others_and_stay_for_the_next_epoch(loader: Open) -> None:
    source = loader(lambda batch: {"pid": os.getpid()})
    assert not children()
    first = {batch["pid"] for batch in source}
    assert len(first) == 2
    assert os.getpid() not in first
    assert {batch["pid"] for batch in source} == first
    source.close()
    assert not children()


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(3)])
@pytest.mark.parametrize("failing", [0, 5])
def test_one_that_ends_is_an_error_at_its_batch(loader: Open, end: Callable[[], None], failing: int) -> None:
    def transform(batch: Any) -> Any:
        if batch[1][0] == 32 * failing:
            end()
        return batch

    source = loader(transform)
    got = []
    for _ in range(2):  # the second time with new processes
        source.load_state_dict(source.state_dict(epoch=0, batch=0))
        with pytest.raises(
            TransformError, match=rf"ended with (signal SIGKILL|exit code 3) at batch {failing} of epoch 0"
        ):
            for _, y in source:
                got.append(int(y[0]))
    assert got == 2 * [32 * i for i in range(failing)]
    assert source.state_dict()["batch"] == failing


def test_one_that_is_killed_between_epochs_is_replaced(loader: Open) -> None:
    source, plain = loader(augment, seed=1), loader(augment, 0, seed=1)
    assert stream(source) == stream(plain)
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    assert stream(source) == stream(plain)


def test_when_the_parent_is_killed_they_end(path: Path) -> None:
    code = f"""
import multiprocessing, oocload, sys, time
def f(batch): return batch
for loaders in [[oocload.Loader({str(path)!r}, 32, transform=f, transform_workers=2) for _ in range(2)]]:
    for loader in loaders:
        next(iter(loader))
    print(*[c.pid for c in multiprocessing.active_children()], flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        maps = [Path(f"/proc/{pid}/maps").read_text() for pid in pids]
        process.kill()
    assert len(pids) == 4
    assert not any("/dev/shm" in text for text in maps)
    deadline = time.monotonic() + 30
    while any(map(runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(runs, pids))


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_interpreter_ends_with_an_iterator_alive(path: Path) -> None:
    code = f"""
import oocload, time
def f(batch):
    if batch[1][0] > 100: time.sleep(1000)
    return batch
for workers in (2, None):
    transform = f if workers else len
    it = iter(oocload.Loader({str(path)!r}, 32, shuffle=False, transform=transform, transform_workers=workers))
    next(it)
    kept = it if workers else kept
print('done')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_an_interrupt_ends_the_iteration_and_no_process(path: Path) -> None:
    code = f"""
import multiprocessing, os, signal, time, oocload
def f(batch):
    if batch[1][0] == 96:
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(0.1)
    return batch
with oocload.Loader({str(path)!r}, 32, shuffle=False, transform=f, transform_workers=2) as loader:
    n = 0
    try:
        for _ in loader:
            n += 1
            time.sleep(0.02)
    except KeyboardInterrupt:
        print(n < 32, loader.state_dict()["batch"] - n in (0, 1), len(multiprocessing.active_children()))
    del _
    print(len([len(y) for _, y in loader.map(lambda b: b)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[0] == "True True 2", done.stderr


class Unsendable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def test_what_cannot_be_sent_is_an_error_at_its_batch(loader: Open) -> None:
    def fail(batch: Any) -> Any:
        raise Unsendable(1, 2)

    with pytest.raises(TransformError, match="raised Unsendable, which cannot be sent: 1 and 2") as caught:
        next(iter(loader(fail)))
    assert caught.value.__notes__[0].startswith("raised by transform")
    assert "raise Unsendable(1, 2)" in caught.value.__notes__[1]

    def closure(batch: Any) -> Any:
        return [*batch, lambda: 0]

    with pytest.raises(InvalidArgumentError, match="closure' must return what pickles where it runs in processes"):
        next(iter(loader(closure)))


def test_results_of_any_size(loader: Open) -> None:
    def grow(batch: Any) -> Any:
        return np.repeat(batch[1][:, None], 1 + batch[1][0] % 7 * 5000, axis=1)

    source = loader(grow, memory="64 MiB")
    for number, made in enumerate(source):
        assert made.shape == (min(32, 1003 - 32 * number), 1 + 32 * number % 7 * 5000)
        assert np.array_equal(made[:, -1], np.arange(32 * number, min(1003, 32 * number + 32)))
        assert made.flags.writeable
    held, peak = source.stats.memory.parts()["transformed"]
    assert held >= 32 * 30001 * 8
    assert peak < 64 * 2**20
    source.rest()
    assert source.stats.memory.parts()["transformed"][0] == 0


@pytest.mark.parametrize("room", [0, 20_000, 60_000, 200_000])
def test_the_ceiling_holds(path: Path, room: int) -> None:
    options: dict[str, Any] = {"seed": 1, "shuffle": oocload.Shuffle(window_rows=150), "transform": augment}
    with oocload.Loader(path, 32, **options) as roomy:
        memory = roomy.min_memory() + room
    with oocload.Loader(path, 32, memory=memory, transform_workers=0, **options) as plain:
        expected = stream(plain, 2)
    with oocload.Loader(path, 32, memory=memory, transform_workers=2, **options) as source:
        assert stream(source, 2) == expected
        assert source.stats.memory.peak <= memory


def test_batches_are_views_of_a_few_slots(loader: Open) -> None:
    seen = set()
    source = loader(augment)
    for _ in range(3):
        for x, _ in source:
            if len(x) == 32:
                seen.add(x.ctypes.data // mmap.PAGESIZE)
    assert len(seen) <= 6


def test_closing_takes_no_memory_from_a_batch_that_is_copied(loader: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    source = loader(lambda batch: (batch[0] + 1, batch[1]), workers=1)

    def close_first(root: Any, start: int, copies: bool = False) -> Any:
        if copies:
            other = threading.Thread(target=source.close)
            other.start()
            other.join()
        return opened(root, start, copies)

    monkeypatch.setattr(transform_processes, "opened", close_first)
    kept = []
    with pytest.raises(oocload.ClosedError):
        for x, y in source:
            kept.append((x, y))
    assert len(kept) > 1
    rows = np.random.default_rng(0).integers(0, 255, (1003, 40), "u1")
    assert all((x == rows[y] + 1).all() for x, y in kept)


def test_a_state_with_another_window_takes_new_ones(path: Path) -> None:
    wide, narrow = (oocload.Shuffle(window_rows=n) for n in (400, 100))
    with oocload.Loader(path, 32, seed=1, shuffle=wide) as other:
        state = other.state_dict(epoch=1, batch=3)
    options: dict[str, Any] = {"seed": 1, "transform": augment}
    with oocload.Loader(path, 32, shuffle=narrow, transform_workers=2, **options) as source:
        list(map(len, source))
        source.load_state_dict(state)
        got = stream(source)
    with oocload.Loader(path, 32, shuffle=wide, transform_workers=0, **options) as plain:
        plain.load_state_dict(state)
        assert got == stream(plain)


def test_a_daemon_transforms_in_place(path: Path) -> None:
    with oocload.Loader(path, 32, seed=1, transform=augment, transform_workers=2) as source:
        expected = stream(source)
        source.load_state_dict(source.state_dict(epoch=0, batch=0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of fork beside threads
            with multiprocessing.get_context("fork").Pool(1) as pool:
                assert pool.apply(stream, [source]) == expected
                pool.close()
                pool.join()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_those_that_are_not_forked(path: Path, tmp_path: Path, method: str) -> None:
    (tmp_path / "main.py").write_text(f"""
import multiprocessing, oocload
def f(batch, rng):
    return batch[0] + rng.random(batch[0].shape), batch[1]
def stream(transform, workers):
    with oocload.Loader({str(path)!r}, 32, seed=1, transform=transform, transform_workers=workers) as loader:
        return [(x.tobytes(), y.tobytes()) for x, y in loader]
if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    print(stream(f, 1) == stream(f, 0))
    try:
        stream(lambda batch: batch, 1)
    except oocload.InvalidArgumentError as error:
        print(error)
""")
    done = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(
        "True\ntransform '<lambda>' must pickle where processes are not forked, and does not: "
    ), done.stderr
    assert not done.stderr


@pytest.mark.parametrize("workers", [-1, 1.5, True])
def test_their_number(path: Path, workers: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="transform_workers must be a whole number of at least 0, got"):
        oocload.Loader(path, 32, transform_workers=workers)
    with pytest.raises(InvalidArgumentError, match="transform_workers must be None, 'threads' or a number, got '2'"):
        oocload.Loader(path, 32, transform_workers="2")  # type: ignore[arg-type]


def test_a_parcel_holds_anything() -> None:
    x = np.arange(24.0).reshape(4, 6)
    dates = np.array(["2020-01-01"], "M8[D]")
    records = np.zeros(2, [("u", "i4"), ("v", "f8")])
    what = {"x": x, "more": [x[:, ::2], x.T, np.zeros((0, 3)), np.array(3), np.array(["a", "bc"]), dates, records]}
    what["more"] += [np.array([1, "a"], object), x.astype(">i2"), "text", None, np.float32(2)]
    parcel = Parcel(what)
    memory = np.zeros(parcel.nbytes + 64, np.uint8)
    parcel.write(memory, 64)
    found = opened(memory, 64)
    assert leaves(found) == leaves(what)
    assert np.shares_memory(found["x"], memory)
    assert not np.shares_memory(opened(memory, 64, copies=True)["x"], memory)
    again = Parcel([found["x"][1:3], found["x"] + 1], memory)
    assert again.nbytes < Parcel([x[1:3], x]).nbytes
    memory = np.concatenate([memory, np.zeros(again.nbytes, np.uint8)])
    again.write(memory, parcel.nbytes + 64)
    part, more = opened(memory, parcel.nbytes + 64)
    assert np.array_equal(part, x[1:3])
    assert np.array_equal(more, x + 1)
    assert np.shares_memory(part, memory[: parcel.nbytes + 64])
