"""One worker's batches of an epoch that several processes read together, from slabs that they share."""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from oocload.loader.filled import Slab, SlabStream
from oocload.loader.pipeline import Part
from oocload.loader.runtime import Runtime
from oocload.loader.slabs import Pool
from oocload.loader.stats import Stats
from oocload.loader.team import Team

_POLL_S = 0.001

T = TypeVar("T")


class TeamPool(Pool):
    """The slabs of a team: those that all its workers fill, in the same order.

    Parameters
    ----------
    team
        Says which are free.
    slab_nbytes, n_slots
        Size, and how many there is memory for.

    """

    poll_s = _POLL_S
    apart = True

    def __init__(self, team: Team, slab_nbytes: int, n_slots: int) -> None:
        self.slab_nbytes = slab_nbytes
        self._team, self._n_slots = team, n_slots
        self._stride = -(-slab_nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = team.memory(n_slots * self._stride)
        self._n_leased = 0

    def available(self) -> bool:
        """Whether all have let go of the slab that lay where the next one will."""
        return self._team.free(self._n_leased, self._n_slots)

    def lease(self, beyond: bool = False) -> NDArray[np.uint8]:
        """Return the root array of the next slab; this worker has let go of it when its last view dies."""
        number = self._n_leased
        self._n_leased += 1
        offset = number % self._n_slots * self._stride
        root = np.frombuffer(self._memory, np.uint8, self.slab_nbytes, offset)
        weakref.finalize(root, self._team.release, number, self._n_slots).atexit = False
        return root

    def filled(self, number: int, error: BaseException | None) -> None:
        """Tell the team that this worker's share of a slab is there, or why it never will be."""
        if error is None:
            self._team.fill(number, self._n_slots)
        else:
            self._team.fail(number, error)

    def gather(self, number: int) -> None:
        """Wait for the others' shares."""
        self._team.gather(number, self._n_slots)

    def check(self) -> None:
        """Raise if another worker has ended."""
        self._team.check()

    def forget(self) -> None:
        """Give the memory back to the system: no worker needs it any more."""
        self._memory.madvise(mmap.MADV_REMOVE)


def batches_of_worker(
    runtime: Runtime, team: Team, n_batches: int, copy: Callable[[Mapping[str, NDArray[Any]], int], T]
) -> Generator[tuple[int, T]]:
    """Yield (number, copy) of a worker's batches of an epoch: every n-th, in order.

    Parameters
    ----------
    runtime
        Of the worker's loader.
    team
        That it has joined.
    n_batches
        Of an epoch.
    copy
        Given field → rows of a batch, in memory that is used again when it returns, and the batch's number.

    """
    finished = False
    try:
        first = team.meet(n_batches)
        n_slots = team.agreed_slots(runtime.slots_of_team(team.n_workers, team.n_ahead))
        pool = TeamPool(team, runtime.slab_nbytes, n_slots)
        if team.first < n_batches:
            part = Part(pool, team.share, max(1, runtime.fit.n_threads // team.n_workers))
            with closing(SlabStream(runtime, team.epoch, first, endless=False, part=part)) as stream:
                yield from _batches(stream, runtime.stats, team, copy)
        finished = True
        if team.finish():
            pool.forget()
    finally:
        if not finished:
            team.leave()


def _batches(
    stream: Iterator[Slab], stats: Stats, team: Team, copy: Callable[[Mapping[str, NDArray[Any]], int], T]
) -> Generator[tuple[int, T]]:
    mine = team.first
    for slab in stream:
        for number, start, stop in slab.batches():
            if number != mine:
                continue
            made = copy({name: array[start:stop] for name, array in slab.arrays.items()}, number)
            stats.add_batch(stop - start)
            mine += team.n_workers
            if mine >= slab.first_batch + slab.n_batches:
                slab.arrays.clear()  # the others need not wait until this worker is asked again
            yield number, made
            del made
        slab.arrays.clear()
        del slab
