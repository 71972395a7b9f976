"""Rows drawn with replacement, in proportion to weights, a block at a time.

In two levels: each block gives as many rows to an epoch as its mass is worth, rounded at random to a whole number
(systematic sampling: Madow, Annals of Mathematical Statistics 20, 1949), and these are drawn independently of each
other from the rows of the block. So each row comes as often as its weight says, on average, the blocks' numbers vary
less than independent draws would let them, and no block is read but for many rows.

Weights are scaled to whole numbers by a power of two, so that sums are exact and the same on every machine.
"""

from __future__ import annotations

from math import frexp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError
from oocload.plan.select import Selection
from oocload.plan.shuffle import DRAWS, MASSES, random_words
from oocload.plan.visits import Cover, Visits, firsts

_TOTAL_BITS = 61


class Draws:
    """Weighted draws from a selection; a `Pool` whose epochs have as many rows as the selection.

    Parameters
    ----------
    selection
        The rows to draw from.
    weights
        Shape (rows of the store,), any real dtype.
    visit_rows
        Rows that one visit of a block takes at most; heavier blocks are visited more than once.
    seed
        Of the loader.

    Raises
    ------
    InvalidArgumentError
        If a weight of the selection is negative or not finite, or none is above 0.

    """

    def __init__(self, selection: Selection, weights: NDArray[Any], visit_rows: int, seed: int) -> None:
        self.selection = selection
        self._weights = weights
        self._visit_rows = visit_rows
        self._seed = seed
        self._exponent = _exponent(selection, weights)
        masses = [
            np.add.reduceat(self.weights_of(rows), firsts(selection.counts[groups]))
            for groups, rows in selection.row_pieces()
        ]
        self._masses = np.concatenate(masses)
        self._total = int(self._masses.sum())
        # Rows of an epoch times the mass up to each block, divided by the total: whole part and rest.
        products = np.cumsum(self._masses).astype(object) * self.n_rows
        self._wholes = np.array(products // self._total, np.int64)
        self._rests = np.array(products % self._total, np.int64)

    @property
    def n_rows(self) -> int:
        """Rows of an epoch."""
        return self.selection.n_rows

    @property
    def n_groups(self) -> int:
        """Number of blocks that hold selected rows."""
        return self.selection.n_groups

    @property
    def block_rows(self) -> int:
        """Rows that an ordinary visit takes."""
        return self.selection.block_rows

    regular = False

    @property
    def shares(self) -> NDArray[np.float64]:
        """The share of each block in all draws."""
        return self._masses / self._total

    @property
    def most_visits(self) -> int:
        """Visits of an epoch, at most."""
        return self.n_groups + self.n_rows // self._visit_rows

    @property
    def picks_nbytes(self) -> int:
        """Bytes per row of a window while its `Cover` is held."""
        return 8 * 8

    @property
    def most_rows(self) -> int:
        """Rows that a visit takes at most."""
        return min(self.n_rows, self._visit_rows)

    def visits(self, epoch: int) -> Visits:
        """Return the visits of an epoch, in the order of the store."""
        word = int(random_words(self._seed, epoch, MASSES).random_raw())
        ends = self._wholes + (self._rests > word * self._total >> 64)
        counts = np.diff(ends, prepend=0)
        n_visits = -(-counts // self._visit_rows)
        groups = np.repeat(np.arange(self.n_groups), n_visits)
        number = np.arange(len(groups)) - np.repeat(firsts(n_visits), n_visits)
        each, more = np.divmod(counts, np.maximum(1, n_visits))
        each, more = each[groups], more[groups]
        lows = number * each + np.minimum(number, more)
        return Visits(groups, lows, lows + each + (number < more))

    def cover(self, epoch: int, index: int, visits: Visits) -> Cover:
        """Draw the rows of some visits, and return the ranges to read for them."""
        counts = self.selection.counts[visits.groups]
        whole = self.selection.cover_all(visits.groups)
        up_to = np.cumsum(self.weights_of(whole.rows()))
        masses = self._masses[visits.groups]
        base = up_to[np.cumsum(counts) - 1] - masses
        n_draws = visits.counts
        words = random_words(self._seed, epoch, DRAWS, index).random_raw(int(n_draws.sum()))
        parts = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        mass = np.repeat(masses, n_draws)
        drawn = np.minimum((parts * mass).astype(np.int64), mass - 1) + np.repeat(base, n_draws)
        drawn.sort()  # visits lie one after the other, so each keeps its own
        numbers = np.searchsorted(up_to, drawn, side="right")
        return Cover(whole.starts, whole.stops, numbers if whole.picks is None else whole.picks[numbers])

    def weights_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the weights of some rows as whole numbers; what is above 0 is at least 1."""
        weights = self._weights[rows].astype(np.float64)
        return np.maximum(np.rint(np.ldexp(weights, self._exponent)), weights > 0).astype(np.int64)


def _exponent(selection: Selection, weights: NDArray[Any]) -> int:
    """Return the power of two that makes weights large whole numbers whose sum fits into 64 bits."""
    most = 0.0
    for _, rows in selection.row_pieces():
        some = np.asarray(weights[rows], np.float64)
        good = np.isfinite(some) & (some >= 0)
        if not good.all():
            row = int(np.argmin(good))
            raise InvalidArgumentError(
                f"weights must be finite and not negative, got {some[row]} for row {rows[row]}; mend it, or leave the "
                "row out with select()"
            )
        most = max(most, float(some.max()))
    if most == 0:
        raise InvalidArgumentError(
            f"weights must have at least one above 0, got {selection.n_rows} zeros; there is no row to draw"
        )
    return int(_TOTAL_BITS - frexp(most)[1] - (selection.n_rows).bit_length())
