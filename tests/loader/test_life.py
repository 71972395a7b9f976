"""Nothing stays behind: threads, descriptors, slabs; and processes that fork."""

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

import oocload
from oocload.errors import ClosedError
from oocload.plan.epoch import EpochPlan
from tests.conftest import our_threads

Make = Callable[..., Path]


def test_abandoned_iterators_leave_nothing(make_store: Make) -> None:
    with oocload.Loader(make_store(compression="lzf"), 10, seed=0) as loader:
        for x, _ in loader:
            del x
            break
        gc.collect()
        base = psutil.Process().num_fds(), threading.active_count()
        for _ in range(200):
            next(iter(loader))
        assert our_threads() == []
        assert psutil.Process().num_fds() <= base[0]  # what other tests left may go meanwhile
        assert threading.active_count() <= base[1]


def test_memory_stays_flat_over_epochs_and_abandoned_iterators(make_store: Make) -> None:
    path = make_store(20_000, 200, compression="lzf")
    with oocload.Loader(path, 100, shuffle=oocload.Shuffle(window_rows=4000), seed=0) as loader:

        def run(n: int) -> int:
            for _ in range(n):
                for _ in loader:
                    pass
                for _ in range(5):
                    next(iter(loader))
            gc.collect()
            return psutil.Process().memory_info().rss

        run(5)
        held = loader.stats.memory.held
        before = run(5)
        after = run(40)
        assert loader.stats.memory.held <= held
        assert after - before < 40 * 2**20 // 10  # a tenth of a MiB an epoch


def test_exception_in_the_training_loop_closes_everything(make_store: Make) -> None:
    with oocload.Loader(make_store(), 10, seed=0) as loader:
        with pytest.raises(RuntimeError, match="step failed"):
            for _ in loader:
                raise RuntimeError("step failed")


def test_forgotten_loader_leaves_nothing(make_store: Make) -> None:
    loader = oocload.Loader(make_store(), 10, seed=0)
    stream = iter(loader)
    next(stream)
    del loader, stream
    gc.collect()
    assert our_threads() == []


def test_two_iterators_and_two_loaders_at_once(make_store: Make) -> None:
    path = make_store(compression="lzf")
    how = oocload.Shuffle(window_rows=150)
    with (
        oocload.Loader(path, 20, shuffle=how, seed=0) as a,
        oocload.Loader(path, 20, shuffle=how, seed=0) as b,
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", oocload.KeptBatchesWarning)
            streams = [iter(a), iter(a), iter(b), iter(b)]
            got: list[list[int]] = [[] for _ in streams]
            for batches in zip(*streams, strict=True):
                for rows, (_, y) in zip(got, batches, strict=True):
                    rows += y.tolist()
        assert all(sorted(rows) == list(range(1003)) for rows in got)
        assert got[0] == got[2]
        assert got[1] == got[3]


def _child_epoch(loader: oocload.Loader, queue: "multiprocessing.Queue[object]") -> None:
    queue.put([(x.sum(), y.tolist()) for x, y in loader])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("compression", ["gzip", "szip"])
def test_a_child_process_reads_the_same_bytes(make_store: Make, method: str, compression: str) -> None:
    path = make_store(compression=compression)
    context = multiprocessing.get_context(method)
    with oocload.Loader(path, 64, seed=4) as loader, oocload.Loader(path, 64, seed=4) as other:
        stream = iter(other)  # threads, locks and slabs are alive when the child starts
        next(stream)
        queue = context.Queue()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of fork beside threads
            child = context.Process(target=_child_epoch, args=(loader, queue))
            child.start()
        rows = queue.get(timeout=60)
        child.join()
        assert child.exitcode == 0
        assert rows == [(x.sum(), y.tolist()) for x, y in loader]


def test_a_fork_while_the_lock_is_held(make_store: Make) -> None:
    """Nobody lets go of it in the child, so what the parent had is forgotten there without it."""
    with oocload.Loader(make_store(compression="gzip"), 64, x="x", y="y", seed=4) as loader:
        expected = [y.tolist() for _, y in loader]
        loader.load_state_dict(loader.state_dict(epoch=0, batch=0))
        queue = multiprocessing.get_context("fork").Queue()

        def read() -> None:
            queue.put([y.tolist() for _, y in loader])

        child = multiprocessing.get_context("fork").Process(target=read)
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with loader._runtime._resources.condition:
                held.set()
                done.wait(60)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(60)
        child.start()
        try:
            assert queue.get(timeout=30) == expected
        finally:
            child.kill()
            done.set()
            holder.join()
            child.join()


def test_an_iterator_does_not_cross_a_fork(make_store: Make) -> None:
    with oocload.Loader(make_store(), 10, seed=0) as loader:
        stream = iter(loader)
        next(stream)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            try:
                list(map(len, stream))
            except ClosedError as error:
                os._exit(7 if "crossed a fork" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_interpreter_exits_with_an_iterator_alive(make_store: Make) -> None:
    code = f"import oocload\nit = iter(oocload.Loader({str(make_store())!r}, 10))\nnext(it)\nprint('done')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_abandoned_cycles_are_collected_anywhere(make_store: Make) -> None:
    """The collector may end an abandoned iterator inside a thread that holds the lock."""
    path = make_store(5000, 20, compression="lzf")
    code = f"""
import gc, oocload
gc.set_threshold(1, 1, 1)
loader = oocload.Loader({str(path)!r}, 10, shuffle=oocload.Shuffle(window_rows=400), seed=0)
for _ in range(300):
    iterator = iter(loader)
    for _, y in zip(range(3), iterator):
        pass
    cycle = [iterator]
    cycle.append(cycle)
    del iterator, cycle
print(sum(len(y) for _, y in loader))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "5000\n", done.stderr[-2000:]


def test_no_memory_for_a_slab_reaches_the_consumer(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    with oocload.Loader(make_store(), 10, seed=0) as loader:
        monkeypatch.setattr("oocload.loader.slabs.mmap.mmap", refuse)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            next(iter(loader))
        monkeypatch.undo()
        assert sum(len(y) for _, y in loader) == 1003


def test_a_childs_batch_does_not_change(make_store: Make) -> None:
    with oocload.Loader(make_store(5000, 50), 100, shuffle=oocload.Shuffle(window_rows=200), seed=0) as loader:
        stream = iter(loader)
        x, y = next(stream)
        before = x.copy()
        go, done = os.pipe(), os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            os.read(go[0], 1)
            os._exit(0 if np.array_equal(x, before) else 1)
        del x, y
        for _ in stream:
            pass
        os.write(go[1], b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        for descriptor in (*go, *done):
            os.close(descriptor)


def test_fork_while_a_library_reads(make_store: Make) -> None:
    with oocload.Loader(make_store(20_000, 50, fletcher32=True), 100, seed=0) as loader:
        stream = iter(loader)
        for _ in range(4):
            next(stream)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                os._exit(0 if sum(len(y) for _, y in loader) == 20_000 else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_loader_in_several_threads(make_store: Make) -> None:
    with oocload.Loader(make_store(compression="lzf"), 32, seed=0) as loader:
        expected = [loader.batch_rows(i) for i in range(len(loader))]
        wrong = []

        def read(order: list[int]) -> None:
            for i in order:
                if not np.array_equal(loader[i][1], expected[i]):
                    wrong.append(i)

        orders = [np.random.default_rng(t).permutation(len(loader)).tolist() for t in range(4)]
        threads = [threading.Thread(target=read, args=(order,)) for order in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


@pytest.mark.parametrize("failing", [0, 1, 3])
def test_a_window_that_cannot_be_planned_is_an_error(
    make_store: Make, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Where rows are dealt over two slabs, the one before is open by then, and must not be waited for."""
    whole = EpochPlan.reading

    def reading(self: EpochPlan, window: int, late_only: bool = False) -> object:
        if window == failing:
            raise MemoryError("no room")
        return whole(self, window, late_only)

    monkeypatch.setattr(EpochPlan, "reading", reading)
    path = make_store(1003, 13, compression="lzf")
    with oocload.Loader(path, 20, seed=0, shuffle=oocload.Shuffle(window_rows=130)) as loader:
        assert loader._runtime.options.dealt
        with pytest.raises(MemoryError, match="no room"):
            list(map(len, loader))


def test_no_memory_for_a_second_slab_is_an_error(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_store(1003, 13, compression="lzf")
    with oocload.Loader(path, 20, seed=0, shuffle=oocload.Shuffle(window_rows=130)) as loader:
        pool = loader._runtime._resources.pool
        make, made = pool._make, []

        def once() -> object:
            made.append(1)
            if len(made) > 1:
                raise OSError("cannot allocate")
            return make()

        monkeypatch.setattr(pool, "_make", once)
        with pytest.raises(OSError, match="cannot allocate"):
            list(map(len, loader))


def test_a_batch_by_number_while_iterating(make_store: Make) -> None:
    """There is room for one more slab under the ceiling, so nothing is said."""
    path = make_store(1003, 13, compression="lzf")
    with oocload.Loader(path, 20, seed=0, shuffle=oocload.Shuffle(window_rows=130)) as loader:
        for number, (_, y) in enumerate(loader):
            assert loader[number][1].tolist() == y.tolist()
        assert loader.stats.memory.peak <= loader.memory


@pytest.mark.filterwarnings("ignore::oocload.errors.KeptBatchesWarning")
def test_many_iterators_take_a_thread_each_and_leave_no_scratch(make_store: Make) -> None:
    path = make_store(20_000, 500, compression="lzf")
    how = oocload.Shuffle(window_rows=2000)
    with oocload.Loader(path, 100, x="x", seed=0, shuffle=how, threads=4, memory="3 MiB") as loader:
        one_thread = loader._runtime._resources.scratch_nbytes
        assert loader.memory - loader._runtime.fit.needed < 3 * one_thread or loader._runtime.fit.n_threads == 4
        next(iter(loader))
        gc.collect()
        streams = [iter(loader) for _ in range(4)]
        for stream in streams:
            next(stream)
        assert len(our_threads()) >= 4
        del streams, stream
        gc.collect()
        scratch, peak = loader.stats.memory.parts()["scratch"]
        assert scratch <= loader._runtime.fit.n_threads * one_thread
        assert peak >= scratch


def test_close_stops_what_a_kept_iterator_holds(make_store: Make) -> None:
    """A notebook keeps the last traceback, and with it an iterator that has a name: its slab goes when that does."""
    loader = oocload.Loader(make_store(5000, 50, compression="lzf"), 10, seed=0, x="x")
    memory = loader.stats.memory

    def train() -> None:
        stream = iter(loader)
        for _ in stream:
            del _
            raise RuntimeError("step failed")

    try:
        train()
    except RuntimeError as exc:
        kept = exc
    assert our_threads() != []
    loader.close()
    assert our_threads() == []
    held = {part: held for part, (held, _) in memory.parts().items() if held}
    assert held.pop("slabs") == loader._runtime._resources.pool.slab_nbytes
    assert set(held) <= {"order", "copies"}
    del kept
    gc.collect()
    assert {part for part, (held, _) in memory.parts().items() if held} == {"order"}


def test_threads_that_cannot_be_started_leave_nothing(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a container allows only so many."""
    start, started = threading.Thread.start, []

    def once(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    with oocload.Loader(make_store(compression="lzf"), 10, seed=0, threads=3) as loader:
        held = loader.stats.memory.held
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", once)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                next(iter(loader))
        gc.collect()
        assert our_threads() == []
        assert loader.stats.memory.parts()["permuting"][0] == 0
        assert loader.stats.memory.held - held == sum(
            loader.stats.memory.parts().get(part, (0, 0))[0] for part in ("slabs", "scratch")
        )
        assert sum(len(y) for _, y in loader) == 1003


def test_a_killed_process_leaves_nothing(make_store: Make, tmp_path: Path) -> None:
    """No shared memory, no lock file, no temporary file: the next run starts as the first did."""
    path = make_store(5000, 50, compression="lzf")
    (tmp_path / "tmp").mkdir()
    code = f"""
import sys, oocload
with oocload.Loader({str(path)!r}, 10, seed=0) as loader:
    for step, (x, y) in enumerate(loader):
        if step == 20:
            print(y.tolist(), flush=True)
            sys.stdin.read()
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    said = []
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            said.append(process.stdout.readline())
            assert "/dev/shm" not in Path(f"/proc/{process.pid}/maps").read_text()
            process.kill()
        assert process.returncode == -signal.SIGKILL
    assert said[0] == said[1] != ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store.h5", "tmp"]
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_workers_leaves_nothing(make_store: Make, method: str) -> None:
    """A loader that is iterated here goes to worker processes, which read it from its position."""
    context = multiprocessing.get_context(method)
    with oocload.Loader(make_store(compression="gzip"), 64, seed=4) as loader:
        for step, _ in enumerate(loader):
            if step == 5:
                break
        del _
        expected = [y.tolist() for _, y in pickle.loads(pickle.dumps(loader))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of fork beside threads
            with context.Pool(2) as pool:
                got = pool.map(_labels, [loader] * 4)
                pool.close()
                pool.join()
        assert got == [expected] * 4


def _labels(loader: oocload.Loader) -> list[list[int]]:
    labels = [y.tolist() for _, y in loader]
    assert our_threads() == []
    return labels
