"""Rows of fields, gathered into whole chunks of the arrays that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.convert.arrays import NewArray, parts_of
from oocload.convert.fields import Spec
from oocload.convert.ragged import RaggedRows
from oocload.convert.spec import FieldSpec

Rows = NDArray[Any] | RaggedRows
"""Rows of one field as its spec has checked them."""


class Full(NamedTuple):
    """Rows of an array that begin a chunk; whole chunks, but for the last of the array."""

    array: str
    start: int
    rows: NDArray[Any]


class Buffers:
    """Gathers the rows of all fields.

    Parameters
    ----------
    fields
        Name → spec.
    arrays
        Name → what is written of it at a time.

    """

    def __init__(self, fields: Mapping[str, Spec], arrays: Mapping[str, NewArray]) -> None:
        self._fields = fields
        self._arrays = {name: _ArrayBuffer(array) for name, array in arrays.items()}
        self._begun = False

    @property
    def lengths(self) -> dict[str, int]:
        """Array → rows so far."""
        return {name: buffer.n_rows for name, buffer in self._arrays.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all rows so far."""
        return sum(buffer.n_rows * buffer.row_nbytes for buffer in self._arrays.values())

    def attributes(self, n_rows: int) -> dict[str, Mapping[str, Any]]:
        """Return group → attributes, of the fields that are groups."""
        return {name: s.attributes(n_rows) for name, s in self._fields.items() if not isinstance(s, FieldSpec)}

    def add(self, name: str, rows: Rows) -> Iterator[Full]:
        """Copy rows of a field in; yield the chunks that became full."""
        spec = self._fields[name]
        if isinstance(spec, FieldSpec):
            assert isinstance(rows, np.ndarray)
            yield from self._add(name, rows)
            return
        assert isinstance(rows, RaggedRows)
        items, *_, offsets = parts_of(name, spec)
        n_items = self._arrays[items].n_rows
        if not self._arrays[offsets].n_rows:
            yield from self._add(offsets, np.zeros(1, np.int64))
        for part, array in spec.spread(rows, n_items).items():
            yield from self._add(f"{name}/{part}", array)

    def rest(self) -> Iterator[Full]:
        """Yield the rows of the last, short chunks."""
        for name, buffer in self._arrays.items():
            if (rest := buffer.rest()) is not None:
                yield Full(name, *rest)

    def clear(self) -> None:
        """Forget the rows."""
        self._arrays.clear()

    def _add(self, array: str, rows: NDArray[Any]) -> Iterator[Full]:
        return (Full(array, *full) for full in self._arrays[array].add(rows))


class _ArrayBuffer:
    """Gathers the rows of one array."""

    def __init__(self, array: NewArray) -> None:
        self._shape = (array.shard_height, *array.spec.row_shape)
        self._dtype = array.spec.dtype
        self._rows: NDArray[Any] | None = None
        self._filled = 0
        self._start = 0
        self.row_nbytes = array.spec.row_nbytes

    @property
    def n_rows(self) -> int:
        return self._start + self._filled

    def add(self, rows: NDArray[Any]) -> list[tuple[int, NDArray[Any]]]:
        """Copy rows in; return the chunks that became full, with the row at which each begins."""
        full = []
        while len(rows):
            if self._rows is None:
                self._rows = np.empty(self._shape, self._dtype)
            n = min(len(rows), len(self._rows) - self._filled)
            self._rows[self._filled : self._filled + n] = rows[:n]
            self._filled += n
            rows = rows[n:]
            if self._filled == len(self._rows):
                full.append((self._start, self._rows))
                self._start += self._filled
                self._rows, self._filled = None, 0
        return full

    def rest(self) -> tuple[int, NDArray[Any]] | None:
        """Return the rows of the last, short chunk."""
        return None if self._rows is None else (self._start, self._rows[: self._filled])
