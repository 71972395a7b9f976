"""How high the chunks of a new store are; integers only."""

from __future__ import annotations

from collections.abc import Mapping

# Decoded bytes of one chunk of the largest field: twice as many cost 3 % less to read, and mix less in the same memory
# (relative entropy 0.73 instead of 0.83 in a window of 64 MiB: benchmarks/granularity.py).
DEFAULT_CHUNK_NBYTES = 2**19
# Chunks of small fields are made of several chunk heights, up to this size: one file or index entry each is dear.
_SMALL_CHUNK_NBYTES = 32 * 2**10
# Chunks of the items of ragged rows for one of dense rows: rows are cut where chunks end, and a chunk that two blocks
# share is decoded for both, which small chunks keep cheap.
ITEM_CHUNKS = 8
_LEAST_ITEM_CHUNK_NBYTES = 4 * 2**10


def chunk_heights(row_nbytes: Mapping[str, int], chunk_nbytes: int, n_rows: int | None = None) -> dict[str, int]:
    """Return rows per chunk of each field.

    Parameters
    ----------
    row_nbytes
        Field → bytes of one row.
    chunk_nbytes
        Bytes of one chunk of the largest field, about.
    n_rows
        Rows of the store where known; no chunk is higher.

    Returns
    -------
    dict
        The same height for every large field, and a multiple of it for small ones.

    """
    height = max(1, chunk_nbytes // max(1, max(row_nbytes.values())))
    return align_heights(row_nbytes, height, n_rows)


def align_heights(row_nbytes: Mapping[str, int], height: int, n_rows: int | None = None) -> dict[str, int]:
    """Return rows per chunk of each field, given the height for large ones."""
    room = min(_SMALL_CHUNK_NBYTES, height * max(row_nbytes.values()))
    heights = {name: height * max(1, room // max(1, n * height)) for name, n in row_nbytes.items()}
    return heights if n_rows is None else {name: min(h, max(1, n_rows)) for name, h in heights.items()}


def items_height(item_nbytes: int, chunk_nbytes: int) -> int:
    """Return items per chunk of the items of ragged rows: an eighth of a dense chunk's bytes, and 4 KiB at least."""
    return max(1, max(_LEAST_ITEM_CHUNK_NBYTES, chunk_nbytes // ITEM_CHUNKS) // max(1, item_nbytes))
