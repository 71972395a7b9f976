"""Rows of Python objects, one by one, stacked into arrays of the fields that the first of them has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.convert.fields import Spec, parse_fields
from oocload.convert.ragged import RaggedRows, RaggedSpec
from oocload.convert.spec import FieldSpec, may_be_cast
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning

PLACES = ("x", "y", "sample_weight")
TEXT = RaggedSpec((), np.dtype(np.uint8))
Row = Mapping[str, Any]


class Form(NamedTuple):
    """What rows are: field → spec, and what those stand for that are text."""

    specs: Mapping[str, Spec]
    meanings: Mapping[str, Meaning]


def named(row: Any, where: str) -> Row:
    """Return the values of a row by field: of a dict, of a tuple ``(x, y)``, or of one value.

    Raises
    ------
    InvalidArgumentError
        If it has no or too many values.

    """
    if isinstance(row, Mapping):
        if row:
            return row
    elif isinstance(row, tuple | list) and hasattr(row, "_fields"):
        return dict(zip(row._fields, row, strict=True))
    elif isinstance(row, tuple):
        if 0 < len(row) <= len(PLACES):
            return dict(zip(PLACES, row, strict=False))
    else:
        return {"x": row}
    raise InvalidArgumentError(
        f"each row must be a dict, a tuple (x, y) or (x, y, sample_weight), or a value, got {type(row).__name__} of "
        f"{len(row)} as {where}"
    )


def form_of(row: Row, where: str, ragged: Sequence[str] | bool = ()) -> Form:
    """Return what rows are that are like this one.

    Parameters
    ----------
    row
        Field → value.
    where
        What it is called in errors.
    ragged
        Fields whose rows differ in axis 0, or True for all that have one.

    Raises
    ------
    InvalidArgumentError
        If a value is no number, text, or array of numbers, or one that is to be ragged has no axis 0.

    """
    names = {name for name, value in row.items() if np.ndim(value)} if ragged is True else set(ragged or ())
    for name in names - row.keys():
        raise InvalidArgumentError(f"ragged must name fields of the rows, got {name!r}; they have {', '.join(row)}")
    specs: dict[str, Spec] = {}
    meanings = {}
    for name, value in row.items():
        if isinstance(value, str | bytes):
            specs[name] = TEXT
            if isinstance(value, str):
                meanings[name] = Meaning(content="text")
            continue
        array = _as_array(name, value, where)
        if name in names and not array.size and not hasattr(value, "dtype"):
            raise InvalidArgumentError(
                f"field {name!r} must have items in {where}, which tell their dtype, got an empty list; say what it is "
                "with fields="
            )
        if name not in names:
            specs[name] = FieldSpec(array.shape, array.dtype.newbyteorder("="))
        elif array.ndim:
            specs[name] = RaggedSpec(array.shape[1:], array.dtype.newbyteorder("="))
        else:
            raise InvalidArgumentError(f"ragged must name fields whose rows are arrays, got {name!r}: a number")
    return Form(parse_fields(specs), meanings)


class Stack:
    """Stacks rows.

    Parameters
    ----------
    form
        What they must be.

    """

    def __init__(self, form: Form) -> None:
        self._form = form

    def __call__(self, rows: Sequence[Row], first: int) -> dict[str, Any]:
        """Return field → rows; ``first`` is the number of the first of them.

        Raises
        ------
        InvalidArgumentError
            If one has other fields, another shape, or a dtype that does not fit; names the row.

        """
        names = self._form.specs.keys()
        for i, row in enumerate(rows):
            if row.keys() != names:
                raise InvalidArgumentError(
                    f"each row must have the fields {', '.join(names)}, got {', '.join(map(str, row))} "
                    f"in row {first + i}"
                )
        return {
            name: self._column(name, spec, [row[name] for row in rows], first)
            for name, spec in self._form.specs.items()
        }

    def _column(self, name: str, spec: Spec, values: list[Any], first: int) -> NDArray[Any] | RaggedRows:
        assert isinstance(spec, FieldSpec | RaggedSpec)
        if spec == TEXT:
            values = [_bytes_of(value) for value in values]
        arrays = [self._array(name, spec, value, first + i) for i, value in enumerate(values)]
        if isinstance(spec, FieldSpec):
            column: NDArray[Any] = np.empty((len(arrays), *spec.row_shape), spec.dtype)
            for i, array in enumerate(arrays):
                column[i] = array
            return column
        offsets = np.zeros(len(arrays) + 1, np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        return RaggedRows(np.concatenate(arrays, dtype=spec.dtype, casting="unsafe"), offsets)

    def _array(self, name: str, spec: FieldSpec | RaggedSpec, value: Any, number: int) -> NDArray[Any]:
        array = value if isinstance(value, np.ndarray) else _as_array(name, value, f"row {number}")
        if array.dtype != spec.dtype and not may_be_cast(array.dtype, spec.dtype):
            array = _cast(name, spec, value, array, number)
        if isinstance(spec, FieldSpec):
            if array.shape == spec.row_shape:
                return array
            advice = (
                f"; where rows differ in length, name it in ragged=[{name!r}]"
                if array.shape[1:] == spec.row_shape[1:] and array.ndim and spec.row_shape
                else ""
            )
            raise InvalidArgumentError(
                f"field {name!r} must have rows of one shape, {spec.row_shape}, got {array.shape} in row {number}"
                f"{advice}"
            )
        if array.ndim and array.shape[1:] == spec.item_shape:
            return array
        if array.shape == (0,):  # an empty list, whatever the items would have been
            return np.empty((0, *spec.item_shape), spec.dtype)
        raise InvalidArgumentError(
            f"field {name!r} must have rows of shape {(None, *spec.item_shape)}, got {array.shape} in row {number}"
        )


def _cast(name: str, spec: FieldSpec | RaggedSpec, value: Any, array: NDArray[Any], number: int) -> NDArray[Any]:
    """Return a value in the field's dtype: of one that came without a dtype, if it survives."""
    weak = not hasattr(value, "dtype")
    if weak and not array.size:
        return array.astype(spec.dtype)
    if weak and array.dtype.kind in "iu" and spec.dtype.kind in "iuf":
        cast = array.astype(spec.dtype)
        if np.array_equal(cast, array):
            return cast
    elif weak and array.dtype.kind == spec.dtype.kind == "f":
        return array.astype(spec.dtype)
    shown = f", {value!r}," if array.ndim == 0 else ""
    raise InvalidArgumentError(
        f"field {name!r} must have rows of dtype {spec.dtype}, got {array.dtype}{shown} in row {number}; say what fits "
        f"all rows with fields="
    )


def _as_array(name: str, value: Any, where: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as exc:
        raise InvalidArgumentError(
            f"field {name!r} must have rows that are arrays, got lists of several lengths in {where}"
        ) from exc
    if array.dtype.kind not in "biufcMmV" or array.dtype.hasobject:
        raise InvalidArgumentError(
            f"field {name!r} must have rows of numbers or text, got {type(value).__name__} of {array.dtype} in {where}"
        )
    return array


def _bytes_of(value: Any) -> Any:
    if isinstance(value, str):
        value = value.encode()
    return np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
