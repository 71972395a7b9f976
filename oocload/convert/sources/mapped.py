"""Memory maps that users give: their pages count as this process's memory once they are touched, so they are let go."""

from __future__ import annotations

import mmap
import os
from math import prod
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.convert.sources.ahead import ReadAhead, ReadRows
from oocload.convert.sources.arrays import SliceSource
from oocload.convert.sources.fresh import fresh_rows
from oocload.convert.sources.identity import Identity, array_identity

_COPIED_NBYTES = 2**20  # at a time, so that the pages of no more are there
_FAULT_NBYTES = 64 * 1024  # what the kernel maps around a page that is touched


class MappedSource(SliceSource):
    """A NumPy array whose items lie in a shared memory map of a file; any thread may copy rows of it."""

    readers = "many"

    def __init__(self, array: NDArray[Any], mapped: np.memmap[Any, Any]) -> None:
        super().__init__(array)
        self._mapped = mapped
        self._map: mmap.mmap = mapped._mmap  # type: ignore[attr-defined]
        self._base = np.frombuffer(self._map, np.uint8).ctypes.data
        self._in_order = array.flags.c_contiguous

    @property
    def scratch_nbytes(self) -> int:
        """The pages that a thread has touched and not let go."""
        if self._in_order:
            return max(_COPIED_NBYTES, self.row_nbytes) + _FAULT_NBYTES
        return self._pages_of_a_column * self._columns_copied

    def identity(self) -> Identity | None:
        """Return shape, dtype and place in the file, and the file's size and time, where it is surely the one mapped.

        A map that can be written to may hold what the file's time does not show.
        """
        path = self._mapped.filename
        if self._mapped.mode != "r" or path is None or not _is_mapped(os.fspath(path), self._base):
            return None
        status = os.stat(path)
        place = self._array.__array_interface__["data"][0] - self._base
        place += int(self._mapped.offset) // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        files = [[status.st_size, status.st_mtime_ns]]
        return array_identity(self.shape, self.dtype, files, offset=place, strides=list(self._array.strides))

    def reader(self, start: int, stop: int, ahead: ReadAhead) -> ReadRows:
        """Return what copies rows."""
        return self._copy

    @property
    def _pages_of_a_column(self) -> int:
        return _FAULT_NBYTES * prod(self.shape[1:-1])

    @property
    def _columns_copied(self) -> int:
        """Along the last axis, at a time."""
        return max(1, 4 * _COPIED_NBYTES // max(1, self._pages_of_a_column))

    def _copy(self, start: int, stop: int, scratch: Scratch) -> NDArray[Any]:
        source = self._array[start:stop]
        rows = fresh_rows(source.shape, self.dtype)
        if self._in_order or source.ndim == 1:
            step = max(1, _COPIED_NBYTES // max(1, self.row_nbytes))
            for first in range(0, len(rows), step):
                self._copy_part(source[first : first + step], rows[first : first + step])
            return rows
        for first in range(0, rows.shape[-1], self._columns_copied):  # in Fortran order, a column at a time
            part = (..., slice(first, first + self._columns_copied))
            self._copy_part(source[part], rows[part])
        return rows

    def _copy_part(self, source: NDArray[Any], rows: NDArray[Any]) -> None:
        rows[...] = source
        if not source.size:
            return
        low, high = byte_bounds(source)
        first = max(0, low - self._base) // mmap.PAGESIZE * mmap.PAGESIZE
        # Of a shared map this loses nothing, not even what was written to it: the kernel's page cache has it.
        self._map.madvise(mmap.MADV_DONTNEED, first, min(high - self._base, len(self._map)) - first)


def shared_map_of(array: Any) -> np.memmap[Any, Any] | None:
    """Return the memory map in which the items of an array lie, where it is a shared one."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and isinstance(getattr(array, "_mmap", None), mmap.mmap):
            return array if array.mode in ("r", "r+", "w+") else None
        array = array.base
    return None


def _is_mapped(path: str, address: int) -> bool:
    """Whether the file of a path is what this process has mapped at an address (proc(5), /proc/pid/maps)."""
    with open("/proc/self/maps") as lines:
        for line in lines:
            place, _, _, _, inode, *_ = line.split(maxsplit=5)
            if int(place.partition("-")[0], 16) == address:
                return os.path.exists(path) and os.stat(path).st_ino == int(inode)
    return False
