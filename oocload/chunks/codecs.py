"""Decoding one chunk through its chain of codecs, into a buffer of known size.

Every decoder here releases the GIL while it works. What is not here is read by h5py or zarr.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np

from oocload.chunks.scratch import Bytes, Scratch
from oocload.layout import Codec

# Compressed data of any length → decoded bytes, into `out` where the decoded size is known.
_Decompress = Callable[[Bytes, Bytes | None], Any]

_DECOMPRESS: dict[str, _Decompress] = {
    "deflate": lambda data, out: imagecodecs.deflate_decode(data, out=out),
    "zlib": lambda data, out: imagecodecs.deflate_decode(data, out=out),
    "gzip": lambda data, out: imagecodecs.gzip_decode(data, out=out),
    "lzf": lambda data, out: imagecodecs.lzf_decode(data, out=out),
    "zstd": lambda data, out: imagecodecs.zstd_decode(data, out=out),
    "blosc": lambda data, out: imagecodecs.blosc_decode(data, numthreads=1, out=out),
}

_FRAME_HEADER = 24
_MAX_FRAME_NBYTES = 2**31 - 64


class DecodeError(Exception):
    """A chunk's bytes do not decode to what its layout promises; the reader adds path, field and chunk."""


def decode(data: Bytes, codecs: Sequence[Codec], out: Bytes, scratch: Scratch) -> None:
    """Decode one chunk.

    Parameters
    ----------
    data
        The stored bytes.
    codecs
        The chain, in the order in which it was applied when writing.
    out
        Receives the decoded chunk; its length is the only one allowed.
    scratch
        Buffers of the calling thread.

    Raises
    ------
    DecodeError
        If any step fails or yields another length.

    """
    for position in range(len(codecs) - 1, -1, -1):
        codec = codecs[position]
        if codec.name == "crc32c":
            data = _check_crc32c(data)
        elif codec.name == "shuffle":
            data = _unshuffle(data, codec.item_bytes, out if position == 0 else None, scratch)
        else:
            data = _decompress(codec, data, _room(codecs[:position], out, scratch))
    if data is not out:
        _copy(data, out)


def codec_workspace_nbytes(codecs: Sequence[Codec], chunk_nbytes: int) -> int:
    """Return the bytes that decoding a chunk takes beside its stored and decoded form."""
    checksum = chunk_nbytes if any(c.name == "crc32c" for c in codecs) else 0  # it takes nothing but bytes objects
    if not any(c.name == "shuffle" and c.item_bytes > 1 for c in codecs):
        return checksum
    return checksum + 2 * chunk_nbytes + _FRAME_HEADER  # the frame, and the library's copy of one block


def _room(before: Sequence[Codec], out: Bytes, scratch: Scratch) -> Bytes | None:
    """Return where a decompressor writes, given the codecs that were applied before it."""
    if not before:
        return out
    if len(before) == 1 and before[0].name == "shuffle":
        return scratch.get("shuffled", _FRAME_HEADER + len(out))[_FRAME_HEADER:]
    return None


def _decompress(codec: Codec, data: Bytes, room: Bytes | None) -> Bytes:
    try:
        result = _DECOMPRESS[codec.name](data, room)
    except Exception as exc:  # each codec of imagecodecs raises its own RuntimeError
        raise DecodeError(f"{codec.name} cannot decode it: {exc}") from exc
    if room is None:
        return np.frombuffer(result, np.uint8)
    if len(result) != len(room):
        raise DecodeError(f"{codec.name} decodes it to {len(result)} bytes, where {len(room)} belong")
    return room


def _check_crc32c(data: Bytes) -> Bytes:
    body, stored = data[:-4], int.from_bytes(data[-4:].tobytes(), "little")
    if len(data) < 4 or google_crc32c.value(body.tobytes()) != stored:
        raise DecodeError("its crc32c checksum does not match; the bytes on disk changed")
    return body


def _copy(data: Bytes, out: Bytes) -> None:
    if len(data) != len(out):
        raise DecodeError(f"it has {len(data)} bytes, where {len(out)} belong")
    out[:] = data


def _unshuffle(data: Bytes, item_bytes: int, out: Bytes | None, scratch: Scratch) -> Bytes:
    """Undo HDF5's byte shuffle.

    Blosc's SIMD transposition does it at several times the speed of a NumPy one (9 against 1 to 4 GB/s): the
    shuffled bytes become the one stored block of a Blosc 1 frame, which is "decompressed" into `out`.
    """
    if out is None:
        out = scratch.get("unshuffled", len(data))
    if len(data) != len(out):
        raise DecodeError(f"it has {len(data)} bytes after decompression, where {len(out)} belong")
    whole = len(data) // item_bytes * item_bytes  # what is left over at the end is stored unshuffled
    if item_bytes == 1 or whole == 0:
        out[:] = data
        return out
    if item_bytes > 255 or whole > _MAX_FRAME_NBYTES:
        out[:whole].reshape(-1, item_bytes)[:] = data[:whole].reshape(item_bytes, -1).T
    else:
        frame = scratch.get("shuffled", _FRAME_HEADER + len(data))
        if data.ctypes.data != frame.ctypes.data + _FRAME_HEADER:
            frame[_FRAME_HEADER:] = data
        # version, LZ4 format, flags (shuffle, unsplit, LZ4), item size | sizes | start of block 0 | its size
        header = struct.pack("<4B5I", 2, 1, 0x31, item_bytes, whole, whole, _FRAME_HEADER + whole, 20, whole)
        frame[:_FRAME_HEADER] = np.frombuffer(header, np.uint8)
        imagecodecs.blosc_decode(frame[: _FRAME_HEADER + whole], numthreads=1, out=out[:whole])
    out[whole:] = data[whole:]
    return out
