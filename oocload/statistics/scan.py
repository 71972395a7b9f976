"""One pass over a field: threads read and decode its blocks and reduce each at once, while it is in cache.

What they find is put together in the order of the blocks, which follow from the layout alone: the result is the same to
the last bit for any number of threads and any ceiling.

::

    needed = fixed + threads × (scratch of the reader + rows of a block + pieces of it) + results that wait
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from oocload.available import available_memory, default_ceiling
from oocload.chunks.read import FieldReader
from oocload.chunks.scratch import Scratch, align
from oocload.chunks.target import Places
from oocload.errors import MemoryCeilingError
from oocload.layout import FieldLayout
from oocload.plan.blocks import BlockGrid, FieldRows, Span, lay_blocks
from oocload.units import format_bytes

# Blocks are joined up to this. With a quarter of it, float32 columns that need no decoding take 1.7 times as long, for
# what is done once for each range.
_RANGE_NBYTES = 4 * 2**20
_WAITING_PER_THREAD = 2  # results, while the one before them is not there yet

Range = tuple[int, int]
Found = TypeVar("Found")
Reduce = Callable[[NDArray[np.generic], int, Scratch], Found]
"""Rows that follow each other, and the number of the first → what is found in them."""


def ranges_of(field: FieldLayout, most_rows: int | None = None) -> BlockGrid:
    """Return the ranges of rows that are read as one: whole chunks, up to about 4 MiB, or so many rows, of them."""
    grid, _ = lay_blocks(field.n_rows, {field.name: FieldRows(field.row_nbytes, field.segments)})
    spans = []
    for start, stop, block_rows, origin in grid.spans:
        joined = -(-_RANGE_NBYTES // max(1, block_rows * field.row_nbytes))
        if most_rows is not None:
            joined = min(joined, -(-most_rows // block_rows))
        spans.append(Span(start, stop, min(joined * block_rows, stop - origin), origin))
    return BlockGrid.of(spans)


class Needs:
    """What a pass over a field takes, in bytes.

    Parameters
    ----------
    reader, field, range_rows
        Of the pass: what it reads with, what, and how much of it at once.
    work_nbytes
        Beside the rows and what the reader takes, for each thread.
    result_nbytes
        Of what is found in one range.
    held_nbytes
        Of what is found in all.
    before_nbytes
        Held before the pass begins, and not with what it takes.

    """

    def __init__(
        self,
        reader: FieldReader,
        field: FieldLayout,
        range_rows: int,
        work_nbytes: int,
        result_nbytes: int,
        held_nbytes: int,
        before_nbytes: int = 0,
    ) -> None:
        self._before_nbytes = before_nbytes
        self.block_nbytes = align(range_rows * field.row_nbytes)
        self.fixed = reader.held_nbytes + held_nbytes
        waiting = (1 + _WAITING_PER_THREAD) * result_nbytes
        self.per_thread = sum(reader.scratch_needs.values()) + self.block_nbytes + work_nbytes + waiting

    def total(self, n_threads: int) -> int:
        """Return what so many threads take."""
        return max(self._before_nbytes, self.fixed + n_threads * self.per_thread)


def threads_within(needs: Needs, ceiling: int | None, wished: int, name: str) -> int:
    """Return how many threads fit under a ceiling; None is a quarter of what is available, or what one thread takes.

    Raises
    ------
    MemoryCeilingError
        If not even one does.

    """
    least = needs.total(1)
    most = max(default_ceiling(), least) if ceiling is None else ceiling
    if ceiling is None and least > available_memory():
        most = available_memory()
    if least > most:
        raise MemoryCeilingError(
            f"memory must be at least {least} bytes ({format_bytes(least)}) for field {name!r}, whose blocks have "
            f"{format_bytes(needs.block_nbytes)}, got {format_bytes(most)}; raise memory=, or run oocload convert to "
            "a store with smaller chunks"
        )
    return max(1, min(wished, (most - needs.fixed) // max(1, needs.per_thread)))


class Scan(Generic[Found]):
    """Reduces the ranges of a field in threads.

    Parameters
    ----------
    reader, field, ranges
        What is read.
    reduce
        Called in threads, with rows that are overwritten afterwards.
    n_threads
        How many.

    """

    def __init__(
        self, reader: FieldReader, field: FieldLayout, ranges: BlockGrid, reduce: Reduce[Found], n_threads: int
    ) -> None:
        self._reader, self._field, self._ranges, self._reduce = reader, field, ranges, reduce
        self._n_threads = min(n_threads, ranges.n_blocks)
        self._most_waiting = self._n_threads * (1 + _WAITING_PER_THREAD)
        self._changed = threading.Condition()
        self._found: dict[int, Found] = {}
        self._n_taken = self._n_given = 0
        self._stopped = False
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[tuple[Range, Found]]:
        """Yield what is found in each range, in order; ends its threads however it ends."""
        threads = [
            threading.Thread(target=self._work, name=f"oocload-statistics-{i}", daemon=True)
            for i in range(self._n_threads)
        ]
        try:
            for thread in threads:
                thread.start()
            for number in range(self._ranges.n_blocks):
                yield self._ranges.rows(number), self._wait_for(number)
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def _wait_for(self, number: int) -> Found:
        with self._changed:
            while number not in self._found:
                if self._error is not None:
                    raise self._error
                self._changed.wait()
            self._n_given = number + 1
            self._changed.notify_all()
            return self._found.pop(number)

    def _work(self) -> None:
        scratch = Scratch()
        try:
            with np.errstate(all="ignore"):
                while (number := self._take()) is not None:
                    found = self._reduced(self._ranges.rows(number), scratch)
                    with self._changed:
                        self._found[number] = found
                        self._changed.notify_all()
        except BaseException as exc:
            with self._changed:
                self._error = self._error or exc
                self._stopped = True
                self._changed.notify_all()

    def _take(self) -> int | None:
        """Return the next range, when not too many results wait; None where there is none."""
        with self._changed:
            while not self._stopped and self._n_taken - self._n_given >= self._most_waiting:
                self._changed.wait()
            if self._stopped or self._n_taken == self._ranges.n_blocks:
                return None
            self._n_taken += 1
            number = self._n_taken - 1
        if self._reader.announces and number + self._n_threads < self._ranges.n_blocks:
            self._reader.announce([self._ranges.rows(number + self._n_threads)])
        return number

    def _reduced(self, rows: Range, scratch: Scratch) -> Found:
        start, stop = rows
        field = self._field
        buffer = scratch.get("rows", (stop - start) * field.row_nbytes)
        block = buffer.view(field.dtype).reshape(stop - start, *field.row_shape)
        self._reader.read([rows], Places(block), scratch)
        return self._reduce(block, start, scratch)


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))
