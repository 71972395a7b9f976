"""Rows of Python objects, one by one, stacked into arrays of the fields that the first of them has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.convert.fields import Spec, parse_fields
from oocload.convert.ragged import RaggedRows, RaggedSpec
from oocload.convert.sources.fresh import fresh_rows
from oocload.convert.spec import FieldSpec, may_be_cast
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning

PLACES = ("x", "y", "sample_weight")
TEXT = RaggedSpec((), np.dtype(np.uint8))
Row = Mapping[str, Any]
_ROW_NBYTES = 150  # of an array that is held, beside its items


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


def form_of(
    row: Row, where: str, ragged: Sequence[str] | bool = (), given: Mapping[str, Spec] = MappingProxyType({})
) -> Form:
    """Return what rows are that are like this one.

    Parameters
    ----------
    row
        Field → value.
    where
        What it is called in errors.
    ragged
        Fields whose rows differ in axis 0, or True for all that have one.
    given
        Fields of which the specs are known.

    Raises
    ------
    InvalidArgumentError
        If a value is no number, text, or array of numbers, or one that is to be ragged has no axis 0.

    """
    names = set(row if ragged is True else ragged or ())
    for argument, asked in (("ragged", names), ("fields", given.keys())):
        for name in asked - row.keys():
            raise InvalidArgumentError(
                f"{argument} must name fields of the rows, got {name!r}; they have {', '.join(row)}"
            )
    specs: dict[str, Spec] = {}
    meanings = {}
    for name, value in row.items():
        if isinstance(value, str):
            meanings[name] = Meaning(content="text")
        if name in given or isinstance(value, str | bytes):
            specs[name] = given.get(name, TEXT)
            continue
        array = _as_array(name, value, where)
        is_ragged = name in names and (ragged is not True or array.ndim > 0)
        if is_ragged and not array.size and not hasattr(value, "dtype"):
            raise InvalidArgumentError(
                f"field {name!r} must have items in {where}, which tell their dtype, got an empty list; say what it is "
                "with fields="
            )
        if not is_ragged:
            specs[name] = FieldSpec(array.shape, array.dtype.newbyteorder("="))
        elif array.ndim:
            specs[name] = RaggedSpec(array.shape[1:], array.dtype.newbyteorder("="))
        else:
            raise InvalidArgumentError(f"ragged must name fields whose rows are arrays, got {name!r}: a number")
    return Form(parse_fields(specs), meanings)


class Stack:
    """Rows that are copied into arrays as they come, as whoever gives them may fill the same arrays again.

    Parameters
    ----------
    form
        What they must be.
    nbytes
        How many bytes of rows make it full.
    n_rows
        How many rows do; None where only bytes count.

    """

    def __init__(self, form: Form, nbytes: int, n_rows: int | None = None) -> None:
        self._form = form
        self._nbytes = nbytes
        self._n_rows = n_rows
        self._row_nbytes = sum(spec.row_nbytes for spec in form.specs.values() if isinstance(spec, FieldSpec))
        self._clear()

    def __len__(self) -> int:
        return self._n

    @property
    def is_full(self) -> bool:
        """Whether the rows come to as many bytes as they may."""
        return self._n == self._capacity or self._n * self._row_nbytes + self._ragged_nbytes >= self._nbytes

    def add(self, row: Row, where: str) -> None:
        """Copy one more row, or nothing of it; ``where`` is what it is called in errors.

        Raises
        ------
        InvalidArgumentError
            If it has other fields, another shape, or a dtype that does not fit; says where.

        """
        specs = self._form.specs
        if row.keys() != specs.keys():
            raise InvalidArgumentError(
                f"each row must have the fields {', '.join(specs)}, got {', '.join(map(str, row))} in {where}"
            )
        arrays = {
            name: self._array(name, spec, _bytes_of(row[name]) if spec == TEXT else row[name], where)
            for name, spec in specs.items()
            if isinstance(spec, FieldSpec | RaggedSpec)
        }
        for name, array in arrays.items():
            if name in self._columns:
                self._columns[name][self._n] = array
            else:
                self._rows[name].append(array.astype(specs[name].dtype))
                self._ragged_nbytes += 2 * array.nbytes + _ROW_NBYTES  # when they are joined
        self._n += 1

    def take(self) -> dict[str, Any]:
        """Return field → rows, and begin anew."""
        found: dict[str, Any] = {name: column[: self._n] for name, column in self._columns.items()}
        for name, rows in self._rows.items():
            spec = self._form.specs[name]
            assert isinstance(spec, RaggedSpec)
            found[name] = _joined([np.empty((0, *spec.item_shape), spec.dtype), *rows])[1:]
        self._clear()
        return {name: found[name] for name in self._form.specs}

    def _clear(self) -> None:
        self._n = self._ragged_nbytes = 0
        self._capacity = self._n_rows or max(1, self._nbytes // max(1, self._row_nbytes))
        specs = self._form.specs.items()
        self._columns = {
            name: fresh_rows((self._capacity, *spec.row_shape), spec.dtype)
            for name, spec in specs
            if isinstance(spec, FieldSpec)
        }
        self._rows: dict[str, list[NDArray[Any]]] = {n: [] for n, spec in specs if isinstance(spec, RaggedSpec)}

    def _array(self, name: str, spec: FieldSpec | RaggedSpec, value: Any, where: str) -> NDArray[Any]:
        array = value if isinstance(value, np.ndarray) else _as_array(name, value, where)
        if array.dtype != spec.dtype and not may_be_cast(array.dtype, spec.dtype):
            array = _cast(name, spec, value, array, where)
        if isinstance(spec, FieldSpec):
            if array.shape == spec.row_shape:
                return array
            advice = (
                f"; where rows differ in length, name it in ragged=[{name!r}]"
                if array.shape[1:] == spec.row_shape[1:] and array.ndim and spec.row_shape
                else ""
            )
            raise InvalidArgumentError(
                f"field {name!r} must have rows of one shape, {spec.row_shape}, got {array.shape} in {where}{advice}"
            )
        if array.ndim and array.shape[1:] == spec.item_shape:
            return array
        if array.shape == (0,):  # an empty list, whatever the items would have been
            return np.empty((0, *spec.item_shape), spec.dtype)
        raise InvalidArgumentError(
            f"field {name!r} must have rows of shape {(None, *spec.item_shape)}, got {array.shape} in {where}"
        )


def text_rows(values: Sequence[str | bytes]) -> RaggedRows:
    """Return text or bytes as ragged rows of bytes."""
    return _joined([_bytes_of(value) for value in values])


def _joined(rows: Sequence[NDArray[Any]]) -> RaggedRows:
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return RaggedRows(np.concatenate(rows), offsets)


def _cast(name: str, spec: FieldSpec | RaggedSpec, value: Any, array: NDArray[Any], where: str) -> NDArray[Any]:
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
        f"field {name!r} must have rows of dtype {spec.dtype}, got {array.dtype}{shown} in {where}; say what fits "
        f"all rows with fields="
    )


def _as_array(name: str, value: Any, where: str) -> NDArray[Any]:
    try:
        array = array_of(value)
    except InvalidArgumentError as exc:
        raise InvalidArgumentError(f"field {name!r}, {where}: {exc}") from exc
    except ValueError as exc:
        raise InvalidArgumentError(
            f"field {name!r} must have rows that are arrays, got lists of several lengths in {where}"
        ) from exc
    if array.dtype.kind not in "biufcMmV" or array.dtype.hasobject:
        raise InvalidArgumentError(
            f"field {name!r} must have rows of numbers or text, got {type(value).__name__} of {array.dtype} in {where}"
        )
    return array


def array_of(value: Any) -> NDArray[Any]:
    """Return a value as an array: of a tensor on the CPU a view, where there can be one.

    Raises
    ------
    InvalidArgumentError
        If a tensor has a dtype that NumPy has not, or is sparse.
    ValueError
        If it is a list of rows of several shapes.

    """
    if not (hasattr(value, "detach") and hasattr(value, "numpy")):
        return np.asarray(value)
    try:
        return np.asarray(value.numpy(force=True))
    except TypeError as exc:
        raise InvalidArgumentError(f"tensors must be such as NumPy can hold: {exc}; convert them first") from exc


def _bytes_of(value: Any) -> Any:
    if isinstance(value, str):
        value = value.encode()
    return np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
