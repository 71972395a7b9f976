"""Rows gathered until memory is full, put in the order of their slots, and written as a run by all threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from oocload.convert.buckets import (
    RAGGED_WORK_NBYTES,
    ROW_SHARE,
    ROW_WORK_NBYTES,
    SLAB_ITEMS,
    SLAB_NBYTES,
    ranges_of,
    rows_that_fit,
)
from oocload.convert.keys import Keys, order_of_slots, slots_of
from oocload.convert.lanes import Elements, Lane, elements, lengths_of, ragged_fields, take, take_items
from oocload.convert.runs import Run, Runs
from oocload.convert.sources.fresh import fresh_rows
from oocload.errors import MemoryCeilingError
from oocload.units import format_bytes


class Scatter:
    """Writes runs.

    Parameters
    ----------
    runs
        Where.
    run_nbytes
        What a run may take in memory, with what ordering it takes.
    n_threads
        How many put rows in order and write them.
    most_row_nbytes
        Of the largest row; a larger one is an error.

    """

    def __init__(self, runs: Runs, run_nbytes: int, n_threads: int, most_row_nbytes: int) -> None:
        self._runs = runs
        self._run_nbytes = run_nbytes
        self._most_row_nbytes = most_row_nbytes
        lanes = runs.lanes
        self._fixed = ROW_WORK_NBYTES + sum(lane.nbytes for lane in lanes if not lane.is_items)
        self._fixed += RAGGED_WORK_NBYTES * len(ragged_fields(lanes))
        self._lanes = [_Gathered(lane, run_nbytes, self._fixed) for lane in lanes]
        self._nbytes = self._largest = 0
        self._pool = ThreadPoolExecutor(n_threads, "oocload-scatter") if n_threads > 1 else None

    def add(self, keys: Keys, given: Sequence[Elements]) -> None:
        """Take rows, lane by lane, and write what memory has no more room for; they are copied."""
        lanes = [elements(keys), *given]
        row_nbytes = self._row_nbytes(lanes)
        self._check(int(row_nbytes.max()))
        firsts = [_firsts(lane, lanes, number, self._runs.lanes) for number, lane in enumerate(self._runs.lanes)]
        at, n_rows = 0, len(keys)
        while at < n_rows:
            n = rows_that_fit(row_nbytes[at:], self._run_nbytes - self._nbytes)
            if not n and self._nbytes:
                self.flush()
                continue
            n = n or 1  # that is larger than a run
            for gathered, lane, first in zip(self._lanes, lanes, firsts, strict=True):
                start, stop = (at, at + n) if first is None else (int(first[at]), int(first[at + n]))
                gathered.add(lane[start:stop])
            self._nbytes += int(row_nbytes[at : at + n].sum())
            self._largest = max(self._largest, int(row_nbytes[at : at + n].max()))
            at += n

    def flush(self) -> None:
        """Write the rows that wait as a run."""
        if not self._nbytes:
            return
        lanes = [gathered.filled for gathered in self._lanes]
        keys = lanes[0].view(np.uint64).reshape(-1)
        order = order_of_slots(slots_of(keys, *self._runs.keys))
        n_items = {lane.field: len(some) for lane, some in zip(self._runs.lanes, lanes, strict=True) if lane.is_items}
        run = self._runs.place(len(keys), n_items, self._largest)
        tasks: list[Callable[[], None]] = []
        starts = lengths = np.empty(0, np.int64)
        for number, (lane, source) in enumerate(zip(self._runs.lanes, lanes, strict=True)):
            if not lane.is_items:
                tasks += self._dense(run, number, source, order)
            if self._begins_ragged(number):
                there = lengths_of(source)
                starts, lengths = (np.cumsum(there) - there).take(order), there.take(order)
            if lane.is_items:
                tasks += self._ragged(run, number, source, starts, lengths)
        if self._pool is None:
            for task in tasks:
                task()
        else:
            for done in [self._pool.submit(task) for task in tasks]:
                done.result()
        self._runs.add(run)
        for gathered in self._lanes:
            gathered.clear()
        self._nbytes = self._largest = 0

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begins_ragged(self, number: int) -> bool:
        lanes = self._runs.lanes
        return not lanes[number].is_items and number + 1 < len(lanes) and lanes[number + 1].is_items

    def _dense(self, run: Run, number: int, source: Elements, order: NDArray[np.int64]) -> list[Callable[[], None]]:
        step = max(1, SLAB_NBYTES // max(1, source.shape[1]))

        def write(first: int) -> None:
            self._runs.write(run, number, first, take(source, order[first : first + step]))

        return [partial(write, first) for first in range(0, len(order), step)]

    def _ragged(
        self, run: Run, number: int, source: Elements, starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> list[Callable[[], None]]:
        after = np.cumsum(lengths) - lengths

        def write(first: int, stop: int) -> None:
            some = lengths[first:stop]
            out = np.empty((int(some.sum()), source.shape[1]), np.uint8)
            take_items(source, starts[first:stop], some, out)
            self._runs.write(run, number, int(after[first]), out)

        most_items = max(1, min(SLAB_ITEMS, SLAB_NBYTES // max(1, source.shape[1])))
        return [partial(write, *rows) for rows in ranges_of(lengths, most_items)]

    def _row_nbytes(self, lanes: Sequence[Elements]) -> NDArray[np.int64]:
        """Return what each row takes."""
        found = np.full(len(lanes[0]), self._fixed, np.int64)
        for number, lane in enumerate(self._runs.lanes):
            if self._begins_ragged(number):
                items = [other.nbytes for other in self._runs.lanes if other.is_items and other.field == lane.field]
                found += lengths_of(lanes[number]) * sum(items)
        return found

    def _check(self, nbytes: int) -> None:
        """Raise where a row is larger than may be."""
        if nbytes > self._most_row_nbytes:
            raise MemoryCeilingError(
                f"memory must be at least {format_bytes(ROW_SHARE * nbytes)} to shuffle rows of up to "
                f"{format_bytes(nbytes)}, got {format_bytes(ROW_SHARE * self._most_row_nbytes)}; raise it"
            )


class _Gathered:
    """Elements of one lane that wait; memory is taken as it is filled, and goes round."""

    def __init__(self, lane: Lane, run_nbytes: int, fixed: int) -> None:
        self._lane = lane
        n = run_nbytes // max(1, lane.nbytes) if lane.is_items else run_nbytes // fixed
        self._room = fresh_rows((max(1, n), lane.nbytes), np.dtype(np.uint8))
        self._n = 0

    @property
    def filled(self) -> Elements:
        return self._room[: self._n]

    def add(self, some: Elements) -> None:
        if self._n + len(some) > len(self._room):
            assert not self._n, "only a row that is larger than a run needs more room"
            self._room = fresh_rows((len(some), self._lane.nbytes), np.dtype(np.uint8))
        self._room[self._n : self._n + len(some)] = some
        self._n += len(some)

    def clear(self) -> None:
        self._n = 0


def _firsts(lane: Lane, given: Sequence[Elements], number: int, lanes: Sequence[Lane]) -> NDArray[np.int64] | None:
    """Return where the items of each row begin, and the last ones end; None for a lane of an element for each row."""
    if not lane.is_items:
        return None
    lengths = next(i for i in range(number, -1, -1) if not lanes[i].is_items)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths_of(given[lengths]))])


def cores() -> int:
    """Return how many threads there is something for."""
    return len(os.sched_getaffinity(0))
