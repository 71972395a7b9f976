"""The shuffles of HDF5's filters, when writing: bytes or bits of equal weight side by side, so that they compress."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np

from oocload.chunks.scratch import Bytes, Scratch

_CAST_NBYTES = 128 * 2**10  # stays in a core's cache; of half the size, calls weigh 20 %
_BLOCK_NBYTES = 8192  # of bitshuffle: the filter's own choice
_LEAST_BLOCK_ITEMS = 128


def byte_shuffle(raw: Bytes, item_bytes: int, out: Bytes, scratch: Scratch) -> None:
    """Put the first bytes of all items first, then the second ones, and so on.

    Items of 2 and 4 bytes are shifted and cast to one byte: 14 and 7 GB/s on one core, where the transposition that is
    left for others does 3.7.
    """
    n = len(raw) // item_bytes
    planes = out.reshape(item_bytes, n)
    if item_bytes not in (2, 4):
        planes[:] = raw.reshape(n, item_bytes).T
        return
    items = raw.view(f"<u{item_bytes}")
    step = _CAST_NBYTES // item_bytes
    room = scratch.get("shifted", min(_CAST_NBYTES, len(raw))).view(items.dtype)
    for start in range(0, n, step):
        piece = items[start : start + step]
        shifted = room[: len(piece)]
        for byte, plane in enumerate(planes):
            plane[start : start + step] = np.right_shift(piece, 8 * byte, out=shifted) if byte else piece


def bitshuffle_lz4(raw: Bytes, item_bytes: int) -> bytes:
    """Encode as the HDF5 filter Bitshuffle does with LZ4.

    Method: https://github.com/kiyo-masui/bitshuffle, ``bshuf_compress_lz4``; sizes are big-endian ::

        decoded size, 8 bytes; block size, 4 bytes | size and LZ4 block, each | up to 7 items, as they are
    """
    block_items = bitshuffle_block_items(item_bytes)
    whole = len(raw) - len(raw) % (8 * item_bytes)
    block_nbytes = block_items * item_bytes
    parts = [struct.pack(">QI", len(raw), block_nbytes)]
    if whole:
        shuffled = imagecodecs.bitshuffle_encode(memoryview(raw)[:whole], itemsize=item_bytes, blocksize=block_items)
        for start in range(0, whole, block_nbytes):
            block = imagecodecs.lz4_encode(shuffled[start : min(whole, start + block_nbytes)])
            parts += (struct.pack(">I", len(block)), block)
    parts.append(raw[whole:].tobytes())
    return b"".join(parts)


def bitshuffle_block_items(item_bytes: int) -> int:
    """Return the items of one block of bitshuffle."""
    return max(_LEAST_BLOCK_ITEMS, _BLOCK_NBYTES // item_bytes // 8 * 8)
