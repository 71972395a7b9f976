"""Whole numbers to floats on the device: which fields, and the numbers to multiply with and to add.

An image of bytes crosses to the device as bytes, a quarter of what floats would take, and becomes floats there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oocload.errors import InvalidArgumentError, UnknownFieldError
from oocload.layout import FieldLayout

if TYPE_CHECKING:
    from oocload.loader.source import BatchSource

FloatName = Literal["float16", "bfloat16", "float32", "float64"]


@dataclass(frozen=True, slots=True, eq=False)
class Floats:
    """How a field becomes floats on the device: ``(values × scale - mean) / std``, computed in float32.

    Parameters
    ----------
    dtype
        ``"float32"``, ``"float16"``, ``"bfloat16"`` or ``"float64"`` (computed as such).
    scale
        A number; None takes 1/255 for uint8, 1/65535 for uint16, and 1 for other dtypes.
    mean, std
        Numbers, or arrays that broadcast to a row as NumPy broadcasts: of shape (3,) for rows of (height, width, 3),
        of (3, 1, 1) for (3, height, width). In units of the scaled values.

    Raises
    ------
    InvalidArgumentError
        If the dtype is none of the four, a number is not finite, or ``std`` is 0 anywhere.

    """

    dtype: FloatName = "float32"
    scale: float | None = None
    mean: ArrayLike = 0.0
    std: ArrayLike = 1.0

    def __post_init__(self) -> None:
        if self.dtype not in get_args(FloatName):
            raise InvalidArgumentError(f"dtype must be one of {', '.join(get_args(FloatName))}, got {self.dtype!r}")
        for name in ("mean", "std", *([] if self.scale is None else ["scale"])):
            value = getattr(self, name)
            try:
                numbers = np.asarray(value, np.float64)
            except (TypeError, ValueError):
                raise InvalidArgumentError(f"{name} must be a number or an array of numbers, got {value!r}") from None
            if not np.isfinite(numbers).all() or (name == "scale" and numbers.ndim):
                raise InvalidArgumentError(
                    f"{name} must be finite{' and one number' * (name == 'scale')}, got {value!r}"
                )
        if not np.all(np.asarray(self.std, np.float64)):
            raise InvalidArgumentError(f"std must not be 0 anywhere, got {self.std!r}")


class Affine(NamedTuple):
    """``values × factor + offset`` in ``work`` precision, then cast to ``dtype``; both broadcast to a row."""

    factor: NDArray[Any]
    offset: NDArray[Any]
    dtype: FloatName


FloatsArgument = bool | Floats | Mapping[str, Floats] | None


def resolve(floats: FloatsArgument, loader: BatchSource) -> dict[str, Affine]:
    """Return field → arithmetic, of the fields that become floats.

    ``True`` means every field of bytes (uint8) among the inputs, the first part of a batch; a `Floats` means every
    field of numbers there.

    Raises
    ------
    InvalidArgumentError, UnknownFieldError
        If a field has no numbers, mean or std do not broadcast to its rows, or there is a transform.

    """
    if floats is None or floats is False:
        return {}
    if loader.transform is not None:
        raise InvalidArgumentError(
            "floats must not be given where there is a transform, which may return anything; leave the one or the other"
        )
    return {name: _affine(name, how, loader.fields[name]) for name, how in _chosen(floats, loader).items()}


def _chosen(floats: FloatsArgument, loader: BatchSource) -> dict[str, Floats]:
    if isinstance(floats, Mapping):
        for name, how in floats.items():
            if not isinstance(how, Floats):
                raise InvalidArgumentError(f"floats must be oocload.Floats for each field, got {how!r} for {name!r}")
            if name not in loader.fields:
                raise UnknownFieldError(f"floats must name fields of a batch, {', '.join(loader.fields)}; got {name!r}")
        return dict(floats)
    if floats is not True and not isinstance(floats, Floats):
        raise InvalidArgumentError(f"floats must be True, an oocload.Floats or a dict of them, got {floats!r}")
    first = loader.form.parts[0]
    inputs = (first,) if isinstance(first, str) else first
    if isinstance(floats, Floats):
        return {name: floats for name in inputs if loader.fields[name].dtype.kind in "biuf"}
    found = {name: Floats() for name in inputs if loader.fields[name].dtype == np.uint8}
    if not found:
        dtypes = ", ".join(f"{name!r} is {loader.fields[name].dtype}" for name in inputs)
        raise InvalidArgumentError(
            f"floats=True must find a field of uint8 among the inputs: {dtypes}; pass Floats(...)"
        )
    return found


def _affine(name: str, how: Floats, field: FieldLayout) -> Affine:
    if field.dtype.kind not in "biuf":
        raise InvalidArgumentError(f"floats must name fields of real numbers, and {name!r} is {field.dtype}")
    scale = {"u1": 1 / 255, "u2": 1 / 65535}.get(field.dtype.str[1:], 1.0) if how.scale is None else how.scale
    mean, std = np.asarray(how.mean, np.float64), np.asarray(how.std, np.float64)
    for which, value in (("mean", mean), ("std", std)):
        try:
            fits = np.broadcast_shapes(value.shape, field.row_shape) == field.row_shape
        except ValueError:
            fits = False
        if not fits:
            raise InvalidArgumentError(
                f"{which} must broadcast to the rows of {name!r}, of shape {field.row_shape}, and has {value.shape}"
            )
    work = np.float64 if how.dtype == "float64" else np.float32
    return Affine((scale / std).astype(work), (-mean / std).astype(work), how.dtype)
