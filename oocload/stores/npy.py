"""NumPy's ``.npy`` files as stores of one field, ``x`` (format: numpy.lib.format, versions 1 to 3). Never unpickles."""

from __future__ import annotations

import ast
import os
import struct
from math import prod
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.errors import ChunkError, StoreFormatError, StoreNotFoundError
from oocload.layout import ChunkLocations, FieldLayout, FileStamp
from oocload.stores.base import Store, check_stamp, direct_path_enabled, native, unreadable
from oocload.stores.chunk_table import ChunkTable

_MOST_HEADER_NBYTES = 10_000  # of a header that is parsed, as in NumPy
_STRIP_NBYTES = 2**20  # of rows in Fortran order, gathered at a time


class NpyStore(Store):
    """A ``.npy`` file, read in place.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    StoreNotFoundError
        If there is no such file.
    StoreFormatError
        If it is no ``.npy`` file, or is truncated.

    """

    format = "NumPy"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.address = os.fspath(path)
        if not Path(path).exists():
            raise StoreNotFoundError(f"store must exist, got {self.address!r}; nothing lies at that path")
        self._path = os.path.abspath(path)
        self._stamp = FileStamp.of(os.stat(path))
        with open(path, "rb") as file:
            shape, self._fortran, dtype = read_npy_header(file, self.address)
            self._offset = file.tell()
        self.fields = {"x": self._describe(shape, dtype)}
        missing = self._offset + self.fields["x"].nbytes - self._stamp.nbytes
        if missing > 0 and not dtype.hasobject:
            raise StoreFormatError(f"{self.address} is truncated: {missing} bytes are missing; copy or write it again")

    def locate(self, name: str) -> ChunkLocations:
        """Return the one range that holds the rows."""
        return ChunkTable.contiguous(self._path, self._stamp, self._offset, self.field(name).nbytes)

    def read_rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Read rows."""
        field = self.field(name)
        stop = max(start, min(stop, field.n_rows))
        try:
            self.check_unchanged()
            if not field.nbytes:
                return np.empty((stop - start, *field.row_shape), field.dtype)
            with open(self._path, "rb", buffering=0) as file:
                if self._fortran:
                    columns = ColumnRows(file.fileno(), self._offset, field.shape, field.stored_dtype)
                    return columns.read(start, stop).astype(field.dtype, copy=False)
                rows = np.empty((stop - start, *field.row_shape), field.stored_dtype)
                _fill(
                    file.fileno(), self._offset + start * rows[:1].nbytes, memoryview(rows.reshape(-1).view(np.uint8))
                )
                return rows.astype(field.dtype, copy=False)
        except (StoreFormatError, OSError) as exc:
            raise ChunkError(f"{self.address}, field {name!r}, rows {start} to {stop}: {exc}") from exc

    def check_unchanged(self) -> None:
        """Raise where the file is not the one that was opened."""
        check_stamp(self._path, self._stamp)

    def stamps(self) -> tuple[FileStamp, ...]:
        """Return the file's stamp."""
        return (self._stamp,)

    def close(self) -> None:
        """Nothing stays open."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path,)

    def _describe(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> FieldLayout:
        if dtype.hasobject:
            return unreadable("x", shape, "it holds pickled Python objects")
        reason = ""
        if self._fortran and sum(n > 1 for n in shape) > 1:
            reason = "Fortran order"
        elif not shape:
            reason = "not an array of rows"
        elif not direct_path_enabled():
            reason = "direct path switched off"
        path = "numpy" if reason else "direct"
        return FieldLayout("x", shape, native(dtype), dtype, None, read_path=path, reason=reason)  # type: ignore[arg-type]


class ColumnRows:
    """Rows of an array in Fortran order in a file, read column by column.

    A memory map would do, but for memory: each column that a row touches brings in pages around it, some 64 KiB.

    Parameters
    ----------
    descriptor, offset
        The file, and where the array begins in it.
    shape, dtype
        Of the array.

    """

    def __init__(self, descriptor: int, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._descriptor, self._offset, self._shape, self._dtype = descriptor, offset, shape, dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows, in C order. Thread-safe."""
        rows = np.empty((max(0, min(stop, self._shape[0]) - start), *self._shape[1:]), self._dtype)
        row_nbytes = rows[:1].nbytes
        if not row_nbytes:
            return rows
        step = max(1, _STRIP_NBYTES // row_nbytes)
        buffer = np.empty(min(step, len(rows)) * row_nbytes, np.uint8)
        for first in range(0, len(rows), step):
            n_rows = min(step, len(rows) - first)
            rows[first : first + n_rows] = self._gather(start + first, n_rows, buffer[: n_rows * row_nbytes])
        return rows

    def _gather(self, first: int, n_rows: int, buffer: NDArray[np.uint8]) -> NDArray[Any]:
        """Return rows as a view of a buffer that holds their columns one after the other."""
        itemsize = self._dtype.itemsize
        view, nbytes = memoryview(buffer), n_rows * itemsize
        for column, at in enumerate(range(0, len(buffer), nbytes)):
            offset = self._offset + (column * self._shape[0] + first) * itemsize
            _fill(self._descriptor, offset, view[at : at + nbytes])
        return buffer.view(self._dtype).reshape(*self._shape[:0:-1], n_rows).T


def _fill(descriptor: int, offset: int, wanted: memoryview) -> None:
    while len(wanted):
        n = os.preadv(descriptor, [wanted], offset)
        if not n:
            raise OSError(f"the file ends at byte {offset}, {len(wanted)} bytes too early")
        wanted, offset = wanted[n:], offset + n


def read_npy_header(stream: Any, label: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return (shape, whether in Fortran order, dtype) from the head of a ``.npy`` file.

    Raises
    ------
    StoreFormatError
        If it is something else, or claims more bytes than a file can have.

    """
    try:
        shape, fortran, dtype = _parse_header(stream)
        shape = tuple(map(index, shape))
        if min(shape, default=0) < 0 or prod(max(1, n) for n in shape) * max(1, dtype.itemsize) >= 2**63:
            raise ValueError(f"its header claims shape {tuple(shape)}")
    except Exception as exc:  # a damaged header is text that Python cannot parse, in as many ways as there are
        raise StoreFormatError(f"{label} must be a .npy array, and is not: {exc}") from exc
    return shape, bool(fortran), dtype


def _parse_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    (length,) = struct.unpack("<I", stream.read(4))
    if length > _MOST_HEADER_NBYTES:
        raise ValueError(f"its header claims {length} bytes")
    header = ast.literal_eval(stream.read(length).decode())  # version 3: as 2, in UTF-8
    return header["shape"], header["fortran_order"], np.lib.format.descr_to_dtype(header["descr"])
