"""NumPy's ``.npy`` and ``.npz`` files (format: numpy.lib.format, versions 1 to 3). Never unpickles."""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.convert.sources.base import read_pieces, truncated
from oocload.errors import StoreFormatError


class NpySource:
    """A ``.npy`` file, C or Fortran order."""

    def __init__(self, path: str) -> None:
        self.label = path
        with open(path, "rb") as file:
            self.shape, self._fortran, self.dtype = _read_header(file, path)
            self._offset = file.tell()
        wanted = self._offset + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        missing = wanted - os.stat(path).st_size
        if missing > 0 and not self.dtype.hasobject:
            raise truncated(path, missing)

    def pieces(self, step: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows, ``step`` at a time."""
        if self._fortran and len(self.shape) > 1:
            whole = np.memmap(self.label, self.dtype, "r", self._offset, self.shape, order="F")
            yield from (np.array(whole[i : i + step]) for i in range(0, self.shape[0], step))
            return
        with open(self.label, "rb", buffering=0) as file:
            file.seek(self._offset)
            yield from read_pieces(file, self.label, self.shape, self.dtype, step)


class NpzSource:
    """One array of a ``.npz`` file, decompressed as it is read."""

    def __init__(self, path: str, member: str) -> None:
        self.label = f"{path}::{member}"
        self._path = path
        self._member = member
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
            self.shape, self._fortran, self.dtype = _read_header(stream, self.label)

    def pieces(self, step: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows, ``step`` at a time; Fortran order passes through a temporary file."""
        with zipfile.ZipFile(self._path) as archive, archive.open(f"{self._member}.npy") as stream:
            _read_header(stream, self.label)
            if not (self._fortran and len(self.shape) > 1):
                yield from read_pieces(stream, self.label, self.shape, self.dtype, step)
                return
            with tempfile.TemporaryFile() as spool:
                for piece in read_pieces(stream, self.label, self.shape[::-1], self.dtype, step=1):
                    spool.write(piece)
                spool.flush()
                whole = np.memmap(spool, self.dtype, "r", 0, self.shape, order="F")
                yield from (np.array(whole[i : i + step]) for i in range(0, self.shape[0], step))


def npz_members(path: str) -> list[str]:
    """Return the names of the arrays of a ``.npz`` file.

    Raises
    ------
    StoreFormatError
        If it is no zip file.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as exc:
        raise StoreFormatError(f"{path} must be a .npz file, and is damaged or something else: {exc}") from exc
    return [name.removesuffix(".npy") for name in names if name.endswith(".npy")]


def _read_header(stream: Any, label: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, EOFError, OSError, zlib.error, zipfile.BadZipFile) as exc:
        raise StoreFormatError(f"{label} must be a .npy array, and is not: {exc}") from exc
    return tuple(shape), bool(fortran), dtype
