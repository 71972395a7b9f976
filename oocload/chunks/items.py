"""Rows of several lengths as runs of items, and the quickest ways to lay them out: padded, dense, side by side.

A row is (start, length) in an array of items. Padding gathers windows of equal length, each from where its row lies,
and then sets what lies beyond the rows: one pass to copy and one to mask, in pieces that stay in cache.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from oocload.chunks.scratch import as_bytes
from oocload.chunks.target import parts_of_row

PIECE_NBYTES = 2**18  # of padded rows; what fits the cache beside what it is made from
_MOST_TABLE_NBYTES = 2**17  # of masks, one per length: larger ones are computed row by row


def pad_rows(
    items: NDArray[Any],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    out: NDArray[Any],
    pre: bool = False,
    value: Any = 0,
) -> None:
    """Lay rows out in equal lengths.

    Parameters
    ----------
    items
        C-contiguous, shape (items, *item shape).
    starts, lengths
        Where the rows lie; at most ``width`` items each.
    out
        C-contiguous, shape (rows, width, *item shape), of the items' dtype.
    pre
        Whether rows stand at the end, behind the padding, rather than before it.
    value
        Of the padding.

    """
    n_rows, width = out.shape[:2]
    item_nbytes = items.dtype.itemsize * prod(items.shape[1:])
    row_nbytes = width * item_nbytes
    if not n_rows or not row_nbytes:
        return
    step = max(1, PIECE_NBYTES // row_nbytes)
    n_parts = parts_of_row(min(step, n_rows), row_nbytes)
    windows = _windows(items, item_nbytes, row_nbytes, n_parts)
    firsts = starts + lengths - width if pre else starts
    outside = np.flatnonzero((firsts < 0) | (firsts >= len(windows)))
    if len(outside) == n_rows:
        _pad_one_by_one(items, starts, lengths, out, pre, value, outside)
        return
    if len(outside):
        firsts = np.clip(firsts, 0, len(windows) - 1)
    masks = _Masks(out, pre, value)
    flat = as_bytes(out).view(windows.dtype).reshape(n_rows, *windows.shape[1:])
    for first in range(0, n_rows, step):
        last = min(n_rows, first + step)
        flat[first:last] = windows[firsts[first:last]]
        masks.apply(out[first:last], lengths[first:last])
    _pad_one_by_one(items, starts, lengths, out, pre, value, outside)


def _pad_one_by_one(
    items: NDArray[Any],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    out: NDArray[Any],
    pre: bool,
    value: Any,
    which: NDArray[np.int64],
) -> None:
    """Lay out some rows, of which a window of equal length would begin or end beyond the items."""
    width = out.shape[1]
    for row in which.tolist():
        start, length = int(starts[row]), int(lengths[row])
        out[row] = value
        out[row, slice(width - length, width) if pre else slice(0, length)] = items[start : start + length]


def _windows(items: NDArray[Any], item_nbytes: int, row_nbytes: int, n_parts: int) -> NDArray[Any]:
    """Return every run of ``row_nbytes`` of some items, as few opaque items each; they overlap."""
    part_nbytes = row_nbytes // n_parts
    n_windows = max(0, (items.nbytes - row_nbytes) // item_nbytes + 1)
    if not n_windows:
        return np.empty((0, n_parts), f"V{part_nbytes}")
    parts = as_bytes(items)[:part_nbytes].view(f"V{part_nbytes}")
    if n_parts == 1:
        return as_strided(parts, (n_windows,), (item_nbytes,))
    return as_strided(parts, (n_windows, n_parts), (item_nbytes, part_nbytes))


class _Masks:
    """Sets what lies beyond rows to one value."""

    def __init__(self, out: NDArray[Any], pre: bool, value: Any) -> None:
        self._width, self._pre = out.shape[1], pre
        self._n_item = prod(out.shape[2:])
        self._value = np.asarray(value).astype(out.dtype)
        row_nbytes = self._width * self._n_item * out.dtype.itemsize
        self._table: tuple[NDArray[Any], NDArray[Any] | None] | None = None
        if (self._width + 1) * row_nbytes <= _MOST_TABLE_NBYTES:
            self._table = _table(self._width, self._n_item, out.dtype, pre, self._value.tobytes())

    def apply(self, rows: NDArray[Any], lengths: NDArray[np.int64]) -> None:
        """Set the padding of some rows."""
        if self._table is not None:
            keep, fill = self._table
            words = as_bytes(rows).view(_word(keep.dtype.itemsize))
            np.bitwise_and(words, keep.take(lengths).view(words.dtype), out=words)
            if fill is not None:
                np.bitwise_or(words, fill.take(lengths).view(words.dtype), out=words)
            return
        places = np.arange(self._width, dtype=np.int32)
        short = lengths.astype(np.int32)[:, None]
        beyond = places < self._width - short if self._pre else places >= short
        np.copyto(rows, self._value, where=beyond.reshape(*beyond.shape, *(1 for _ in rows.shape[2:])))


@lru_cache(maxsize=8)
def _table(
    width: int, n_item: int, dtype: np.dtype[Any], pre: bool, value: bytes
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return, for each length, the bits of a row that are kept, and those that are set (None where all are zero)."""
    places, lengths = np.arange(width), np.arange(width + 1)[:, None]
    beyond = places < width - lengths if pre else places >= lengths
    beyond = np.repeat(beyond, n_item * dtype.itemsize, axis=1)
    keep = np.where(beyond, np.uint8(0), np.uint8(255))
    row = f"V{keep.shape[1]}"
    fill = None
    if any(value):
        fill = np.where(beyond, np.tile(np.frombuffer(value, np.uint8), width * n_item), np.uint8(0))
    return keep.view(row)[:, 0], None if fill is None else fill.view(row)[:, 0]


def _word(row_nbytes: int) -> np.dtype[Any]:
    """Return the widest unsigned integer that divides a row."""
    return np.dtype(f"u{next(n for n in (8, 4, 2, 1) if row_nbytes % n == 0)}")


def truncated(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], most: int | None, keep_end: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where rows lie when at most so many items of each are kept, the first or the last."""
    if most is None:
        return starts, lengths
    kept = np.minimum(lengths, most)
    return (starts + lengths - kept if keep_end else starts), kept


def numbers_of(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of each item of some rows, one row after the other."""
    ends = np.cumsum(lengths)
    numbers = np.repeat(starts - (ends - lengths), lengths)
    numbers += np.arange(len(numbers))
    return numbers


def put_dense(rows: NDArray[Any], values: NDArray[Any], columns: NDArray[Any], lengths: NDArray[np.int64]) -> None:
    """Write items of sparse rows to their columns; those of one place are summed, as `scipy.sparse` does.

    Parameters
    ----------
    rows
        C-contiguous, shape (rows, columns); overwritten.
    values, columns
        Items of all rows, one row after the other, and the column of each.
    lengths
        Items of each row.

    """
    rows[...] = 0
    places = np.repeat(np.arange(len(rows)) * rows.shape[1], lengths) + columns
    flat = rows.reshape(-1)
    ascends = len(places) < 2 or bool((np.diff(places) > 0).all())
    if ascends or len(np.unique(places)) == len(places):
        flat[places] = values
    else:
        np.add.at(flat, places, values)
