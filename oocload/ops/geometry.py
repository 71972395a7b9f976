"""Operations that cut rows and order their axes: views, which cost nothing by themselves."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from oocload.errors import InvalidArgumentError
from oocload.ops.base import Draft, Op

_CHANNELS = ("channels_first", "channels_last")


@dataclass(frozen=True, slots=True)
class Crop(Op):
    """A part of each row: of so many items of the first two axes, or slices of any."""

    height: int | tuple[slice, ...]
    width: int | None = None
    top: int | None = None
    left: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.height, tuple):
            if not all(isinstance(cut, slice) for cut in self.height) or not self.height:
                raise InvalidArgumentError(f"height must be a number or slices, got {self.height!r}")
            if (self.width, self.top, self.left) != (None, None, None):
                raise InvalidArgumentError("width, top and left must not be given beside slices; leave them out")
            return
        for name, least in (("height", 1), ("width", 1), ("top", 0), ("left", 0)):
            value = getattr(self, name)
            if value is None and name in ("top", "left"):
                continue
            object.__setattr__(self, name, _whole(name, value, least))

    def __str__(self) -> str:
        if isinstance(self.height, tuple):
            return f"ops.crop([{', '.join(_shown(cut) for cut in self.height)}])"
        corner = "".join(f", {n}={v}" for n, v in (("top", self.top), ("left", self.left)) if v is not None)
        return f"ops.crop({self.height}, {self.width}{corner})"

    def add_to(self, draft: Draft) -> None:
        """Add the cut."""
        draft.check_before_labels(self)
        if isinstance(self.height, tuple):
            self._slices(draft, self.height)
            return
        if len(draft.shape) < 2:
            raise draft.error(self, "be given rows of at least two axes", "give slices, ops.crop([slice(0, 8)])")
        cuts = []
        sizes = ((self.height, self.top), (self.width, self.left))
        for (size, first), length in zip(sizes, draft.shape[:2], strict=True):
            assert size is not None
            first = (length - size) // 2 if first is None else first
            if first < 0 or first + size > length:
                raise draft.error(self, "lie inside the first two axes of a row", "crop less, or transpose rows before")
            cuts.append(slice(first, first + size, 1))
        draft.cut(cuts)

    def _slices(self, draft: Draft, slices: tuple[slice, ...]) -> None:
        if len(slices) > len(draft.shape):
            raise draft.error(self, "have at most a slice for each axis of a row", "leave some out")
        cuts = []
        for cut, length in zip(slices, draft.shape, strict=False):
            start, stop, step = cut.indices(length)
            if step < 0 or not len(range(start, stop, step)):
                raise draft.error(self, "take at least one item of each axis, in order", "change the slices")
            cuts.append(slice(start, stop, step))
        draft.cut(cuts)


@dataclass(frozen=True, slots=True)
class Transpose(Op):
    """The axes of a row in another order."""

    axes: tuple[int, ...] | Literal["channels_first", "channels_last"]

    def __post_init__(self) -> None:
        if self.axes in _CHANNELS:
            return
        axes: Any = self.axes
        if not isinstance(axes, tuple) or sorted(map(repr, axes)) != sorted(map(repr, range(len(axes)))):
            raise InvalidArgumentError(
                f"axes must be a permutation of the axes of a row, {' or '.join(map(repr, _CHANNELS))}, got {axes!r}"
            )

    def __str__(self) -> str:
        return f"ops.transpose({self.axes!r})"

    def add_to(self, draft: Draft) -> None:
        """Add the order."""
        draft.check_before_labels(self)
        n = len(draft.shape)
        if isinstance(self.axes, tuple):
            if len(self.axes) != n:
                raise draft.error(self, "have as many axes as a row", "axis 0 is the first of a row, not of a batch")
            draft.transpose(self.axes)
            return
        if n < 2:
            raise draft.error(self, "be given rows of at least two axes", "leave it out")
        draft.transpose([n - 1, *range(n - 1)] if self.axes == "channels_first" else [*range(1, n), 0])


def crop(
    height: int | Sequence[slice], width: int | None = None, top: int | None = None, left: int | None = None
) -> Crop:
    """Return the operation that takes a part of each row.

    Parameters
    ----------
    height, width
        Items of the first two axes of a row, from 1. Or slices in place of ``height``, for the first axes of a row,
        with steps from 1.
    top, left
        Where it begins; None takes the middle, rounded down.

    Examples
    --------
    >>> from oocload import ops
    >>> print(ops.crop(24, 24), ops.crop([slice(0, 100, 2)]))
    ops.crop(24, 24) ops.crop([0:100:2])

    """
    return Crop(tuple(height) if isinstance(height, Sequence) else height, width, top, left)


def transpose(axes: Sequence[int] | Literal["channels_first", "channels_last"]) -> Transpose:
    """Return the operation that orders the axes of a row.

    Parameters
    ----------
    axes
        The axes of a row, from 0, in their new order; ``"channels_first"`` puts the last one first and
        ``"channels_last"`` the first one last.

    Examples
    --------
    >>> from oocload import ops
    >>> print(ops.transpose("channels_first"))
    ops.transpose('channels_first')

    """
    if axes == "channels_first" or axes == "channels_last":
        return Transpose(axes)
    return Transpose(tuple(axes))


def _whole(name: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise InvalidArgumentError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number


def _shown(cut: slice) -> str:
    start, stop = ("" if v is None else v for v in (cut.start, cut.stop))
    return f"{start}:{stop}" + ("" if cut.step is None else f":{cut.step}")
