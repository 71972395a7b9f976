"""Memory for pieces, that goes back to the system when the last view of it is gone."""

from __future__ import annotations

import mmap
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Below, malloc serves as well. Above, what it gets back from one thread it may keep for that thread alone, and pieces
# made by several threads would add up to more than there are at a time.
_LEAST_MAPPED_NBYTES = 2**18


def fresh_rows(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an uninitialised C-contiguous array."""
    nbytes = prod(shape) * dtype.itemsize
    if nbytes < _LEAST_MAPPED_NBYTES:
        return np.empty(shape, dtype)
    memory = mmap.mmap(-1, nbytes)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8).view(dtype).reshape(shape)
