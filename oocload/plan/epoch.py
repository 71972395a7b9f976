"""One epoch: which blocks each window holds, where each row goes, and which windows each batch needs.

::

    block order   |  5  0  7 |  2  6  1 |  4  3  |      a permutation of blocks
    windows            0           1         2          every `window_blocks` blocks; rows permuted within
    positions     |----------|----------|--------|      the final order of the epoch's rows
    batches       |---|---|---|---|---|---|---|--|      cut from positions; one may span two windows

Nothing here is as long as the store has rows: the state is one integer per block, and one per row of a window
while that window is being read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from oocload.plan.blocks import BlockGrid
from oocload.plan.ranks import ALONE, Reads, Share, reads_of
from oocload.plan.shuffle import BLOCKS, ROWS, permutation


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What fixes the order of every epoch, apart from the epoch's number."""

    grid: BlockGrid
    batch_rows: int
    window_blocks: int
    shuffle: bool
    seed: int
    drop_last: bool = False
    share: Share = ALONE

    @property
    def n_rows(self) -> int:
        """Rows of an epoch: this rank's share."""
        return self.share.n_rows(self.grid.n_rows)


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """What is read for one window.

    Attributes
    ----------
    starts, stops
        Ranges of rows in reading order: blocks, or parts of some.
    n_rows
        Rows of the window.
    destinations
        For each row, in reading order, its place in the window's final order; None for "in reading order".
    first_batch, n_batches
        Batches that end in this window.
    head_rows
        Rows at the front of the first of them that come from the window before.
    tail_rows
        Rows at the window's end that the next window's first batch begins with.

    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    n_rows: int
    destinations: NDArray[np.int64] | None
    first_batch: int
    n_batches: int
    head_rows: int
    tail_rows: int


class EpochPlan:
    """The order of one epoch, a pure function of (options, epoch).

    Parameters
    ----------
    options
        Grid, batch size, window, seed.
    epoch
        The epoch's number, from 0.

    """

    def __init__(self, options: PlanOptions, epoch: int) -> None:
        self.options = options
        self.epoch = epoch

    @property
    def n_batches(self) -> int:
        """Batches in the epoch."""
        return count_batches(self.options)

    @property
    def n_windows(self) -> int:
        """Windows in the epoch."""
        return -(-len(self._reads.starts) // self.options.window_blocks)

    @cached_property
    def block_order(self) -> NDArray[np.int64]:
        """All blocks in the order in which windows, of one rank after the other, take them."""
        o = self.options
        if not o.shuffle:
            return np.arange(o.grid.n_blocks, dtype=np.int64)
        return permutation(o.grid.n_blocks, o.seed, self.epoch, BLOCKS)

    @cached_property
    def _reads(self) -> Reads:
        """What this rank reads."""
        return reads_of(self.options.share, self.options.grid, self.block_order)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The position of each window's first row, and of the row after the last."""
        reads = self._reads
        firsts = np.arange(0, len(reads.starts), self.options.window_blocks)
        rows = np.add.reduceat(reads.stops - reads.starts, firsts)
        return np.concatenate([[0], np.cumsum(rows)])

    def window_start(self, window: int) -> int:
        """Return the position of a window's first row."""
        return int(self._starts[min(window, self.n_windows)])

    def window_of(self, position: int) -> int:
        """Return the window that holds a position."""
        return int(np.searchsorted(self._starts, position, side="right")) - 1

    def first_window(self, batch: int) -> int:
        """Return the window in which a batch begins."""
        return self.window_of(batch * self.options.batch_rows)

    def last_window(self, batch: int) -> int:
        """Return the window in which a batch ends, which is the one that delivers it."""
        stop = min((batch + 1) * self.options.batch_rows, self.options.n_rows)
        return self.window_of(stop - 1)

    def window_rows(self, window: int) -> int:
        """Return how many rows a window has."""
        return self.window_start(window + 1) - self.window_start(window)

    def head_rows(self, window: int) -> int:
        """Return how many rows of a window's first batch come from the window before."""
        return self.window_start(window) % self.options.batch_rows

    def window(self, window: int, room: NDArray[np.int64] | None = None) -> WindowPlan:
        """Return what is read for one window; where ``room`` is given, the rows' destinations are put there."""
        o = self.options
        start, stop = self.window_start(window), self.window_start(window + 1)
        n_rows = stop - start
        first_batch = start // o.batch_rows
        last = window == self.n_windows - 1
        end_batch = self.n_batches if last else stop // o.batch_rows
        blocks = slice(window * o.window_blocks, (window + 1) * o.window_blocks)
        return WindowPlan(
            starts=self._reads.starts[blocks],
            stops=self._reads.stops[blocks],
            n_rows=n_rows,
            destinations=permutation(n_rows, o.seed, self.epoch, ROWS, window, room) if o.shuffle else None,
            first_batch=first_batch,
            n_batches=end_batch - first_batch,
            head_rows=self.head_rows(window),
            tail_rows=0 if last else stop % o.batch_rows,
        )

    def batch_rows(self, batch: int) -> NDArray[np.int64]:
        """Return the store's row numbers of one batch, in order; decides without reading anything."""
        o = self.options
        start = batch * o.batch_rows
        stop = min(start + o.batch_rows, o.n_rows)
        parts = []
        for window in range(self.window_of(start), self.window_of(stop - 1) + 1):
            first = self.window_start(window)
            parts.append(self._window_rows(window)[max(0, start - first) : stop - first])
        return np.concatenate(parts)

    def _window_rows(self, window: int) -> NDArray[np.int64]:
        plan = self.window(window)
        ranges = zip(plan.starts, plan.stops, strict=True)
        sources = np.concatenate([np.arange(start, stop) for start, stop in ranges])
        if plan.destinations is None:
            return sources
        rows = np.empty_like(sources)
        rows[plan.destinations] = sources
        return rows


def count_batches(options: PlanOptions) -> int:
    """Return the batches of any epoch."""
    n_rows, batch_rows = options.n_rows, options.batch_rows
    return n_rows // batch_rows if options.drop_last else -(-n_rows // batch_rows)


def slab_rows(options: PlanOptions) -> int:
    """Return the rows that the largest slab holds: one window and the head of a batch before it."""
    full = min(options.n_rows, options.grid.most_rows(options.window_blocks))
    alone = options.share.world_size == 1
    one_window = alone and options.grid.n_blocks <= options.window_blocks
    aligned = alone and full % options.batch_rows == 0 and options.grid.even
    return full if one_window or aligned else full + options.batch_rows - 1


def index_rows(options: PlanOptions) -> int:
    """Return the rows whose destinations the largest window has to keep."""
    return min(options.n_rows, options.grid.most_rows(options.window_blocks)) if options.shuffle else 0


def windows_from(options: PlanOptions, epoch: int, batch: int, endless: bool) -> Iterator[tuple[EpochPlan, int]]:
    """Yield (epoch's plan, window) from the window where a batch begins; to the epoch's end, or for ever."""
    plan = EpochPlan(options, epoch)
    first = plan.first_window(batch)
    while True:
        for window in range(first, plan.n_windows):
            yield plan, window
        if not endless:
            return
        first = 0
        plan = EpochPlan(options, plan.epoch + 1)
