"""A block of numbers reduced to its moments, a piece at a time in cache.

Integers of 8 and 16 bits are added exactly. All others are added as float64, as distances from a base near them, so
that a large mean takes no digits from a small deviation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.statistics.channels import Channels
from oocload.statistics.moments import Counts, Floats, Lanes, Moments, base_dtype, greater, lesser, moments_nbytes
from oocload.statistics.strips import Strip, n_lanes_at_most, strips

# Values of a piece. Calls to NumPy are few and long: each lets go of the GIL and waits to have it again, and two
# threads that call for 10 µs at a time are no faster than one.
_PIECE_ITEMS = 128 * 1024
_MOST_SMALL_SUMMED = 256  # of 255 each, or -128: as much as 16 bits hold; 32 bits hold their squares
_MOST_SUMMED = 2**20  # squares of 16 bits, of which 53 bits hold the sum
_MOST_LOST = 1e4  # of the squares' 16 digits, 4
_MOST_ATTEMPTS = 3  # with 0, the mean of the first piece, the mean
_TINY = 1e-12  # of a value: as far as it is off when it is constant
_EINSUM = {2: "ij,ij->j", 4: "abcd,abcd->bd"}


_ITEMS_NBYTES = 2 * 8 * _PIECE_ITEMS
_MASK_NBYTES = 2 * _PIECE_ITEMS
_ARRAYS_OF_LANES = 32  # of 8 bytes a lane, that are held at once


def work_nbytes(channels: Channels) -> dict[str, int]:
    """Return the bytes that `reduce_block` takes: of each scratch buffer, and as "lanes" of what it makes beside."""
    made = _ARRAYS_OF_LANES * 8 * n_lanes_at_most(channels) + 2 * moments_nbytes(channels.n) + 8 * _PIECE_ITEMS
    return {"items": _ITEMS_NBYTES, "mask": _MASK_NBYTES, "lanes": made}


def reduce_block(block: NDArray[Any], channels: Channels, scratch: Scratch) -> Moments:
    """Return the moments of a C-contiguous block of rows."""
    values = block.view(np.uint8) if block.dtype.kind == "b" else block
    found = Moments.none(channels.n, values.dtype)
    scratch.reserve("lanes", work_nbytes(channels)["lanes"])
    for strip in strips(values, channels):
        if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
            part = _exact(strip, scratch)
        else:
            part = _about_a_base(strip, scratch)
        found.merge(part, strip.low)
    found.low, found.high = found.low.view(block.dtype), found.high.view(block.dtype)
    return found


def _exact(strip: Strip, scratch: Scratch) -> Moments:
    """Return the moments of small integers, from their sums."""
    dtype, axes = strip.values.dtype, strip.axes
    small = dtype.itemsize == 1
    narrow, wide = (np.dtype(f"{dtype.kind}2"), np.dtype(f"{dtype.kind}4")) if small else (None, np.dtype("f8"))
    items = scratch.get("items", _ITEMS_NBYTES).view(wide)
    low, high = _range(strip)
    sums, squares = [], []
    for piece in strip.pieces(*((2 * _PIECE_ITEMS, _MOST_SMALL_SUMMED) if small else (_PIECE_ITEMS, _MOST_SUMMED))):
        copy = items[: piece.size].reshape(piece.shape)
        np.copyto(copy, piece)
        sums.append(np.add.reduce(piece if small else copy, axis=axes, dtype=narrow))
        squares.append(np.einsum(_EINSUM[piece.ndim], copy, copy))
    total, square = (_whole(parts).reshape(strip.fold).sum(axis=(0, 2)) for parts in (sums, squares))
    n = strip.n_per_channel
    near = np.rint(total / n).astype(np.int64)  # about it sums are small, so that no digits are lost
    rest = total - near * n
    about = square - 2 * near * total + near * near * n
    none = np.zeros(len(total), np.int64)
    return Moments(
        np.full(len(total), n),
        near.astype(np.float64),
        rest / n,
        about - rest.astype(np.float64) * rest / n,
        lesser(dtype).reduce(low.reshape(strip.fold), axis=(0, 2)),
        greater(dtype).reduce(high.reshape(strip.fold), axis=(0, 2)),
        none,
        none,
        none,
    )


def _whole(parts: list[NDArray[Any]]) -> NDArray[np.int64]:
    """Return the sum of sums that are whole numbers."""
    whole: NDArray[np.int64] = np.stack(parts).astype(np.int64).sum(axis=0)
    return whole


def _about_a_base(strip: Strip, scratch: Scratch) -> Moments:
    """Return the moments of numbers, from their distances to a base of each lane.

    The base is 0 while no digits are lost by that, which is seen from the first piece and again from all; else it is
    the mean so far. Of 64-bit integers it is the least.
    """
    base: NDArray[Any] | None = None
    low, high = _range(strip)
    if base_dtype(strip.values.dtype).kind != "f":
        base = np.expand_dims(low, strip.axes)
    for attempt in range(_MOST_ATTEMPTS):
        sums = _Sums(strip, scratch, base)
        for number, piece in enumerate(strip.pieces(_PIECE_ITEMS, _MOST_SUMMED)):
            sums.add(piece)
            if number == attempt == 0 and sums.better_base() is not None:
                break
        if attempt == _MOST_ATTEMPTS - 1 or (better := sums.better_base()) is None:
            break
        base = better
    return sums.lanes(low, high).fold(strip.fold)


def _range(strip: Strip) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the least and the greatest value of each lane, in one call each: short ones wait for the GIL."""
    values, axes = strip.values, strip.axes
    least, greatest = lesser(values.dtype), greater(values.dtype)
    if values.dtype != np.float16:
        return least.reduce(values, axis=axes), greatest.reduce(values, axis=axes)
    singles = (piece.astype(np.float32) for piece in strip.pieces(_PIECE_ITEMS, _MOST_SUMMED))  # quicker to compare
    pairs = [(least.reduce(piece, axis=axes), greatest.reduce(piece, axis=axes)) for piece in singles]
    lows, highs = zip(*pairs, strict=True)
    return least.reduce(lows, axis=0), greatest.reduce(highs, axis=0)


class _Sums:
    """Sums of each lane of a strip, of distances from a base and of their squares.

    Parameters
    ----------
    strip
        The strip.
    scratch
        Of the thread.
    base
        Of each lane, in the shape that is left when the other axes have one item; None for 0.

    """

    def __init__(self, strip: Strip, scratch: Scratch, base: NDArray[Any] | None) -> None:
        self._axes, self._base = strip.axes, base
        shape = tuple(1 if axis in strip.axes else n for axis, n in enumerate(strip.values.shape))
        self._items, self._more = scratch.get("items", _ITEMS_NBYTES).view(np.float64).reshape(2, -1)
        self._masks = scratch.get("mask", _MASK_NBYTES).view(bool).reshape(2, -1)
        self._n_seen = 0  # of each lane
        self._sums = np.zeros(shape)
        self._squares = np.zeros(shape)
        self._odd = np.zeros((3, *shape), np.int64)  # NaN, infinity, minus infinity

    def add(self, piece: NDArray[Any]) -> None:
        """Take in more values."""
        items = self._distances(piece)
        sums = np.add.reduce(items, axis=self._axes, keepdims=True)
        if not np.isfinite(np.add.reduce(sums, axis=None)):
            sums = self._without_odd(items)
        self._n_seen += piece.size // sums.size
        self._sums += sums
        self._squares += np.einsum(_EINSUM[items.ndim], items, items).reshape(sums.shape)

    def _distances(self, piece: NDArray[Any]) -> Floats:
        items = self._items[: piece.size].reshape(piece.shape)
        if self._base is None:
            np.copyto(items, piece, casting="same_kind")
        elif self._base.dtype.kind == "f":
            np.subtract(piece, self._base, out=items)
        else:
            above = self._more[: piece.size].view(np.uint64).reshape(piece.shape)
            np.subtract(piece.view(np.uint64), self._base.view(np.uint64), out=above)
            np.copyto(items, above)
        return items

    def _without_odd(self, items: Floats) -> Floats:
        """Count what is not finite and make it 0; return the sums."""
        odd, other = (mask[: items.size].reshape(items.shape) for mask in self._masks)
        np.isnan(items, out=odd)
        self._odd[0] += self._counted(odd)
        # Of NaN and 0, both functions take 0; setting the places of NaN one by one takes twice as long.
        positive = self._more[: items.size].reshape(items.shape)
        np.fmax(items, 0.0, out=positive)
        np.fmin(items, 0.0, out=items)
        np.add(items, positive, out=items)
        sums: Floats = np.add.reduce(items, axis=self._axes, keepdims=True)
        if np.isfinite(np.add.reduce(sums, axis=None)):
            return sums
        for number, value in ((1, np.inf), (2, -np.inf)):
            np.equal(items, value, out=odd)
            self._odd[number] += self._counted(odd)
        np.isinf(items, out=other)
        np.copyto(items, 0.0, where=other)
        return np.asarray(np.add.reduce(items, axis=self._axes, keepdims=True))

    def _counted(self, mask: NDArray[np.bool_]) -> Counts:
        counts: Counts = np.add.reduce(mask.view(np.uint8), axis=self._axes, keepdims=True, dtype=np.uint16)
        return counts  # a piece has fewer than 65,536 values of a lane

    def _counts(self) -> Counts:
        return np.asarray(self._n_seen - self._odd.sum(axis=0))

    def better_base(self) -> NDArray[Any] | None:
        """Return the means where some are so far from the bases that digits of the squares are lost; else None."""
        base = 0.0 if self._base is None else self._base
        if self._base is not None and self._base.dtype.kind != "f":  # it is one of the values, so that few are
            return None
        mean = self._sums / np.maximum(self._counts(), 1)
        about_mean = self._squares - self._sums * mean
        lost = self._sums * mean > _MOST_LOST * about_mean
        if not (lost & (np.abs(mean) > _TINY * np.abs(base))).any():
            return None
        better = base + mean
        return np.where(np.isfinite(better), better, 0.0)

    def lanes(self, low: NDArray[Any], high: NDArray[Any]) -> Lanes:
        """Return what was found, with the range of each lane."""
        count = self._counts()
        mean = self._sums / np.maximum(count, 1)
        squares = np.maximum(self._squares - self._sums * mean, 0.0)
        base = np.zeros(mean.shape) if self._base is None else self._base
        return Lanes(count, base, mean, squares, low, high, *self._odd)
