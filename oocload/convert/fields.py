"""What a field of a new store is: the shape of a row and a dtype, in the ways in which people write that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field of a store to be written.

    Parameters
    ----------
    row_shape
        Shape of one row; ``()`` for a scalar.
    dtype
        Dtype, stored in little-endian or native order.

    """

    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row."""
        return prod(self.row_shape) * self.dtype.itemsize

    def check(self, name: str, rows: Any) -> NDArray[Any]:
        """Return rows as an array of this dtype; only a cast that keeps every value is made.

        Raises
        ------
        InvalidArgumentError
            If the rows have another shape, or a dtype that does not fit.

        """
        array = np.asarray(rows)
        if array.shape[1:] != self.row_shape or array.ndim == 0:
            raise InvalidArgumentError(
                f"rows of field {name!r} must have shape {self.row_shape}, got an array of shape {array.shape}; "
                "axis 0 counts the rows"
            )
        if array.dtype != self.dtype and not np.can_cast(array.dtype, self.dtype, "safe"):
            raise InvalidArgumentError(
                f"rows of field {name!r} must have dtype {self.dtype}, got {array.dtype}, which may not fit; "
                f"convert them first, for example with rows.astype({self.dtype.name!r})"
            )
        return array.astype(self.dtype, copy=False)


def parse_fields(fields: Mapping[str, Any]) -> dict[str, FieldSpec]:
    """Return the specs of a mapping name → `FieldSpec`, ``(row_shape, dtype)``, or a dtype for scalar rows.

    Raises
    ------
    InvalidArgumentError
        If there are none, or one is none of these, or holds Python objects.

    """
    if not isinstance(fields, Mapping) or not fields:
        raise InvalidArgumentError(f"fields must map at least one name to (row_shape, dtype), got {fields!r}")
    return {_check_name(name): _parse(name, value) for name, value in fields.items()}


def spec_of(name: str, array: Any) -> FieldSpec:
    """Return the spec of an array whose axis 0 counts rows.

    Raises
    ------
    InvalidArgumentError
        If it has no axis 0, or holds Python objects.

    """
    if not array.shape:
        raise InvalidArgumentError(f"field {name!r} must be an array whose axis 0 counts rows, got a scalar")
    dtype = np.dtype(array.dtype)
    _refuse_objects(name, dtype)
    return FieldSpec(tuple(array.shape[1:]), dtype.newbyteorder("="))


def _check_name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip("/") or name != name.strip("/") or name.startswith("."):
        raise InvalidArgumentError(f"field name must be text such as 'x' or 'group/images', got {name!r}")
    return name


def _parse(name: str, value: Any) -> FieldSpec:
    if isinstance(value, FieldSpec):
        return value
    shape: Any = ()
    dtype: Any = value
    if isinstance(value, Mapping) and {"shape", "dtype"} == value.keys():
        shape, dtype = value["shape"], value["dtype"]
    elif isinstance(value, tuple | list) and len(value) == 2:
        shape, dtype = value
        if not isinstance(shape, tuple | list | int):
            shape, dtype = dtype, shape
    try:
        row_shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        parsed = np.dtype(dtype)
    except (TypeError, ValueError) as exc:
        raise InvalidArgumentError(
            f"field {name!r} must be given as (row_shape, dtype), such as ((28, 28), 'uint8'), got {value!r}"
        ) from exc
    if any(n < 1 for n in row_shape):
        raise InvalidArgumentError(f"row shape of field {name!r} must have sizes of at least 1, got {row_shape}")
    _refuse_objects(name, parsed)
    return FieldSpec(row_shape, parsed.newbyteorder("="))


def _refuse_objects(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise InvalidArgumentError(
            f"field {name!r} must have a fixed-size dtype, got object; Python objects are never pickled or unpickled: "
            "convert it to numbers or fixed-length text first"
        )
