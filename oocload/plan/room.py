"""How many items of ragged rows a window has at most, whatever its blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oocload.plan.ranks import Share


def most_items(
    rows: NDArray[np.int64], items: NDArray[np.int64], n_rows: int, n_again: int = 0, n_times: int = 1
) -> int:
    """Return the most items that groups with at most so many rows in all have together.

    A window takes groups in random order, so that is the worst of all choices: those with the most items per row,
    until the rows are used up (the bound of the fractional knapsack problem, Dantzig 1957), the last of them whole.

    Parameters
    ----------
    rows, items
        Of each group; shape (groups,).
    n_rows
        Rows of the window.
    n_again, n_times
        Visits of groups beside those, of which the window has a part of the rows only and yet all items, or which it
        has already; and how many of them one group may have. See `visits_again`.

    """
    if not len(rows):
        return 0
    order = np.argsort(-items / np.maximum(rows, 1), kind="stable")
    n_groups = int(np.searchsorted(np.cumsum(rows[order]), n_rows)) + 1
    most = np.sort(items)[::-1][: -(-n_again // n_times)]
    return int(items[order[:n_groups]].sum()) + int(np.repeat(most, n_times)[:n_again].sum())


def visits_again(share: Share, n_rows: int, most_rows: int) -> tuple[int, int]:
    """Return how many visits of a rank's streams are of parts of groups, or of rows that the rank has already.

    ::

        groups    |       7       | 0 |   4   |       7      in block order, which goes on at its beginning
        streams      |-----|-----|-----|-----|-----|         7 is visited by three, and by one of them twice

    Each stream cuts the groups at its two ends. Rows that are repeated, so that all streams have equally many, may be
    groups of their own.

    Parameters
    ----------
    share
        Of the rank.
    n_rows
        Rows of an epoch, of all ranks.
    most_rows
        Rows of the largest group.

    Returns
    -------
    tuple of int
        How many there are at most, and at most of one group.

    """
    if share.n_streams == 1:
        return 0, 1
    each = share.stream_rows(n_rows)
    repeated = max(0, each * share.n_streams - n_rows)
    n_again = 2 * len(share.own) + repeated
    if n_rows < share.n_streams:
        return n_again, n_again
    of_one = -(-most_rows // each) + 2  # a border within, and one where the order begins anew
    return n_again, min(n_again, 2 * of_one if repeated else of_one)
