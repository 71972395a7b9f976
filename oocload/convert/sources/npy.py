"""NumPy's ``.npz`` files: zip files of ``.npy`` arrays. Never unpickles."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.convert.sources.base import read_pieces
from oocload.errors import StoreFormatError
from oocload.stores.npy import read_npy_header


class NpzSource:
    """One array of a ``.npz`` file, decompressed as it is read."""

    def __init__(self, path: str, member: str) -> None:
        self.label = f"{path}::{member}"
        self._path = path
        self._member = member
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
            self.shape, self._fortran, self.dtype = read_npy_header(stream, self.label)

    def pieces(self, step: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows, ``step`` at a time; Fortran order passes through a temporary file."""
        with zipfile.ZipFile(self._path) as archive, archive.open(f"{self._member}.npy") as stream:
            read_npy_header(stream, self.label)
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
