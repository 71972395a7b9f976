"""Whether HDF5 itself finds each chunk: it looks in its index by the keys there, which a walk through it never reads.

h5py's own call for one chunk walks through the index, so that asking for all would be quadratic.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import h5py
import numpy as np
from h5py._objects import phil

from oocload.layout import ChunkGrid
from oocload.stores.chunk_table import ChunkTable

_PIECE_CHUNKS = 2**14


def chunks_not_found(dataset: h5py.Dataset, grid: ChunkGrid, table: ChunkTable) -> Iterator[int]:
    """Yield the chunks that the index lists, and HDF5 does not find there, or finds at another size."""
    try:
        get = ctypes.CDLL(h5py.h5p.__file__).H5Dget_chunk_storage_size
    except (OSError, AttributeError):  # an HDF5 library that hides its names
        return
    get.argtypes = [ctypes.c_int64, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.c_uint64)]
    get.restype = ctypes.c_int
    size = ctypes.c_uint64(0)
    for first in range(0, grid.n_chunks, _PIECE_CHUNKS):
        numbers = np.arange(first, min(grid.n_chunks, first + _PIECE_CHUNKS))
        corners = np.stack(np.unravel_index(numbers, grid.counts), axis=1) * np.array(grid.chunks)
        offsets = np.ascontiguousarray(corners, np.uint64)
        for chunk, offset in zip(numbers.tolist(), offsets, strict=True):
            place = table.find(chunk)
            if place is None:
                continue
            with phil:  # HDF5 may be used by one thread at a time
                done = get(dataset.id.id, offset.ctypes.data_as(ctypes.POINTER(ctypes.c_uint64)), ctypes.byref(size))
            if done < 0 or size.value != place.nbytes:
                yield chunk
