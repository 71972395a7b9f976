"""Batches copied ahead of the model, to a device whose copies take their time."""

import gc
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from oocload.adapters.ahead import batches_ahead
from tests.adapters.frameworks import BATCH, N_BATCHES, N_ROWS, WINDOW, assert_same, stream, write
from tests.conftest import our_threads


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "t.h5")


class SlowDevice:
    """Reads the host's memory some time after a copy was started, as a device does."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.n_started = self.n_running = self.most_running = 0
        self.lock = threading.Lock()

    def start(self, batch: Any) -> "SlowCopy":
        with self.lock:
            self.n_started += 1
            self.n_running += 1
            self.most_running = max(self.most_running, self.n_running)
        return SlowCopy(self, batch)


class SlowCopy:
    def __init__(self, device: SlowDevice, batch: Any) -> None:
        # Addresses alone: what keeps the memory as it is must be the code under test, not a reference from here.
        self.arrays = [(a.ctypes.data, a.shape, a.dtype, a.nbytes) for a in batch]
        self.host = batch
        self.copies: list[np.ndarray] = []
        self.device = device
        self.thread = threading.Thread(target=self.copy, args=(device,))
        self.thread.start()

    def copy(self, device: SlowDevice) -> None:
        import ctypes

        time.sleep(device.delay_s)
        for address, shape, dtype, nbytes in self.arrays:
            raw = ctypes.string_at(address, nbytes)
            self.copies.append(np.frombuffer(raw, dtype).reshape(shape))
        with device.lock:
            device.n_running -= 1

    def wait(self) -> None:
        self.thread.join()
        self.host = None

    def result(self) -> Any:
        self.thread.join()
        return tuple(self.copies)


@pytest.mark.parametrize("shuffle", [WINDOW, False])
@pytest.mark.parametrize("n_ahead", [0, 1, 2, 5])
def test_no_slab_is_filled_again_while_a_copy_runs(path: Path, n_ahead: int, shuffle: object) -> None:
    with (
        oocload.Loader(path, BATCH, seed=1, shuffle=shuffle) as plain,
        oocload.Loader(path, BATCH, seed=1, shuffle=shuffle) as loader,
    ):
        device = SlowDevice(0.002)
        got = [batch for _ in range(2) for batch in batches_ahead(loader, device, n_ahead)]
        assert_same(stream(plain, 2), got)
        assert device.most_running > min(1, n_ahead)
        assert loader.stats.memory.peak <= loader.memory


def test_this_device_sees_a_slab_that_is_filled_too_early(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: without the wait, and with nobody holding the memory, bytes differ."""
    monkeypatch.setattr("oocload.adapters.ahead._wait", lambda running: running.clear())
    monkeypatch.setattr(SlowCopy, "wait", lambda self: None)
    begin = SlowCopy.__init__

    def forgetful(self: SlowCopy, device: SlowDevice, batch: Any) -> None:
        begin(self, device, batch)
        self.host = None

    monkeypatch.setattr(SlowCopy, "__init__", forgetful)
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
        expected = stream(plain, 2)
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        got = [batch for _ in range(2) for batch in batches_ahead(loader, SlowDevice(0.05), 40)]
    assert any(a.tobytes() != b.tobytes() for (a, _), (b, _) in zip(expected, got, strict=True))


def test_copies_are_started_ahead_and_the_position_is_the_models(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        device = SlowDevice(0)
        for number, _ in enumerate(batches_ahead(loader, device, 2)):
            assert device.n_started == min(N_BATCHES, number + 3)
            state = loader.state_dict()
            assert (state["epoch"], state["batch"]) == divmod(number + 1, N_BATCHES)
            assert loader.epoch == 0
        assert loader.epoch == 1
        gc.collect()
        assert not our_threads()


@pytest.mark.parametrize("stop", [1, 2, 30, 62, 63, 64, 100])
def test_a_run_that_was_stopped_goes_on_at_the_next_batch(path: Path, stop: int) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
        expected = stream(plain, 3)
    got, state = [], {}
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        while len(got) < stop:
            for batch in batches_ahead(loader, SlowDevice(0), 2):
                got.append(batch)
                state = loader.state_dict()
                if len(got) == stop:
                    break
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        loader.load_state_dict(state)
        while len(got) < len(expected):
            got.extend(batches_ahead(loader, SlowDevice(0), 2))
    assert_same(expected, got)


def test_left_early_it_leaves_nothing_and_the_next_is_the_next_epoch(path: Path) -> None:
    with (
        oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain,
        oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader,
    ):
        device = SlowDevice(0.001)
        batches = batches_ahead(loader, device, 2)
        next(batches)
        batches.close()
        assert device.n_running == 0
        assert not our_threads()
        assert_same(stream(plain, 2)[N_BATCHES:], list(batches_ahead(loader, device, 2)))


def test_an_iterator_that_is_no_longer_the_last_does_not_move_the_position(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        old = batches_ahead(loader, SlowDevice(0), 2)
        next(old)
        state = loader.state_dict(epoch=5, batch=7)
        loader.load_state_dict(state)
        next(old)
        assert loader.state_dict() == state
        for _ in old:
            pass
        assert loader.state_dict() == state


@pytest.mark.parametrize("failing", [0, 1, 17, N_BATCHES - 1])
def test_an_error_comes_after_the_batches_before_it(path: Path, failing: int) -> None:
    def transform(batch: Any) -> Any:
        if batch[1][0] == failing * BATCH:
            raise RuntimeError("not this one")
        return batch

    with oocload.Loader(path, BATCH, shuffle=False, transform=transform) as loader:
        got = []
        with pytest.raises(RuntimeError, match="not this one"):
            for batch in batches_ahead(loader, SlowDevice(0), 2):
                got.append(batch)
        assert len(got) == failing
        assert loader.state_dict()["batch"] == failing
        gc.collect()
        assert not our_threads()


@pytest.mark.parametrize("ahead", [0, 3])
def test_under_the_smallest_ceiling_there_is_one_slab(path: Path, ahead: int) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as roomy:
        least = roomy.min_memory()
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, memory=least) as plain:
        expected = stream(plain, 1)
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, memory=least) as loader:
        assert loader.tight
        assert_same(expected, list(batches_ahead(loader, SlowDevice(0.001), ahead)))
        assert loader.stats.memory.peak <= loader.memory
        assert loader.stats.rows == N_ROWS


def test_slabs_are_prepared_and_what_was_done_is_undone(path: Path) -> None:
    """What pins memory for a CUDA device: each slab once, and undone before its memory goes."""
    pinned: dict[int, int] = {}
    n_pinned = 0

    def pin(address: int, nbytes: int) -> Any:
        nonlocal n_pinned
        n_pinned += 1
        assert address not in pinned
        pinned[address] = nbytes
        return lambda: pinned.pop(address)

    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        for _ in loader:
            break
        loader.prepare_slabs(pin)
        for epoch in range(3):
            for batch in loader:
                address = batch[0].ctypes.data
                assert any(start <= address < start + n for start, n in pinned.items())
            if not epoch:
                first = n_pinned
        assert n_pinned == first  # the same slabs, again and again
        loader.load_state_dict(loader.state_dict())
        assert len(pinned) == first
    assert len(pinned) == 1  # closed, but one slab is looked at
    del batch
    gc.collect()
    assert not pinned
