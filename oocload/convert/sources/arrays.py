"""Arrays in memory, and whatever slices like one: h5py datasets, zarr arrays, arrays of frameworks."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.convert.sources.ahead import ReadAhead, Readers, ReadRows
from oocload.convert.sources.base import ArraySource
from oocload.convert.sources.identity import Identity
from oocload.convert.sources.objects import object_identity, reads_a_folder
from oocload.layout import Segment


class SliceSource(ArraySource):
    """Anything with ``shape``, ``dtype`` and slicing along axis 0; sliced by the thread that iterates."""

    label = "array"
    readers: Readers = "caller"

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = tuple(int(n) for n in array.shape)
        self.dtype = np.dtype(array.dtype)
        # of another, a slice may be a view of what is used again
        self.owned = isinstance(array, np.ndarray | h5py.Dataset | zarr.Array)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Where chunks begin, of what says that it has some."""
        chunks = getattr(self._array, "chunks", None)
        height = chunks[0] if isinstance(chunks, tuple) and chunks and isinstance(chunks[0], int) else 0
        return (Segment(0, self.n_rows, height, 0),)

    @property
    def identity_walks(self) -> bool:
        """Whether it is zarr's, in a folder."""
        return reads_a_folder(self._array)

    def identity(self) -> Identity | None:
        """Return what the library's own object says of the file that it reads; None for what is in memory."""
        return object_identity(self._array)

    def reader(self, start: int, stop: int, ahead: ReadAhead) -> ReadRows:
        """Return what slices the array."""
        return self._slice

    def _slice(self, start: int, stop: int, scratch: Scratch) -> NDArray[Any]:
        return np.asarray(self._array[start:stop])


def slices_like_an_array(value: Any) -> bool:
    """Whether a value can be a `SliceSource`."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__")
