"""Worker processes that read one epoch together: each decodes its share of every window into slabs that all see.

::

    blocks of a window   | 0 | 0 | 0 | 1 | 1 | 1 |       decoded by worker 0, by worker 1
    slab                 |  b0  b1  b2  b3  b4 ..|       shared; whole when both have done their share
    batches              0 takes b0 b2 b4, 1 takes b1 b3

So each block is decoded once, the batches are those of one loader, and who asks the workers in turn has its order.
"""

from __future__ import annotations

import logging
import mmap
import os
import pickle
import time
from collections.abc import Callable

import numpy as np

from oocload.errors import ClosedError, InvalidArgumentError
from oocload.loader.board import ERROR_NBYTES, MOST_WORKERS, N_TEAMS, Board, is_gone, is_over

_log = logging.getLogger(__name__)

_POLL_S = (0.0001, 0.002)
_TELL_AFTER_S = 10.0
N_AHEAD = 2  # where a DataLoader does not say (prefetch_factor)
MEETING_S = 120.0  # a spawned process imports a framework or two first
_LOOK_S = 0.05  # how often to see whether the others are alive


class Team:
    """One worker's part in a team.

    Parameters
    ----------
    board
        Shared by its workers.
    number
        Of the team on the board.
    worker, n_workers
        Which one this is, from 0, and how many there are.

    """

    def __init__(self, board: Board, number: int, worker: int, n_workers: int) -> None:
        self.board, self.number = board, number
        self.worker, self.n_workers = worker, n_workers
        self._team = board.teams[number]
        self._workers = self._team["workers"][:n_workers]
        self._parent = os.getppid()
        self._taking = np.arange(n_workers)
        self._looked = 0.0

    # From the first worker there to the last that ends

    @classmethod
    def join(
        cls,
        board: Board,
        token: int,
        worker: int,
        n_workers: int,
        n_batches: int,
        own: tuple[int, int] | None = None,
    ) -> Team:
        """Join the workers of the same pass, or be the first of them, with whom it begins.

        Parameters
        ----------
        board
            Shared.
        token
            Of who asks the workers; one that asks again has the same, in passes one after the other.
        worker, n_workers
            Which one this is.
        n_batches
            Of an epoch.
        own
            (epoch, batch) of this worker's first batch, where it has a state of its own.

        """
        if n_workers > MOST_WORKERS:
            raise InvalidArgumentError(f"num_workers of a DataLoader must be at most {MOST_WORKERS}, got {n_workers}")
        with board.locked():
            number = _waiting_for(board, token, worker, n_workers)
            if number is None:
                epoch, batch = own or board.place.following
                number = _found(board, token, n_workers, epoch, batch)
                board.teams[number]["of_pass"] = board.begin(token, epoch, batch, n_batches)
                board.teams[number]["n_ahead"] = board.n_ahead or N_AHEAD
            team = board.teams[number]
            mine = team["workers"][worker]
            mine["epoch"], mine["first"] = own or (team["epoch"], team["batch"] + worker)
            mine["pid"] = os.getpid()
        return cls(board, number, worker, n_workers)

    @property
    def of_pass(self) -> int:
        """Number of the pass."""
        return int(self._team["of_pass"])

    @property
    def epoch(self) -> int:
        """The epoch that is read."""
        return int(self._workers["epoch"][self.worker])

    @property
    def first(self) -> int:
        """Number of this worker's first batch; it takes every `n_workers`-th from there."""
        return int(self._workers["first"][self.worker])

    def meet(self, n_batches: int) -> int:
        """Wait until all workers are there; return the first batch that one of them takes.

        Raises
        ------
        ClosedError
            If one of them ends instead, or does not come.
        InvalidArgumentError
            If they come with states of different epochs.

        """
        self._wait_for_all(_TELL_AFTER_S)
        if missing := self._missing:
            _log.warning("waiting for workers %s of a DataLoader to begin; does worker_init_fn fail there?", missing)
            self._wait_for_all(MEETING_S - _TELL_AFTER_S)
        if missing := self._missing:
            raise ClosedError(
                f"all workers of a DataLoader must begin, and {missing} did not within {MEETING_S:.0f} s; see whether "
                "worker_init_fn fails there, or use num_workers=0"
            )
        if len(set(self._workers["epoch"].tolist())) > 1:
            raise InvalidArgumentError(
                f"states of workers must be of one epoch, and are of {self._workers['epoch'].tolist()}"
            )
        first = self._workers["first"]
        self._taking = np.flatnonzero(first < n_batches)
        self.board.start_at(self.of_pass, int(first.min()))
        return int(first.min())

    @property
    def _missing(self) -> list[int]:
        return [int(worker) for worker in np.flatnonzero(self._workers["pid"] == 0)]

    def _wait_for_all(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._wait(lambda: not self._missing or time.monotonic() > until)

    @property
    def share(self) -> tuple[int, int]:
        """Which part of each window this worker reads, and of how many: those that have batches left to take."""
        return int(np.searchsorted(self._taking, self.worker)), len(self._taking)

    def finish(self) -> bool:
        """Note that this worker has done its part; return whether it is the last."""
        with self.board.locked():
            self._workers["done"][self.worker] = 1
            last = bool(self._workers["done"].all())
            if last:
                self.board.end(self.of_pass)
                self._team["nbytes"] = 0
        return last

    def leave(self) -> None:
        """Note that this worker ends, if it has not finished: the others need not wait for it."""
        self._workers["left"][self.worker] = 1

    @property
    def n_ahead(self) -> int:
        """Batches that are asked of each worker ahead."""
        return int(self._team["n_ahead"])

    def agreed_slots(self, n_slots: int) -> int:
        """Return how many slabs there is memory for: what the first worker says, which all must hold to."""
        with self.board.locked():
            if not self._team["n_slots"]:
                self._team["n_slots"] = n_slots
            return int(self._team["n_slots"])

    # Slabs, by their number in the pass

    def memory(self, nbytes: int) -> mmap.mmap:
        """Return the memory that the slabs lie in."""
        self._team["nbytes"] = nbytes
        return self.board.slabs(self.number, nbytes)

    def fill(self, slab: int, n_slots: int) -> None:
        """Note that this worker's share of a slab is there."""
        self._team["filled"][slab % n_slots, self.worker] = slab + 1

    def release(self, slab: int, n_slots: int) -> None:
        """Note that this worker needs a slab no more."""
        self._team["released"][slab % n_slots, self.worker] = slab + 1

    def free(self, slab: int, n_slots: int) -> bool:
        """Whether the memory of a slab is no longer needed for the one that was there before."""
        return slab < n_slots or bool(
            (self._team["released"][slab % n_slots, self._taking] >= slab - n_slots + 1).all()
        )

    def fail(self, slab: int, error: BaseException) -> None:
        """Note that a slab will never be whole, and why."""
        message = pickled(error)
        with self.board.locked():
            if not self._team["failed"] or slab + 1 < self._team["failed"]:
                self._team["error"][: len(message)] = np.frombuffer(message, np.uint8)
                self._team["error_nbytes"], self._team["failed"] = len(message), slab + 1

    def gather(self, slab: int, n_slots: int) -> None:
        """Wait until all shares of a slab are there.

        Raises
        ------
        OocloadError
            What another worker ran into while it read its share.
        ClosedError
            If one of them has ended.

        """
        filled = self._team["filled"][slab % n_slots]
        self._wait(lambda: self._failed(slab) or bool((filled[self._taking] >= slab + 1).all()))
        if self._failed(slab):
            raise self._error()

    def check(self) -> None:
        """Look, now and then, whether the others are still there.

        Raises
        ------
        ClosedError
            If one is not.

        """
        now = time.monotonic()
        if now < self._looked + _LOOK_S:
            return
        self._looked = now
        if os.getppid() != self._parent:
            raise ClosedError("the process that started the workers must live on, and it has ended")
        for worker in self._taking.tolist():
            if is_gone(self._workers[worker]):
                if self._team["failed"]:
                    raise self._error()
                raise ClosedError(f"workers of a DataLoader must live on while one of them reads; {worker} ended")

    def _error(self) -> BaseException:
        with self.board.locked():
            message = self._team["error"][: int(self._team["error_nbytes"])].tobytes()
        error: BaseException = pickle.loads(message)
        return error

    def _failed(self, slab: int) -> bool:
        return 0 < int(self._team["failed"]) <= slab + 1

    def _wait(self, ready: Callable[[], bool]) -> None:
        pause, most = _POLL_S
        while not ready():
            try:
                self.check()
            except ClosedError:
                if ready():
                    return
                raise
            time.sleep(pause)
            pause = min(2 * pause, most)


def pickled(error: BaseException) -> bytes:
    """Return an error for another process: whole, or alone where its cause cannot go along, or what it says.

    tblib, which comes with ``distributed``, has every error take its cause and its traceback along.
    """
    ways: tuple[Callable[[], BaseException], ...] = (lambda: error, lambda: type(error)(*error.args))
    for told in ways:
        try:
            message = pickle.dumps(told())
            pickle.loads(message)
        except Exception:  # whatever its class does with that
            continue
        if len(message) <= ERROR_NBYTES:
            return message
    return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"[:1000]))


def _waiting_for(board: Board, token: int, worker: int, n_workers: int) -> int | None:
    """Return the number of a team that this worker belongs to and has not joined; its others may be gone already."""
    for number in range(N_TEAMS):
        team = board.teams[number]
        same = team["used"] and team["token"] == token and team["n_workers"] == n_workers
        if same and not team["workers"]["pid"][worker]:
            return number
    return None


def _found(board: Board, token: int, n_workers: int, epoch: int, batch: int) -> int:
    """Clear a place for a new team."""
    for number in range(N_TEAMS):
        if not board.teams[number]["used"] or is_over(board.teams[number]):
            break
    else:
        raise InvalidArgumentError(f"at most {N_TEAMS} DataLoaders with workers must iterate over one loader at once")
    team = board.teams[number]
    for name in ("workers", "filled", "released", "failed", "n_slots"):
        team[name] = 0
    team["used"], team["token"], team["n_workers"] = 1, token, n_workers
    team["epoch"], team["batch"] = epoch, batch
    return number
