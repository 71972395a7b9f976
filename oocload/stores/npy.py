"""NumPy's ``.npy`` files as stores of one field, ``x`` (format: numpy.lib.format, versions 1 to 3). Never unpickles."""

from __future__ import annotations

import ast
import os
import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.errors import ChunkError, StoreFormatError, StoreNotFoundError
from oocload.layout import ChunkLocations, FieldLayout, FileStamp
from oocload.stores.base import Store, check_stamp, direct_path_enabled, native, unreadable
from oocload.stores.chunk_table import ChunkTable

_MOST_HEADER_NBYTES = 10_000  # of a header that is parsed, as in NumPy


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
        """Read rows through a memory map."""
        field = self.field(name)
        try:
            self.check_unchanged()
        except StoreFormatError as exc:
            raise ChunkError(f"{self.address}, field {name!r}, rows {start} to {stop}: {exc}") from exc
        if not field.nbytes:
            return np.empty((stop - start, *field.row_shape), field.dtype)
        shape = field.shape[::-1] if self._fortran else field.shape
        stored = np.memmap(self._path, field.stored_dtype, "r", self._offset, shape)
        whole = stored.T if self._fortran else stored
        return np.array(whole[start:stop], dtype=field.dtype, order="C")

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


def read_npy_header(stream: Any, label: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return (shape, whether in Fortran order, dtype) from the head of a ``.npy`` file.

    Raises
    ------
    StoreFormatError
        If it is something else, or claims more bytes than a file can have.

    """
    try:
        shape, fortran, dtype = _parse_header(stream)
        if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize >= 2**63:
            raise ValueError(f"its header claims shape {tuple(shape)}")
    except Exception as exc:  # a damaged header is text that Python cannot parse, in as many ways as there are
        raise StoreFormatError(f"{label} must be a .npy array, and is not: {exc}") from exc
    return tuple(shape), bool(fortran), dtype


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
