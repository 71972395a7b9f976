"""NumPy's ``.npz`` files: zip files of ``.npy`` arrays. Never unpickles."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.convert.sources.ahead import ReadAhead, ReadRows
from oocload.convert.sources.identity import Identity, array_identity, file_facts
from oocload.convert.sources.streams import SKIPPED_NBYTES, StreamSource, fill, reading
from oocload.errors import StoreFormatError
from oocload.stores.npy import ColumnRows, read_npy_header


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
        return max(SKIPPED_NBYTES, self.row_nbytes)

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
        spool: list[ColumnRows] = []

        def read(start: int, stop: int, scratch: Scratch) -> NDArray[Any]:
            if not spool:
                file = tempfile.TemporaryFile()  # noqa: SIM115  it is closed with the threads
                ahead.callback(file.close)
                self._copy(file)
                spool.append(ColumnRows(file.fileno(), 0, self.shape, self.dtype))
            return spool[0].read(start, stop)

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
