"""Where rows go: their places in a slab, and the quickest way to each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Bytes, as_bytes

_MIN_ITEMS_WITHOUT_GIL = 500  # NPY_BEGIN_THREADS_THRESHOLDED in NumPy's ndarraytypes.h
_LEAST_ITEM_NBYTES = 64  # smaller ones cost more than the GIL
_SEARCHED = 4


Ranges = Sequence[tuple[int, int]]
"""Ranges of rows of a field, each (start, stop)."""


class Target(Protocol):
    """Where the rows of some ranges go, which are numbered one after the other."""

    @property
    def in_order(self) -> bool:
        """Whether they go to consecutive places."""
        ...

    @property
    def takes_all(self) -> bool:
        """Whether each goes to exactly one place."""
        ...

    def behind(self, at: int) -> Target:
        """Return where rows from number ``at`` on go."""
        ...

    def through(self, wrap: Through) -> Target:
        """Return this with what changes rows put before it; rows that are not taken do not come there."""
        ...

    def put(self, at: int, rows: NDArray[Any]) -> None:
        """Copy C-contiguous rows, numbered from ``at``, to their places; converts the byte order if need be."""
        ...

    def fill(self, at: int, n_rows: int, item: NDArray[Any]) -> None:
        """Set every item of some rows' places to one value, given as an array of shape (1,)."""
        ...

    def span(self, at: int, n_rows: int) -> Bytes | None:
        """Return the bytes of some rows' places where those are consecutive, to be written directly."""
        ...

    def row_buffers(self) -> list[memoryview]:
        """Return the bytes of each row's place, where each has one."""
        ...


Through = Callable[[Target, NDArray[np.int64] | None], Target]
"""Given where rows go, and the number of each row that comes there (None for all), returns what changes them first."""


class Places:
    """Rows go to a field's part of one slab, each to its place.

    Parameters
    ----------
    field
        C-contiguous array of shape (rows, *row shape).
    index
        Place of each row that will be put, or None for consecutive places.
    first
        Place of the first row where ``index`` is None.

    """

    __slots__ = ("field", "first", "index")

    def __init__(self, field: NDArray[Any], index: NDArray[np.int64] | None = None, first: int = 0) -> None:
        self.field = field
        self.index = index
        self.first = first

    takes_all = True

    @property
    def in_order(self) -> bool:
        """Whether places are consecutive."""
        return self.index is None

    def behind(self, at: int) -> Places:
        """Return the places from number ``at`` on."""
        if at == 0:
            return self
        if self.index is None:
            return Places(self.field, None, self.first + at)
        return Places(self.field, self.index[at:])

    def through(self, wrap: Through) -> Target:
        """Return this with what changes rows put before it."""
        return wrap(self, None)

    def put(self, at: int, rows: NDArray[Any]) -> None:
        """Copy C-contiguous rows to the places numbered from ``at``; converts the byte order if need be."""
        if not len(rows):
            return
        if rows.dtype.hasobject:
            start = self.first + at
            self.field[slice(start, start + len(rows)) if self.index is None else self.index[at : at + len(rows)]] = (
                rows
            )
            return
        if self.index is None:
            place = self.field[self.first + at : self.first + at + len(rows)]
            if rows.dtype == place.dtype:
                as_bytes(place)[:] = as_bytes(rows)
            else:
                place[...] = rows
            return
        index = self.index[at : at + len(rows)]
        if rows.dtype != self.field.dtype:
            self.field[index] = rows
            return
        n_items = parts_of_row(len(rows), rows[:1].nbytes)
        as_items(self.field, n_items)[index] = as_items(rows, n_items)

    def fill(self, at: int, n_rows: int, item: NDArray[Any]) -> None:
        """Set every item of some places to one value, given as an array of shape (1,)."""
        places = slice(self.first + at, self.first + at + n_rows)
        self.field[places if self.index is None else self.index[at : at + n_rows]] = item.reshape(())

    def span(self, at: int, n_rows: int) -> Bytes | None:
        """Return the bytes of the places where those are consecutive, to be written directly."""
        if self.index is not None:
            return None
        return as_bytes(self.field[self.first + at : self.first + at + n_rows])

    def row_buffers(self) -> list[memoryview]:
        """Return the bytes of each place; memoryviews, since an array takes longer to be asked for its buffer."""
        assert self.index is not None
        whole = memoryview(as_bytes(self.field))
        nbytes = len(whole) // len(self.field)
        return [whole[start : start + nbytes] for start in (self.index * nbytes).tolist()]


class Dealt:
    """Rows go to places of two slabs, some to the one and some to the other.

    Parameters
    ----------
    slabs
        The two, as `Places`.
    ends
        Number of the row where each run of rows for one slab ends; runs go to the first and to the second in turn.

    """

    __slots__ = ("_at", "_before", "_ends", "_slabs")

    in_order = False
    takes_all = True

    def __init__(self, slabs: tuple[Places, Places], ends: Sequence[int]) -> None:
        self._slabs = slabs
        self._ends = ends
        self._at = 0  # number of the first row
        before, sums, start = [], [0, 0], 0
        for number, end in enumerate(ends):
            before.append(sums[number % 2])
            sums[number % 2] += end - start
            start = end
        self._before = before  # rows that earlier runs bring to the same slab

    def behind(self, at: int) -> Dealt:
        """Return where rows from number ``at`` on go."""
        if at == 0:
            return self
        shifted = copy(self)
        shifted._at = self._at + at
        return shifted

    def through(self, wrap: Through) -> Target:
        """Return this with what changes rows put before it."""
        return wrap(self, None)

    def put(self, at: int, rows: NDArray[Any]) -> None:
        """Copy rows to their places, run by run."""
        for slab, number, first, last in self._runs(at, len(rows)):
            slab.put(number, rows[first:last])

    def fill(self, at: int, n_rows: int, item: NDArray[Any]) -> None:
        """Set every item of some rows' places to one value."""
        for slab, number, first, last in self._runs(at, n_rows):
            slab.fill(number, last - first, item)

    def span(self, at: int, n_rows: int) -> Bytes | None:
        """Nothing is consecutive."""
        return None

    def row_buffers(self) -> list[memoryview]:
        """Return the bytes of each row's place."""
        both = [slab.row_buffers() for slab in self._slabs]
        mixed: list[memoryview] = []
        start = 0
        for number, (end, before) in enumerate(zip(self._ends, self._before, strict=True)):
            mixed += both[number % 2][before : before + end - start]
            start = end
        return mixed[self._at :]

    def _runs(self, at: int, n_rows: int) -> Iterator[tuple[Places, int, int, int]]:
        """Yield (slab, number of the first row there, first row, row after the last) of each run among some rows."""
        at += self._at
        stop, first = at + n_rows, at
        run = bisect_right(self._ends, at)
        while first < stop:
            start = self._ends[run - 1] if run else 0
            last = min(stop, self._ends[run])
            if last > first:
                yield self._slabs[run % 2], self._before[run] + first - start, first - at, last - at
            first, run = last, run + 1


class Picked:
    """Of the rows, some are taken, and some of those more than once.

    Parameters
    ----------
    places
        Where those taken go.
    picks
        The numbers of the rows taken, ascending.
    at
        Number of the first row.

    """

    __slots__ = ("_at", "_picks", "_places")

    in_order = False
    takes_all = False

    def __init__(self, places: Target, picks: NDArray[np.int64], at: int = 0) -> None:
        self._places = places
        self._picks = picks
        self._at = at

    def behind(self, at: int) -> Picked:
        """Return where rows from number ``at`` on go."""
        return self if at == 0 else Picked(self._places, self._picks, self._at + at)

    def through(self, wrap: Through) -> Picked:
        """Return this with what changes the rows that are taken."""
        return Picked(wrap(self._places, self._picks), self._picks, self._at)

    def put(self, at: int, rows: NDArray[Any]) -> None:
        """Copy the rows that are taken to their places."""
        low, high = self._taken(at, len(rows))
        if low == high:
            return
        numbers = self._picks[low:high] - (at + self._at)
        if high - low == len(rows) and numbers[0] == 0 and (np.diff(numbers) == 1).all():
            self._places.put(low, rows)
        elif rows.dtype.hasobject or rows.dtype != rows.dtype.newbyteorder("="):
            self._places.put(low, rows[numbers])
        else:
            taken = as_items(rows).take(numbers, axis=0)
            self._places.put(low, as_bytes(taken).view(rows.dtype).reshape(len(numbers), *rows.shape[1:]))

    def fill(self, at: int, n_rows: int, item: NDArray[Any]) -> None:
        """Set every item of the places of the rows taken to one value."""
        low, high = self._taken(at, n_rows)
        if high > low:
            self._places.fill(low, high - low, item)

    def span(self, at: int, n_rows: int) -> Bytes | None:
        """Nothing is written directly."""
        return None

    def row_buffers(self) -> list[memoryview]:
        """Rows have no place each."""
        raise AssertionError("rows that are picked pass through scratch")

    def _taken(self, at: int, n_rows: int) -> tuple[int, int]:
        first = at + self._at
        low, high = np.searchsorted(self._picks, [first, first + n_rows])
        return int(low), int(high)


@lru_cache(maxsize=1024)
def parts_of_row(n_rows: int, row_nbytes: int) -> int:
    """Return into how many items each of some rows is cut, so that NumPy lets go of the GIL: few large rows into many.

    It does so for over 500 items only. Rows of few bytes, or of an odd number of them, may stay whole.
    """
    least = _MIN_ITEMS_WITHOUT_GIL // n_rows + 1
    most = row_nbytes // _LEAST_ITEM_NBYTES
    return next((n for n in range(least, min(most, _SEARCHED * least) + 1) if row_nbytes % n == 0), 1)


def as_items(rows: NDArray[Any], n_items: int = 1) -> NDArray[Any]:
    """Return a C-contiguous array with its rows as items that NumPy copies as they are.

    Parameters
    ----------
    rows
        The rows.
    n_items
        Into how many items each is cut, where that divides its bytes.

    Returns
    -------
    ndarray
        Shape (rows,), which scatters small rows fastest, or (rows, items).

    """
    nbytes = rows[:1].nbytes
    if nbytes == 0:
        return rows
    flat = as_bytes(rows)
    if n_items > 1:
        n_items = n_items if nbytes % n_items == 0 else nbytes
        return flat.view(f"V{nbytes // n_items}").reshape(len(rows), n_items)
    return flat.view(f"u{nbytes}" if nbytes in (1, 2, 4, 8) else f"V{nbytes}")
