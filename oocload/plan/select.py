"""Which rows of a store a loader has: all of them, or a fixed selection, grouped by block.

::

    blocks      |--------|--------|--------|--------|
    selected        xxxx   x x  xx            xxxxxxx
    groups          |--|   |----|             |-----|       trimmed; bits say which rows in between are meant
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from oocload.plan.blocks import BlockGrid
from oocload.plan.ranks import cut
from oocload.plan.visits import Cover, Visits, cover_of, firsts

# Row numbers are listed for about so many rows, or blocks, at a time.
PIECE_ROWS = 2**16
_PIECE_GROUPS = 2**14
_PIECE_COVERED = 2**24


class Selection:
    """Rows of a store by block; a `Pool` in which every row comes once an epoch.

    Parameters
    ----------
    starts, stops
        Range of rows of each group, ascending; each within one block.
    counts
        Rows selected in each, at least one.
    bits
        One bit per row of each range, padded to whole bytes; None where all rows of the ranges are selected.
    whole
        Whether these are all rows of the store.

    """

    def __init__(
        self,
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        counts: NDArray[np.int64] | None = None,
        bits: NDArray[np.uint8] | None = None,
        whole: bool = False,
    ) -> None:
        self.starts = starts
        self.stops = stops
        self.counts = stops - starts if counts is None else counts
        self.whole = whole
        self._bits = bits

    @classmethod
    def of_grid(cls, grid: BlockGrid) -> Selection:
        """Return all rows of a store."""
        return cls(*grid.borders(np.arange(grid.n_blocks)), whole=True)

    @classmethod
    def of_rows(cls, grid: BlockGrid, rows: NDArray[np.int64]) -> Selection:
        """Return some rows of a store, given in ascending order, each once."""
        _, block_stops = grid.borders(np.arange(grid.n_blocks))
        pieces, first = [], 0
        while first < len(rows):
            last = min(len(rows), first + PIECE_ROWS, int(np.searchsorted(rows, rows[first] + _PIECE_COVERED)))
            border = block_stops[np.searchsorted(block_stops, rows[last - 1], side="right")]
            last = int(np.searchsorted(rows, border))  # whole blocks
            pieces.append(cls._of_piece(block_stops, rows[first:last]))
            first = last
        return cls.joined(pieces)

    @classmethod
    def of_mask(cls, grid: BlockGrid, mask: NDArray[np.bool_], within: Selection) -> Selection:
        """Return the rows of a selection that are marked; ``mask`` has a flag for each row of the store."""
        pieces = []
        for _, rows in within.row_pieces():
            marked = rows[mask[rows]]
            if len(marked):
                pieces.append(cls.of_rows(grid, marked))
        return cls.joined(pieces)

    @classmethod
    def _of_piece(cls, block_stops: NDArray[np.int64], rows: NDArray[np.int64]) -> Selection:
        blocks = np.searchsorted(block_stops, rows, side="right")
        cover, counts = cover_of(rows, blocks)
        if (counts == cover.stops - cover.starts).all():
            return cls(cover.starts, cover.stops)
        return _packed(cover, counts)

    @classmethod
    def joined(cls, pieces: Sequence[Selection]) -> Selection:
        """Return selections that follow each other as one; they share no block."""
        if not pieces:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64))
        starts, stops, counts = (
            np.concatenate([getattr(p, name) for p in pieces]) for name in ("starts", "stops", "counts")
        )
        if all(p._bits is None for p in pieces):
            return cls(starts, stops)
        return cls(starts, stops, counts, np.concatenate([p._all_bits() for p in pieces]))

    @cached_property
    def _first_byte(self) -> NDArray[np.int64]:
        """Where the bits of each group begin, and where the last ones end."""
        return np.concatenate([[0], np.cumsum((self.stops - self.starts + 7) // 8)])

    @property
    def n_groups(self) -> int:
        """Number of blocks that hold selected rows."""
        return len(self.starts)

    @cached_property
    def n_rows(self) -> int:
        """Rows selected."""
        return int(self.counts.sum())

    @cached_property
    def block_rows(self) -> int:
        """Rows of an ordinary group: the median, or the mean where that is more."""
        return max(-(-self.n_rows // self.n_groups), int(np.sort(self.counts)[self.n_groups // 2]))

    @property
    def regular(self) -> bool:
        """Whether every group has so many, but for the store's last."""
        return self.whole and bool((self.counts[:-1] == self.block_rows).all()) and self.counts[-1] <= self.block_rows

    @property
    def most_visits(self) -> int:
        """Visits of an epoch: one per group."""
        return self.n_groups

    @property
    def held_nbytes(self) -> int:
        """Bytes of groups and bits."""
        bits = 0 if self._bits is None else self._bits.nbytes
        return 4 * 8 * self.n_groups + bits

    @property
    def picks_nbytes(self) -> int:
        """Bytes per row of a window while its `Cover` is held: picks, and what finding them takes."""
        return 0 if self._bits is None else 4 * 8 + 2 * -(-8 * int(self._first_byte[-1]) // self.n_rows)

    @cached_property
    def fingerprint(self) -> str | None:
        """What tells this selection from others; None for a whole store."""
        if self.whole:
            return None
        digest = hashlib.sha256()
        for part in (self.starts, self.stops, self._all_bits() if self._bits is not None else None):
            digest.update(b"" if part is None else np.ascontiguousarray(part))
        return digest.hexdigest()[:16]

    @cached_property
    def most_rows(self) -> int:
        """Rows of the tallest group."""
        return int(self.counts.max())

    def visits(self, epoch: int) -> Visits:
        """Return one visit of each group; the same in every epoch."""
        zeros = np.broadcast_to(np.int64(0), self.n_groups)
        return Visits(np.arange(self.n_groups), zeros, self.counts)

    def cover(self, epoch: int, index: int, visits: Visits) -> Cover:
        """Return the ranges to read for some visits."""
        starts = self.starts[visits.groups]
        if self._bits is None:
            return Cover(starts + visits.lows, starts + visits.highs, None)
        offsets, counts = self._offsets(visits)
        ends = np.cumsum(counts)
        filled = counts > 0
        lows = np.zeros_like(counts)
        heights = np.zeros_like(counts)
        lows[filled] = offsets[(ends - counts)[filled]]
        heights[filled] = offsets[ends[filled] - 1] + 1 - lows[filled]
        picks = offsets + np.repeat(firsts(heights) - lows, counts)
        if len(picks) == heights.sum():
            return Cover(starts + lows, starts + lows + heights, None)
        return Cover(starts + lows, starts + lows + heights, picks)

    def cover_all(self, groups: NDArray[np.int64]) -> Cover:
        """Return the ranges to read for all rows of some groups."""
        return self.cover(0, 0, Visits(groups, np.zeros_like(groups), self.counts[groups]))

    def _offsets(self, visits: Visits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how far each row taken lies behind the start of its group, and how many rows each visit takes."""
        assert self._bits is not None
        low, high = self._first_byte[visits.groups], self._first_byte[visits.groups + 1]
        bits = np.concatenate([self._bits[a:b] for a, b in zip(low.tolist(), high.tolist(), strict=True)])
        places = np.flatnonzero(np.unpackbits(bits))
        counts = self.counts[visits.groups]
        first_bit = 8 * firsts(high - low)
        offsets = places - np.repeat(first_bit, counts)
        number = np.arange(len(offsets)) - np.repeat(firsts(counts), counts)
        taken = (number >= np.repeat(visits.lows, counts)) & (number < np.repeat(visits.highs, counts))
        return offsets[taken], visits.counts

    def row_pieces(self) -> Iterator[tuple[slice, NDArray[np.int64]]]:
        """Yield (groups, their selected rows in ascending order), some hundred thousand rows at a time."""
        visits, ends = self.visits(0), np.cumsum(self.counts)
        first = 0
        while first < self.n_groups:
            done = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, done + PIECE_ROWS, side="right")))
            groups = slice(first, last)
            yield groups, self.cover(0, 0, visits.take(groups)).rows()
            first = last

    def holds(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some rows are selected."""
        group = np.searchsorted(self.starts, rows, side="right") - 1
        inside = (group >= 0) & (rows < self.stops[group])
        if self._bits is not None:
            at = np.where(inside, rows - self.starts[group], 0)
            byte = self._bits[np.where(inside, self._first_byte[group] + at // 8, 0)]
            inside &= (byte >> (7 - at % 8).astype(np.uint8) & 1).astype(bool)
        return inside

    def part(self, order: NDArray[np.int64], first: int, last: int) -> Selection:
        """Return the rows at positions ``first`` to ``last`` of an order of the groups."""
        visits = self.visits(0).take(order)
        visits = cut(visits, np.cumsum(visits.counts), first, last)
        visits = visits.take(np.argsort(visits.groups))
        if self._bits is None:
            return Selection(self.starts[visits.groups] + visits.lows, self.starts[visits.groups] + visits.highs)
        some = (visits.take(slice(at, at + _PIECE_GROUPS)) for at in range(0, len(visits.groups), _PIECE_GROUPS))
        return Selection.joined([_packed(self.cover(0, 0, v), v.counts) for v in some])

    def _all_bits(self) -> NDArray[np.uint8]:
        if self._bits is not None:
            return self._bits
        flags = np.ones(8 * int(self._first_byte[-1]), bool)
        heights = self.stops - self.starts
        ends = 8 * self._first_byte[1:]
        for behind in range(1, 8):  # the padding of each range
            short = (-heights) % 8 >= behind
            flags[ends[short] - behind] = False
        return np.packbits(flags)


def _packed(cover: Cover, counts: NDArray[np.int64]) -> Selection:
    """Return the selection of the rows that a cover takes."""
    if cover.picks is None:
        return Selection(cover.starts, cover.stops)
    heights = cover.stops - cover.starts
    n_bytes = (heights + 7) // 8
    shift = 8 * firsts(n_bytes) - firsts(heights)
    flags = np.zeros(8 * int(n_bytes.sum()), bool)
    flags[cover.picks + np.repeat(shift, counts)] = True
    return Selection(cover.starts, cover.stops, counts, np.packbits(flags))
