"""Blocks: how the rows of a store are cut into ranges that are read as one.

::

    rows    0        H        2H       3H   n_rows
            |--------|--------|--------|----|
    block       0        1        2      3        <- the last one may be short

Where rows lie in several pieces of storage, each piece is a span of blocks of its own height.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import lcm
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# A block of a store that needs no decoding is this large: twice as much is read up to 1.2 times as fast, and mixes
# less in the same memory (relative entropy 0.90 instead of 0.95 in a window of 64 MiB: benchmarks/granularity.py).
FLEXIBLE_BLOCK_NBYTES = 128 * 1024
# Chunk heights are joined by their least common multiple while it is at most this many of the largest.
_MAX_HEIGHTS_JOINED = 4
# A field of at most this size is held in memory whole where its chunks do not fit the blocks of the others. The
# blocks, and so the order, depend on it: it must not depend on the ceiling.
_MAX_RESIDENT_NBYTES = 64 * 2**20
_CHEAP_SHARE = 0.1  # a chunk of at most this share of the largest field's may be decoded again and again

Piece = tuple[int, int, int, int]
"""Rows of a field in one piece of storage: (start, stop, rows of a chunk or 0 where none is decoded whole, origin)."""


class Span(NamedTuple):
    """Rows ``start`` to ``stop`` cut at every ``block_rows`` from ``origin``, which is at most ``start``."""

    start: int
    stop: int
    block_rows: int
    origin: int

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return -(-(self.stop - self.origin) // self.block_rows)


@dataclass(frozen=True)
class BlockGrid:
    """The rows of a store cut into blocks.

    Attributes
    ----------
    n_rows
        Rows of the store.
    block_rows
        Rows of a block; of the tallest where spans differ.
    more
        The spans, where there are several or the first block is short.

    """

    n_rows: int
    block_rows: int
    more: tuple[Span, ...] = ()

    @classmethod
    def of(cls, spans: Sequence[Span]) -> BlockGrid:
        """Return the grid of some spans, which follow each other."""
        first = spans[0]
        tallest = max(s.block_rows for s in spans)
        uniform = len(spans) == 1 and first.origin == first.start
        return cls(spans[-1].stop, tallest, () if uniform else tuple(spans))

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans, at least one."""
        return self.more or (Span(0, self.n_rows, self.block_rows, 0),)

    @cached_property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return sum(s.n_blocks for s in self.spans)

    @property
    def even(self) -> bool:
        """Whether all blocks are of one height."""
        return not self.more and self.n_rows % self.block_rows == 0

    @property
    def fingerprint(self) -> int | str:
        """What tells this grid from another of as many rows: the rows of a block, or a hash of the spans."""
        return hashlib.sha256(repr(self.more).encode()).hexdigest()[:16] if self.more else self.block_rows

    def rows(self, block: int) -> tuple[int, int]:
        """Return (start, stop) of a block."""
        starts, stops = self.borders(np.array([block]))
        return int(starts[0]), int(stops[0])

    def borders(self, blocks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first row of each block, and the row after its last."""
        if not self.more:
            starts = blocks * self.block_rows
            return starts, np.minimum(starts + self.block_rows, self.n_rows)
        first, start, stop, height, origin = self._table
        span = np.searchsorted(first, blocks, side="right") - 1
        starts = origin[span] + (blocks - first[span]) * height[span]
        return np.maximum(starts, start[span]), np.minimum(starts + height[span], stop[span])

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        """The number of each span's first block, its start, stop, height and origin."""
        firsts = np.cumsum([0, *(s.n_blocks for s in self.more)])[:-1]
        columns = [(s.start, s.stop, s.block_rows, s.origin) for s in self.more]
        return np.vstack([firsts, np.array(columns, np.int64).T])


class FieldRows(NamedTuple):
    """What laying blocks needs to know of a field.

    Attributes
    ----------
    row_nbytes
        Bytes of one row.
    pieces
        The pieces in which its rows lie.
    together
        Rows of a block, at least, of which reading a part would cost more: of ragged rows, those of some chunks.

    """

    row_nbytes: int
    pieces: tuple[Piece, ...]
    together: int = 1


def lay_blocks(n_rows: int, fields: Mapping[str, FieldRows]) -> tuple[BlockGrid, frozenset[str]]:
    """Return the blocks of a store, and the fields that are to be held in memory.

    The largest field sets the height. A smaller one whose chunks do not fit is held in memory if it is small enough,
    or read anyhow where decoding its chunks more than once costs next to nothing.
    """
    fields = _with_heights(n_rows, fields)
    largest = max(fields, key=lambda name: fields[name].row_nbytes)
    resident = set()
    for _, _, pieces in _common_spans(n_rows, fields):
        for name, (height, origin) in pieces.items():
            held = fields[name].together == 1  # ragged rows are always read
            misfit = height and name != largest and not _fits(height, origin, *pieces[largest])
            if held and misfit and fields[name].row_nbytes * n_rows <= _MAX_RESIDENT_NBYTES:
                resident.add(name)
    row_nbytes = sum(f.row_nbytes for f in fields.values())
    read = {name: f for name, f in fields.items() if name not in resident}
    spans = []
    for start, stop, pieces in _common_spans(n_rows, read):
        counted = {n: p for n, p in pieces.items() if p[0] and _counts(n, largest, fields, pieces)}
        block_rows = choose_block_rows([height for height, _ in counted.values()], row_nbytes, n_rows)
        together = max(f.together for f in read.values())
        block_rows *= max(1, -(-min(together, n_rows) // block_rows))
        _, origin = counted.get(largest, next(iter(counted.values()), (0, start)))
        origin = start - (start - origin) % block_rows
        spans.append(Span(start, stop, min(block_rows, stop - origin), origin))
    return BlockGrid.of(spans), frozenset(resident)


def _with_heights(n_rows: int, fields: Mapping[str, FieldRows]) -> Mapping[str, FieldRows]:
    """Return fields of which those that are read together have the height of blocks that suits the chunks of others."""
    together = max(f.together for f in fields.values())
    heights = {height for f in fields.values() for _, _, height, _ in f.pieces if height}
    joined = lcm(*heights)
    if together == 1 or joined > _MAX_HEIGHTS_JOINED * together:
        return fields
    height = min(n_rows, joined * -(-together // joined))
    return {
        name: f if f.together == 1 else f._replace(pieces=tuple((p[0], p[1], height, p[0]) for p in f.pieces))
        for name, f in fields.items()
    }


def choose_block_rows(rigid_heights: Sequence[int], row_nbytes: int, n_rows: int) -> int:
    """Return how many rows one block has.

    Parameters
    ----------
    rigid_heights
        Chunk heights of the fields whose chunks must be decoded whole.
    row_nbytes
        Bytes of one row over all fields.
    n_rows
        Rows of the store, the most that a block of raw rows has.

    Returns
    -------
    int
        Without rigid fields, the rows of `FLEXIBLE_BLOCK_NBYTES`. With one height, that height. With
        several, their least common multiple, or the largest where that would be many times higher; then
        chunks of the other fields are cut by block borders and decoded twice (see `amplification`).

    """
    if not rigid_heights:
        return max(1, min(n_rows, FLEXIBLE_BLOCK_NBYTES // max(1, row_nbytes)))
    tallest = max(rigid_heights)
    joined = lcm(*rigid_heights)
    return joined if joined <= _MAX_HEIGHTS_JOINED * tallest else tallest


def amplification(grid: BlockGrid, pieces: Sequence[Piece]) -> float:
    """Return chunks decoded per chunk of a field in one epoch, when it is read block by block."""
    starts, stops = grid.borders(np.arange(grid.n_blocks))
    decoded = n_chunks = 0
    for start, stop, height, origin in pieces:
        if not height:
            continue
        low, high = np.searchsorted(stops, start, side="right"), np.searchsorted(starts, stop)
        first = (np.maximum(starts[low:high], start) - origin) // height
        last = (np.minimum(stops[low:high], stop) - 1 - origin) // height
        decoded += int((last - first + 1).sum())
        n_chunks += (stop - 1 - origin) // height - (start - origin) // height + 1
    return decoded / n_chunks if n_chunks else 1.0


def _common_spans(n_rows: int, fields: Mapping[str, FieldRows]) -> list[tuple[int, int, dict[str, tuple[int, int]]]]:
    """Return (start, stop, field → (height, origin)) of the ranges in which no field changes its piece of storage."""
    borders = sorted({0, n_rows, *(piece[0] for f in fields.values() for piece in f.pieces)})
    at = dict.fromkeys(fields, 0)
    spans = []
    for start, stop in pairwise(borders):
        here = {}
        for name, field in fields.items():
            while field.pieces[at[name]][1] <= start:
                at[name] += 1
            _, _, height, origin = field.pieces[at[name]]
            here[name] = (min(height, stop - start) if origin == start else height, origin)
        spans.append((start, stop, here))
    return spans


def _fits(height: int, origin: int, largest_height: int, largest_origin: int) -> bool:
    """Whether chunks of one field are whole in the chunks of the largest."""
    return bool(largest_height) and largest_height % height == 0 and (origin - largest_origin) % height == 0


def _counts(name: str, largest: str, fields: Mapping[str, FieldRows], pieces: Mapping[str, tuple[int, int]]) -> bool:
    """Whether blocks must be made of a field's whole chunks."""
    height, origin = pieces[name]
    if name == largest or _fits(height, origin, *pieces[largest]):
        return True
    largest_nbytes = pieces[largest][0] * fields[largest].row_nbytes
    return not largest_nbytes or height * fields[name].row_nbytes > _CHEAP_SHARE * largest_nbytes
