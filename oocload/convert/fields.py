"""What a field of a new store is: the shape of a row and a dtype, in the ways in which people write that.

And what rows are that come without being named: arrays, rows of several lengths, or sparse matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oocload.convert.ragged import CsrSpec, RaggedSpec, csr_spec, is_sparse, ragged_spec_of
from oocload.convert.spec import FieldSpec, refuse_objects
from oocload.errors import InvalidArgumentError

Spec = FieldSpec | RaggedSpec | CsrSpec


def parse_fields(fields: Mapping[str, Any]) -> dict[str, Spec]:
    """Return the specs of a mapping name → spec, ``(row_shape, dtype)``, or a dtype for scalar rows.

    None as the first axis of a row shape, or in its place, is any length.

    Raises
    ------
    InvalidArgumentError
        If there are none, or one is none of these, or holds Python objects.

    """
    if not isinstance(fields, Mapping) or not fields:
        raise InvalidArgumentError(f"fields must map at least one name to (row_shape, dtype), got {fields!r}")
    return {_check_name(name): _parse(name, value) for name, value in fields.items()}


def spec_of(name: str, rows: Any) -> Spec:
    """Return the spec of rows, by what they look like.

    Raises
    ------
    InvalidArgumentError
        If they have no axis 0, hold Python objects, or are a sparse matrix that is not CSR.

    """
    if is_sparse(rows):
        return csr_spec(name, rows)
    ragged = ragged_spec_of(name, rows)
    if ragged is not None:
        refuse_objects(name, ragged.dtype)
        return ragged
    array = np.asarray(rows)
    if not array.shape:
        raise InvalidArgumentError(
            f"field {name!r} must be an array whose axis 0 counts rows, got a scalar; rows that come one by one "
            "are oocload.sources.RowsSource(rows)"
        )
    refuse_objects(name, array.dtype)
    return FieldSpec(tuple(array.shape[1:]), array.dtype.newbyteorder("="))


def _check_name(name: Any) -> str:
    if not isinstance(name, str) or name.startswith(".") or "\0" in name or {"", ".", ".."} & set(name.split("/")):
        raise InvalidArgumentError(f"field name must be text such as 'x' or 'group/images', got {name!r}")
    return name


def _parse(name: str, value: Any) -> Spec:
    if isinstance(value, FieldSpec | RaggedSpec | CsrSpec):
        return value
    shape: Any = ()
    dtype: Any = value
    if isinstance(value, Mapping) and {"shape", "dtype"} == value.keys():
        shape, dtype = value["shape"], value["dtype"]
    elif isinstance(value, tuple | list) and len(value) == 2:
        shape, dtype = value
        if not isinstance(shape, tuple | list | int | None):
            shape, dtype = dtype, shape
    try:
        axes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
        row_shape = tuple(None if n is None else int(n) for n in axes)
        parsed = np.dtype(dtype)
    except (TypeError, ValueError) as exc:
        raise InvalidArgumentError(
            f"field {name!r} must be given as (row_shape, dtype), such as ((28, 28), 'uint8'), got {value!r}"
        ) from exc
    refuse_objects(name, parsed)
    _check_sizes(name, row_shape)
    sizes = tuple(n for n in row_shape if n is not None)
    if None not in row_shape:
        return FieldSpec(sizes, parsed.newbyteorder("="))
    if None in row_shape[1:]:
        raise InvalidArgumentError(
            f"row shape of field {name!r} must have None, any length, as its first axis only, got {row_shape}"
        )
    return RaggedSpec(sizes, parsed.newbyteorder("="))


def _check_sizes(name: str, row_shape: tuple[int | None, ...]) -> None:
    if any(n is not None and n < 1 for n in row_shape):
        raise InvalidArgumentError(f"row shape of field {name!r} must have sizes of at least 1, got {row_shape}")


def what_may_fit(fields: Mapping[str, Spec]) -> str:
    """Return what to do about fields that a format cannot hold."""
    kinds = {spec.dtype.kind for spec in fields.values()}
    advice = ["rename or convert what does not fit"]
    if "U" in kinds:
        advice = [
            "store text as bytes (np.char.encode), or as tokens (text= of oocload.sources.CsvSource and ArrowSource)"
        ]
    elif kinds & set("mM"):
        advice = ["store dates as whole numbers (.view('int64'))"]
    return ", ".join([*advice, "or choose another target"])
