"""Which values of a row belong to which channel; integers only.

::

    rows of shape (H, W, C), axis 2      outer = H × W   n = C   inner = 1
    rows of shape (C, H, W), axis 0      outer = 1       n = C   inner = H × W
    one channel over everything          outer = H × W × C       n = inner = 1
"""

from __future__ import annotations

import operator
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from oocload.errors import InvalidArgumentError

ChannelAxis = int | Literal["auto"] | None

_MOST_COLOURS = 4  # an image has so many channels at most; an axis that is longer is one of pixels


@dataclass(frozen=True, slots=True)
class Channels:
    """The values of one row as an array of shape (outer, n, inner), whose axis 1 counts channels.

    Attributes
    ----------
    axis
        Axis of the row that counts channels; None where one channel has all values.
    outer, n, inner
        See above.

    """

    axis: int | None
    outer: int
    n: int
    inner: int

    @classmethod
    def of(cls, row_shape: tuple[int, ...], axis: int | None) -> Channels:
        """Return the channels along one axis of a row."""
        if axis is None or row_shape[axis] == 1:
            return cls(axis, prod(row_shape), 1, 1)
        return cls(axis, prod(row_shape[:axis]), row_shape[axis], prod(row_shape[axis + 1 :]))


def choose_channels(name: str, row_shape: tuple[int, ...], channel_axis: Any) -> Channels:
    """Return the channels of a field's rows.

    Parameters
    ----------
    name
        Of the field, for the error.
    row_shape
        Shape of a row. One that is a single value has one channel, whatever is asked.
    channel_axis
        An axis of the row, from the end where negative; None for one channel; ``"auto"`` for the rule of `auto_axis`.

    Raises
    ------
    InvalidArgumentError
        If the rows have no such axis.

    """
    if isinstance(channel_axis, str) and channel_axis == "auto":
        return Channels.of(row_shape, auto_axis(row_shape))
    if channel_axis is None or not row_shape:
        return Channels.of(row_shape, None)
    axis = None
    if not isinstance(channel_axis, bool):
        with suppress(TypeError):
            axis = operator.index(channel_axis)
    if axis is None or not -len(row_shape) <= axis < len(row_shape):
        raise InvalidArgumentError(
            f"channel_axis must be 'auto', None or an axis of the rows of field {name!r}, which have shape "
            f"{row_shape}, got {channel_axis!r}; axis 0 is the first of a row, -1 the last"
        )
    return Channels.of(row_shape, axis % len(row_shape))


def auto_axis(row_shape: tuple[int, ...]) -> int | None:
    """Return the axis of channels of rows that nobody describes.

    Returns
    -------
    int or None
        A column each for rows of shape (F,); none for single values and planes (H, W); of three axes the last, unless
        it is longer than 4 and the first is not; of more the last.

    """
    n_axes = len(row_shape)
    if n_axes in (0, 2):
        return None
    if n_axes == 3 and row_shape[-1] > _MOST_COLOURS >= row_shape[0]:
        return 0
    return n_axes - 1
