"""Encoders of one chunk's bytes, outside the GIL; which of them a store takes, `encode` decides."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import NamedTuple

import imagecodecs
import numcodecs.zstd
import numpy as np

from oocload.chunks.scratch import Bytes, Scratch
from oocload.convert.shuffle import byte_shuffle

_BYTE_SHUFFLE, _BIT_SHUFFLE = 1, 2
_MAX_CONSTANTS = 64


class Encoded(NamedTuple):
    """A chunk as it is stored.

    Attributes
    ----------
    data
        Its bytes; of a chunk that no codec changes, a view of it.
    skipped
        HDF5's filter mask: bit i is set where filter i was left out; 0 for Zarr.

    """

    data: bytes | memoryview
    skipped: int = 0


class Shuffle:
    """HDF5's byte shuffle into a buffer that each thread uses again and again."""

    def __init__(self, item_bytes: int) -> None:
        self._item_bytes = item_bytes
        self._local = threading.local()

    def __call__(self, raw: Bytes) -> Bytes:
        """Return that buffer, the bytes shuffled."""
        try:
            scratch: Scratch = self._local.scratch
        except AttributeError:
            scratch = self._local.scratch = Scratch()
        room = scratch.get("shuffled", len(raw))
        byte_shuffle(raw, self._item_bytes, room, scratch)
        return room


class Gzip:
    """Deflate by libdeflate: about twice as fast as zlib on each core, and no larger at the same level number.

    Bytes that no shuffle has sorted get level 5 for 4, which alone is larger than zlib's, by 0.2 to 0.7 % on images.
    Chunks of one item again and again (empty images, masks, padding) are remembered: libdeflate takes 12 bytes more
    for them than zlib, or far fewer.
    """

    def __init__(
        self, level: int, item_bytes: int, shuffle: Callable[[Bytes], Bytes], shuffled: bool, has_gzip_header: bool
    ) -> None:
        self._level = 5 if level == 4 and not shuffled else level
        self._zlib_level = level
        self._item_bytes = item_bytes
        self._shuffle = shuffle
        self._has_gzip_header = has_gzip_header
        self._constants: dict[bytes, bytes] = {}

    def __call__(self, raw: Bytes) -> Encoded:
        """Encode a chunk that is not shuffled yet."""
        if not self._level or not _repeats(raw, self._item_bytes):
            return Encoded(self._encode(self._shuffle(raw)))
        item = raw[: self._item_bytes].tobytes()
        data = self._constants.get(item)
        if data is None:
            data = self._smallest(self._shuffle(raw))
            if len(self._constants) < _MAX_CONSTANTS:
                self._constants[item] = data
        return Encoded(data)

    def _encode(self, raw: Bytes) -> bytes:
        if self._has_gzip_header:
            encoded: bytes = imagecodecs.gzip_encode(raw, self._level)
        else:
            encoded = imagecodecs.deflate_encode(raw, self._level, raw=False)
        return encoded

    def _smallest(self, raw: Bytes) -> bytes:
        by_zlib = zlib.compress(raw, self._zlib_level, wbits=31 if self._has_gzip_header else 15)
        return min(by_zlib, self._encode(raw), key=len)


def _repeats(raw: Bytes, item_bytes: int) -> bool:
    """Whether all items are the same; of most chunks, a few of them tell that they are not."""
    head = raw[: 64 * item_bytes]
    return np.array_equal(head[item_bytes:], head[:-item_bytes]) and np.array_equal(raw[item_bytes:], raw[:-item_bytes])


def lzf(raw: Bytes, shuffled: bool) -> Encoded:
    """Encode as h5py's lzf filter does, which is left out where bytes do not get fewer."""
    try:
        data: bytes = imagecodecs.lzf_encode(raw)
    except imagecodecs.LzfError:  # does not get smaller
        data = b""
    if 0 < len(data) < raw.nbytes:
        return Encoded(data)
    # The bit of lzf, which follows the shuffle; whose buffer is used again.
    return Encoded(raw.tobytes(), 2) if shuffled else Encoded(raw.data, 1)


def zstd(raw: Bytes, level: int) -> bytes:
    """Encode as one Zstandard frame."""
    # imagecodecs takes levels below 1 for its default.
    encode = imagecodecs.zstd_encode if level > 0 else numcodecs.zstd.compress
    encoded: bytes = encode(raw, level)
    return encoded


def blosc(raw: Bytes, item_bytes: int, level: int) -> bytes:
    """Encode as one Blosc frame, with LZ4."""
    encoded: bytes = imagecodecs.blosc_encode(
        raw.view(f"V{item_bytes}"),  # it takes the size of items from the array, whatever else it is told
        level,
        compressor="lz4",
        shuffle=blosc_shuffle(item_bytes),
        typesize=item_bytes,
        numthreads=1,
    )
    return encoded


def blosc_shuffle(item_bytes: int) -> int:
    """Return the shuffle that suits items of this size, by Blosc's number."""
    return _BYTE_SHUFFLE if item_bytes > 1 else _BIT_SHUFFLE
