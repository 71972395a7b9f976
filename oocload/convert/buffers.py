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

    def go_on(self, array: str, start: int, head: NDArray[Any]) -> None:
        """Begin with rows that are there already, in a chunk that begins at ``start``."""
        self._arrays[array].go_on(start, head)

    def add(self, name: str, rows: Rows, owned: bool) -> Iterator[Full]:
        """Take rows of a field; yield the chunks that became full.

        ``owned`` says that nobody will change the rows any more, so that views of them will do for whole chunks.
        """
        spec = self._fields[name]
        if isinstance(spec, FieldSpec):
            assert isinstance(rows, np.ndarray)
            yield from self._add(name, rows, owned)
            return
        assert isinstance(rows, RaggedRows)
        items, *_, offsets = parts_of(name, spec)
        n_items = self._arrays[items].n_rows
        if not self._arrays[offsets].n_rows:
            yield from self._add(offsets, np.zeros(1, np.int64), owned=True)
        for part, array in spec.spread(rows, n_items).items():
            yield from self._add(f"{name}/{part}", array, owned)

    def rest(self) -> Iterator[Full]:
        """Yield the rows of the last, short chunks."""
        for name, buffer in self._arrays.items():
            if (rest := buffer.rest()) is not None:
                yield Full(name, *rest)

    def head(self, array: str, start: int, stop: int) -> bytes:
        """Return the bytes of rows that wait here, from where their chunk begins."""
        return self._arrays[array].head(start, stop)

    def has_head(self, array: str, start: int, stop: int) -> bool:
        """Whether rows wait here, and ``start`` is where their chunk begins; not where taking rows was interrupted."""
        return self._arrays[array].has_head(start, stop)

    def give_back(self, array: str, rows: NDArray[Any]) -> None:
        """Take memory back whose chunk is written."""
        self._arrays[array].give_back(rows)

    def _add(self, array: str, rows: NDArray[Any], owned: bool) -> Iterator[Full]:
        return (Full(array, *full) for full in self._arrays[array].add(rows, owned))


class _ArrayBuffer:
    """Gathers the rows of one array; its memory goes round."""

    def __init__(self, array: NewArray) -> None:
        self._shape = array.chunk_shape
        self._dtype = array.spec.dtype
        self._rows: NDArray[Any] | None = None
        self._free: list[NDArray[Any]] = []
        self._lent: set[int] = set()
        self._filled = 0
        self._start = 0
        self.row_nbytes = array.spec.row_nbytes

    @property
    def n_rows(self) -> int:
        return self._start + self._filled

    def go_on(self, start: int, head: NDArray[Any]) -> None:
        """Begin in a chunk of which the first rows are there."""
        self._start = start
        if len(head):
            self._rows, self._filled = self._room(), len(head)
            self._rows[: len(head)] = head

    def add(self, rows: NDArray[Any], owned: bool) -> Iterator[tuple[int, NDArray[Any]]]:
        """Take rows; yield those whose chunks became full, with the row at which each begins."""
        height = self._shape[0]
        while len(rows):
            if owned and not self._filled and rows.flags.c_contiguous and (n := len(rows) // height * height):
                self._start += n
                yield self._start - n, rows[:n]
                rows = rows[n:]
                continue
            if self._rows is None:
                self._rows = self._room()
            n = min(len(rows), height - self._filled)
            self._rows[self._filled : self._filled + n] = rows[:n]
            self._filled += n
            rows = rows[n:]
            if self._filled == height:
                full, self._rows, self._filled = self._rows, None, 0
                self._lent.add(id(full))
                self._start += height
                yield self._start - height, full

    def head(self, start: int, stop: int) -> bytes:
        """Return the bytes of rows that wait here, from where their chunk begins."""
        assert self._rows is not None
        assert self.has_head(start, stop)
        return self._rows[: stop - start].tobytes()

    def has_head(self, start: int, stop: int) -> bool:
        """Whether rows wait here, and ``start`` is where their chunk begins."""
        return self._rows is not None and start == self._start and stop - start <= self._filled

    def give_back(self, rows: NDArray[Any]) -> None:
        """Take the memory of a chunk back, if it came from here."""
        root = rows if rows.base is None else rows.base
        if id(root) in self._lent:
            self._lent.discard(id(root))
            self._free.append(root)

    def rest(self) -> tuple[int, NDArray[Any]] | None:
        """Return the rows of the last, short chunk."""
        return None if self._rows is None else (self._start, self._rows[: self._filled])

    def _room(self) -> NDArray[Any]:
        return self._free.pop() if self._free else np.empty(self._shape, self._dtype)
