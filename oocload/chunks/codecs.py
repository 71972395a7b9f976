"""Decoding one chunk through its chain of codecs, into buffers of known size.

Every length is known before a byte is decoded, so no header can make us allocate what it claims. Every decoder here
releases the GIL while it works. What is not here is read by h5py or zarr.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np

from oocload.chunks.blosc2 import decode_frame
from oocload.chunks.blosc2 import workspace_nbytes as blosc2_workspace_nbytes
from oocload.chunks.frames import (
    bitshuffle_workspace_nbytes,
    bitunshuffle,
    shuffle_workspace_nbytes,
    shuffled_room,
    unshuffle,
)
from oocload.chunks.scratch import Bytes, Scratch
from oocload.layout import CHECKSUMS, COMPRESSORS, Codec

_CHECKSUM_NBYTES = 4


class DecodeError(Exception):
    """A chunk's bytes do not decode to what its layout promises; the reader adds path, field and chunk."""


def decode(data: Bytes, codecs: Sequence[Codec], out: Bytes, scratch: Scratch) -> None:
    """Decode one chunk.

    Parameters
    ----------
    data
        The stored bytes.
    codecs
        The chain, in the order in which it was applied when writing; at most one compressor.
    out
        Receives the decoded chunk; its length is the only one allowed.
    scratch
        Buffers of the calling thread.

    Raises
    ------
    DecodeError
        If any step fails or yields another length.

    """
    sizes = _sizes(codecs, len(out))
    for position in range(len(codecs) - 1, -1, -1):
        codec = codecs[position]
        if codec.name in CHECKSUMS:
            data = _CHECK[codec.name](data)
            continue
        room = out if position == 0 else _room(codecs[position - 1], sizes[position], position, scratch)
        _step(codec, data, room, scratch)
        data = room
    if data is not out:
        _check_length("it", data, out)
        out[:] = data


def most_nbytes(codecs: Sequence[Codec], chunk_nbytes: int) -> int:
    """Return the bytes that a chunk has at most between two codecs: a delta may widen it."""
    return max(_sizes(codecs, chunk_nbytes))


def codec_workspace_nbytes(codecs: Sequence[Codec], chunk_nbytes: int, stored_nbytes: int) -> int:
    """Return the bytes that decoding a chunk takes beside its stored and decoded form."""
    total = 0
    sizes = _sizes(codecs, chunk_nbytes)
    for position, codec in enumerate(codecs):
        if codec.name == "crc32c":
            total += sizes[position]  # it takes nothing but bytes objects
        elif codec.name == "shuffle" and codec.item_bytes > 1:
            total += shuffle_workspace_nbytes(sizes[position])
        elif codec.name == "bitshuffle" and codec.variant:
            total += bitshuffle_workspace_nbytes(chunk_nbytes, stored_nbytes)
        elif codec.name == "blosc2":
            total += blosc2_workspace_nbytes(chunk_nbytes)
        elif codec.name in ("lzma", "bz2", "bzip2"):
            total += sizes[position]  # the standard library has no way to decode into a buffer
        if position and codec.name not in CHECKSUMS:
            total += sizes[position]  # the room that it decodes into
    return total


def _sizes(codecs: Sequence[Codec], chunk_nbytes: int) -> list[int]:
    """Return how many bytes decoding each codec must yield; 0 behind a compressor, where only the data can tell."""
    sizes = [chunk_nbytes]
    for codec in codecs:
        size = sizes[-1]
        if codec.name in COMPRESSORS:
            size = 0
        elif codec.name in CHECKSUMS and size:
            size += _CHECKSUM_NBYTES
        elif codec.name == "delta":
            stored, decoded = _delta_dtypes(codec)
            size = size // decoded.itemsize * stored.itemsize
        sizes.append(size)
    return sizes


def _room(before: Codec, nbytes: int, position: int, scratch: Scratch) -> Bytes:
    """Return where a step writes, given the codec that was applied before it."""
    if before.name == "shuffle":
        return shuffled_room(nbytes, scratch)
    return scratch.get(f"stage {position}", nbytes)


def _step(codec: Codec, data: Bytes, room: Bytes, scratch: Scratch) -> None:
    """Undo one codec, into a room of just the right size."""
    try:
        if (decompress := _DECOMPRESS.get(codec.name)) is not None:
            result = decompress(data, room)
            if len(result) != len(room):
                raise DecodeError(f"{codec.name} decodes it to {len(result)} bytes, where {len(room)} belong")
        else:
            _UNDO[codec.name](codec, data, room, scratch)
    except DecodeError:
        raise
    except Exception as exc:  # each codec of imagecodecs raises its own RuntimeError
        raise DecodeError(f"{codec.name} cannot decode it: {exc}") from exc


def _check_length(who: str, data: Bytes, room: Bytes) -> None:
    if len(data) != len(room):
        raise DecodeError(f"{who} has {len(data)} bytes, where {len(room)} belong")


def _unshuffle(codec: Codec, data: Bytes, room: Bytes, scratch: Scratch) -> None:
    _check_length("it, decompressed,", data, room)
    unshuffle(data, codec.item_bytes, room, scratch)


def _undelta(codec: Codec, data: Bytes, room: Bytes, scratch: Scratch) -> None:
    stored, decoded = _delta_dtypes(codec)
    differences, items = data.view(stored), room.view(decoded)
    if len(differences) != len(items):
        raise DecodeError(f"delta has {len(differences)} items, where {len(items)} belong")
    np.cumsum(differences, out=items)


def _delta_dtypes(codec: Codec) -> tuple[np.dtype[Any], np.dtype[Any]]:
    stored, decoded = codec.variant.split(":")
    return np.dtype(stored), np.dtype(decoded)


def _bitunshuffle(codec: Codec, data: Bytes, room: Bytes, scratch: Scratch) -> None:
    if codec.variant:
        bitunshuffle(data, codec.item_bytes, codec.variant, room, scratch)
        return
    _check_length("it", data, room)
    whole = len(room) - len(room) % (8 * codec.item_bytes)  # items beyond a multiple of eight are stored as they are
    if whole:
        shuffled = memoryview(data)[:whole]  # of an array it would take the item size
        imagecodecs.bitshuffle_decode(
            shuffled, itemsize=codec.item_bytes, blocksize=codec.block_items, out=room[:whole]
        )
    room[whole:] = data[whole:]


def _unlzma(codec: Codec, data: Bytes, room: Bytes, scratch: Scratch) -> None:
    _join_streams(lzma.LZMADecompressor, data, room)


def _unbz2(codec: Codec, data: Bytes, room: Bytes, scratch: Scratch) -> None:
    _join_streams(bz2.BZ2Decompressor, data, room)


def _ungzip(codec: Codec, data: Bytes, room: Bytes, scratch: Scratch) -> None:
    try:
        if len(imagecodecs.gzip_decode(data, out=room)) == len(room):
            return
    except RuntimeError:  # of several members, as pigz and bgzip write them, it takes the first
        pass
    _join_streams(_Gunzip, data, room)


class _Gunzip:
    """Python's gzip decompressor, in the form that those of bz2 and lzma have."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)

    def decompress(self, data: Any, max_length: int) -> bytes:
        return self._decoder.decompress(data, max_length)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data


def _join_streams(decompressor: Callable[[], Any], data: Any, room: Bytes) -> None:
    """Decompress one stream after the other; they must fill the room."""
    at = 0
    while True:
        decoder = decompressor()
        decoded = np.frombuffer(decoder.decompress(data, max_length=len(room) - at + 1), np.uint8)
        if at + len(decoded) > len(room):
            raise DecodeError(f"it, decompressed, has more than {len(room)} bytes")
        room[at : at + len(decoded)] = decoded
        at, data = at + len(decoded), decoder.unused_data
        if not decoder.eof or not data or at == len(room):
            break
    if at != len(room) or not decoder.eof:
        raise DecodeError(f"it, decompressed, has {at} bytes, where {len(room)} belong")


def _check_crc32c(data: Bytes) -> Bytes:
    """Return the data without its CRC-32C (RFC 3720), which must match."""
    body = data[:-_CHECKSUM_NBYTES]
    stored = int.from_bytes(data[-_CHECKSUM_NBYTES:].tobytes(), "little")
    if len(data) < _CHECKSUM_NBYTES or google_crc32c.value(body.tobytes()) != stored:
        raise DecodeError("its crc32c checksum does not match; the bytes on disk changed")
    return body


def _check_fletcher32(data: Bytes) -> Bytes:
    """Return the data without its Fletcher-32, which must match (HDF5 file format specification, III.H)."""
    body = data[:-_CHECKSUM_NBYTES]
    stored = int.from_bytes(data[-_CHECKSUM_NBYTES:].tobytes(), "little")
    # HDF5 1.6.2 wrote the two bytes of each half the other way round on little-endian machines; HDF5 takes both.
    swapped = (stored & 0x00FF00FF) << 8 | (stored & 0xFF00FF00) >> 8
    if len(data) < _CHECKSUM_NBYTES or imagecodecs.h5checksum_fletcher32(body) not in (stored, swapped):
        raise DecodeError("its fletcher32 checksum does not match; the bytes on disk changed")
    return body


_CHECK: dict[str, Callable[[Bytes], Bytes]] = {"crc32c": _check_crc32c, "fletcher32": _check_fletcher32}

# Compressed data → decoded bytes, written into the room.
_DECOMPRESS: dict[str, Callable[[Bytes, Bytes], Any]] = {
    "deflate": lambda data, out: imagecodecs.deflate_decode(data, out=out),
    "zlib": lambda data, out: imagecodecs.deflate_decode(data, out=out),
    "lzf": lambda data, out: imagecodecs.lzf_decode(data, out=out),
    "zstd": lambda data, out: imagecodecs.zstd_decode(data, out=out),
    "blosc": lambda data, out: imagecodecs.blosc_decode(data, numthreads=1, out=out),
    "lz4": lambda data, out: imagecodecs.lz4_decode(data, header=True, out=out),
    "lz4h5": lambda data, out: imagecodecs.lz4h5_decode(data, out=out),
}

_UNDO: dict[str, Callable[[Codec, Bytes, Bytes, Scratch], None]] = {
    "shuffle": _unshuffle,
    "delta": _undelta,
    "bitshuffle": _bitunshuffle,
    "blosc2": lambda codec, data, room, scratch: decode_frame(data, room, scratch),
    "gzip": _ungzip,
    "lzma": _unlzma,
    "bz2": _unbz2,
    "bzip2": _unbz2,
}
