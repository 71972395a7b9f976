"""Which rows of an epoch each rank of a data-parallel job reads: equal pieces of the rows in block order, the streams.

::

    block order   |  5  |  0  |  7  |  2  |  6  |  1  |       the same on every rank
    streams       0 ----------|1 ----------|2 ---------       three pieces of equally many rows

A block that a border cuts is read for both its streams, each its own rows. So all streams have the same number of rows,
known before the first, and there may be more of them than blocks. Every batch takes equally many rows of each stream
of its rank. Where the number of streams is fixed, it does not matter to the batches over which ranks they are spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError
from oocload.plan.visits import Visits

Uneven = Literal["pad", "drop", "error"]


@dataclass(frozen=True, slots=True)
class Share:
    """A rank's share of every epoch.

    Attributes
    ----------
    rank, world_size
        Number of this rank, from 0, and of all.
    uneven
        What happens where streams do not divide the rows: ``"pad"`` lets the last ones repeat rows of the epoch's
        beginning, ``"drop"`` leaves out its last rows, fewer than there are streams, others each epoch; ``"error"``
        refuses.
    streams
        Number of streams over all ranks; None for one per rank.

    Raises
    ------
    InvalidArgumentError
        If the rank is out of range, the ranks do not divide the streams, or ``uneven`` is none of the three.

    """

    rank: int = 0
    world_size: int = 1
    uneven: Uneven = "pad"
    streams: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise InvalidArgumentError(f"rank must be from 0 to {self.world_size - 1}, got {self.rank}")
        if self.uneven not in get_args(Uneven):
            raise InvalidArgumentError(f"uneven must be 'pad', 'drop' or 'error', got {self.uneven!r}")
        if self.n_streams % self.world_size:
            raise InvalidArgumentError(
                f"world_size must divide the {self.n_streams} streams of the shuffle, got {self.world_size}; use "
                "another number of ranks or Shuffle(streams=)"
            )

    @property
    def n_streams(self) -> int:
        """Streams over all ranks."""
        return self.world_size if self.streams is None else self.streams

    @property
    def own(self) -> range:
        """The streams of this rank."""
        each = self.n_streams // self.world_size
        return range(self.rank * each, (self.rank + 1) * each)

    def stream_rows(self, total: int) -> int:
        """Return the rows of each stream in every epoch.

        Raises
        ------
        InvalidArgumentError
            If there are fewer rows than streams, or the streams do not divide the rows and ``uneven`` is ``"error"``.

        """
        each, left = divmod(total, self.n_streams)
        name = "world_size" if self.streams is None else "streams"
        if left and self.uneven == "error":
            raise InvalidArgumentError(
                f"{name} must divide the {total} rows where uneven='error', got {self.n_streams}; "
                "pass uneven='pad' or 'drop'"
            )
        if not each and self.uneven == "drop":
            raise InvalidArgumentError(
                f"{name} must be at most the {total} rows where uneven='drop', got {self.n_streams}"
            )
        return each + 1 if left and self.uneven == "pad" else each

    def n_rows(self, total: int) -> int:
        """Return the rows of this rank in every epoch, the same on every rank."""
        return self.stream_rows(total) * len(self.own)

    def spans(self, stream: int, total: int, shift: int = 0) -> list[tuple[int, int]]:
        """Return the positions in block order that a stream reads: (start, stop), twice where they begin anew.

        The first stream begins at position ``shift``.
        """
        n_rows = self.stream_rows(total)
        start = (stream * n_rows + shift) % total
        stop = min(total, start + n_rows)
        rest = n_rows - (stop - start)
        return [(start, stop), (0, rest)] if rest else [(start, stop)]


ALONE = Share()


def blocks_of_rank(share: Share, n_blocks: int) -> int:
    """Return how many blocks, or parts of blocks, a rank reads in an epoch, where blocks are about equally high."""
    if share.n_streams == 1:
        return n_blocks
    return min(n_blocks, -(-n_blocks // share.world_size) + len(share.own))


def visits_of(share: Share, stream: int, visits: Visits, ends: NDArray[np.int64], shift: int = 0) -> Visits:
    """Return what a stream reads of all visits of an epoch; ``ends`` is the position where each of them ends."""
    if share.n_streams == 1:
        return visits
    parts = [cut(visits, ends, *span) for span in share.spans(stream, int(ends[-1]), shift)]
    return parts[0] if len(parts) == 1 else Visits(*map(np.concatenate, zip(*parts, strict=True)))


def cut(visits: Visits, ends: NDArray[np.int64], first: int, last: int) -> Visits:
    """Return the visits, or parts of some, of the rows at positions ``first`` to ``last``."""
    low, high = int(np.searchsorted(ends, first, side="right")), int(np.searchsorted(ends, last)) + 1
    groups, lows, highs = (column[low:high].copy() for column in visits)
    highs[-1] -= ends[high - 1] - last
    lows[0] = visits.highs[low] - (ends[low] - first)
    return Visits(groups, lows, highs)
