"""How high the chunks of a new store are; integers only."""

from __future__ import annotations

from collections.abc import Mapping

# Decoded bytes of one chunk of the largest field: twice as many cost 3 % less to read, and mix less in the same memory
# (relative entropy 0.73 instead of 0.83 in a window of 64 MiB: benchmarks/granularity.py).
DEFAULT_CHUNK_NBYTES = 2**19
# Chunks of small fields are made of several chunk heights, up to this size: one file or index entry each is dear.
_SMALL_CHUNK_NBYTES = 32 * 2**10


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
