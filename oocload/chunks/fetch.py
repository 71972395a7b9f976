"""Stored bytes from disk, by `preadv` into buffers that exist already, outside the GIL and any library's lock."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from oocload.chunks.scratch import Bytes
from oocload.layout import FileStamp

_MAX_BUFFERS = 1024  # IOV_MAX on Linux


class Files:
    """Descriptors of the files of one field: one that holds many chunks stays open, a chunk's own does not.

    Reading names its offset, so descriptors may cross a fork and serve many threads.

    Parameters
    ----------
    keep_open
        Whether descriptors stay open until `close`.
    stamp
        What every file read must still be, or None where nobody knows.

    """

    def __init__(self, keep_open: bool, stamp: FileStamp | None = None) -> None:
        self._keep_open = keep_open
        self._stamp = stamp
        self._descriptors: dict[str, int] = {}
        self._lock = threading.Lock()
        # Threads that nobody could wait for may still read: what they use goes when they do.
        weakref.finalize(self, _close_all, self._descriptors).atexit = False

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """Open a file for some reads, and see afterwards that it did not change meanwhile.

        Raises
        ------
        OSError
            If the file cannot be opened, or is not the one that was opened first.

        """
        descriptor = self._descriptor(path) if self._keep_open else _open(path)
        try:
            try:
                yield descriptor
            finally:
                if self._stamp is not None and FileStamp.of(os.fstat(descriptor)) != self._stamp:
                    raise OSError("it has changed since it was opened; open it anew")
        finally:
            if not self._keep_open:
                os.close(descriptor)

    def close(self) -> None:
        """Close what is open; a later read opens it again."""
        with self._lock:
            _close_all(self._descriptors)

    def _descriptor(self, path: str) -> int:
        if (descriptor := self._descriptors.get(path)) is not None:
            return descriptor
        with self._lock:
            if path not in self._descriptors:
                self._descriptors[path] = _open(path)
            return self._descriptors[path]


def _close_all(descriptors: dict[str, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def read_all(descriptor: int, offset: int, buffers: Sequence[Any]) -> None:
    """Fill writable buffers, one after the other, from a file.

    Raises
    ------
    OSError
        If the file cannot be read, or ends too early.

    """
    if len(buffers) > _MAX_BUFFERS:
        for first in range(0, len(buffers), _MAX_BUFFERS):
            part = buffers[first : first + _MAX_BUFFERS]
            read_all(descriptor, offset, part)
            offset += sum(map(len, part))
        return
    got = os.preadv(descriptor, buffers, offset)
    if got < sum(map(len, buffers)):
        _read_rest(descriptor, offset, buffers, got)


def _read_rest(descriptor: int, offset: int, buffers: Sequence[Bytes], got: int) -> None:
    """Go on after a short read, which the kernel may return at 2 GiB or on a signal."""
    for buffer in buffers:
        have = min(got, len(buffer))
        got -= have
        while have < len(buffer):
            n = os.preadv(descriptor, [buffer[have:]], offset + have)
            if n == 0:
                raise OSError(f"the file ends at byte {offset + have}, {len(buffer) - have} bytes too early")
            have += n
        offset += len(buffer)
