"""How many rows, or which batches, each of several loaders gives to an epoch of their mix: fixed proportions.

What each loader has given up to a batch follows from the batch's number, so that a mix resumes anywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from math import isfinite
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError

Until = Literal["first", "last"]


def check_until(until: Until) -> None:
    """Refuse what is neither of the two."""
    if until not in get_args(Until):
        raise InvalidArgumentError(f"until must be 'first' or 'last', got {until!r}")


def shares_of(weights: Sequence[float] | None, n_sources: int) -> list[Fraction]:
    """Return the exact share of each source; equal where no weights are given.

    Raises
    ------
    InvalidArgumentError
        If there is not one weight above 0 for each source.

    """
    if weights is None:
        return [Fraction(1, n_sources)] * n_sources
    try:
        given = [float(w) for w in weights]
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"weights must be a list of one number per loader, got {weights!r}") from None
    if len(given) != n_sources:
        raise InvalidArgumentError(f"weights must be one for each of the {n_sources} loaders, got {len(given)}")
    for weight in given:
        if not (isfinite(weight) and weight > 0):
            raise InvalidArgumentError(f"weights must be finite and above 0, got {weight}; leave the loader out")
    total = sum(map(Fraction, given))
    return [Fraction(w) / total for w in given]


class Schedule(ABC):
    """What each source gives to an epoch.

    Attributes
    ----------
    n_batches
        Batches of an epoch.

    """

    n_batches: int

    @abstractmethod
    def taken(self, n_batches: int) -> list[int]:
        """Return what each source has given to so many batches: rows, or batches."""


class WithinBatches(Schedule):
    """Every batch has rows of the sources, in proportion.

    The source of the largest share gives what rounding leaves of the others.

    Parameters
    ----------
    shares
        Of each source; together 1.
    batch_rows
        Rows of a batch.
    rows
        Rows that each source has in an epoch of its own.
    until
        ``"first"``: an epoch ends before a source would begin anew; ``"last"``: when every source has given all its
        rows, some of them more than once.

    """

    def __init__(self, shares: Sequence[Fraction], batch_rows: int, rows: Sequence[int], until: Until) -> None:
        self._parts = [share * batch_rows for share in shares]
        self._batch_rows = batch_rows
        self._rest = max(range(len(shares)), key=lambda i: shares[i])
        rounded = sum(-(-part.numerator // part.denominator) for i, part in enumerate(self._parts) if i != self._rest)
        if rounded > batch_rows:
            raise InvalidArgumentError(
                f"batch_size must be at least {rounded} to have rows of each of {len(shares)} loaders in these "
                f"proportions, got {batch_rows}"
            )
        found = [self._epoch_of(i, n, until) for i, n in enumerate(rows)]
        self.n_batches = min(found) if until == "first" else max(found)
        if not self.n_batches:
            short = found.index(0)
            raise InvalidArgumentError(
                f"loader {short} must have the rows of one batch of the mix, and has {rows[short]}; lower batch_size"
            )

    def taken(self, n_batches: int) -> list[int]:
        """Return the rows that each source has given to so many batches."""
        taken = [n_batches * part.numerator // part.denominator for part in self._parts]
        taken[self._rest] += n_batches * self._batch_rows - sum(taken)
        return taken

    def parts(self, batch: int) -> list[int]:
        """Return the rows that each source gives to a batch."""
        return [b - a for a, b in zip(self.taken(batch), self.taken(batch + 1), strict=True)]

    def _epoch_of(self, source: int, rows: int, until: Until) -> int:
        """Return after how many batches a source's epoch ends: before it begins anew, or when all rows are given."""
        low, high = 0, 2
        enough = rows if until == "first" else rows - 1
        while self.taken(high)[source] <= enough:
            high *= 2
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.taken(middle)[source] <= enough else (low, middle)
        return low if until == "first" else high


class ByBatches(Schedule):
    """Every batch is of one source, and they take turns as evenly as their shares allow.

    Parameters
    ----------
    shares
        Of each source; together 1.
    batches
        Batches that each source has in an epoch of its own.
    until
        As in `WithinBatches`.

    """

    def __init__(self, shares: Sequence[Fraction], batches: Sequence[int], until: Until) -> None:
        self._shares = [float(s) for s in shares]
        ends = [
            (n + 0.5) / s if until == "first" else (n - 0.5) / s for n, s in zip(batches, self._shares, strict=True)
        ]
        self._end = min(ends) if until == "first" else max(ends)
        self._until = until
        self.n_batches = len(self.turns)
        if not self.n_batches:
            raise InvalidArgumentError(f"loader {ends.index(self._end)} must have at least one batch, and has none")

    @cached_property
    def turns(self) -> NDArray[np.integer]:
        """The source of each batch; batch ``j`` of a source is due at ``(j + 1/2) / share``."""
        due, source = [], []
        for number, share in enumerate(self._shares):
            times = (np.arange(int(self._end * share) + 2) + 0.5) / share
            times = times[times < self._end] if self._until == "first" else times[times <= self._end]
            due.append(times)
            source.append(np.full(len(times), number, np.min_scalar_type(len(self._shares))))
        return np.concatenate(source)[np.argsort(np.concatenate(due), kind="stable")]

    def taken(self, n_batches: int) -> list[int]:
        """Return the batches that each source has given to so many."""
        taken: list[int] = np.bincount(self.turns[:n_batches], minlength=len(self._shares)).tolist()
        return taken
