"""IDX files, as MNIST has them, gzip or not.

Format: http://yann.lecun.com/exdb/mnist, "the IDX file format": two zero bytes, a type code, the number of
dimensions, each dimension as a big-endian 32-bit integer, then the items, big-endian, in C order.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from typing import Any

import numpy as np

from oocload.convert.sources.identity import Identity, array_identity, file_facts
from oocload.convert.sources.streams import StreamSource, reading
from oocload.errors import StoreFormatError

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class IdxSource(StreamSource):
    """An IDX file."""

    def __init__(self, path: str) -> None:
        self.label = path
        self._path = os.path.abspath(path)
        self.can_jump = not _is_zipped(path)
        with _open(path) as stream:
            self.shape, self.dtype = _read_header(stream, path)

    def identity(self) -> Identity:
        """Return shape and dtype, and the file's size and time."""
        return array_identity(self.shape, self.dtype, [file_facts(self._path)])

    def open(self) -> Any:
        """Return the stream, at the first row."""
        stream = _open(self._path)
        try:
            _read_header(stream, self.label)
        except BaseException:
            stream.close()
            raise
        return stream

    def skip(self, stream: Any, nbytes: int) -> None:
        """Go on by some bytes: at once, where the file is not compressed."""
        if self.can_jump:
            stream.seek(nbytes, os.SEEK_CUR)
        else:
            super().skip(stream, nbytes)

    def check_end(self, stream: Any) -> None:
        """Raise where more follows, or gzip's checksum is another."""
        if reading(self.label, lambda: len(stream.read(1))):
            raise StoreFormatError(f"{self.label} has more bytes than its header says; it is damaged")


def is_idx(path: str) -> bool:
    """Whether a file begins as an IDX file does."""
    try:
        with _open(path) as stream:
            start = stream.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return len(start) == 4 and start[:2] == b"\0\0" and start[2] in _DTYPES and 0 < start[3] <= 8


def _is_zipped(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _open(path: str) -> Any:
    return gzip.open(path, "rb") if _is_zipped(path) else open(path, "rb")


def _read_header(stream: Any, path: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        _, _, code, n_dims = struct.unpack(">4B", stream.read(4))
        shape = struct.unpack(f">{n_dims}I", stream.read(4 * n_dims))
        return shape, np.dtype(_DTYPES[code])
    except (struct.error, KeyError, EOFError, OSError, zlib.error) as exc:
        raise StoreFormatError(f"{path} must be an IDX file, and its header is damaged") from exc
