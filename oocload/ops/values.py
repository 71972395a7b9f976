"""Operations on values: `cast`, `scale` and `normalize`, of which one multiplication and one addition is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from oocload.errors import InvalidArgumentError
from oocload.ops.base import Draft, Op

_KINDS = {"biuf": "of real numbers", "f": "float16, float32 or float64"}


@dataclass(frozen=True, slots=True)
class Cast(Op):
    """Values of another dtype."""

    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"ops.cast({self.dtype.name!r})"

    def add_to(self, draft: Draft) -> None:
        """Add the cast."""
        draft.check_numbers(self)
        draft.cast(self.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Scale(Op):
    """``values × factor + offset``."""

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]
    dtype: np.dtype[Any]
    axis: int | None = None

    def __str__(self) -> str:
        return f"ops.scale({_shown(self.factor)}, {_shown(self.offset)})"

    def add_to(self, draft: Draft) -> None:
        """Add the arithmetic."""
        draft.check_numbers(self)
        factor, offset = (_along(v, self.axis, draft, self) for v in (self.factor, self.offset))
        draft.affine(factor, offset, self.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Normalize(Op):
    """``(values - mean) / std``; stored statistics where neither is given."""

    mean: NDArray[np.float64] | None
    std: NDArray[np.float64] | None
    dtype: np.dtype[Any]
    axis: int | None = None

    def __str__(self) -> str:
        given = "" if self.mean is None or self.std is None else f"{_shown(self.mean)}, {_shown(self.std)}"
        return f"ops.normalize({given})"

    def add_to(self, draft: Draft) -> None:
        """Add the arithmetic."""
        draft.check_numbers(self)
        mean, std, axis = self.mean, self.std, self.axis
        if mean is None or std is None:
            mean, std, axis = draft.statistics(self)
            std = np.where(std == 0, 1.0, std)  # of a channel that never changes, which becomes 0
        mean, std = (_along(v, axis, draft, self) for v in (mean, std))
        draft.affine(1 / std, -mean / std, self.dtype)


def cast(dtype: DTypeLike) -> Cast:
    """Return the operation that makes values another dtype, as ``astype`` does.

    Parameters
    ----------
    dtype
        Whole numbers, floats or bool. What does not fit it is cut or wraps round, as with NumPy.

    Examples
    --------
    >>> from oocload import ops
    >>> print(ops.cast("float16"))
    ops.cast('float16')

    """
    return Cast(as_dtype(dtype, "biuf"))


def scale(factor: ArrayLike, offset: ArrayLike = 0.0, dtype: DTypeLike = "float32", axis: int | None = None) -> Scale:
    """Return the operation that makes ``values × factor + offset`` of values.

    It is computed as `normalize` is.

    Parameters
    ----------
    factor, offset
        A number, one for each channel, or an array that broadcasts to a row.
    dtype
        float16, float32 or float64.
    axis
        Of a row's axes that of the channels. None takes the last, or the first where only that has as many items.

    Examples
    --------
    >>> from oocload import ops
    >>> print(ops.scale(1 / 255))
    ops.scale(0.00392157, 0)

    """
    return Scale(_numbers("factor", factor), _numbers("offset", offset), as_dtype(dtype, "f"), _axis(axis))


def normalize(
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
    dtype: DTypeLike = "float32",
    axis: int | None = None,
) -> Normalize:
    """Return the operation that makes ``(values - mean) / std`` of values.

    It is computed as ``values × factor + offset``, where factor and offset are made in float64, of all operations that
    follow each other: in float32, or in float64 where ``dtype`` is float64 or stored values may not fit the 24 bits of
    a float32 (float64, and whole numbers of 32 or 64 bits; of these, values beyond 2**53 lose their last bits). The
    same rows give the same bits, whatever the order, the threads and the store.

    Parameters
    ----------
    mean, std
        A number, one for each channel, or an array that broadcasts to a row; in units of the values as they are when
        they come to this operation. None for both takes the statistics that are stored beside the store; a standard
        deviation of 0 there counts as 1.
    dtype
        float16, float32 or float64.
    axis
        Of a row's axes that of the channels. None takes the last, or the first where only that has as many items.

    Raises
    ------
    InvalidArgumentError
        If one is given without the other, a number is not finite, or ``std`` is not above 0.

    Examples
    --------
    >>> from oocload import ops
    >>> print(ops.normalize([125.3, 123.0, 113.9], [63.0, 62.1, 66.7]))
    ops.normalize([125.3, 123, 113.9], [63, 62.1, 66.7])

    """
    if (mean is None) != (std is None):
        missing, given = ("mean", "std") if mean is None else ("std", "mean")
        raise InvalidArgumentError(f"{missing} must be given with {given}, got None; give both, or neither")
    found = None if std is None else _numbers("std", std)
    if found is not None and not (found > 0).all():
        raise InvalidArgumentError(f"std must be above 0 everywhere, got {std!r}")
    return Normalize(None if mean is None else _numbers("mean", mean), found, as_dtype(dtype, "f"), _axis(axis))


def as_dtype(dtype: DTypeLike, kinds: str) -> np.dtype[Any]:
    """Return a dtype of some kinds in this machine's byte order."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.kind not in kinds or found.itemsize > 8:
        raise InvalidArgumentError(f"dtype must be {_KINDS[kinds]}, got {dtype!r}")
    return found.newbyteorder("=")


def _numbers(name: str, value: ArrayLike) -> NDArray[np.float64]:
    try:
        numbers = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"{name} must be a number or an array of numbers, got {value!r}") from None
    if not np.isfinite(numbers).all() or not numbers.size:
        raise InvalidArgumentError(f"{name} must be finite, got {value!r}")
    return numbers


def _axis(axis: Any) -> int | None:
    if axis is not None and (not isinstance(axis, int) or isinstance(axis, bool)):
        raise InvalidArgumentError(f"axis must be one of a row's axes or None, got {axis!r}")
    return axis


def _along(values: NDArray[np.float64], axis: int | None, draft: Draft, op: Op) -> NDArray[np.float64]:
    """Return numbers with an axis for each of a row's, or none at all."""
    shape = draft.shape
    if values.size == 1:
        return values.reshape(())
    if values.ndim == 1:
        place = _channel_axis(len(values), axis, draft, op)
        return values.reshape([-1 if i == place else 1 for i in range(len(shape))])
    lengths = zip(values.shape, shape[len(shape) - values.ndim :], strict=False)
    if values.ndim > len(shape) or not all(n in (1, m) for n, m in lengths):
        raise draft.error(op, f"broadcast to rows (its numbers have shape {values.shape})", "give one for each channel")
    return values.reshape((*[1] * (len(shape) - values.ndim), *values.shape))


def _channel_axis(n_channels: int, axis: int | None, draft: Draft, op: Op) -> int:
    shape = draft.shape
    remedy = "give as many numbers as there are channels, and say axis="
    if axis is not None:
        if not -len(shape) <= axis < len(shape) or shape[axis] != n_channels:
            raise draft.error(op, f"have one number for each item of axis {axis} (it has {n_channels})", remedy)
        return axis % len(shape)
    found = [i for i in dict.fromkeys((len(shape) - 1, 0)) if len(shape) > i >= 0 and shape[i] == n_channels]
    if not found:
        raise draft.error(op, f"have one number for each channel (it has {n_channels})", remedy)
    if len(found) > 1:
        raise draft.error(op, f"say which of two axes of {n_channels} is that of the channels", "give axis=")
    return found[0]


def _shown(values: NDArray[np.float64]) -> str:
    if values.size > 4:
        return f"<{' × '.join(map(str, values.shape))} numbers>"
    flat = ", ".join(f"{v:g}" for v in values.ravel())
    return f"[{flat}]" if values.ndim else flat
