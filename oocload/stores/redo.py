"""A redo log: pages of a file that are to be written as one step, whatever happens in between.

The log appears whole, by one rename, which is the moment from which the step counts as done; then its pages are
written to the file. Whoever finds a log writes its pages again: doing that twice changes nothing. A log says what each
page held before, so one that belongs to another file, or to what this one held long ago, is never written to it.
Nothing is synced: a process that is killed loses nothing, a machine that loses power may.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable
from typing import NamedTuple

import google_crc32c

_MAGIC = b"oocredo\n"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQQ")  # magic, version, number of pages, end of the file, bytes of the note
_PAGE = struct.Struct("<QII")  # offset, bytes, crc32c of what the file held there
_CRC = struct.Struct("<I")


class Page(NamedTuple):
    """Bytes for one place of a file, and the crc32c of those that they replace."""

    offset: int
    before: int
    data: bytes


class _Log(NamedTuple):
    end: int
    note: bytes
    pages: list[Page]


def write_redo(log_path: str | os.PathLike[str], end: int, pages: Iterable[Page], note: bytes = b"") -> None:
    """Write a log; it is there from the rename at the end on, and before that the one that it replaces.

    Parameters
    ----------
    log_path
        Where the log will be; it is made beside it, under a temporary name.
    end
        Length of the file once the pages are written.
    pages
        In any order, without overlaps, none beyond ``end``.
    note
        Whatever the caller wants to find again with this state of the file.

    Raises
    ------
    OSError
        If it cannot be written; the log that was there stays.

    """
    blocks = [note]
    for page in pages:
        blocks += [_PAGE.pack(page.offset, len(page.data), page.before), page.data]
    blocks.insert(0, _HEADER.pack(_MAGIC, _VERSION, len(blocks) // 2, end, len(note)))
    content = b"".join(blocks)
    temporary = f"{os.fspath(log_path)}.new"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.write(_CRC.pack(google_crc32c.value(content)))
        os.replace(temporary, log_path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def recover(path: str | os.PathLike[str], log_path: str | os.PathLike[str]) -> bytes | None:
    """Bring a file to the state that its log describes.

    Returns
    -------
    bytes or None
        The note of the log; None, and nothing is touched, where there is no log, or it is torn, or not of this file.

    Raises
    ------
    OSError
        If the file cannot be written; the log stays, and recovery can be tried again.

    """
    log = _read(log_path)
    if log is None:
        return None
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if not _belongs(log, fd):
            return None
        apply(fd, log.end, log.pages)
    finally:
        os.close(fd)
    return log.note


def apply(fd: int, end: int, pages: Iterable[Page]) -> None:
    """Write the pages of a log to its file, and give that its length."""
    for page in pages:
        write_at(fd, page.data, page.offset)
    if os.fstat(fd).st_size != end:
        os.ftruncate(fd, end)


def write_at(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of some bytes; the system may take fewer at a time."""
    view = memoryview(data).cast("B")
    while len(view):
        n_written = os.pwrite(fd, view, offset)
        view, offset = view[n_written:], offset + n_written


def _read(log_path: str | os.PathLike[str]) -> _Log | None:
    """Return a log, or None where it is not whole."""
    try:
        with open(log_path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return None
    body, tail = content[: -_CRC.size], content[-_CRC.size :]
    if len(body) < _HEADER.size or google_crc32c.value(body) != _CRC.unpack(tail)[0]:
        return None
    magic, version, n_pages, end, n_note = _HEADER.unpack_from(body)
    if magic != _MAGIC or version != _VERSION:
        return None
    at = _HEADER.size + n_note
    note, pages = body[_HEADER.size : at], []
    for _ in range(n_pages):
        offset, nbytes, before = _PAGE.unpack_from(body, at)
        at += _PAGE.size + nbytes
        pages.append(Page(offset, before, body[at - nbytes : at]))
    return _Log(end, note, pages)


def _belongs(log: _Log, fd: int) -> bool:
    """Whether a file holds, at each page, what was there before the log was written or what the log puts there."""
    if os.fstat(fd).st_size < log.end:
        return False
    for page in log.pages:
        held = os.pread(fd, len(page.data), page.offset)
        if held != page.data and google_crc32c.value(held) != page.before:
            return False
    return True
