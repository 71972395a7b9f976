"""How many items of ragged rows a window has at most, whatever its blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def most_items(rows: NDArray[np.int64], items: NDArray[np.int64], n_rows: int, n_cut: int) -> int:
    """Return the most items that groups with at most so many rows in all have together.

    A window takes groups in random order, so that is the worst of all choices: those with the most items per row,
    until the rows are used up (the bound of the fractional knapsack problem, Dantzig 1957), the last of them whole.

    Parameters
    ----------
    rows, items
        Of each group; shape (groups,).
    n_rows
        Rows of the window.
    n_cut
        Groups of which the window may have a part of the rows only, and yet all items.

    """
    if not len(rows):
        return 0
    most = np.sort(items)[::-1]
    order = np.argsort(-items / np.maximum(rows, 1), kind="stable")
    n_groups = int(np.searchsorted(np.cumsum(rows[order]), n_rows)) + 1
    return min(int(items[order[:n_groups]].sum()) + int(most[:n_cut].sum()), int(items.sum()) + int(most[:n_cut].sum()))
