"""Ragged and sparse rows, in memory or in a store: read by items, in pieces that the offsets settle."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.read import FieldReader, open_reader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Places
from oocload.convert.ragged import CsrSpec, RaggedRows, RaggedSpec, csr_rows, csr_spec, is_sparse, problem_of_offsets
from oocload.convert.sources.base import RaggedSource
from oocload.errors import ChunkError, InvalidArgumentError
from oocload.layout import FieldLayout
from oocload.stores.base import Store

_OFFSET_NBYTES = 8


def item_nbytes(spec: RaggedSpec | CsrSpec) -> int:
    """Return the bytes of one item, with its column."""
    return sum(part.row_nbytes for part in list(spec.parts.values())[:-1])


def n_rows_within(offsets: NDArray[Any], n_items: int) -> int:
    """Return how many rows, at least one, lie before the first items come to more than a number."""
    return max(1, int(np.searchsorted(offsets, offsets[0] + n_items, "right")) - 1)


class MemoryRagged(RaggedSource):
    """Rows in memory: a list or an object array of arrays, a pair ``(values, offsets)``, or a CSR matrix of SciPy.

    Raises
    ------
    InvalidArgumentError
        If a matrix is not CSR, or its offsets are none.

    """

    label = "rows"

    def __init__(self, name: str, rows: Any, spec: RaggedSpec | CsrSpec) -> None:
        self.spec = spec
        self._name = name
        self._rows = rows
        self._offsets = self._find_offsets()
        self.n_rows = len(self._offsets) - 1
        self._item_nbytes = item_nbytes(spec)
        mean = int(self._offsets[-1]) * self._item_nbytes // max(1, self.n_rows)
        self.row_nbytes = mean + _OFFSET_NBYTES

    def reach(self, start: int, stop: int, piece_nbytes: int) -> int:
        """Return the row up to which rows come to no more than a piece."""
        return start + n_rows_within(self._offsets[start : stop + 1], piece_nbytes // max(1, self._item_nbytes))

    def rows(self, start: int, stop: int) -> Any:
        """Return rows; views."""
        if isinstance(self.spec, CsrSpec):
            return csr_rows(self._name, self._rows, self.spec.n_columns, start, stop)
        if not isinstance(self._rows, tuple):
            return self._rows[start:stop]
        first, last = int(self._offsets[start]), int(self._offsets[stop])
        return RaggedRows(self._rows[0][first:last], self._offsets[start : stop + 1] - first)

    def _find_offsets(self) -> NDArray[Any]:
        if isinstance(self.spec, RaggedSpec):
            if isinstance(self._rows, tuple):
                return np.asarray(self._rows[1], np.int64)
            offsets = np.zeros(len(self._rows) + 1, np.int64)
            np.cumsum([len(row) for row in self._rows], out=offsets[1:])
            return offsets
        offsets = np.asarray(self._rows.indptr)
        if (problem := problem_of_offsets(offsets, len(self._rows.data))) or len(offsets) != self._rows.shape[0] + 1:
            problem = problem or f"be {self._rows.shape[0] + 1}, one more than rows, got {len(offsets)}"
            raise InvalidArgumentError(f"indptr of field {self._name!r} must {problem}")
        return offsets


def sparse_source(name: str, matrix: Any) -> MemoryRagged:
    """Return the source of a CSR matrix.

    Raises
    ------
    InvalidArgumentError
        If it is a sparse matrix of another kind.

    """
    assert is_sparse(matrix)
    return MemoryRagged(name, matrix, csr_spec(name, matrix))


class StoreRagged(RaggedSource):
    """A ragged or sparse field of a store, or of several joined."""

    def __init__(self, store: Store, field: FieldLayout) -> None:
        ragged = field.ragged
        assert ragged is not None
        self.label = f"{store.address}, field {field.name!r}"
        self.n_rows = field.n_rows
        if ragged.columns is None:
            self.spec = RaggedSpec(ragged.values.row_shape, field.dtype)
        else:
            self.spec = CsrSpec(field.dtype, ragged.n_columns)
        self._item_nbytes = item_nbytes(self.spec)
        self.row_nbytes = ragged.values.n_rows * self._item_nbytes // max(1, self.n_rows) + _OFFSET_NBYTES
        parts = store.parts(field.name)
        self._parts = [(p.start, _Part(p.store, p.field)) for p in parts] or [(0, _Part(store, field))]

    def reach(self, start: int, stop: int, piece_nbytes: int) -> int:
        """Return the row up to which rows come to no more than a piece, and lie in one file."""
        first, part = self._part_of(start)
        offsets = part.offsets(start - first, min(stop - first, part.n_rows))
        return start + n_rows_within(offsets, piece_nbytes // max(1, self._item_nbytes))

    def rows(self, start: int, stop: int) -> RaggedRows:
        """Return rows, read now."""
        first, part = self._part_of(start)
        return part.rows(start - first, stop - first)

    def close(self) -> None:
        """Close the readers."""
        for _, part in self._parts:
            part.close()

    def _part_of(self, row: int) -> tuple[int, _Part]:
        return next((first, part) for first, part in reversed(self._parts) if first <= row)


class _Part:
    """Ragged rows of one store: its offsets, those looked at last kept, and its items."""

    def __init__(self, store: Store, field: FieldLayout) -> None:
        assert field.ragged is not None
        self.n_rows = field.n_rows
        self._where = f"{store.address}, field {field.name!r}"
        self._store = store
        self._ragged = field.ragged
        self._readers: dict[str, FieldReader] = {}
        self._open = ExitStack()
        self._scratch = Scratch()
        self._first = 0
        self._known = np.empty(0, np.int64)

    def offsets(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return where rows begin, and where the last of them ends.

        Raises
        ------
        ChunkError
            If that cannot be.

        """
        if not self._first <= start <= stop < self._first + len(self._known):
            found = self._read(self._ragged.offsets, start, stop + 1).astype(np.int64)
            self._check(found, start, stop)
            self._first, self._known = start, found
        return self._known[start - self._first : stop + 1 - self._first]

    def rows(self, start: int, stop: int) -> RaggedRows:
        """Return rows."""
        offsets = self.offsets(start, stop)
        first, last = int(offsets[0]), int(offsets[-1])
        values = self._read(self._ragged.values, first, last)
        if self._ragged.columns is None:
            return RaggedRows(values, offsets - first)
        columns = self._read(self._ragged.columns, first, last)
        if len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < self._ragged.n_columns:
            raise ChunkError(
                f"{self._where}, rows {start} to {stop}: columns must be from 0 to {self._ragged.n_columns - 1}, "
                f"got {columns.min()} to {columns.max()}; the file is damaged"
            )
        return RaggedRows(values, offsets - first, columns)

    def close(self) -> None:
        """Close the readers."""
        self._open.close()
        self._readers.clear()

    def _read(self, member: FieldLayout, start: int, stop: int) -> NDArray[Any]:
        if member.name not in self._readers:
            self._readers[member.name] = self._open.enter_context(closing(open_reader(self._store, member)))
        items = np.empty((stop - start, *member.row_shape), member.dtype)
        if stop > start:
            self._readers[member.name].read([(start, stop)], Places(items), self._scratch)
        return items

    def _check(self, offsets: NDArray[np.int64], start: int, stop: int) -> None:
        n_items, problem = self._ragged.values.n_rows, ""
        if offsets.min() < 0 or offsets.max() > n_items:
            problem = f"be from 0 to the number of items, {n_items}, got {offsets.min()} to {offsets.max()}"
        elif (offsets[1:] < offsets[:-1]).any():
            problem = f"never fall, and do after row {start + int(np.argmax(offsets[1:] < offsets[:-1]))}"
        elif not start and offsets[0]:
            problem = f"begin with 0, got {offsets[0]}"
        elif stop == self.n_rows and offsets[-1] != n_items:
            problem = f"end with the number of items, {n_items}, got {offsets[-1]}"
        if problem:
            raise ChunkError(f"{self._where}: offsets must {problem}; the file is damaged")
