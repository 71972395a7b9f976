"""A file object for h5py that only ever leaves whole commits on disk.

HDF5 changes its index in many places of a file, and a process that dies in between leaves a file that nobody can open.
Here, what lies beyond the end of the last commit is written at once, as no reader of that state looks there; what lies
before it is held in memory, as pages, until a commit puts them into a redo log and then into the file (`stores.redo`).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import google_crc32c

from oocload.stores.redo import Page, apply, write_at, write_redo

_PAGE_NBYTES = 4096


class CrashSafeFile(io.RawIOBase):
    """A file for ``h5py.File(crash_safe_file, mode)``, whose changes count from `commit` on.

    After a crash, `oocload.stores.redo.recover` brings the file to the last commit. Not thread-safe: h5py calls it
    under its own lock, and `commit` must be called where h5py is not at work.

    Parameters
    ----------
    path
        A file that is made where it does not exist; of one that does, the length it has is the first commit's.
    log
        Where the redo log will be. It stays after a commit, as what names the end of the file, and after `close`.

    Attributes
    ----------
    failure
        The first error of the disk. HDF5 cannot close a file once a write of its index failed, so it is not told: the
        file is abandoned instead, and `check` and `commit` raise.
    committed
        Length of the file at the last commit.

    """

    def __init__(self, path: str | os.PathLike[str], log: str | os.PathLike[str]) -> None:
        super().__init__()
        self.failure: OSError | None = None
        self._fd = -1
        self._log = os.fspath(log)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._end = self.committed = os.fstat(self._fd).st_size
        self._held_below = self.committed  # what is written before this offset is held; after `abandon`, all of it
        self._kept = self.committed  # of the bytes of the commit, those that no truncation has cut off since
        self._pages: dict[int, bytearray] = {}
        self._position = 0
        self._abandoned = False
        self._in_step = False  # whether a log may be there that the file does not follow yet

    @property
    def held_nbytes(self) -> int:
        """Bytes of the pages in memory."""
        return len(self._pages) * _PAGE_NBYTES

    def commit(self, note: bytes = b"") -> None:
        """Make what was written so far the state that a crash leaves; call ``h5py_file.flush()`` before.

        Parameters
        ----------
        note
            What `recover` will return with this state.

        Raises
        ------
        OSError
            If the disk failed, now or in a write since the last commit, which then remains the last one.
        ValueError
            If the file was abandoned.

        """
        self.check()
        if self._abandoned:
            raise ValueError("an abandoned file must not be committed; open it anew")
        try:
            pages = list(self._changes())
            self._in_step = True
            try:
                write_redo(self._log, self._end, pages, note)
            except OSError:
                self._in_step = False
                raise
            apply(self._fd, self._end, pages)
            self._in_step = False
        except OSError as exc:
            self._fail(exc)
            raise
        self._pages.clear()
        self.committed = self._held_below = self._kept = self._end

    def check(self) -> None:
        """Raise what the disk said, if anything; call it after each large write, as from then on memory takes them.

        Raises
        ------
        OSError
            The first error of the disk.

        """
        if self.failure is not None:
            raise self.failure

    def abandon(self) -> None:
        """Let nothing reach the disk any more: h5py can close the file, which stays at its last commit.

        What is written from now on is held in memory, where h5py may look for it, until `close`.
        """
        if self._abandoned:
            return
        self._abandoned = True
        boundary = self._held_below
        self._held_below = 1 << 62
        page = self._pages.get(boundary // _PAGE_NBYTES)
        if page is not None:  # so far, only what lies before the boundary was of interest in it
            self._read_file(memoryview(page)[boundary % _PAGE_NBYTES :], boundary)

    def _changes(self) -> Iterator[Page]:
        """Yield the pages that a commit must write, each up to the end of the last commit."""
        stop = min(self.committed, self._end)
        if self._kept < stop:  # cut off and grown over since: zeros, which the file does not hold yet
            for number in range(self._kept // _PAGE_NBYTES, -(-stop // _PAGE_NBYTES)):
                self._page(number)
        for number, page in sorted(self._pages.items()):
            offset = number * _PAGE_NBYTES
            data = bytes(page[: max(0, stop - offset)])
            if data:
                yield Page(offset, google_crc32c.value(os.pread(self._fd, len(data), offset)), data)

    # What h5py calls.

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to an offset from the start, from here or from the end."""
        self._position = offset + (0, self._position, self._end)[whence]
        return self._position

    def tell(self) -> int:
        """Return where the next byte is read or written."""
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer, with zeros beyond the end: h5py does not look at what this returns."""
        view = memoryview(buffer).cast("B")
        start, stop = self._position, min(self._position + len(view), max(self._end, self._position))
        view[stop - start :] = bytes(len(view) - (stop - start))
        inside = view[: stop - start]
        self._read_file(inside, start)
        for number, first, last in self._overlaid(start, stop):
            at = number * _PAGE_NBYTES
            inside[first - start : last - start] = self._pages[number][first - at : last - at]
        self._position = stop
        return stop - start

    def write(self, data: Any, /) -> int:
        """Write all of some bytes: to the file where they lie beyond the last commit, else into pages."""
        view = memoryview(data).cast("B")
        start, stop = self._position, self._position + len(view)
        n_held = min(max(self._held_below - start, 0), len(view))
        if n_held:
            self._hold(view[:n_held], start)
        if n_held < len(view):
            try:
                write_at(self._fd, view[n_held:], start + n_held)
            except OSError as exc:
                self._fail(exc)
                self._hold(view[n_held:], start + n_held)
        self._end = max(self._end, stop)
        self._position = stop
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        """Give the file a length; bytes of the last commit are cut off at the next one."""
        size = self._position if size is None else size
        if not self._abandoned and size != self._end:
            try:
                os.ftruncate(self._fd, max(size, self.committed))
            except OSError as exc:
                self._fail(exc)
        if size < self._end:
            self._kept = min(self._kept, size)
            self._cut_pages(size)
        self._end = size
        return size

    def close(self) -> None:
        """Close the file; what was not committed is lost, and its space given back. A second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._pages.clear()
            try:
                if not self._in_step and os.fstat(fd).st_size > self.committed:
                    os.ftruncate(fd, self.committed)
            finally:
                os.close(fd)
        super().close()

    def _fail(self, exc: OSError) -> None:
        self.failure = self.failure or exc
        self.abandon()

    def _hold(self, view: memoryview, start: int) -> None:
        stop = start + len(view)
        for number in range(start // _PAGE_NBYTES, -(-stop // _PAGE_NBYTES)):
            at = number * _PAGE_NBYTES
            first, last = max(start, at), min(stop, at + _PAGE_NBYTES)
            is_whole = last - first == _PAGE_NBYTES
            page = self._pages.setdefault(number, bytearray(_PAGE_NBYTES)) if is_whole else self._page(number)
            page[first - at : last - at] = view[first - start : last - start]

    def _page(self, number: int) -> bytearray:
        """Return a page that is held, filled with what the file has there."""
        page = self._pages.get(number)
        if page is None:
            page = bytearray(_PAGE_NBYTES)
            start = number * _PAGE_NBYTES
            stop = min(start + _PAGE_NBYTES, max(self._end, start))
            self._read_file(memoryview(page)[: stop - start], start)
            self._pages[number] = page
        return page

    def _read_file(self, view: memoryview, start: int) -> None:
        """Fill a view with what the file holds, short of pages; of a part that was cut off and grown over, zeros."""
        stop = start + len(view)
        n_read = 0
        while n_read < len(view):
            n = os.preadv(self._fd, [view[n_read:]], start + n_read)
            if n == 0:
                view[n_read:] = bytes(len(view) - n_read)
                break
            n_read += n
        first, last = max(start, self._kept), min(stop, self.committed)
        if first < last:
            view[first - start : last - start] = bytes(last - first)

    def _overlaid(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the pages that cover some range, and which part of it each covers."""
        numbers = range(start // _PAGE_NBYTES, -(-stop // _PAGE_NBYTES))
        for number in numbers if len(numbers) <= len(self._pages) else sorted(self._pages):
            if number in self._pages and number in numbers:
                at = number * _PAGE_NBYTES
                first, last = max(start, at), min(stop, at + _PAGE_NBYTES, max(self._held_below, start))
                if first < last:
                    yield number, first, last

    def _cut_pages(self, size: int) -> None:
        """Forget what pages hold from an offset on."""
        for number in [n for n in self._pages if (n + 1) * _PAGE_NBYTES > size]:
            at = number * _PAGE_NBYTES
            if at >= size:
                del self._pages[number]
            else:
                self._pages[number][size - at :] = bytes(at + _PAGE_NBYTES - size)
