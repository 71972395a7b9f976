"""Blocks: how the rows of a store are cut into ranges that are read as one.

::

    rows    0        H        2H       3H   n_rows
            |--------|--------|--------|----|
    block       0        1        2      3        <- the last one may be short
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np

# A block of a store that needs no decoding is this large: twice as much is read up to 1.2 times as fast, and mixes
# less in the same memory (relative entropy 0.90 instead of 0.95 in a window of 64 MiB: benchmarks/granularity.py).
FLEXIBLE_BLOCK_NBYTES = 128 * 1024
# Chunk heights are joined by their least common multiple while it is at most this many of the largest.
_MAX_HEIGHTS_JOINED = 4


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """``n_rows`` rows cut into blocks of ``block_rows``."""

    n_rows: int
    block_rows: int

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return -(-self.n_rows // self.block_rows)

    @property
    def missing_rows(self) -> int:
        """How many rows the last block lacks."""
        return self.n_blocks * self.block_rows - self.n_rows

    def rows(self, block: int) -> tuple[int, int]:
        """Return (start, stop) of a block."""
        start = block * self.block_rows
        return start, min(self.n_rows, start + self.block_rows)


def choose_block_rows(rigid_heights: Sequence[int], row_nbytes: int, n_rows: int) -> int:
    """Return how many rows one block has.

    Parameters
    ----------
    rigid_heights
        Chunk heights of the fields whose chunks must be decoded whole.
    row_nbytes
        Bytes of one row over all fields.
    n_rows
        Rows in the store.

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
    return min(n_rows, joined if joined <= _MAX_HEIGHTS_JOINED * tallest else tallest)


def amplification(grid: BlockGrid, height: int) -> float:
    """Return rows decoded per row delivered in one epoch, for chunks of ``height`` rows read block by block."""
    if grid.block_rows % height == 0 or grid.n_blocks <= 1:
        return 1.0
    # A border that is not a multiple of the height cuts one chunk, which two blocks then decode.
    borders = np.arange(1, grid.n_blocks, dtype=np.int64) * grid.block_rows
    cut = int(np.count_nonzero(borders % height))
    n_chunks = -(-grid.n_rows // height)
    return (n_chunks + cut) / n_chunks
