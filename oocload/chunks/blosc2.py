"""Blosc 2 contiguous frames as the HDF5 filter writes them: one super-chunk of one chunk, often split into blocks.

Formats: https://github.com/Blosc/c-blosc2/blob/main/README_CFRAME_FORMAT.rst and README_B2ND_METALAYER.rst
"""

from __future__ import annotations

import struct
from math import prod

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from oocload.chunks.frames import FrameError
from oocload.chunks.scratch import Bytes, Scratch

_MAGIC = b"\x9e\xa8b2frame\x00"
_LEAST_HEADER = 87
_SPECIAL = {0x81: 0x00, 0x84: 0x00}  # chunks that are not stored: all zeros, never initialised
_B2ND = b"\xa4b2nd\xd2"


def decode_frame(data: Bytes, out: Bytes, scratch: Scratch) -> None:
    """Decode the one chunk of a frame into ``out``, its items in C order.

    Raises
    ------
    FrameError
        If the frame is damaged, or holds something else.

    """
    head = data[: _LEAST_HEADER + 4096].tobytes()
    if len(head) < _LEAST_HEADER or not head.startswith(_MAGIC):
        raise FrameError("it is no Blosc2 frame")
    (header_nbytes,) = struct.unpack_from(">i", head, 11)
    nbytes, stored = struct.unpack_from(">q", head, 30)[0], struct.unpack_from(">q", head, 39)[0]
    if not _LEAST_HEADER <= header_nbytes <= len(data) or not 0 <= stored <= len(data) - header_nbytes or nbytes < 0:
        raise FrameError("the sizes in its Blosc2 frame do not add up")
    grid = _block_grid(head[:header_nbytes])
    ragged = grid is not None and grid.reorders
    room = out
    if ragged:
        assert grid is not None
        if nbytes != grid.padded_items * (len(out) // max(1, grid.items)):
            raise FrameError(f"its Blosc2 frame holds {nbytes} bytes, which do not fit its blocks")
        if nbytes > 16 * len(out) + 2**20:
            raise FrameError(f"its Blosc2 frame claims {nbytes} bytes, where {len(out)} belong")
        room = scratch.get("padded", nbytes)
    elif nbytes != len(out):
        raise FrameError(f"Blosc2 decodes it to {nbytes} bytes, where {len(out)} belong")
    if stored == 0:
        _fill_special(data[header_nbytes:], room)
    else:
        imagecodecs.blosc2_decode(data[header_nbytes : header_nbytes + stored], numthreads=1, out=room)
    if ragged:
        assert grid is not None
        grid.to_c_order(room, out)


def workspace_nbytes(chunk_nbytes: int) -> int:
    """Return the bytes that `decode_frame` usually takes: a chunk padded to whole blocks."""
    return 2 * chunk_nbytes


class _BlockGrid:
    """How a chunk is cut into blocks, which lie one after the other."""

    def __init__(self, chunk: tuple[int, ...], block: tuple[int, ...]) -> None:
        self.chunk = chunk
        self.block = block
        self.counts = tuple(-(-c // b) for c, b in zip(chunk, block, strict=True))

    @property
    def items(self) -> int:
        return prod(self.chunk)

    @property
    def padded_items(self) -> int:
        return prod(self.counts) * prod(self.block)

    @property
    def reorders(self) -> bool:
        """Whether the items are in another order than C's, or padded."""
        cut = [i for i, (c, b) in enumerate(zip(self.chunk, self.block, strict=True)) if b != c]
        if not cut:
            return False
        # Blocks of whole trailing axes, one row of the axis before at a time, are in C order.
        return self.padded_items != self.items or any(self.block[i] != 1 for i in range(cut[-1]))

    def to_c_order(self, data: Bytes, out: Bytes) -> None:
        n = len(self.chunk)
        item = np.dtype(f"V{len(out) // self.items}")
        blocks: NDArray[np.void] = data.view(item).reshape(*self.counts, *self.block)
        axes = [axis for i in range(n) for axis in (i, n + i)]
        whole = blocks.transpose(axes)
        target = out.view(item).reshape(self.chunk)
        for row in range(self.counts[0]):  # a band of blocks at a time, so that no whole copy is made
            sides = (c * b for c, b in zip(self.counts[1:], self.block[1:], strict=True))
            band = whole[row].reshape(self.block[0], *sides)
            low, high = row * self.block[0], min(self.chunk[0], (row + 1) * self.block[0])
            target[low:high] = band[(slice(0, high - low), *(slice(0, c) for c in self.chunk[1:]))]


def _block_grid(header: bytes) -> _BlockGrid | None:
    """Return the grid of the frame's "b2nd" metalayer, or None where it has none."""
    at = header.find(_B2ND)
    if at < 0:
        return None
    (content,) = struct.unpack_from(">i", header, at + len(_B2ND))
    try:
        n_dims = header[content + 7]  # after 0xc6 and its length, 0x97, the version
        if not 1 <= n_dims <= 8:
            raise FrameError(f"its Blosc2 frame has {n_dims} axes")
        at = content + 8 + 1 + 9 * n_dims  # the array's own shape: 9 bytes an axis
        chunk = [struct.unpack_from(">i", header, at + 1 + 5 * i + 1)[0] for i in range(n_dims)]
        at += 1 + 5 * n_dims
        block = [struct.unpack_from(">i", header, at + 1 + 5 * i + 1)[0] for i in range(n_dims)]
    except (IndexError, struct.error) as exc:
        raise FrameError("the b2nd part of its Blosc2 frame is cut off") from exc
    if min(chunk) < 1 or min(block) < 1:
        raise FrameError("its Blosc2 frame has empty blocks")
    return _BlockGrid(tuple(chunk), tuple(block))


def _fill_special(index: Bytes, out: Bytes) -> None:
    """Fill in a chunk that the frame only names: its index holds a mark in place of an offset."""
    room = np.empty(8, np.uint8)  # one offset; whatever the index claims
    imagecodecs.blosc2_decode(index, numthreads=1, out=room)
    (offset,) = struct.unpack("<q", room.tobytes())
    mark = (offset >> 56) & 0xFF
    if mark not in _SPECIAL:
        raise FrameError(f"its Blosc2 frame holds a special chunk of kind {mark:#x}")
    out[:] = _SPECIAL[mark]
