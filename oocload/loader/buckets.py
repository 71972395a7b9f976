"""Batches of rows of like length: looks up lengths, and lets the plan rearrange the rows of each slab."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.ragged import Kept
from oocload.chunks.scratch import Scratch
from oocload.layout import FieldLayout
from oocload.loader.arena import lengths_of, open_lengths
from oocload.plan.bucket import bucketed_span, by_length
from oocload.plan.windows import Plan, Reading
from oocload.stores.base import Store


class Buckets:
    """Rearranges slabs by the lengths of one ragged field's rows.

    Parameters
    ----------
    store, field, kept
        The field, and how much of each row is read.
    seed
        The loader's.

    """

    def __init__(self, store: Store, field: FieldLayout, kept: Kept, seed: int) -> None:
        self._reader = open_lengths(store, field, kept)
        self._seed = seed

    @property
    def held_nbytes(self) -> int:
        """Bytes that are held."""
        return self._reader.held_nbytes

    @property
    def scratch_nbytes(self) -> int:
        """Bytes that reading lengths takes."""
        return sum(self._reader.scratch_needs.values())

    def places(self, plan: Plan, number: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the places of a slab's own rows, given those that its plan has."""
        return by_length(places, self._lengths(plan.reading(number)), plan, number, self._seed)

    def batch_rows(self, plan: Plan, batch: int) -> NDArray[np.int64]:
        """Return the store's row numbers of one batch, in order."""
        number = plan.first_slab(batch)
        low, _ = bucketed_span(plan, number)
        slab = plan.slab(number)
        first = (batch - slab.first_batch) * plan.batch_size
        if not low <= first < slab.n_rows:
            return plan.batch_rows(batch)
        reading = plan.reading(number)
        places = plan.places(number)
        assert places is not None
        places = by_length(places, self._lengths(reading), plan, number, self._seed)
        which = np.flatnonzero((places >= first) & (places < min(first + plan.batch_size, slab.n_rows)))
        return reading.rows(which[np.argsort(places[which])])

    def close(self) -> None:
        """Close what is open."""
        self._reader.close()

    def _lengths(self, reading: Reading) -> NDArray[np.int64]:
        ranges = list(zip(reading.starts.tolist(), reading.stops.tolist(), strict=True))
        lengths = lengths_of(self._reader, ranges, Scratch())
        return lengths if reading.picks is None else lengths[reading.picks]
