"""What one field of a new store is, where each row is an array of one shape."""

from __future__ import annotations

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
            remedy = ", write one row as [row]" if array.shape == self.row_shape else ""
            raise InvalidArgumentError(
                f"rows of field {name!r} must have shape {self.row_shape}, got an array of shape {array.shape}; "
                f"axis 0 counts the rows{remedy}"
            )
        if not may_be_cast(array.dtype, self.dtype):
            raise does_not_fit(name, array.dtype, self.dtype)
        if array.dtype.kind == self.dtype.kind == "V" and array.dtype.names is None and array.dtype != self.dtype:
            return np.ascontiguousarray(array).view(self.dtype)  # bfloat16 for HDF5's raw bytes: numpy has no cast
        return array.astype(self.dtype, copy=False)

    def __str__(self) -> str:
        return f"{self.row_shape} {self.dtype}"


def may_be_cast(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether a cast keeps every value that there can be."""
    return given == wanted or np.can_cast(given, wanted, "safe")


def does_not_fit(name: str, given: np.dtype[Any], wanted: np.dtype[Any]) -> InvalidArgumentError:
    """Return the error for rows whose values a field may not be able to hold."""
    return InvalidArgumentError(
        f"rows of field {name!r} must have dtype {wanted}, got {given}, which may not fit; "
        f"convert them first, for example with rows.astype({wanted.name!r})"
    )


def refuse_objects(name: str, dtype: np.dtype[Any]) -> None:
    """Raise where a dtype is one of Python objects.

    Raises
    ------
    InvalidArgumentError
        If it is.

    """
    if dtype.hasobject:
        raise InvalidArgumentError(
            f"field {name!r} must have a fixed-size dtype, got object; Python objects are never pickled or unpickled: "
            "convert it to numbers or fixed-length text first"
        )
