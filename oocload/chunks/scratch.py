"""Buffers that a worker thread uses again and again: a fresh one costs more in page faults than in copying."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64  # bytes; what SIMD codecs and TensorFlow ask for

Bytes = NDArray[np.uint8]


def aligned_empty(nbytes: int) -> Bytes:
    """Return an uninitialised byte array whose address is a multiple of `ALIGNMENT`."""
    whole: Bytes = np.empty(nbytes + ALIGNMENT, np.uint8)
    skip = -whole.ctypes.data % ALIGNMENT
    return whole[skip : skip + nbytes]


def align(nbytes: int) -> int:
    """Round a byte count up to `ALIGNMENT`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class Scratch:
    """The buffers of one worker thread, by name; they grow to what was asked and stay. Not thread-safe.

    Parameters
    ----------
    account
        Called with the number of bytes whenever a buffer grows.

    """

    def __init__(self, account: Callable[[int], object] = lambda _: None) -> None:
        self._buffers: dict[str, Bytes] = {}
        self._reserved: dict[str, int] = {}
        self._account = account

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(len(buffer) for buffer in self._buffers.values()) + sum(self._reserved.values())

    def get(self, name: str, nbytes: int) -> Bytes:
        """Return the first ``nbytes`` of a buffer, aligned; its old contents may be lost."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < nbytes:
            self._account(nbytes - (0 if buffer is None else len(buffer)))
            buffer = self._buffers[name] = aligned_empty(nbytes)
        return buffer[:nbytes]

    def reserve(self, name: str, nbytes: int) -> None:
        """Count bytes that a library takes by itself whenever this thread calls it."""
        more = nbytes - self._reserved.get(name, 0)
        if more > 0:
            self._account(more)
            self._reserved[name] = nbytes


def as_bytes(array: NDArray[Any]) -> Bytes:
    """Return the memory of a C-contiguous array as bytes."""
    return array.reshape(-1).view(np.uint8)
