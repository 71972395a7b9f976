"""HDF5 fields whose items are arrays of variable length (vlen): as ragged rows, read by h5py."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from oocload.convert.ragged import RaggedSpec
from oocload.convert.sources.base import RaggedSource
from oocload.layout import FieldLayout
from oocload.stores.base import Store

_ROWS_READ = 256  # at a time: how long they are shows only then
_OFFSET_NBYTES = 8


def vlen_item_dtype(field: FieldLayout) -> np.dtype[Any] | None:
    """Return the dtype of what rows of variable length are made of; None for text and everything else."""
    base = h5py.check_vlen_dtype(field.dtype) if len(field.shape) == 1 and field.dtype.hasobject else None
    if base is None or base in (str, bytes) or np.dtype(base).hasobject:
        return None
    found: np.dtype[Any] = np.dtype(base).newbyteorder("=")
    return found


class VlenSource(RaggedSource):
    """One such field."""

    def __init__(self, store: Store, field: FieldLayout, item_dtype: np.dtype[Any]) -> None:
        self.label = f"{store.address}, field {field.name!r}"
        self.n_rows = field.n_rows
        self.spec = RaggedSpec((), item_dtype)
        self._store = store
        self._field = field
        self._first = 0
        self._known: list[NDArray[Any]] = []
        self._read_more()
        self.row_nbytes = sum(row.nbytes for row in self._known) // max(1, len(self._known)) + _OFFSET_NBYTES

    def reach(self, start: int, stop: int, piece_nbytes: int) -> int:
        """Return the row up to which rows come to no more than a piece; reads them."""
        del self._known[: start - self._first]
        self._first = start
        total = 0
        for number in range(start, stop):
            if number == self._first + len(self._known):
                self._read_more()
            total += self._known[number - start].nbytes
            if total > piece_nbytes:
                return max(number, start + 1)
        return stop

    def rows(self, start: int, stop: int) -> list[NDArray[Any]]:
        """Return rows that were read to know their length."""
        return self._known[start - self._first : stop - self._first]

    def _read_more(self) -> None:
        start = self._first + len(self._known)
        rows = self._store.read_rows(self._field.name, start, min(self.n_rows, start + _ROWS_READ))
        self._known += [np.asarray(row, self.spec.dtype) for row in rows]
