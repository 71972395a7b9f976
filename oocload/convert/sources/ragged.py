"""Ragged and sparse rows in memory, in pieces that the offsets settle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.convert.ragged import CsrSpec, RaggedRows, RaggedSpec, csr_rows, csr_spec, is_sparse, problem_of_offsets
from oocload.convert.sources.ahead import ReadAhead
from oocload.convert.sources.base import FieldSource
from oocload.errors import InvalidArgumentError

OFFSET_NBYTES = 8


def item_nbytes(spec: RaggedSpec | CsrSpec) -> int:
    """Return the bytes of one item, with its column."""
    return sum(part.row_nbytes for part in list(spec.parts.values())[:-1])


def n_rows_within(offsets: NDArray[Any], n_items: int) -> int:
    """Return how many rows, at least one, lie before the first items come to more than a number."""
    return max(1, int(np.searchsorted(offsets, offsets[0] + n_items, "right")) - 1)


class MemoryRagged(FieldSource):
    """Rows in memory: a list or an object array of arrays, a pair ``(values, offsets)``, or a CSR matrix of SciPy.

    Raises
    ------
    InvalidArgumentError
        If a matrix is not CSR, or its offsets are none.

    """

    label = "rows"

    def __init__(self, name: str, rows: Any, spec: RaggedSpec | CsrSpec) -> None:
        self._spec = spec
        self._name = name
        self._rows = rows
        self._offsets = self._find_offsets()
        self.n_rows = len(self._offsets) - 1
        self._item_nbytes = item_nbytes(spec)

    @property
    def spec(self) -> RaggedSpec | CsrSpec:
        """What the rows are."""
        return self._spec

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row, on average."""
        return int(self._offsets[-1]) * self._item_nbytes // max(1, self.n_rows) + OFFSET_NBYTES

    def track(self, start: int, stop: int, piece_nbytes: int, ahead: ReadAhead) -> _MemoryTrack:
        """Return rows from ``start`` to ``stop`` on their way."""
        return _MemoryTrack(self, start, stop, max(1, piece_nbytes // max(1, self._item_nbytes)))

    def reach(self, start: int, stop: int, n_items: int) -> int:
        """Return how many rows have no more than some items; one, where that has more."""
        return n_rows_within(self._offsets[start : stop + 1], n_items)

    def rows(self, start: int, stop: int) -> Any:
        """Return rows; views."""
        if isinstance(self.spec, CsrSpec):
            return csr_rows(self._name, self._rows, self.spec.n_columns, start, stop)
        if not isinstance(self._rows, tuple):
            return self._rows[start:stop]
        first, last = int(self._offsets[start]), int(self._offsets[stop])
        return RaggedRows(self._rows[0][first:last], self._offsets[start : stop + 1] - first)

    def _find_offsets(self) -> NDArray[Any]:
        if isinstance(self._spec, RaggedSpec):
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


class _MemoryTrack:
    """Rows in memory on their way."""

    def __init__(self, source: MemoryRagged, start: int, stop: int, n_items: int) -> None:
        self._source, self._at, self._stop, self._n_items = source, start, stop, n_items

    def available(self) -> int:
        """Return how many rows come to no more than a piece."""
        return self._source.reach(self._at, self._stop, self._n_items) if self._at < self._stop else 0

    def take(self, n_rows: int) -> Any:
        """Return the next rows."""
        self._at += n_rows
        return self._source.rows(self._at - n_rows, self._at)


def sparse_source(name: str, matrix: Any) -> MemoryRagged:
    """Return the source of a CSR matrix.

    Raises
    ------
    InvalidArgumentError
        If it is a sparse matrix of another kind.

    """
    assert is_sparse(matrix)
    return MemoryRagged(name, matrix, csr_spec(name, matrix))
