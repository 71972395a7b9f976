"""A piece of memory that worker processes share: what each has done, where the epoch stands, and their slabs.

It is a file without a name (``memfd_create``): a forked child has it, a spawned one is given it, and it goes with the
last of them, however they end. Numbers on it are aligned words, each written by one process alone or under the lock.
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import context, reduction
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from oocload.forks import renew_in_child

N_TEAMS = 8  # that may be at work at once, each with an area of its own
MOST_WORKERS = 512
MOST_SLOTS = 16
MOST_BUFFERS = 4096
ERROR_NBYTES = 2**16
_TRIES = 100
_AREA_NBYTES = 2**42  # of addresses, not of memory: the file has holes where nothing was written

_HEADER = np.dtype(
    [(name, "i8") for name in ("writes", "passes", "of_pass", "token", "epoch", "start", "batch", "begun", "n_batches")]
    + [("n_ahead", "i8"), ("identity", "i8")]
)
WORKER = np.dtype([("pid", "i8"), ("epoch", "i8"), ("first", "i8"), ("left", "i8"), ("done", "i8")])
TEAM = np.dtype(
    [
        ("used", "i8"),
        ("token", "i8"),
        ("n_workers", "i8"),
        ("epoch", "i8"),
        ("batch", "i8"),
        ("failed", "i8"),  # number of the slab + 1
        ("error_nbytes", "i8"),
        ("of_pass", "i8"),
        ("nbytes", "i8"),
        ("n_ahead", "i8"),
        ("n_slots", "i8"),
        ("workers", WORKER, MOST_WORKERS),
        ("filled", "i8", (MOST_SLOTS, MOST_WORKERS)),
        ("released", "i8", (MOST_SLOTS, MOST_WORKERS)),
        ("error", "u1", ERROR_NBYTES),
    ]
)
BUFFER = np.dtype([("n_tensors", "i8"), ("token", "i8")])
_LAYOUT = np.dtype([("header", _HEADER), ("teams", TEAM, N_TEAMS), ("buffers", BUFFER, MOST_BUFFERS)])
_CONTROL_NBYTES = -(-_LAYOUT.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE


class Counted(Protocol):
    """What knows how many batches the consumer of a pass was given."""

    @property
    def n_given(self) -> int:
        """Batches given."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing that is on its way will be given any more."""
        ...


class Place(NamedTuple):
    """Where the epoch stands: by the loader of the process that owns the board, or by the last pass of workers."""

    of_pass: int  # its number; 0 where the owner moved last
    token: int  # of who asks the workers
    epoch: int
    start: int  # of the pass
    batch: int
    begun: bool
    n_batches: int

    @property
    def following(self) -> tuple[int, int]:
        """(epoch, batch) where another pass begins."""
        return (self.epoch + 1, 0) if self.begun or self.of_pass else (self.epoch, self.batch)


class Board:
    """The shared memory. It pickles to a process that is being spawned; elsewhere a pickled copy is a fresh one.

    Attributes
    ----------
    owner
        The process whose loader follows; None in one that was spawned.
    counts
        Token → how many batches were given, in the process that was given them.

    """

    counts: ClassVar[dict[int, Counted]] = {}

    def __init__(self, descriptors: tuple[int, int] | None = None) -> None:
        self.owner = os.getpid() if descriptors is None else None
        if descriptors is None:
            descriptors = _new("oocload"), _new("oocload lock")
            os.ftruncate(descriptors[0], _CONTROL_NBYTES)
        # A lock goes with any descriptor of its file that is closed, and mmap has one of its own: so it has a file.
        self._descriptor, self._lock_descriptor = descriptors
        self._control = mmap.mmap(self._descriptor, _CONTROL_NBYTES)
        whole = np.frombuffer(self._control, _LAYOUT, 1)
        self._header, self.teams, self._buffers = whole["header"][0], whole["teams"][0], whole["buffers"][0]
        if self.owner is not None:
            self._header["identity"] = os.getpid() * 2**32 + next(_identities)
        self._held: dict[int, int] = {}  # buffer → tensors of it that are alive in the owner's process
        self._mapped: dict[int, mmap.mmap] = {}
        self.renew_locks()

    def renew_locks(self) -> None:
        """Make the lock among this process' threads, or replace it in a forked child."""
        self._threads = threading.RLock()
        self._n_locked = 0
        self._holding = threading.RLock()  # what is finalized may come here in the middle of it
        renew_in_child(self)

    def __del__(self) -> None:
        if hasattr(self, "_lock_descriptor"):
            os.close(self._descriptor)
            os.close(self._lock_descriptor)

    def __reduce__(self) -> Any:
        if context.get_spawning_popen() is None:
            return Board, ()
        return _received, (reduction.DupFd(self._descriptor), reduction.DupFd(self._lock_descriptor))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes and threads out; a lock whose process dies is free."""
        with self._threads:
            if not self._n_locked:
                fcntl.lockf(self._lock_descriptor, fcntl.LOCK_EX)
            self._n_locked += 1
            try:
                yield
            finally:
                self._n_locked -= 1
                if not self._n_locked:
                    fcntl.lockf(self._lock_descriptor, fcntl.LOCK_UN)

    # Where the epoch stands

    @property
    def place(self) -> Place:
        """Where the epoch stands, by what was written last."""
        for _ in range(_TRIES):
            before = int(self._header["writes"])
            found = self._read_place()
            if before % 2 == 0 and before == self._header["writes"]:
                return found
        with self.locked():  # someone writes again and again, or ended in the middle of it
            return self._read_place()

    def _read_place(self) -> Place:
        of_pass, token, epoch, start, batch, begun, n_batches = (int(self._header[name]) for name in Place._fields)
        return Place(of_pass, token, epoch, start, batch, bool(begun), n_batches)

    def given(self) -> Place | None:
        """Where the consumer of the workers' batches stands; None where the owner's loader moved last."""
        place = self.place
        if not place.of_pass:
            return None
        count = self.counts.get(place.token)
        if count is not None:
            batch = min(place.start + count.n_given, place.n_batches)
            place = place._replace(batch=batch, begun=batch < place.n_batches)
        if not place.begun:
            place = place._replace(epoch=place.epoch + 1, batch=0)
        return place

    def own(self, epoch: int, batch: int, begun: bool) -> None:
        """Write where the owner's loader stands; what older passes do moves it no more."""
        with self.locked():
            self._write(of_pass=0, epoch=epoch, batch=batch, begun=begun)

    def begin(self, token: int, epoch: int, start: int, n_batches: int) -> int:
        """Write that a pass of workers has begun; return its number."""
        with self.locked():
            number = int(self._header["passes"]) + 1
            self._write(passes=number, of_pass=number, token=token, epoch=epoch, start=start, n_batches=n_batches)
            self._write(batch=start, begun=start < n_batches)
        return number

    def start_at(self, of_pass: int, start: int) -> None:
        """Write which batch a pass begins with, where its workers had to meet to know."""
        with self.locked():
            if self._header["of_pass"] == of_pass:
                self._write(start=start)

    def advance(self, of_pass: int, batch: int) -> None:
        """Write that the workers of a pass have made the batches up to one; all of them end it."""
        with self.locked():
            h = self._header
            if h["of_pass"] == of_pass and batch > h["batch"]:
                self._write(batch=batch)

    def end(self, of_pass: int) -> None:
        """Write that the workers of a pass have made all batches."""
        with self.locked():
            if self._header["of_pass"] == of_pass:
                self._write(begun=False)

    def _write(self, **values: int) -> None:
        h = self._header
        h["writes"] |= 1  # odd while it is not whole; also where another ended in the middle of it
        for name, value in values.items():
            h[name] = value
        h["writes"] += 1

    @property
    def n_ahead(self) -> int:
        """Batches that are asked of each worker ahead."""
        return int(self._header["n_ahead"])

    @n_ahead.setter
    def n_ahead(self, value: int) -> None:
        self._header["n_ahead"] = value

    # Memory

    def slabs(self, team: int, nbytes: int) -> mmap.mmap:
        """Return memory of a team's area."""
        start = _CONTROL_NBYTES + team * _AREA_NBYTES
        with self.locked():
            if os.fstat(self._descriptor).st_size < start + nbytes:
                os.ftruncate(self._descriptor, start + nbytes)
        return mmap.mmap(self._descriptor, nbytes, offset=start)

    # Buffers for batches on their way to the owner

    @property
    def identity(self) -> int:
        """A number that no other board has."""
        return int(self._header["identity"])

    def buffers(self, nbytes: int) -> mmap.mmap:
        """Return the memory of the buffers."""
        if nbytes not in self._mapped:
            self._mapped[nbytes] = self.slabs(N_TEAMS, nbytes)
        return self._mapped[nbytes]

    def take_buffer(self, token: int, n_buffers: int, n_tensors: int) -> int | None:
        """Return the number of a free buffer among the first, for so many tensors; None where all are busy."""
        with self.locked():
            free = np.flatnonzero(self._buffers["n_tensors"][:n_buffers] == 0)
            if not len(free):
                return None
            index = int(free[0])
            self._buffers["token"][index], self._buffers["n_tensors"][index] = token, n_tensors
            return index

    def hold_buffer(self, index: int) -> None:
        """Note that the owner has a tensor of a buffer."""
        with self._holding:
            self._held[index] = self._held.get(index, 0) + 1

    def release_buffer(self, index: int) -> None:
        """Note that the owner has one tensor less of a buffer."""
        if self.owner != os.getpid():
            return  # a forked child, which has the owner's tensors too
        with self._holding:
            self._held[index] -= 1
            self._buffers["n_tensors"][index] -= 1

    def forget_lost(self) -> None:
        """Free the buffers of batches that were on their way to an iterator that is gone; for the owner."""
        if self.owner != os.getpid():
            return
        with self.locked(), self._holding:
            for index in np.flatnonzero(self._buffers["n_tensors"]).tolist():
                count = self.counts.get(int(self._buffers["token"][index]))
                if count is not None and count.ended:
                    self._buffers["n_tensors"][index] = self._held.get(index, 0)

    def tidy(self) -> None:
        """Give memory back to the system: of teams that ended before their pass did, of free buffers; for the owner."""
        if self.owner != os.getpid():
            return
        self.forget_lost()
        with self.locked():
            if not self._buffers["n_tensors"].any():
                for memory in self._mapped.values():
                    memory.madvise(mmap.MADV_REMOVE)
            for number in range(N_TEAMS):
                team = self.teams[number]
                if team["nbytes"] and is_over(team):
                    with self.slabs(number, int(team["nbytes"])) as memory:
                        memory.madvise(mmap.MADV_REMOVE)
                    team["nbytes"] = 0


def is_over(team: Any) -> bool:
    """Whether all workers of a team have ended; of those that never came, nobody knows."""
    workers = team["workers"][: int(team["n_workers"])]
    there = workers[workers["pid"] > 0]
    if not all(worker["done"] or is_gone(worker) for worker in there):
        return False
    return len(there) == len(workers) or not any(_lives(int(worker["pid"])) for worker in there)


def is_gone(worker: Any) -> bool:
    """Whether a worker came and ended before its part was done."""
    return bool(worker["pid"]) and not worker["done"] and (bool(worker["left"]) or not _lives(int(worker["pid"])))


def _lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    with suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    return False


_identities = itertools.count(1)


def _new(name: str) -> int:
    return os.memfd_create(name, os.MFD_CLOEXEC)


def _received(descriptor: Any, lock: Any) -> Board:
    return Board((descriptor.detach(), lock.detach()))
