"""How high the chunks of a new store are; integers only."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

# Decoded bytes of one chunk of the largest field: twice as many cost 3 % less to read, and mix less in the same memory
# (relative entropy 0.73 instead of 0.83 in a window of 64 MiB: benchmarks/granularity.py).
DEFAULT_CHUNK_NBYTES = 2**19
# Chunks of small fields are made of several chunk heights, up to this size: one file or index entry each is dear.
_SMALL_CHUNK_NBYTES = 32 * 2**10
# Chunks of the items of ragged rows for one of dense rows: rows are cut where chunks end, and a chunk that two blocks
# share is decoded for both, which small chunks keep cheap.
ITEM_CHUNKS = 8
_LEAST_ITEM_CHUNK_NBYTES = 4 * 2**10
# Chunks of one Zarr array above which they share files. Up to there files of their own cost seconds at most, and suit
# zarr-python, which reads a shard's index anew for every chunk; above, they are tens of thousands of files
# (benchmarks/shards.py).
SHARDED_ABOVE = 1000
_SHARD_NBYTES = 32 * 2**20  # decoded: 64 chunks; more make neither writing nor reading faster
_MOST_PER_SHARD = 256  # whose index is 4 KiB


def chunk_heights(
    row_nbytes: Mapping[str, int], chunk_nbytes: int, n_rows: int | None = None, batch_size: int | None = None
) -> dict[str, int]:
    """Return rows per chunk of each field.

    Parameters
    ----------
    row_nbytes
        Field → bytes of one row.
    chunk_nbytes
        Bytes of one chunk of the largest field, about.
    n_rows
        Rows of the store where known; no chunk is higher.
    batch_size
        Where given, every height is a multiple or a divisor of it.

    Returns
    -------
    dict
        The same height for every large field, and a multiple of it for small ones.

    """
    height = max(1, chunk_nbytes // max(1, max(row_nbytes.values())))
    if batch_size is not None:
        height = height_for_batches(height, batch_size)
    return align_heights(row_nbytes, height, n_rows, batch_size)


def align_heights(
    row_nbytes: Mapping[str, int], height: int, n_rows: int | None = None, batch_size: int | None = None
) -> dict[str, int]:
    """Return rows per chunk of each field, given the height for large ones.

    Small ones get it twice, four times, and so on: rows at which a chunk of one field begins are then such of every
    field with smaller chunks, and pieces of a store can be written apart from each other.
    """
    room = min(_SMALL_CHUNK_NBYTES, height * max(row_nbytes.values()))
    heights = {name: height * _factor(room // max(1, n * height), height, batch_size) for name, n in row_nbytes.items()}
    return heights if n_rows is None else {name: min(h, max(1, n_rows)) for name, h in heights.items()}


def height_for_batches(height: int, batch_size: int) -> int:
    """Return the multiple or divisor of a batch size that is nearest to a height, by their ratio; of two, the smaller.

    A divisor only of batches that are higher than the height: chunks are then read whole for a batch, and batches whole
    from chunks.
    """
    if height >= batch_size:
        below = height // batch_size * batch_size
        above = below + batch_size
    else:
        below = _divisor_below(batch_size, height)
        above = batch_size // _divisor_below(batch_size, batch_size // height)
    return below if height * height <= below * above else above


def _factor(most: int, height: int, batch_size: int | None) -> int:
    """Return how many times the height of large fields a small one has, at most as told."""
    n_heights = 1 if batch_size is None else max(1, batch_size // height)  # of one batch
    if most < n_heights:
        return _divisor_below(n_heights, max(1, most))
    return n_heights * power_of_two_below(most // n_heights)


def _divisor_below(number: int, limit: int) -> int:
    """Return the largest divisor that is not above a limit."""
    small = [d for d in range(1, isqrt(number) + 1) if number % d == 0]
    return max(d for one in small for d in (one, number // one) if d <= limit)


def power_of_two_below(number: int) -> int:
    """Return the largest power of two that is not above a number; of 0, 1."""
    return 1 << max(0, number.bit_length() - 1)


def default_chunks_per_shard(n_rows: int | None, height: int, row_nbytes: int) -> int:
    """Return how many chunks of a Zarr array share a file; 1 where each has its own.

    Parameters
    ----------
    n_rows
        Rows of the array, or None where nobody knows. A stream is sharded: short, it is one file that costs little to
        read; long, it would become more files than a folder should have.
    height, row_nbytes
        Rows of a chunk, and bytes of a row.

    Returns
    -------
    int
        A power of two, so that pieces that begin a shard of one array begin a chunk of others.

    """
    if n_rows is not None and -(-n_rows // height) <= SHARDED_ABOVE:
        return 1
    return power_of_two_below(min(_MOST_PER_SHARD, _SHARD_NBYTES // max(1, height * row_nbytes)))


def items_height(item_nbytes: int, chunk_nbytes: int) -> int:
    """Return items per chunk of the items of ragged rows: an eighth of a dense chunk's bytes, and 4 KiB at least."""
    return max(1, max(_LEAST_ITEM_CHUNK_NBYTES, chunk_nbytes // ITEM_CHUNKS) // max(1, item_nbytes))
