"""Which rows of an epoch each rank of a data-parallel job reads: an equal piece of the rows in block order.

::

    block order   |  5  |  0  |  7  |  2  |  6  |  1  |       the same on every rank
    rank          0 ----------|1 ----------|2 ---------       three pieces of equally many rows

A block that a border cuts is read by both its ranks, each its own rows. So all ranks have the same number of batches,
known before the first, and there may be more ranks than blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError
from oocload.plan.blocks import BlockGrid

Uneven = Literal["pad", "drop", "error"]


@dataclass(frozen=True, slots=True)
class Share:
    """A rank's share of every epoch.

    Attributes
    ----------
    rank, world_size
        Number of this rank, from 0, and of all.
    uneven
        What happens where ranks do not divide the rows: ``"pad"`` lets the last ranks repeat rows of the epoch's
        beginning, ``"drop"`` leaves out its last rows, fewer than there are ranks, others each epoch; ``"error"``
        refuses.

    Raises
    ------
    InvalidArgumentError
        If the rank is out of range, or ``uneven`` is none of the three.

    """

    rank: int = 0
    world_size: int = 1
    uneven: Uneven = "pad"

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise InvalidArgumentError(f"rank must be from 0 to {self.world_size - 1}, got {self.rank}")
        if self.uneven not in get_args(Uneven):
            raise InvalidArgumentError(f"uneven must be 'pad', 'drop' or 'error', got {self.uneven!r}")

    def n_rows(self, total: int) -> int:
        """Return the rows of this rank in every epoch, the same on every rank.

        Raises
        ------
        InvalidArgumentError
            If there are fewer rows than ranks, or the ranks do not divide the rows and ``uneven`` is ``"error"``.

        """
        each, left = divmod(total, self.world_size)
        if left and self.uneven == "error":
            raise InvalidArgumentError(
                f"world_size must divide the {total} rows where uneven='error', got {self.world_size}; "
                "pass uneven='pad' or 'drop'"
            )
        if not each and self.uneven == "drop":
            raise InvalidArgumentError(
                f"world_size must be at most the {total} rows where uneven='drop', got {self.world_size}"
            )
        return each + 1 if left and self.uneven == "pad" else each

    def spans(self, total: int) -> list[tuple[int, int]]:
        """Return the positions in block order that this rank reads: (start, stop), twice where they begin anew."""
        n_rows = self.n_rows(total)
        start = self.rank * n_rows % total
        stop = min(total, start + n_rows)
        rest = n_rows - (stop - start)
        return [(start, stop), (0, rest)] if rest else [(start, stop)]


ALONE = Share()


def blocks_of_rank(share: Share, grid: BlockGrid) -> int:
    """Return how many blocks, or parts of blocks, a rank reads in an epoch, where blocks are about equally high."""
    if share.world_size == 1:
        return grid.n_blocks
    return min(grid.n_blocks, -(-grid.n_blocks // share.world_size) + 1)


class Reads(NamedTuple):
    """Ranges of rows in the order in which they are read: each a block or a part of one."""

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


def reads_of(share: Share, grid: BlockGrid, order: NDArray[np.int64]) -> Reads:
    """Return what a rank reads in an epoch, given the order of all blocks."""
    starts, stops = grid.borders(order)
    if share.world_size == 1:
        return Reads(starts, stops)
    ends = np.cumsum(stops - starts)
    parts = [_cut(starts, stops, ends, *span) for span in share.spans(grid.n_rows)]
    return Reads(np.concatenate([p.starts for p in parts]), np.concatenate([p.stops for p in parts]))


def _cut(starts: NDArray[np.int64], stops: NDArray[np.int64], ends: NDArray[np.int64], first: int, last: int) -> Reads:
    """Return the ranges of rows at positions ``first`` to ``last``; ``ends`` is the position where each block ends."""
    low, high = int(np.searchsorted(ends, first, side="right")), int(np.searchsorted(ends, last)) + 1
    cut_starts, cut_stops = starts[low:high].copy(), stops[low:high].copy()
    cut_stops[-1] -= ends[high - 1] - last
    cut_starts[0] = stops[low] - (ends[low] - first)
    return Reads(cut_starts, cut_stops)
