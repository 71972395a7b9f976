"""Rows of several lengths on their way into a store: one array of all items, and where each row begins.

On disk: docs/ragged.md. Rows are checked and joined once an append; what lies in which array of the store is said by
`parts` and `spread` of the two specs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.convert.spec import FieldSpec, does_not_fit, may_be_cast
from oocload.errors import InvalidArgumentError
from oocload.stores.ragged import (
    CSR_DATA,
    CSR_INDICES,
    CSR_INDPTR,
    OFFSETS,
    VALUES,
    csr_attributes,
    ragged_attributes,
)

_OFFSET = FieldSpec((), np.dtype(np.int64))


@dataclass(frozen=True, slots=True)
class RaggedRows:
    """Rows one after the other: row i has the items from ``offsets[i]`` to ``offsets[i + 1]``; the first offset is 0.

    ``columns`` are those of the items of sparse rows; else None.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]
    columns: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice) -> RaggedRows:
        """Return some consecutive rows; views but for the offsets."""
        start, stop, _ = rows.indices(len(self))
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        columns = None if self.columns is None else self.columns[first:last]
        return RaggedRows(self.values[first:last], self.offsets[start : stop + 1] - first, columns)


@dataclass(frozen=True, slots=True)
class RaggedSpec:
    """A field of rows of several lengths.

    Parameters
    ----------
    item_shape
        Shape of one item; ``()`` for a scalar.
    dtype
        Of the items.

    """

    item_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def parts(self) -> dict[str, FieldSpec]:
        """Array of the group → its spec; the last holds the offsets."""
        return {VALUES: FieldSpec(self.item_shape, self.dtype), OFFSETS: _OFFSET}

    def check(self, name: str, rows: Any) -> RaggedRows:
        """Return rows one after the other; only a cast that keeps every value is made.

        Parameters
        ----------
        name
            The field, for messages.
        rows
            A sequence of rows, an array whose rows have one length, or a tuple ``(values, offsets)``.

        Raises
        ------
        InvalidArgumentError
            If items have another shape or a dtype that does not fit, or offsets are none.

        """
        if isinstance(rows, RaggedRows):
            values, offsets = rows.values, rows.offsets
            self._check_items(name, values, "values")
            return RaggedRows(self._cast(name, [values], weak=False), offsets)
        if isinstance(rows, tuple):
            return self._check_pair(name, rows)
        if isinstance(rows, np.ndarray) and not rows.dtype.hasobject:
            return self._check_dense(name, rows)
        if isinstance(rows, Sequence | np.ndarray) and not isinstance(rows, str | bytes):
            return self._check_each(name, rows)
        raise InvalidArgumentError(
            f"rows of field {name!r} must be a sequence of arrays or lists, or a tuple (values, offsets), "
            f"got {type(rows).__name__}"
        )

    def spread(self, rows: RaggedRows, n_items: int) -> dict[str, NDArray[Any]]:
        """Return what goes to each array of the group, ``n_items`` after those that are there."""
        return {VALUES: rows.values, OFFSETS: rows.offsets[1:] + n_items}

    def attributes(self, n_rows: int) -> Mapping[str, Any]:
        """Return the group's attributes."""
        return ragged_attributes()

    def __str__(self) -> str:
        return f"{(None, *self.item_shape)} {self.dtype}"

    def _check_pair(self, name: str, rows: tuple[Any, ...]) -> RaggedRows:
        if len(rows) != 2:
            raise InvalidArgumentError(
                f"rows of field {name!r} must be a tuple (values, offsets) of two arrays, got one of {len(rows)}; "
                "pass rows as a list"
            )
        values, offsets = np.asarray(rows[0]), np.asarray(rows[1])
        self._check_items(name, values, "values")
        if problem := problem_of_offsets(offsets, len(values)):
            raise InvalidArgumentError(f"offsets of field {name!r} must {problem}")
        weak = not isinstance(rows[0], np.ndarray)
        return RaggedRows(self._cast(name, [values], weak), offsets.astype(np.int64, copy=False))

    def _check_dense(self, name: str, rows: NDArray[Any]) -> RaggedRows:
        if rows.ndim < 2:
            raise self._wrong_shape(name, rows[0] if rows.ndim and len(rows) else rows, "row 0")
        self._check_items(name, rows[0] if len(rows) else np.empty(rows.shape[1:]), "row 0")
        n_rows, length = rows.shape[:2]
        values = rows.reshape(n_rows * length, *self.item_shape)
        return RaggedRows(self._cast(name, [values], weak=False), np.arange(n_rows + 1, dtype=np.int64) * length)

    def _check_each(self, name: str, rows: Sequence[Any] | NDArray[Any]) -> RaggedRows:
        arrays = [row if isinstance(row, np.ndarray) else _as_array(name, i, row) for i, row in enumerate(rows)]
        for i, array in enumerate(arrays):
            if array.shape[1:] != self.item_shape or not array.ndim:
                if array.shape != (0,):  # an empty list, whatever the items would have been
                    raise self._wrong_shape(name, array, f"row {i}")
                arrays[i] = np.empty((0, *self.item_shape), self.dtype)
        offsets = np.zeros(len(arrays) + 1, np.int64)
        np.cumsum([len(a) for a in arrays], out=offsets[1:])
        filled = [a for a in arrays if len(a)]
        given = [a for a, row in zip(arrays, rows, strict=True) if len(a) and isinstance(row, np.ndarray)]
        for dtype in {a.dtype for a in given}:
            if not may_be_cast(dtype, self.dtype):
                raise does_not_fit(name, dtype, self.dtype)
        self._cast(name, [a for a in filled if not may_be_cast(a.dtype, self.dtype)], weak=True)
        if not filled:
            return RaggedRows(np.empty((0, *self.item_shape), self.dtype), offsets)
        return RaggedRows(np.concatenate(filled, dtype=self.dtype, casting="unsafe"), offsets)

    def _check_items(self, name: str, items: NDArray[Any], which: str) -> None:
        if items.shape[1:] != self.item_shape or not items.ndim:
            raise self._wrong_shape(name, items, which)

    def _wrong_shape(self, name: str, items: Any, which: str) -> InvalidArgumentError:
        wanted = ", ".join(("any length", *map(str, self.item_shape)))
        return InvalidArgumentError(
            f"rows of field {name!r} must have shape ({wanted}), got an array of shape {np.shape(items)} as {which}"
        )

    def _cast(self, name: str, arrays: list[NDArray[Any]], weak: bool) -> NDArray[Any]:
        """Return arrays as one of the field's dtype; whole numbers that came without a dtype are tried first."""
        if not arrays:
            return np.empty((0, *self.item_shape), self.dtype)
        values = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        if may_be_cast(values.dtype, self.dtype):
            return values.astype(self.dtype, copy=False)
        if not (weak and values.dtype.kind in "iu"):
            raise does_not_fit(name, values.dtype, self.dtype)
        cast = values.astype(self.dtype)
        if self.dtype.kind not in "iuf" or not np.array_equal(cast, values):
            low, high = values.min(), values.max()
            raise InvalidArgumentError(
                f"rows of field {name!r} must fit into its dtype {self.dtype}, got numbers from {low} to {high}"
            )
        return cast


@dataclass(frozen=True, slots=True)
class CsrSpec:
    """A field of sparse rows, stored as anndata stores CSR matrices.

    Parameters
    ----------
    dtype
        Of the items.
    n_columns
        Length of a dense row.

    """

    dtype: np.dtype[Any]
    n_columns: int

    @property
    def parts(self) -> dict[str, FieldSpec]:
        """Array of the group → its spec; the last holds the offsets."""
        return {
            CSR_DATA: FieldSpec((), self.dtype),
            CSR_INDICES: FieldSpec((), self._column_dtype),
            CSR_INDPTR: _OFFSET,
        }

    def check(self, name: str, rows: Any) -> RaggedRows:
        """Return rows one after the other, of a CSR matrix as SciPy has it; only a safe cast is made.

        Raises
        ------
        InvalidArgumentError
            If it is something else, has other columns, or a dtype that does not fit.

        """
        if not isinstance(rows, RaggedRows):
            rows = csr_rows(name, rows, self.n_columns)
        if not may_be_cast(rows.values.dtype, self.dtype):
            raise does_not_fit(name, rows.values.dtype, self.dtype)
        columns = rows.columns
        assert columns is not None
        if len(columns) and (columns.min() < 0 or columns.max() >= self.n_columns):
            raise InvalidArgumentError(
                f"columns of field {name!r} must be from 0 to {self.n_columns - 1}, "
                f"got {columns.min()} to {columns.max()}"
            )
        values = rows.values.astype(self.dtype, copy=False)
        return RaggedRows(values, rows.offsets, columns.astype(self._column_dtype, copy=False))

    def spread(self, rows: RaggedRows, n_items: int) -> dict[str, NDArray[Any]]:
        """Return what goes to each array of the group, ``n_items`` after those that are there."""
        assert rows.columns is not None
        return {CSR_DATA: rows.values, CSR_INDICES: rows.columns, CSR_INDPTR: rows.offsets[1:] + n_items}

    def attributes(self, n_rows: int) -> Mapping[str, Any]:
        """Return the group's attributes."""
        return csr_attributes(n_rows, self.n_columns)

    def __str__(self) -> str:
        return f"({self.n_columns},) {self.dtype}, sparse"

    @property
    def _column_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int32 if self.n_columns <= 2**31 else np.int64)


def is_sparse(value: Any) -> bool:
    """Whether a value is a sparse matrix or array of SciPy, or one that looks like it."""
    return hasattr(value, "tocsr") and hasattr(value, "nnz")


def csr_spec(name: str, matrix: Any) -> CsrSpec:
    """Return the spec of a CSR matrix.

    Raises
    ------
    InvalidArgumentError
        If it is a sparse matrix of another kind.

    """
    _check_csr(name, matrix)
    return CsrSpec(np.dtype(matrix.dtype).newbyteorder("="), int(matrix.shape[1]))


def csr_rows(name: str, matrix: Any, n_columns: int, start: int = 0, stop: int | None = None) -> RaggedRows:
    """Return rows of a CSR matrix; views.

    Raises
    ------
    InvalidArgumentError
        If it is none, has other columns, or its offsets are none.

    """
    _check_csr(name, matrix)
    if matrix.shape[1] != n_columns:
        raise InvalidArgumentError(f"rows of field {name!r} must have {n_columns} columns, got {matrix.shape[1]}")
    offsets = np.asarray(matrix.indptr[start : None if stop is None else stop + 1]).astype(np.int64)
    first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    values, columns = np.asarray(matrix.data[first:last]), np.asarray(matrix.indices[first:last])
    offsets -= first
    if len(columns) != len(values) or (problem := problem_of_offsets(offsets, len(values))):
        problem = problem if len(columns) == len(values) else f"have as many indices as data, got {len(columns)}"
        raise InvalidArgumentError(f"sparse matrix of field {name!r} must {problem}")
    return RaggedRows(values, offsets, columns)


def _check_csr(name: str, matrix: Any) -> None:
    if getattr(matrix, "format", None) != "csr" or len(matrix.shape) != 2:
        kind = getattr(matrix, "format", type(matrix).__name__)
        raise InvalidArgumentError(
            f"sparse rows of field {name!r} must be a matrix or array in CSR format, got {kind}; call .tocsr()"
        )


def problem_of_offsets(offsets: NDArray[Any], n_items: int) -> str:
    """Return what offsets must be that they are not; empty when they fit the items."""
    if offsets.ndim != 1 or not len(offsets) or offsets.dtype.kind not in "iu":
        return f"be whole numbers in one dimension, one more than rows, got {offsets.dtype} of shape {offsets.shape}"
    if offsets[0] != 0 or offsets[-1] != n_items:
        return f"go from 0 to the number of items, {n_items}, got {offsets[0]} to {offsets[-1]}"
    falls = np.flatnonzero(offsets[1:] < offsets[:-1])
    if len(falls):
        return f"never fall, got {offsets[falls[0] + 1]} after {offsets[falls[0]]} at row {falls[0]}"
    return ""


def ragged_spec_of(name: str, rows: Any) -> RaggedSpec | None:
    """Return the spec of rows that are ragged by what they look like, or None where they are not.

    Those are a list or an object array of arrays or lists of several lengths, and a tuple of two arrays of which the
    second can be the offsets of the first.

    Raises
    ------
    InvalidArgumentError
        If all rows are empty, so that nothing tells the dtype.

    """
    if isinstance(rows, RaggedRows):
        return RaggedSpec(rows.values.shape[1:], rows.values.dtype.newbyteorder("="))
    if isinstance(rows, tuple):
        if len(rows) != 2 or not all(isinstance(part, np.ndarray) for part in rows):
            return None
        values, offsets = rows
        if not values.ndim or values.dtype.hasobject or problem_of_offsets(offsets, len(values)):
            return None
        return RaggedSpec(values.shape[1:], values.dtype.newbyteorder("="))
    if not _looks_ragged(rows):
        return None
    arrays = [row if isinstance(row, np.ndarray) else _as_array(name, i, row) for i, row in enumerate(rows)]
    filled = [a for a in arrays if len(a)] or [a for a in arrays if isinstance(rows[0], np.ndarray)]
    if not filled:
        raise InvalidArgumentError(
            f"field {name!r} must be named in fields=, as (None, dtype), where its first rows are all empty"
        )
    dtype = np.result_type(*{a.dtype for a in filled})
    return RaggedSpec(filled[0].shape[1:], dtype.newbyteorder("="))


def _looks_ragged(rows: Any) -> bool:
    """Whether rows are sequences, and of several lengths or held as objects."""
    if isinstance(rows, np.ndarray):
        return rows.dtype == object and rows.ndim == 1 and len(rows) > 0 and all(map(_is_row, rows))
    if not isinstance(rows, list) or not rows or not all(map(_is_row, rows)):
        return False
    lengths = {len(row) for row in rows}
    return len(lengths) > 1 or lengths == {0}


def _is_row(row: Any) -> bool:
    return isinstance(row, list | tuple) or (hasattr(row, "__array__") and np.ndim(row) > 0)


def _as_array(name: str, number: int, row: Any) -> NDArray[Any]:
    try:
        return np.asarray(row)
    except ValueError as exc:
        raise InvalidArgumentError(
            f"rows of field {name!r} must each be an array of items of one shape, got in row {number}: {exc}"
        ) from exc
