"""What is read in an epoch: visits of groups of rows, in the order in which they are read.

A group is a block, or the rows of one that a loader has; a visit takes some of its rows. A `Pool` knows its groups.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


def firsts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of the first of each of some runs, given their lengths."""
    return np.cumsum(counts) - counts


class Visits(NamedTuple):
    """Visits in some order.

    Attributes
    ----------
    groups
        The group of each.
    lows, highs
        Which of the rows that the group gives are taken: from number ``low`` up to ``high``.

    """

    groups: NDArray[np.int64]
    lows: NDArray[np.int64]
    highs: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many rows each takes."""
        return self.highs - self.lows

    def take(self, which: slice | NDArray[np.int64]) -> Visits:
        """Return some of them."""
        return Visits(self.groups[which], self.lows[which], self.highs[which])


class Cover(NamedTuple):
    """Ranges of the store's rows that are read for some visits, and what is taken of them.

    Attributes
    ----------
    starts, stops
        One range per visit.
    picks
        Numbers of the rows taken, where the rows of all ranges are numbered one after the other: ascending, and a
        number comes twice where its row is taken twice. None where each row is taken once.

    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    picks: NDArray[np.int64] | None

    def rows(self) -> NDArray[np.int64]:
        """Return the store's row number of each row taken."""
        heights = self.stops - self.starts
        rows = np.repeat(self.starts - firsts(heights), heights)
        rows += np.arange(len(rows))
        return rows if self.picks is None else rows[self.picks]


def cover_of(rows: NDArray[np.int64], groups: NDArray[np.int64]) -> tuple[Cover, NDArray[np.int64]]:
    """Return the tightest ranges over ascending rows, one per group, and how many rows each has.

    Parameters
    ----------
    rows
        Row numbers; one comes twice where it is taken twice.
    groups
        A number of the group of each, which ascends too.

    """
    first = np.flatnonzero(np.diff(groups, prepend=-1))
    counts = np.diff(first, append=len(rows))
    starts, stops = rows[first], rows[first + counts - 1] + 1
    return Cover(starts, stops, rows + np.repeat(firsts(stops - starts) - starts, counts)), counts


class Pool(Protocol):
    """The rows that epochs are made of, by group."""

    @property
    def n_rows(self) -> int:
        """Rows of an epoch."""
        ...

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        ...

    @property
    def block_rows(self) -> int:
        """Rows that an ordinary visit takes."""
        ...

    @property
    def regular(self) -> bool:
        """Whether all visits take so many, but perhaps for one that takes fewer."""
        ...

    @property
    def most_visits(self) -> int:
        """Visits of an epoch, at most."""
        ...

    @property
    def picks_nbytes(self) -> int:
        """Bytes per row of a window while its `Cover` is held."""
        ...

    @property
    def most_rows(self) -> int:
        """Rows that a visit takes at most."""
        ...

    def visits(self, epoch: int) -> Visits:
        """Return the visits of an epoch, in the order of the store."""
        ...

    def cover(self, epoch: int, index: int, visits: Visits) -> Cover:
        """Return the ranges to read for some visits; ``index`` is a number of their own within the epoch."""
        ...
