"""The files in tar archives, plain or gzip, in order; nothing is ever written to disk.

Format: POSIX.1-2001, pax, "ustar Interchange Format" and "pax Extended Header", and the long names and large sizes of
GNU tar.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from oocload.errors import StoreFormatError

_BLOCK = 512
_READ_NBYTES = 2**20
_FILES = {b"0", b"\0", b"7"}
_FOLDER, _LONG_NAME, _PAX, _PAX_GLOBAL = b"5", b"L", b"x", b"g"
_OTHERS = {b"1": "a link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_MOST_META = 2**20  # bytes of a name, or of what pax says beside it


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    data: bytes


class DamagedTarError(StoreFormatError):
    """What follows in an archive cannot be found."""


def is_tar(path: str) -> bool:
    """Whether a path has the suffix of an archive."""
    return path.lower().endswith(_SUFFIXES)


def members(path: str) -> Iterator[Member]:
    """Yield the files in an archive.

    Raises
    ------
    StoreFormatError
        If a member lies outside the archive by its name, or is neither file nor folder.
    DamagedTarError
        If the archive is damaged or truncated.

    """
    with open(path, "rb") as file:
        is_zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if is_zipped else open(path, "rb", buffering=_READ_NBYTES) as stream:
        yield from _members(_Tar(path, stream))


class _Tar:
    """An archive that is read from front to back."""

    def __init__(self, path: str, stream: Any) -> None:
        self.path, self._stream, self.at = path, stream, 0

    def read(self, nbytes: int) -> bytes:
        """Return some bytes, of which none may be missing."""
        try:
            found: bytes = self._stream.read(nbytes)
        except (EOFError, OSError, zlib.error) as exc:
            raise self.damaged(f"its compressed data is damaged: {exc}") from exc
        if len(found) < nbytes:
            raise self.damaged(f"it is truncated: {nbytes - len(found)} bytes are missing")
        self.at += nbytes
        return found

    def data(self, nbytes: int) -> bytes:
        """Return the data of a member, whose last block is filled up."""
        parts = [self.read(min(nbytes - i, _READ_NBYTES * 16)) for i in range(0, nbytes, _READ_NBYTES * 16)]
        self.read(-nbytes % _BLOCK)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def damaged(self, why: str) -> DamagedTarError:
        return DamagedTarError(f"{self.path}, byte {self.at}: {why}; copy or write it again")


def _members(tar: _Tar) -> Iterator[Member]:
    said: dict[str, str] = {}
    while (header := tar.read(_BLOCK)).count(0) != _BLOCK:
        kind, size = header[156:157], _number(tar, header[124:136])
        _check(tar, header)
        if kind in (_LONG_NAME, _PAX, _PAX_GLOBAL):
            if size > _MOST_META:
                raise tar.damaged(f"a name must have at most {_MOST_META} bytes, got {size}")
            data = tar.data(size)
            if kind == _LONG_NAME:
                said["path"] = _text(data)
            elif kind == _PAX:
                said |= _pax(tar, data)
            continue
        name = said.get("path") or _name(header)
        _refuse(tar, name, kind, said)
        data = tar.data(int(said["size"]) if said.get("size", "").isdecimal() else size)
        said = {}
        if kind != _FOLDER:
            yield Member(name, data)


def _check(tar: _Tar, header: bytes) -> None:
    """Raise where a header is none."""
    wanted = _number(tar, header[148:156])
    if sum(header) - sum(header[148:156]) + 8 * 32 != wanted:
        raise tar.damaged("its header is damaged: the checksum is another")


def _refuse(tar: _Tar, name: str, kind: bytes, said: dict[str, str]) -> None:
    what = _OTHERS.get(kind) or ("" if kind in _FILES or kind == _FOLDER else f"of type {kind!r}")
    if what or any(key.startswith("GNU.sparse") for key in said):
        raise StoreFormatError(f"{tar.path}: member {name!r} must be a file, got {what or 'a sparse one'}")
    if name.startswith("/") or ".." in name.split("/"):
        raise StoreFormatError(f"{tar.path}: member {name!r} must lie inside the archive, and its name points outside")


def _number(tar: _Tar, field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    try:
        return int(field.split(b"\0")[0].strip() or b"0", 8)
    except ValueError as exc:
        raise tar.damaged("its header is damaged: a number is none") from exc


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _pax(tar: _Tar, data: bytes) -> dict[str, str]:
    said, at = {}, 0
    while at < len(data.rstrip(b"\0")):
        length, _, _ = data[at:].partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data) - at:
            raise tar.damaged("its extended header is damaged")
        key, _, value = data[at + len(length) + 1 : at + int(length) - 1].partition(b"=")
        said[_text(key)] = _text(value)
        at += int(length)
    return said


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("utf-8", "surrogateescape")
