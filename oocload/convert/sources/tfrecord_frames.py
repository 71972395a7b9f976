"""The framing of TFRecord files, plain or compressed: blocks of whole records, and where each of them lies.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details"; in a GZIP or ZLIB file the
same stream is compressed as a whole::

    uint64 length | uint32 masked crc32c of length | data | uint32 masked crc32c of data
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Bytes
from oocload.errors import StoreFormatError

_LENGTH = struct.Struct("<QI")
_CRC_NBYTES = 4
_MASK_DELTA = 0xA282EAD8
FRAME_NBYTES = _LENGTH.size + _CRC_NBYTES
_INFLATED_NBYTES = 2**18  # of compressed bytes, that are read at a time


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records of one file.

    Attributes
    ----------
    path
        The file.
    first
        Number of the first record in it, from 0.
    offset
        Where ``data`` begins in the file, or in what it decompresses to.
    data
        The bytes, with the frames.
    starts, ends
        Where the data of each record lies in them.
    damage
        Why the records after these cannot be found; empty where they can.

    """

    path: str
    first: int
    offset: int
    data: Bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    damage: str = ""

    def where(self, record: int) -> str:
        """Return what a record is called in errors; 0 is the first of this block."""
        at = int(self.starts[record]) - _LENGTH.size if record < len(self.starts) else self._end
        return f"{self.path}, record {self.first + record} at byte {self.offset + at}"

    @property
    def _end(self) -> int:
        return int(self.ends[-1]) + _CRC_NBYTES if len(self.ends) else 0

    def damaged(self) -> dict[int, str]:
        """Return number → what is wrong, of the records whose checksum is not that of their data."""
        crc, data = google_crc32c.value, self.data
        bad = {}
        for i, (start, end) in enumerate(zip(self.starts.tolist(), self.ends.tolist(), strict=True)):
            if _masked(crc(data[start:end])) != int.from_bytes(data[end : end + _CRC_NBYTES].tobytes(), "little"):
                bad[i] = "its data is damaged: the CRC-32C is another"
        return bad


def blocks(path: str, nbytes: int) -> Iterator[Block]:
    """Yield the records of a file, about so many bytes at a time, or one record that is larger.

    Where they cannot be followed further, the last block says why.
    """
    with closing(_open(path)) as stream:
        first = offset = 0
        rest: Bytes = np.empty(0, np.uint8)
        wanted = nbytes
        while True:
            data, at_end = _fill(stream, rest, wanted)
            starts, ends, used, damage = _frames(data)
            if at_end and not damage and used < len(data):
                damage = f"the file is truncated: {len(data) - used} bytes are the beginning of a record"
            damage = damage or stream.damage
            if len(starts) or damage:
                yield Block(path, first, offset, data, starts, ends, damage)
            if at_end or damage:
                return
            first, offset, rest = first + len(starts), offset + used, data[used:]
            wanted = max(nbytes, 2 * len(rest)) if not len(starts) else nbytes
            del data


def _fill(stream: _Stream, rest: Bytes, nbytes: int) -> tuple[Bytes, bool]:
    """Return what was left and what follows, and whether that is all."""
    data: Bytes = np.empty(max(nbytes, len(rest) + FRAME_NBYTES), np.uint8)
    data[: len(rest)] = rest
    at = len(rest)
    while at < len(data):
        n = stream.readinto(memoryview(data)[at:])
        if not n:
            return data[:at], True
        at += n
    return data, False


def _frames(data: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64], int, str]:
    """Return where the whole records lie, where they end, and why those after them cannot be found."""
    starts, ends, at, n = [], [], 0, len(data)
    unpack = _LENGTH.unpack_from
    damage = ""
    while at + FRAME_NBYTES <= n:
        length, crc = unpack(data, at)
        if crc != _crc_of_length(length):
            damage = "its length is damaged: the CRC-32C is another"
            break
        end = at + _LENGTH.size + length
        if end + _CRC_NBYTES > n:
            break
        starts.append(at + _LENGTH.size)
        ends.append(end)
        at = end + _CRC_NBYTES
    return np.array(starts, np.int64), np.array(ends, np.int64), at, damage


@lru_cache(2**14)
def _crc_of_length(length: int) -> int:
    return _masked(google_crc32c.value(length.to_bytes(8, "little")))


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


class _Stream:
    """The bytes of a plain file.

    Attributes
    ----------
    damage
        Why there are no more, where that is not the end.

    """

    damage = ""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readinto(self, wanted: memoryview) -> int:
        """Read some bytes; 0 at the end."""
        return self._file.readinto(wanted)  # type: ignore[attr-defined, no-any-return]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Inflated(_Stream):
    """What a file of GZIP or ZLIB members holds."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._given = b""
        self._inflate: Any = None

    def readinto(self, wanted: memoryview) -> int:
        """Read some bytes; 0 at the end, or where they are damaged."""
        while not self.damage:
            given = self._given or self._file.read(_INFLATED_NBYTES)
            if not given:
                if self._inflate is not None:
                    self.damage = "the file is truncated: its compressed data has no end"
                return 0
            if self._inflate is None:
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either header
            try:
                found = self._inflate.decompress(given, len(wanted))
            except zlib.error as exc:
                self.damage = f"its compressed data is damaged: {exc}"
                return 0
            self._given = self._inflate.unconsumed_tail or self._inflate.unused_data
            if self._inflate.eof:
                self._inflate = None
            if found:
                wanted[: len(found)] = found
                return len(found)
        return 0


def _open(path: str) -> _Stream:
    file = open(path, "rb", buffering=0)  # noqa: SIM115  it is closed by who reads it
    try:
        start = file.read(_LENGTH.size)
        file.seek(0)
        if not start or is_framed(start):
            return _Stream(file)
        if start[:2] == b"\x1f\x8b" or (start[0] & 15 == 8 and int.from_bytes(start[:2], "big") % 31 == 0):
            return _Inflated(file)
    except BaseException:
        file.close()
        raise
    file.close()
    raise StoreFormatError(
        f"{os.fspath(path)}, record 0 at byte 0: its length is damaged: the CRC-32C is another; the file must be a "
        "TFRecord file, plain, GZIP or ZLIB"
    )


def is_framed(start: bytes) -> bool:
    """Whether bytes can be the beginning of a plain TFRecord file."""
    if len(start) < _LENGTH.size:
        return False
    length, crc = _LENGTH.unpack_from(start)
    return bool(crc == _crc_of_length(length))
