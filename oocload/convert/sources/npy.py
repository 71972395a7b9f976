"""NumPy's ``.npz`` files: zip files of ``.npy`` arrays; and arrays in Fortran order. Never unpickles."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.fetch import read_all
from oocload.chunks.scratch import Scratch
from oocload.convert.sources.ahead import ReadAhead, ReadRows
from oocload.convert.sources.base import ArraySource
from oocload.convert.sources.fresh import fresh_rows
from oocload.convert.sources.identity import Identity, array_identity, file_facts
from oocload.convert.sources.streams import SKIPPED_NBYTES, StreamSource, fill, reading
from oocload.errors import ChunkError, StoreFormatError
from oocload.stores.npy import read_npy_header

_STRIP_NBYTES = 4 * 2**20  # of rows that are gathered column by column


class NpzSource(StreamSource):
    """One array of a ``.npz`` file, decompressed as it is read."""

    def __init__(self, path: str, member: str) -> None:
        self.label = f"{path}::{member}"
        self._path = os.path.abspath(path)
        self._member = member
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
            self.shape, fortran, self.dtype = read_npy_header(stream, self.label)
        self._by_columns = fortran and len(self.shape) > 1

    @property
    def scratch_nbytes(self) -> int:
        """What is read and dropped, or gathered."""
        return max(_STRIP_NBYTES, self.row_nbytes) if self._by_columns else SKIPPED_NBYTES

    def identity(self) -> Identity:
        """Return shape and dtype, and the file's size and time."""
        return array_identity(self.shape, self.dtype, [file_facts(self._path)], member=self._member)

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open the stream, at the first row."""
        with zipfile.ZipFile(self._path) as archive, archive.open(f"{self._member}.npy") as stream:
            read_npy_header(stream, self.label)
            yield stream

    def check_end(self, stream: Any) -> None:
        """Raise where the checksum is another; zipfile looks at the end."""
        reading(self.label, lambda: len(stream.read(1)))

    def reader(self, start: int, stop: int, ahead: ReadAhead) -> ReadRows:
        """Return what reads rows one after the other; Fortran order passes through a temporary file."""
        if not self._by_columns:
            return super().reader(start, stop, ahead)
        spool: list[_Columns] = []

        def read(start: int, stop: int, scratch: Scratch) -> NDArray[Any]:
            if not spool:
                file = tempfile.TemporaryFile()  # noqa: SIM115  it is closed with the threads
                ahead.callback(file.close)
                self._copy(file)
                spool.append(_Columns(file.fileno(), 0, self.shape, self.dtype))
            return spool[0].read(start, stop, scratch)

        return read

    def _copy(self, file: Any) -> None:
        left = self.n_rows * self.row_nbytes
        buffer = memoryview(bytearray(min(left, SKIPPED_NBYTES)))
        with self.open() as stream:
            while left:
                part = buffer[: min(left, len(buffer))]
                fill(stream, self.label, part)
                file.write(part)
                left -= len(part)
            self.check_end(stream)
        file.flush()


class FortranSource(ArraySource):
    """A ``.npy`` file in Fortran order."""

    readers = "many"

    def __init__(self, path: str) -> None:
        self.label = path
        self._path = os.path.abspath(path)
        self._facts = file_facts(self._path)
        with open(path, "rb") as file:
            self.shape, _, self.dtype = read_npy_header(file, path)
            self._offset = file.tell()

    @property
    def scratch_nbytes(self) -> int:
        """What is gathered at a time."""
        return max(_STRIP_NBYTES, self.row_nbytes)

    def identity(self) -> Identity:
        """Return shape and dtype, and the file's size and time."""
        return array_identity(self.shape, self.dtype, [self._facts])

    def reader(self, start: int, stop: int, ahead: ReadAhead) -> ReadRows:
        """Return what gathers rows; any thread may."""
        file = open(self._path, "rb")  # noqa: SIM115  it is closed with the threads
        ahead.callback(file.close)
        columns = _Columns(file.fileno(), self._offset, self.shape, self.dtype)

        def read(start: int, stop: int, scratch: Scratch) -> NDArray[Any]:
            try:
                rows = columns.read(start, stop, scratch)
            except OSError as exc:
                raise ChunkError(f"{self.label}, rows {start} to {stop}: {exc}") from exc
            if file_facts(self._path) != self._facts:
                raise ChunkError(f"{self.label} has changed since it was opened; open it anew")
            return rows

        return read


class _Columns:
    """Rows of an array in Fortran order, read column by column.

    A memory map would do, but for memory: each column that a row touches brings in pages around it, some 64 KiB.
    """

    def __init__(self, descriptor: int, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._descriptor, self._offset, self._shape, self._dtype = descriptor, offset, shape, dtype

    def read(self, start: int, stop: int, scratch: Scratch) -> NDArray[Any]:
        rows = fresh_rows((stop - start, *self._shape[1:]), self._dtype)
        row_nbytes = rows[:1].nbytes
        if not row_nbytes:
            return rows
        step = max(1, _STRIP_NBYTES // row_nbytes)
        for first in range(start, stop, step):
            last = min(stop, first + step)
            gathered = self._gather(first, last, scratch.get("columns", (last - first) * row_nbytes))
            rows[first - start : last - start] = gathered
        return rows

    def _gather(self, first: int, last: int, buffer: NDArray[np.uint8]) -> NDArray[Any]:
        """Return rows, as a view of a buffer that holds their columns one after the other."""
        itemsize = self._dtype.itemsize
        nbytes = (last - first) * itemsize
        for at in range(0, len(buffer), nbytes):
            column = at // nbytes
            read_all(
                self._descriptor,
                self._offset + (column * self._shape[0] + first) * itemsize,
                [buffer[at : at + nbytes]],
            )
        return buffer.view(self._dtype).reshape(*self._shape[:0:-1], last - first).T


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
