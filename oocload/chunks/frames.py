"""Blosc 1 frames built around the bytes of other formats, so that Blosc's SIMD code undoes their shuffles.

Frame format: https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst ::

    version, compressor's version, flags, item size | decoded size, block size, frame size | block starts | blocks
"""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np

from oocload.chunks.scratch import Bytes, Scratch

HEADER_NBYTES = 16
_START_NBYTES = 4
_MAX_NBYTES = (2**31 - 1 - 1020) // 3  # of a block: Blosc keeps three of them
_MAX_ITEM_BYTES = 255
_BYTE_SHUFFLE, _BIT_SHUFFLE, _UNSPLIT = 0x01, 0x04, 0x10
_LZ4, _ZSTD = 1 << 5, 4 << 5
_BITSHUFFLE_HEADER = 12  # decoded size, 8 bytes; block size, 4 bytes; both big-endian


class FrameError(Exception):
    """Bytes that are no frame, or that none can be built around."""


def unshuffle(data: Bytes, item_bytes: int, out: Bytes, scratch: Scratch) -> None:
    """Undo the byte shuffle of HDF5 and numcodecs.

    The shuffled bytes become the one stored block of a frame, which is "decompressed" into ``out``: 9 GB/s, where a
    NumPy transposition does 1 to 4.
    """
    whole = len(data) // item_bytes * item_bytes  # what is left over at the end is stored unshuffled
    if item_bytes == 1 or whole == 0:
        out[:] = data
        return
    if item_bytes > _MAX_ITEM_BYTES or whole > _MAX_NBYTES:
        out[:whole].reshape(-1, item_bytes)[:] = data[:whole].reshape(item_bytes, -1).T
    else:
        room = shuffled_room(len(data), scratch)
        frame = scratch.get("shuffled", HEADER_NBYTES + 2 * _START_NBYTES + len(data))
        if data.ctypes.data != room.ctypes.data:
            room[:] = data
        start = HEADER_NBYTES + _START_NBYTES
        header = _header(_BYTE_SHUFFLE | _UNSPLIT | _LZ4, item_bytes, whole, whole, start + _START_NBYTES + whole)
        frame[: start + _START_NBYTES] = np.frombuffer(header + struct.pack("<2I", start, whole), np.uint8)
        _decode(frame[: start + _START_NBYTES + whole], out[:whole])
    out[whole:] = data[whole:]


def shuffled_room(nbytes: int, scratch: Scratch) -> Bytes:
    """Return where shuffled bytes are best put before `unshuffle`: just behind the header of its frame."""
    skip = HEADER_NBYTES + 2 * _START_NBYTES
    return scratch.get("shuffled", skip + nbytes)[skip:]


def shuffle_workspace_nbytes(nbytes: int) -> int:
    """Return the bytes that `unshuffle` takes: its frame, and Blosc's copy of the one block."""
    return 2 * nbytes + HEADER_NBYTES + 2 * _START_NBYTES


def bitunshuffle(data: Bytes, item_bytes: int, compressor: str, out: Bytes, scratch: Scratch) -> None:
    """Decode what the HDF5 filter Bitshuffle wrote with LZ4 or Zstandard.

    Its blocks differ from Blosc's in the byte order of their sizes alone, so one frame around all of them decodes at
    1.8 GB/s a core, where one call for each block of 8 KiB would mostly wait for Python.

    Raises
    ------
    FrameError
        If the sizes in the data do not add up.

    """
    block_nbytes, nbytes = _bitshuffle_sizes(data, item_bytes, len(out))
    n_blocks = -(-nbytes // block_nbytes) if nbytes else 0
    head = HEADER_NBYTES + n_blocks * _START_NBYTES
    frame = scratch.get("frame", head + len(data) - _BITSHUFFLE_HEADER)
    frame[head:] = data[_BITSHUFFLE_HEADER:]
    starts, stored, end = _swap_sizes(memoryview(frame), head, n_blocks, block_nbytes, nbytes)
    if end + len(out) - nbytes > len(frame):
        raise FrameError("bitshuffle's blocks end too early")
    if n_blocks:
        flags = _BIT_SHUFFLE | _UNSPLIT | (_ZSTD if compressor == "zstd" else _LZ4)
        header = _header(flags, item_bytes, nbytes, block_nbytes, end) + struct.pack(f"<{n_blocks}I", *starts)
        frame[:head] = np.frombuffer(header, np.uint8)
        _decode(frame[:end], out[:nbytes])
    for block in stored:  # Blosc takes these for stored as they are
        place, begin = starts[block] + _START_NBYTES, block * block_nbytes
        part = out[begin : min(nbytes, begin + block_nbytes)]
        _decode_block(frame[place : place + len(part)], item_bytes, compressor, part)
    out[nbytes:] = frame[end : end + len(out) - nbytes]  # fewer than eight items, as they are


def bitshuffle_workspace_nbytes(nbytes: int, stored_nbytes: int) -> int:
    """Return the bytes that `bitunshuffle` takes at most: its frame, block starts and sizes; blocks of 128 bytes."""
    return stored_nbytes + HEADER_NBYTES + nbytes // 128 * 40


def _bitshuffle_sizes(data: Bytes, item_bytes: int, nbytes: int) -> tuple[int, int]:
    """Return (bytes of a block, bytes in blocks) of one chunk."""
    if len(data) < _BITSHUFFLE_HEADER:
        raise FrameError(f"bitshuffle's header takes {_BITSHUFFLE_HEADER} bytes, and there are {len(data)}")
    total, block_nbytes = struct.unpack(">QI", data[:_BITSHUFFLE_HEADER].tobytes())
    group = 8 * item_bytes
    if total != nbytes:
        raise FrameError(f"bitshuffle decodes it to {total} bytes, where {nbytes} belong")
    if block_nbytes == 0 or block_nbytes % group:
        raise FrameError(f"bitshuffle has blocks of {block_nbytes} bytes, not a multiple of 8 items")
    whole = nbytes - nbytes % group
    return min(max(group, whole), block_nbytes), whole  # no block of Blosc is larger than its data


def _swap_sizes(
    frame: memoryview, at: int, n_blocks: int, block_nbytes: int, nbytes: int
) -> tuple[list[int], list[int], int]:
    """Turn the size before each block into Blosc's byte order.

    Returns
    -------
    tuple
        Where each block begins, the blocks that did not shrink, and where the last one ends.

    """
    unpack, pack = struct.Struct(">I").unpack_from, struct.Struct("<I").pack_into
    starts, stored, last = [], [], len(frame) - _START_NBYTES
    for block in range(n_blocks):
        if at > last:
            raise FrameError("bitshuffle's blocks end too early")
        (size,) = unpack(frame, at)
        pack(frame, at, size)
        starts.append(at)
        if size == block_nbytes or size == nbytes - block * block_nbytes:
            stored.append(block)
        at += _START_NBYTES + size
    return starts, stored, at


def _decode_block(data: Bytes, item_bytes: int, compressor: str, out: Bytes) -> None:
    decode = imagecodecs.zstd_decode if compressor == "zstd" else imagecodecs.lz4_decode
    shuffled = decode(data, out=bytearray(len(out)))
    imagecodecs.bitshuffle_decode(shuffled, itemsize=item_bytes, blocksize=len(out) // item_bytes, out=out)


def _header(flags: int, item_bytes: int, nbytes: int, block_nbytes: int, frame_nbytes: int) -> bytes:
    return struct.pack("<4B3I", 2, 1, flags, item_bytes, nbytes, block_nbytes, frame_nbytes)


def _decode(frame: Bytes, out: Bytes) -> None:
    imagecodecs.blosc_decode(frame, numthreads=1, out=out)
