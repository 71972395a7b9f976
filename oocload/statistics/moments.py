"""Count, mean, squares about the mean, and range of each channel; how those of two sets of values become one's.

Merging follows Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances
(1979). Means are kept as distances from a base that lies near the values: a float that is large has no digits left for
what small deviations do to it, and 64-bit integers have more digits than it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(slots=True)
class Moments:
    """Of each channel of some values.

    Attributes
    ----------
    count
        Values that are finite.
    base, mean
        Of those: how far their mean is above some value near them (float64; 64-bit integers as they are).
    squares
        Of those: the sum of squared distances from their mean.
    low, high
        The least and the greatest that is not NaN, in the field's dtype.
    n_nan, n_plus, n_minus
        Values that are NaN, infinity, and minus infinity.

    """

    count: Counts
    base: NDArray[Any]
    mean: Floats
    squares: Floats
    low: NDArray[Any]
    high: NDArray[Any]
    n_nan: Counts
    n_plus: Counts
    n_minus: Counts

    @classmethod
    def none(cls, n_channels: int, dtype: np.dtype[Any]) -> Moments:
        """Return what no values have."""
        counts = [np.zeros(n_channels, np.int64) for _ in range(4)]
        low, high = _farthest(dtype)
        return cls(
            counts[0],
            np.zeros(n_channels, base_dtype(dtype)),
            np.zeros(n_channels),
            np.zeros(n_channels),
            np.full(n_channels, low, dtype),
            np.full(n_channels, high, dtype),
            *counts[1:],
        )

    def merge(self, other: Moments, low: int = 0) -> None:
        """Take in the values of some more, whose channels are those from number ``low`` on."""
        at = slice(low, low + len(other.count))
        count = self.count[at]
        total = count + other.count
        base = np.where(count > 0, self.base[at], other.base)
        mean, more = self.mean[at], other.mean + distance(other.base, base)
        share = other.count / np.maximum(total, 1)
        step = more - mean
        self.squares[at] += np.where(count > 0, other.squares + step * step * (count * share), other.squares)
        self.mean[at] = np.where(count > 0, mean + step * share, more)
        self.base[at] = base
        self.count[at] = total
        self.low[at] = lesser(self.low.dtype)(self.low[at], other.low)
        self.high[at] = greater(self.high.dtype)(self.high[at], other.high)
        for mine, others in ((self.n_nan, other.n_nan), (self.n_plus, other.n_plus), (self.n_minus, other.n_minus)):
            mine[at] += others

    @property
    def n_infinite(self) -> Counts:
        """Values that are infinite."""
        return self.n_plus + self.n_minus

    def means(self) -> Floats:
        """Return the means; infinite or NaN where values are infinite, NaN where there are none."""
        mean = self.base.astype(np.float64) + self.mean
        mean = np.where(self.n_plus > 0, np.where(self.n_minus > 0, np.nan, np.inf), mean)
        mean = np.where((self.n_minus > 0) & (self.n_plus == 0), -np.inf, mean)
        return np.where(self.count + self.n_infinite > 0, mean, np.nan)

    def deviations(self) -> Floats:
        """Return the standard deviations (of the population); NaN where values are infinite, or there are none."""
        known = (self.count > 0) & (self.n_infinite == 0)
        return np.where(known, np.sqrt(self.squares / np.maximum(self.count, 1)), np.nan)


@dataclass(slots=True)
class Lanes:
    """The same of each lane of a strip, before lanes of one channel are put together; arrays of any one shape."""

    count: Counts
    base: NDArray[Any]
    mean: Floats
    squares: Floats
    low: NDArray[Any]
    high: NDArray[Any]
    n_nan: Counts | None = None  # None for none
    n_plus: Counts | None = None
    n_minus: Counts | None = None

    def fold(self, shape: tuple[int, int, int]) -> Moments:
        """Return the moments of the channels, which axis 1 of a shape of all lanes counts."""
        count, bases, lows = self.count.reshape(shape), self.base.reshape(shape), self.low.reshape(shape)
        base = bases[0, :, 0]
        mean = self.mean.reshape(shape) + distance(bases, base[:, None])
        n = count.sum(axis=(0, 2))
        rough = (count * mean).sum(axis=(0, 2)) / np.maximum(n, 1)
        apart = mean - rough[:, None]  # a sum of those is small, and mends the mean's last digits
        rest = (count * apart).sum(axis=(0, 2)) / np.maximum(n, 1)
        squares = self.squares.reshape(shape).sum(axis=(0, 2)) + (count * apart * apart).sum(axis=(0, 2))
        low = lesser(lows.dtype).reduce(lows, axis=(0, 2))
        high = greater(lows.dtype).reduce(self.high.reshape(shape), axis=(0, 2))
        counts = (
            np.zeros(shape[1], np.int64) if c is None else c.reshape(shape).sum(axis=(0, 2))
            for c in (self.n_nan, self.n_plus, self.n_minus)
        )
        return Moments(n, base, rough + rest, np.maximum(squares - n * rest * rest, 0.0), low, high, *counts)


def moments_nbytes(n_channels: int) -> int:
    """Return the bytes of the moments of some channels."""
    return 8 * 8 * n_channels


def base_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of bases of such values."""
    return dtype if dtype.kind in "iu" and dtype.itemsize == 8 else np.dtype(np.float64)


def distance(base: NDArray[Any], other: NDArray[Any]) -> Floats:
    """Return how far bases are above others; of 64-bit integers the difference is exact before it is rounded."""
    if base.dtype.kind == "f":
        return np.asarray(base - other, np.float64)
    above = np.subtract(base.view(np.uint64), other.view(np.uint64))  # wraps where it is below
    return np.where(base >= other, above.astype(np.float64), -np.negative(above).astype(np.float64))


def lesser(dtype: np.dtype[Any]) -> np.ufunc:
    """Return the function that takes the lesser of two values, and leaves out NaN."""
    return np.fmin if dtype.kind == "f" else np.minimum


def greater(dtype: np.dtype[Any]) -> np.ufunc:
    """Return the function that takes the greater of two values, and leaves out NaN."""
    return np.fmax if dtype.kind == "f" else np.maximum


def _farthest(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return a least and a greatest value that any other replaces."""
    if dtype.kind == "f":
        return np.nan, np.nan
    if dtype.kind == "b":
        return True, False
    limits = np.iinfo(dtype)
    return limits.max, limits.min
