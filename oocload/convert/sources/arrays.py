"""Arrays in memory, and whatever slices like one: memmaps, h5py datasets, zarr and dask arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


class SliceSource:
    """Anything with ``shape``, ``dtype`` and slicing along axis 0."""

    label = "array"

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: tuple[int, ...] = tuple(int(n) for n in array.shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)

    def pieces(self, step: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows, ``step`` at a time."""
        for start in range(0, self.shape[0], step):
            yield np.asarray(self._array[start : start + step])


def slices_like_an_array(value: Any) -> bool:
    """Whether a value can be a `SliceSource`."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__")
