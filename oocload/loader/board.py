"""A piece of memory that worker processes share: what each has done, where the epoch stands, and their slabs.

It is a file without a name (``memfd_create``): a forked child has it, a spawned one is given it, and it goes with the
last of them, however they end. Numbers on it are aligned words, each written by one process alone or under the lock.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context, reduction
from typing import Any

import numpy as np

N_TEAMS = 8  # that may be at work at once, each with an area of its own
MOST_WORKERS = 512
MOST_SLOTS = 16
ERROR_NBYTES = 2**16
_AREA_NBYTES = 2**42  # of addresses, not of memory: the file has holes where nothing was written

_HEADER = np.dtype([("turn", "i8"), ("epoch", "i8"), ("batch", "i8"), ("begun", "i8"), ("state_nbytes", "i8")])
WORKER = np.dtype([("pid", "i8"), ("epoch", "i8"), ("first", "i8"), ("left", "i8"), ("done", "i8")])
TEAM = np.dtype(
    [
        ("used", "i8"),
        ("seed", "i8"),
        ("n_workers", "i8"),
        ("epoch", "i8"),
        ("batch", "i8"),
        ("failed", "i8"),  # number of the slab + 1
        ("error_nbytes", "i8"),
        ("unused", "i8"),
        ("workers", WORKER, MOST_WORKERS),
        ("filled", "i8", (MOST_SLOTS, MOST_WORKERS)),
        ("released", "i8", (MOST_SLOTS, MOST_WORKERS)),
        ("error", "u1", ERROR_NBYTES),
    ]
)
_LAYOUT = np.dtype([("header", _HEADER), ("state", "u1", 2**16), ("teams", TEAM, N_TEAMS)])
_CONTROL_NBYTES = -(-_LAYOUT.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE


class Board:
    """The shared memory. It pickles to a process that is being spawned; elsewhere a pickled copy is a fresh one."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.owner = os.getpid() if descriptor is None else None  # the process whose loader follows
        self._descriptor = os.memfd_create("oocload", os.MFD_CLOEXEC) if descriptor is None else descriptor
        if descriptor is None:
            os.ftruncate(self._descriptor, _CONTROL_NBYTES)
        self._control = mmap.mmap(self._descriptor, _CONTROL_NBYTES)
        whole = np.frombuffer(self._control, _LAYOUT, 1)
        self.header, self._state, self.teams = whole["header"][0], whole["state"][0], whole["teams"][0]

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def __reduce__(self) -> Any:
        if context.get_spawning_popen() is None:
            return Board, ()
        return _received, (reduction.DupFd(self._descriptor),)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; a lock whose process dies is free."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)

    # Where the epoch stands

    def position(self, turn: int) -> tuple[int, int, bool] | None:
        """Return (epoch, batch, whether the epoch has begun), if workers have moved a loader since that turn of it."""
        h = self.header
        if h["turn"] != turn + 1:
            return None
        return int(h["epoch"]), int(h["batch"]), bool(h["begun"])

    def note(self, turn: int, epoch: int, batch: int, begun: bool) -> None:
        """Note where workers are."""
        with self.locked():
            self.put(turn, epoch, batch, begun)

    def put(self, turn: int, epoch: int, batch: int, begun: bool) -> None:
        """Note where workers are; call it when it is `locked`."""
        h = self.header
        h["turn"], h["epoch"], h["batch"], h["begun"] = turn + 1, epoch, batch, begun

    def advance(self, turn: int, epoch: int, batch: int) -> None:
        """Note that workers have come so far in an epoch, if they were not further already."""
        h = self.header
        with self.locked():
            same = h["turn"] == turn + 1 and h["epoch"] == epoch and h["begun"]
            self.put(turn, epoch, max(int(h["batch"]), batch) if same else batch, begun=True)

    # Memory

    def slabs(self, team: int, nbytes: int) -> mmap.mmap:
        """Return memory of a team's area."""
        start = _CONTROL_NBYTES + team * _AREA_NBYTES
        with self.locked():
            if os.fstat(self._descriptor).st_size < start + nbytes:
                os.ftruncate(self._descriptor, start + nbytes)
        return mmap.mmap(self._descriptor, nbytes, offset=start)


def _received(descriptor: Any) -> Board:
    return Board(descriptor.detach())
