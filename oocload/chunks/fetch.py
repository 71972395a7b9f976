"""Stored bytes from disk, by `preadv` into buffers that exist already, outside the GIL and any library's lock."""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from oocload.chunks.scratch import Bytes
from oocload.layout import FileStamp

_MAX_BUFFERS = 1024  # IOV_MAX on Linux
_SLOW = 1.0e9  # bytes per second of one thread's reads: below, they come from disk
_LEAST_NOTED = 64 * 1024
_READS_AFTER_A_SLOW_ONE = 64  # what is announced is read fast: that alone does not mean that it is in memory


@dataclass
class _Open:
    """An open file, and how many reads of it are under way."""

    descriptor: int
    n_reads: int = 0


class Files:
    """Descriptors of the files of one field; those used last stay open.

    Reading names its offset, so descriptors may cross a fork and serve many threads.

    Parameters
    ----------
    keep_open
        How many descriptors stay open until `close`, beside those in use.
    stamp
        What every file read must still be, or None where nobody knows.

    """

    def __init__(self, keep_open: int, stamp: FileStamp | None = None) -> None:
        self._keep_open = keep_open
        self._stamp = stamp
        self._n_from_disk = 0  # reads until reads are held to come from memory
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()
        # Threads that nobody could wait for may still read: what they use goes when they do.
        weakref.finalize(self, _close_idle, self._open, 0).atexit = False

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """Open a file for some reads, and see afterwards that it did not change meanwhile.

        Raises
        ------
        OSError
            If the file cannot be opened, or is not the one that was opened first.

        """
        file = self._take(path)
        try:
            yield file.descriptor
        finally:
            changed = self._stamp is not None and FileStamp.of(os.fstat(file.descriptor)) != self._stamp
            self._give_back(file)
            if changed:
                raise OSError("it has changed since it was opened; open it anew")

    @property
    def from_disk(self) -> bool:
        """Whether one of the last reads was slow enough to have come from disk."""
        return self._n_from_disk > 0

    def note(self, nbytes: int, seconds: float) -> None:
        """Note how long a read took; small ones tell nothing."""
        if nbytes < _LEAST_NOTED:
            return
        slow = nbytes < _SLOW * seconds
        self._n_from_disk = _READS_AFTER_A_SLOW_ONE if slow else max(0, self._n_from_disk - 1)

    def announce(self, path: str, ranges: Iterable[tuple[int, int]]) -> None:
        """Let the kernel fetch ranges (offset, bytes) of a file while others are read, and nothing around them.

        Worth it for what comes from disk alone: a range that is in memory costs some microseconds of looking.

        Raises
        ------
        OSError
            If the file cannot be opened.

        """
        file = self._take(path)
        try:
            os.posix_fadvise(file.descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            for offset, nbytes in ranges:
                os.posix_fadvise(file.descriptor, offset, nbytes, os.POSIX_FADV_WILLNEED)
        finally:
            self._give_back(file)

    def close(self) -> None:
        """Close what no read uses; a later read opens it again."""
        with self._lock:
            _close_idle(self._open, 0)

    def _open_file(self, path: str) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno != errno.EMFILE:
                raise
            _close_idle(self._open, 0)
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _give_back(self, file: _Open) -> None:
        with self._lock:
            file.n_reads -= 1
            _close_idle(self._open, self._keep_open)

    def _take(self, path: str) -> _Open:
        with self._lock:
            file = self._open.get(path)
            if file is None:
                file = self._open[path] = _Open(self._open_file(path))
            else:
                self._open.move_to_end(path)
            file.n_reads += 1
            return file


def _close_idle(files: OrderedDict[str, _Open], n_kept: int) -> None:
    """Close the files used longest ago that no read uses, until so many are left."""
    if len(files) <= n_kept:
        return
    for path in [path for path, file in files.items() if not file.n_reads][: len(files) - n_kept]:
        os.close(files.pop(path).descriptor)


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
