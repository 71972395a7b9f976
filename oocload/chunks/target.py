"""Where rows go: their places in a slab, and the quickest way to each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Bytes, as_bytes

_MIN_ITEMS_WITHOUT_GIL = 500  # NPY_BEGIN_THREADS_THRESHOLDED in NumPy's ndarraytypes.h
_SPLITS = (1, 2, 4, 8, 16)


Ranges = Sequence[tuple[int, int]]
"""Ranges of rows of a field, each (start, stop)."""


class Target:
    """Where rows go: a field's part of a slab, and each row's place in it.

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

    def behind(self, at: int) -> Target:
        """Return the places from number ``at`` on."""
        if at == 0:
            return self
        if self.index is None:
            return Target(self.field, None, self.first + at)
        return Target(self.field, self.index[at:])

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
        # NumPy lets go of the GIL for over 500 items only: few large rows must count as many smaller items.
        n_items = next((n for n in _SPLITS if n * len(rows) > _MIN_ITEMS_WITHOUT_GIL), _SPLITS[-1])
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
