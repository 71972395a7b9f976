"""What an append adds to each array of a store, from the rows of its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oocload.convert.buffers import Rows
from oocload.convert.fields import Spec
from oocload.convert.ragged import CsrSpec, RaggedRows, RaggedSpec
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError, StoreFormatError
from oocload.layout import FieldLayout, RaggedLayout


@dataclass(frozen=True, slots=True)
class Addition:
    """Rows for the end of one array.

    Attributes
    ----------
    layout
        The array as it is.
    rows
        In its stored dtype.

    """

    layout: FieldLayout
    rows: NDArray[Any]

    @property
    def n_rows(self) -> int:
        """Length of the array after it."""
        return self.layout.n_rows + len(self.rows)


class Growth(Protocol):
    """Appends rows to the arrays of one store."""

    def check(self, arrays: list[FieldLayout]) -> None:
        """Raise where an array cannot grow.

        Raises
        ------
        InvalidArgumentError
            With what to do about it.

        """
        ...

    def last_offset(self, offsets: FieldLayout) -> int:
        """Return the last number of an array of offsets."""
        ...

    def grow(self, additions: list[Addition], sparse: Mapping[str, int]) -> None:
        """Append rows to arrays as one step, and note the numbers of rows of sparse fields, name → rows."""
        ...

    def close(self) -> None:
        """Let go of the store, as it is on disk."""
        ...


def arrays_of(field: FieldLayout) -> list[FieldLayout]:
    """Return the arrays that a field is made of."""
    if field.ragged is None:
        return [field]
    parts = (field.ragged.values, field.ragged.offsets, field.ragged.columns)
    return [part for part in parts if part is not None]


def spec_of_layout(field: FieldLayout) -> Spec:
    """Return what rows of a field must be.

    Raises
    ------
    InvalidArgumentError
        If it is such that no rows can be appended to it.

    """
    if field.read_path == "none" or field.dtype.hasobject:
        raise InvalidArgumentError(
            f"field {field.name!r} must be of a kind that rows can be appended to, and is not: {field.reason}; "
            "convert the store without it (oocload convert --fields)"
        )
    if field.ragged is None:
        return FieldSpec(field.row_shape, field.dtype)
    if field.ragged.columns is None:
        return RaggedSpec(field.ragged.values.row_shape, field.ragged.values.dtype)
    return CsrSpec(field.ragged.values.dtype, field.ragged.n_columns)


def additions_of(field: FieldLayout, rows: Rows, last_offset: Callable[[FieldLayout], int]) -> list[Addition]:
    """Return what rows of a field add to its arrays.

    Parameters
    ----------
    field
        The field.
    rows
        As its spec has checked them.
    last_offset
        Reads the last of the offsets, of an array of them.

    """
    if field.ragged is None:
        assert isinstance(rows, np.ndarray)
        return [Addition(field, _as_stored(field, rows))]
    assert isinstance(rows, RaggedRows)
    parts = field.ragged
    n_items = parts.values.n_rows
    if parts.offsets.n_rows and last_offset(parts.offsets) != n_items:
        raise StoreFormatError(
            f"offsets of field {field.name!r} must end at the number of its items, {n_items}, and do not; "
            "the store is damaged"
        )
    offsets = rows.offsets[min(1, parts.offsets.n_rows) :] + n_items  # an array without rows lacks the first one, 0
    added = [Addition(parts.values, _as_stored(parts.values, rows.values))]
    if parts.columns is not None:
        assert rows.columns is not None
        added.append(Addition(parts.columns, _as_stored(parts.columns, rows.columns)))
    return [*added, Addition(parts.offsets, _as_stored(parts.offsets, offsets))]


def grown(field: FieldLayout, n_new: int, lengths: Mapping[str, int]) -> FieldLayout:
    """Return a field's layout after an append of rows, given the lengths of all arrays."""
    ragged = field.ragged
    if ragged is not None:
        longer = [replace(a, shape=(lengths[a.name], *a.row_shape)) for a in arrays_of(field)]
        values, offsets, *columns = longer
        ragged = RaggedLayout(values, offsets, columns[0] if columns else None, ragged.n_columns)
    return replace(field, shape=(field.n_rows + n_new, *field.row_shape), ragged=ragged)


def _as_stored(array: FieldLayout, rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows in the dtype of an array; numbers of items and of columns may be too large for it."""
    cast = np.ascontiguousarray(rows.astype(array.stored_dtype, copy=False))
    if not np.can_cast(rows.dtype, array.stored_dtype, "safe") and not np.array_equal(cast, rows):
        raise InvalidArgumentError(
            f"rows must leave {array.name!r} within its dtype {array.stored_dtype}, got up to {rows.max()}; "
            "convert the store, which makes it larger"
        )
    return cast
