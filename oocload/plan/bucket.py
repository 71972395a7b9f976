"""Rows of like length in one batch: where the rows of a slab go instead."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oocload.plan.shuffle import BUCKETS, permutation
from oocload.plan.windows import Plan

WORKSPACE_NBYTES = 14 * 8
"""Per row of a slab, while its rows are put together by length: lengths, places, orders and what sorting takes."""


def bucketed_span(plan: Plan, number: int) -> tuple[int, int]:
    """Return which places of a slab are rearranged: those of batches that it holds whole.

    A batch that began in the slab before is left as it is, so that a slab's order does not depend on the rows of
    another, and iteration can begin with any.
    """
    slab = plan.slab(number)
    low = plan.batch_size if slab.head_rows else 0
    return min(low, slab.n_rows), slab.n_rows


def by_length(
    places: NDArray[np.int64], lengths: NDArray[np.int64], plan: Plan, number: int, seed: int
) -> NDArray[np.int64]:
    """Return the places of a slab's rows when its batches are of rows of like length, and come in random order.

    Parameters
    ----------
    places
        Of the slab's own rows, shuffled; each once.
    lengths
        Of the same rows.
    plan, number
        The slab's.
    seed
        Of the order of batches.

    Returns
    -------
    ndarray of int64
        Rows of equal length come in the order that they had. A batch at the end that is not full stays there.

    """
    low, high = bucketed_span(plan, number)
    inside = np.flatnonzero((places >= low) & (places < high))
    by_place = inside[np.argsort(places[inside])]
    ordered = by_place[np.argsort(lengths[by_place], kind="stable")]
    n_whole = len(ordered) // plan.batch_size
    batches = np.arange(len(ordered)) // plan.batch_size
    moved = np.append(permutation(n_whole, seed, plan.epoch, BUCKETS, number), n_whole)
    found = places.copy()
    found[ordered] = low + moved[batches] * plan.batch_size + np.arange(len(ordered)) % plan.batch_size
    return found
