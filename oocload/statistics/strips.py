"""How a block is cut so that NumPy reduces it quickly: into strips of lanes, and those into pieces that stay in cache.

A lane is a run of values of one channel, each a row of lanes apart from the next; sums are taken over rows of lanes::

    channels 0 1 2 last            lanes 0 1 2 3 4 5          3 channels side by side, again and again
                                   rows  0 1 2 0 1 2
                                         0 1 2 0 1 2

    channels first, long planes    (rows, channels, parts of a plane, lanes)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from oocload.statistics.channels import Channels

# Rows of lanes are long enough that NumPy adds them quickly, and short enough that a piece has many.
_LANES = 1024
_MOST_LANES = 4 * _LANES  # of a strip
_LEAST_RUN = 64  # values side by side that NumPy adds at once


@dataclass(frozen=True, slots=True)
class Strip:
    """Some channels of a block.

    Attributes
    ----------
    values
        View of the block, of shape (rows, lanes) or (rows, channels, parts, lanes of each).
    low, high
        The channels.
    fold
        Shape of all lanes whose axis 1 counts channels.

    """

    values: NDArray[Any]
    low: int
    high: int
    fold: tuple[int, int, int]

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of `values` that do not count lanes."""
        return (0,) if self.values.ndim == 2 else (0, 2)

    @property
    def n_summed(self) -> int:
        """Values of each lane."""
        return len(self.values) * (self.values.shape[2] if self.values.ndim == 4 else 1)

    @property
    def n_per_channel(self) -> int:
        """Values of each channel."""
        return self.n_summed * self.fold[0] * self.fold[2]

    def pieces(self, most_items: int, most_summed: int) -> Iterator[NDArray[Any]]:
        """Yield parts of `values` with at most so many values, and so many of each lane."""
        values = self.values
        if values.ndim == 2:
            step = max(1, min(most_items // values.shape[1], most_summed))
            for first in range(0, len(values), step):
                yield values[first : first + step]
            return
        _, n_channels, n_parts, width = values.shape
        parts_at_once = max(1, min(most_items // (n_channels * width), most_summed))
        if parts_at_once >= n_parts:
            step = parts_at_once // n_parts
            for first in range(0, len(values), step):
                yield values[first : first + step]
            return
        for row in range(len(values)):
            for first in range(0, n_parts, parts_at_once):
                yield values[row : row + 1, :, first : first + parts_at_once]


def strips(block: NDArray[Any], channels: Channels) -> Iterator[Strip]:
    """Yield the strips of a C-contiguous block, which have each of its values once."""
    n, inner = channels.n, channels.inner
    rows = block.reshape(-1, n * inner)
    if n * inner <= _LANES:
        yield from _repeated(rows, n, inner)
        return
    width = _run_of(inner, max(_LEAST_RUN, 2 * _LANES // n))
    step = max(1, _MOST_LANES // width)
    planes = rows.reshape(len(rows), n, inner)
    n_parts, rest = divmod(inner, width)
    for low in range(0, n, step):
        some = planes[:, low : low + step]
        high = low + some.shape[1]
        if n_parts == 1 and not rest:
            yield Strip(some.reshape(len(rows), -1), low, high, (1, high - low, inner))
            continue
        even = some[:, :, : n_parts * width].reshape(len(rows), high - low, n_parts, width)
        yield Strip(even, low, high, (1, high - low, width))
        if rest:
            yield Strip(some[:, :, None, n_parts * width :], low, high, (1, high - low, rest))


def _repeated(rows: NDArray[Any], n: int, inner: int) -> Iterator[Strip]:
    """Yield strips with as many rows side by side as fill the lanes, and what is left over."""
    side_by_side = _divisor_near(len(rows), _LANES // (n * inner))
    n_full = len(rows) // side_by_side
    whole = rows[: n_full * side_by_side]
    if len(whole):
        yield Strip(whole.reshape(n_full, -1), 0, n, (side_by_side, n, inner))
    if len(whole) < len(rows):
        yield Strip(rows[len(whole) :], 0, n, (1, n, inner))


def _run_of(inner: int, most: int) -> int:
    """Return how many values of a plane are side by side: one part of it, or lanes of several."""
    return inner if inner <= most else _divisor_near(inner, most)


@lru_cache(maxsize=256)
def _divisor_near(n: int, most: int) -> int:
    """Return the largest divisor of a number from half of ``most`` to ``most``, or ``most`` where there is none."""
    return next((d for d in range(most, most // 2, -1) if n % d == 0), most)


def n_lanes_at_most(channels: Channels) -> int:
    """Return the most lanes that a strip has."""
    return min(_MOST_LANES, max(_LANES, channels.n * channels.inner))
