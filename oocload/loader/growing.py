"""Memory that two processes see and either makes larger: a file without a name, gone with the last who has it."""

from __future__ import annotations

import mmap
import os

import numpy as np
from numpy.typing import NDArray


class GrowingMemory:
    """Memory of one process that another is given the descriptor of.

    Parameters
    ----------
    descriptor
        Of the file, which this owns from now on; None makes one.

    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("oocload", os.MFD_CLOEXEC) if descriptor is None else descriptor
        self._mapped: mmap.mmap | None = None

    def root(self, nbytes: int) -> NDArray[np.uint8]:
        """Return a new array over at least so many bytes; what was written stays, and arrays given before do."""
        if self._mapped is None or len(self._mapped) < nbytes:
            size = -(-max(nbytes, os.fstat(self.descriptor).st_size) // mmap.PAGESIZE) * mmap.PAGESIZE
            if os.fstat(self.descriptor).st_size < size:
                os.ftruncate(self.descriptor, size)
            self._mapped = mmap.mmap(self.descriptor, size)
        return np.frombuffer(self._mapped, np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes that are mapped here."""
        return 0 if self._mapped is None else len(self._mapped)

    def close(self) -> None:
        """Let go of it; arrays over it stay for as long as they live."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor, self._mapped = -1, None
