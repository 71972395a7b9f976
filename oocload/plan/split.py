"""Splits of a selection into parts that share no row, fixed before any shuffle."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError
from oocload.plan.blocks import BlockGrid
from oocload.plan.select import PIECE_ROWS, Selection
from oocload.plan.shuffle import SPLITS, permutation, random_keys
from oocload.plan.visits import firsts

_ROUNDING = 1e-9  # by how much fractions such as 0.8, 0.1 and 0.1 may miss 1


def check_fractions(fractions: Sequence[float]) -> list[float]:
    """Return the running sums of fractions.

    Raises
    ------
    InvalidArgumentError
        If one is not above 0, or they exceed 1 together.

    """
    for fraction in fractions:
        if not (isfinite(fraction) and fraction > 0):
            raise InvalidArgumentError(f"fractions must be above 0, got {fraction!r}")
    sums = np.cumsum(np.array(fractions, np.float64)).tolist()
    if sums[-1] > 1 + _ROUNDING:
        shown = " + ".join(f"{f:g}" for f in fractions)
        raise InvalidArgumentError(f"fractions must not exceed 1 together, got {shown} = {sums[-1]:g}")
    return [1.0 if abs(s - 1) <= _ROUNDING else float(s) for s in sums]


def split_by_blocks(selection: Selection, fractions: Sequence[float], seed: int) -> list[Selection]:
    """Return parts of whole blocks, in random order; a block that a border cuts belongs to two, each its own rows.

    Raises
    ------
    InvalidArgumentError
        If fractions break their rule, or a part has no rows.

    """
    order = permutation(selection.n_groups, seed, 0, SPLITS)
    sizes = part_sizes(fractions, np.array([selection.n_rows]))
    borders = [0, *np.cumsum(sizes).tolist()]
    parts = []
    for fraction, first, last in zip(fractions, borders[:-1], borders[1:], strict=True):
        if first == last:
            raise _empty(fraction, selection.n_rows)
        parts.append(selection.part(order, first, last))
    return parts


def split_by_rows(
    grid: BlockGrid,
    selection: Selection,
    fractions: Sequence[float],
    seed: int,
    codes: NDArray[np.integer] | None = None,
) -> list[Selection]:
    """Return parts of single rows, chosen at random; with ``codes``, each has its fraction of every class.

    Parameters
    ----------
    grid
        The blocks of the store.
    selection
        The rows to split.
    fractions
        Of each part.
    seed
        Of the choice.
    codes
        Class of each row of the store, from 0.

    Raises
    ------
    InvalidArgumentError
        If fractions break their rule, or a part has no rows.

    """
    sums = check_fractions(fractions)
    n_classes = 1 if codes is None else int(codes.max()) + 1
    before = np.zeros(n_classes, np.int64)
    pieces: list[list[Selection]] = [[] for _ in fractions]
    for _, rows in selection.row_pieces():
        classes = np.zeros(len(rows), np.int64) if codes is None else codes[rows]
        order = np.lexsort((random_keys(rows, seed, 0, SPLITS), classes))
        counts = np.bincount(classes, minlength=n_classes)
        rank = np.empty(len(rows), np.int64)
        rank[order] = np.arange(len(rows)) - np.repeat(firsts(counts), counts)
        low = np.zeros(n_classes, np.int64)
        for piece, fraction in zip(pieces, sums, strict=True):
            high = _shares(fraction, before + counts) - _shares(fraction, before)
            chosen = rows[(rank >= low[classes]) & (rank < high[classes])]
            if len(chosen):
                piece.append(Selection.of_rows(grid, chosen))
            low = high
        before += counts
    for fraction, piece in zip(fractions, pieces, strict=True):
        if not piece:
            raise _empty(fraction, selection.n_rows)
    return [Selection.joined(piece) for piece in pieces]


def select_rows(grid: BlockGrid, selection: Selection, rows: NDArray[np.int64]) -> Selection:
    """Return the selection of some row numbers of the store, in any order.

    Raises
    ------
    InvalidArgumentError
        If there are none, one comes twice, or one is not in the selection.

    """
    if not len(rows):
        raise InvalidArgumentError("rows must be at least one, got none")
    ordered = np.sort(rows)
    if ordered[0] < 0 or ordered[-1] >= grid.n_rows:
        wrong = ordered[0] if ordered[0] < 0 else ordered[-1]
        raise InvalidArgumentError(f"rows must be from 0 to {grid.n_rows - 1}, got {wrong}")
    for first in range(0, len(ordered), PIECE_ROWS):
        some = ordered[first : first + PIECE_ROWS + 1]
        twice = some[1:][some[1:] == some[:-1]]
        if len(twice):
            raise InvalidArgumentError(f"rows must differ, and row {twice[0]} comes more than once")
        _check_held(selection, some)
    return Selection.of_rows(grid, ordered)


def select_marked(grid: BlockGrid, selection: Selection, mask: NDArray[np.bool_]) -> Selection:
    """Return the selection of some marked rows of the store; ``mask`` has a flag for each row of it.

    Raises
    ------
    InvalidArgumentError
        If none is marked, or one that is not in the selection.

    """
    n_marked = int(np.count_nonzero(mask))
    if not n_marked:
        raise InvalidArgumentError("rows must be at least one, got none")
    found = Selection.of_mask(grid, mask, selection)
    if found.n_rows < n_marked:
        for first in range(0, len(mask), PIECE_ROWS):
            _check_held(selection, first + np.flatnonzero(mask[first : first + PIECE_ROWS]))
    return found


def _check_held(selection: Selection, rows: NDArray[np.int64]) -> None:
    absent = rows[~selection.holds(rows)]
    if len(absent):
        raise InvalidArgumentError(f"rows must be among those of this loader, and row {absent[0]} is not")


def part_sizes(fractions: Sequence[float], n_rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many of some numbers of rows each part gets; shape (parts, numbers)."""
    ends = np.array([_shares(fraction, n_rows) for fraction in check_fractions(fractions)])
    return np.diff(ends, axis=0, prepend=0)


def _shares(fraction: float, n_rows: NDArray[np.int64]) -> NDArray[np.int64]:
    shares: NDArray[np.int64] = np.floor(fraction * n_rows + 0.5).astype(np.int64)
    return shares


def _empty(fraction: float, n_rows: int) -> InvalidArgumentError:
    return InvalidArgumentError(f"fractions must leave each part a row, and {fraction:g} of {n_rows} rows is none")
