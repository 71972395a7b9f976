"""IDX files, as MNIST has them, gzip or not.

Format: http://yann.lecun.com/exdb/mnist, "the IDX file format": two zero bytes, a type code, the number of
dimensions, each dimension as a big-endian 32-bit integer, then the items, big-endian, in C order.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.convert.sources.base import read_pieces
from oocload.errors import StoreFormatError

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class IdxSource:
    """An IDX file."""

    def __init__(self, path: str) -> None:
        self.label = path
        with _open(path) as stream:
            self.shape, self.dtype = _read_header(stream, path)

    def pieces(self, step: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows, ``step`` at a time."""
        with _open(self.label) as stream:
            _read_header(stream, self.label)
            yield from read_pieces(stream, self.label, self.shape, self.dtype, step)
            try:
                more = stream.read(1)
            except (EOFError, OSError, zlib.error) as exc:  # gzip checks its CRC at the end
                raise StoreFormatError(f"{self.label} is damaged or truncated: {exc}") from exc
            if more:
                raise StoreFormatError(f"{self.label} has more bytes than its header says; it is damaged")


def is_idx(path: str) -> bool:
    """Whether a file begins as an IDX file does."""
    try:
        with _open(path) as stream:
            start = stream.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return len(start) == 4 and start[:2] == b"\0\0" and start[2] in _DTYPES and 0 < start[3] <= 8


def _open(path: str) -> Any:
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else open(path, "rb")


def _read_header(stream: Any, path: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        _, _, code, n_dims = struct.unpack(">4B", stream.read(4))
        shape = struct.unpack(f">{n_dims}I", stream.read(4 * n_dims))
        return shape, np.dtype(_DTYPES[code])
    except (struct.error, KeyError, EOFError, OSError, zlib.error) as exc:
        raise StoreFormatError(f"{path} must be an IDX file, and its header is damaged") from exc
