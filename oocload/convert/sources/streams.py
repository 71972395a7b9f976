"""Arrays that lie in a binary stream, which is read from front to back: what comes before a row is read and dropped."""

from __future__ import annotations

import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.convert.sources.ahead import ReadAhead, ReadRows
from oocload.convert.sources.base import ArraySource
from oocload.convert.sources.fresh import fresh_rows
from oocload.errors import StoreFormatError

SKIPPED_NBYTES = 2**20  # at a time


class StreamSource(ArraySource):
    """An array in a stream. One thread reads it."""

    can_jump = False

    @abstractmethod
    def open(self) -> Any:
        """Return the stream, at the first row; it is a context manager."""

    @abstractmethod
    def check_end(self, stream: Any) -> None:
        """Raise where what follows the last row is not what belongs there."""

    @property
    def scratch_nbytes(self) -> int:
        """What passes on the way to the first row that is wanted."""
        return SKIPPED_NBYTES

    def reader(self, start: int, stop: int, ahead: ReadAhead) -> ReadRows:
        """Return what reads rows one after the other; the stream is opened by the first of them."""
        read = _StreamReader(self, start)
        ahead.callback(read.close)
        return read

    def skip(self, stream: Any, nbytes: int) -> None:
        """Go on in the stream by some bytes."""
        skip(stream, self.label, nbytes)


class _StreamReader:
    """Reads rows of one stream, one after the other."""

    def __init__(self, source: StreamSource, start: int) -> None:
        self._source = source
        self._start = start
        self._opened = ExitStack()
        self._stream: Any = None

    def __call__(self, start: int, stop: int, scratch: Scratch) -> NDArray[Any]:
        source = self._source
        if self._stream is None:
            self._stream = self._opened.enter_context(source.open())
            source.skip(self._stream, self._start * source.row_nbytes)
        rows = fresh_rows((stop - start, *source.shape[1:]), source.dtype)
        fill(self._stream, source.label, memoryview(rows.reshape(-1).view(np.uint8)))
        if stop == source.n_rows:
            source.check_end(self._stream)
        return rows

    def close(self) -> None:
        self._opened.close()


def skip(stream: Any, label: str, nbytes: int) -> None:
    """Read and drop some bytes."""
    buffer = memoryview(bytearray(min(nbytes, SKIPPED_NBYTES)))
    while nbytes:
        n = min(nbytes, len(buffer))
        fill(stream, label, buffer[:n])
        nbytes -= n


def fill(stream: Any, label: str, wanted: memoryview) -> None:
    """Read as many bytes as there is room for.

    Raises
    ------
    StoreFormatError
        If the stream ends too early, or cannot be decompressed.

    """
    while len(wanted):
        n = reading(label, partial(stream.readinto, wanted))
        if not n:
            raise StoreFormatError(f"{label} is truncated: {len(wanted)} bytes are missing; copy or write it again")
        wanted = wanted[n:]


def reading(label: str, read: Callable[[], int]) -> int:
    """Return what a read of a stream returns.

    Raises
    ------
    StoreFormatError
        If the stream cannot be decompressed.

    """
    try:
        return read()
    except (EOFError, OSError, ValueError, zlib.error, zipfile.BadZipFile) as exc:  # gzip and zip say so in these ways
        raise StoreFormatError(f"{label} is damaged or truncated: {exc}") from exc
