"""What is read for one window and what one slab holds: all that the loader knows of an order of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.plan.visits import Cover

_SLABS_KEPT = 2  # whose row numbers a plan keeps when it is asked for those of a batch


class Reading(NamedTuple):
    """What is read for one window.

    Attributes
    ----------
    starts, stops
        Ranges of rows, in reading order.
    picks
        Numbers of the rows delivered among the rows of all ranges, ascending; None where each is delivered once.
    ends
        Rows delivered of all ranges up to each.
    early_ends
        How many of those go to the window's own slab; the others go to the next one.
    late_first
        Whether the first rows of a range are those for the next slab, rather than the last.

    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    picks: NDArray[np.int64] | None
    ends: NDArray[np.int64]
    early_ends: NDArray[np.int64]
    late_first: NDArray[np.bool_]

    @property
    def n_rows(self) -> int:
        """Rows delivered."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def rows(self) -> NDArray[np.int64]:
        """Return the store's row number of each row delivered, in reading order."""
        return Cover(self.starts, self.stops, self.picks).rows()

    @property
    def early(self) -> NDArray[np.bool_]:
        """For each row delivered, whether it goes to the window's own slab."""
        counts, early = np.diff(self.ends, prepend=0), np.diff(self.early_ends, prepend=0)
        number = np.arange(self.n_rows) - np.repeat(self.ends - counts, counts)
        late = counts - early
        return np.where(
            np.repeat(self.late_first, counts), number >= np.repeat(late, counts), number < np.repeat(early, counts)
        )

    def only_late(self) -> Reading:
        """Return what of this is read for the next slab."""
        counts, early = np.diff(self.ends, prepend=0), np.diff(self.early_ends, prepend=0)
        late = counts - early
        none = np.zeros_like(counts)
        if self.picks is None:
            starts = np.where(self.late_first, self.starts, self.starts + early)
            return Reading(starts, starts + late, None, np.cumsum(late), none, self.late_first)
        return Reading(self.starts, self.stops, self.picks[~self.early], np.cumsum(late), none, self.late_first)

    @classmethod
    def joined(cls, parts: Sequence[Reading]) -> Reading:
        """Return what is read for the windows of several streams, one after the other."""
        parts = [p for p in parts if len(p.starts)]
        if not parts:
            none = np.empty(0, np.int64)
            return cls(none, none, None, none, none, np.empty(0, bool))
        starts, stops, late_first = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("starts", "stops", "late_first")
        )
        picks = None
        if any(p.picks is not None for p in parts):
            covered = np.cumsum([0, *((p.stops - p.starts).sum() for p in parts)])
            own = [np.arange(p.n_rows) if p.picks is None else p.picks for p in parts]
            picks = np.concatenate([o + before for o, before in zip(own, covered, strict=False)])
        ends, early_ends = (_chained([getattr(p, name) for p in parts]) for name in ("ends", "early_ends"))
        return cls(starts, stops, picks, ends, early_ends, late_first)


def _chained(sums: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return running sums of several sequences as those of all, one after the other."""
    before = np.cumsum([0, *(int(s[-1]) if len(s) else 0 for s in sums)])
    return np.concatenate([s + b for s, b in zip(sums, before, strict=False)])


@dataclass(frozen=True, slots=True)
class SlabPlan:
    """What one slab holds.

    Attributes
    ----------
    first_batch, n_batches
        Batches that end in it.
    n_rows
        Rows of those batches, which lie one after the other from row 0.
    n_places
        Rows of the slab, with those that the next slab's first batches begin with.
    n_own
        Rows that are read for it; the others come from the slab before.
    n_late
        Those of them that the window before brings.
    head
        Places of the rows that come from the slab before.
    head_from
        Their places there.

    """

    first_batch: int
    n_batches: int
    n_rows: int
    n_places: int
    n_own: int
    n_late: int
    head: slice | NDArray[np.int64]
    head_from: slice | NDArray[np.int64]

    @property
    def head_rows(self) -> int:
        """Rows that come from the slab before."""
        return self.head.stop - self.head.start if isinstance(self.head, slice) else len(self.head)


class Plan(ABC):
    """The order of one epoch: a pure function of options and epoch.

    Attributes
    ----------
    epoch
        The epoch's number, from 0.
    batch_size
        Rows of a batch.
    indexed
        Whether rows go to other places than consecutive ones.

    """

    def __init__(self, epoch: int, batch_size: int, indexed: bool) -> None:
        self.epoch = epoch
        self.batch_size = batch_size
        self.indexed = indexed
        self._sources: dict[int, NDArray[np.int64]] = {}

    @property
    @abstractmethod
    def n_batches(self) -> int:
        """Batches of the epoch."""

    @property
    @abstractmethod
    def n_windows(self) -> int:
        """Windows of the epoch."""

    @property
    @abstractmethod
    def n_slabs(self) -> int:
        """Slabs of the epoch: as many as windows, one more where rows are dealt over two; some may be empty."""

    @abstractmethod
    def first_slab(self, batch: int) -> int:
        """Return the slab in which a batch begins."""

    @abstractmethod
    def slab(self, number: int) -> SlabPlan:
        """Return what a slab holds."""

    @abstractmethod
    def places(self, number: int, room: NDArray[np.int64] | None = None) -> NDArray[np.int64] | None:
        """Return the places of a slab's own rows: first those of the window before, each in reading order.

        None where they are consecutive (not `indexed`). With ``room``, they are put there.
        """

    @abstractmethod
    def reading(self, window: int, late_only: bool = False) -> Reading:
        """Return what is read for a window; with ``late_only``, only for the slab after its own."""

    def batch_rows(self, batch: int) -> NDArray[np.int64]:
        """Return the store's row numbers of one batch, in order; decides without reading anything."""
        number = self.first_slab(batch)
        rows = np.full(self.batch_size, -1)
        while True:
            slab = self.slab(number)
            at = (batch - slab.first_batch) * self.batch_size
            found = self._slab_sources(number, slab)[at : at + self.batch_size]
            np.copyto(rows[: len(found)], found, where=found >= 0)
            if batch < slab.first_batch + slab.n_batches:
                return rows[: slab.n_rows - at]
            number += 1

    def _slab_sources(self, number: int, slab: SlabPlan) -> NDArray[np.int64]:
        """Return the store's row number at each place of a slab that rows are read for, and -1 at the others."""
        if number in self._sources:
            return self._sources[number]
        parts = []
        if slab.n_late:
            parts.append(self.reading(number - 1, late_only=True).rows())
        if number < self.n_windows:
            reading = self.reading(number)
            parts.append(reading.rows()[reading.early])
        places = self.places(number)
        sources = np.full(slab.n_places, -1)
        sources[slice(slab.head_rows, None) if places is None else places] = np.concatenate(parts)
        while len(self._sources) >= _SLABS_KEPT:
            del self._sources[next(iter(self._sources))]
        self._sources[number] = sources
        return sources
