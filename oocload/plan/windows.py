"""What is read for one window and what one slab holds: all that the loader knows of an order of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from oocload.plan.visits import Cover, firsts


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

    def rows(self, numbers: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return the store's row number of each row delivered, in reading order, or of some of them."""
        if numbers is None:
            return Cover(self.starts, self.stops, self.picks).rows()
        covered = numbers if self.picks is None else self.picks[numbers]
        ends: NDArray[np.int64] = np.cumsum(self.stops - self.starts)
        which = np.searchsorted(ends, covered, side="right")
        rows: NDArray[np.int64] = self.stops[which] - (ends[which] - covered)
        return rows

    @property
    def early(self) -> NDArray[np.bool_]:
        """For each row delivered, whether it goes to the window's own slab."""
        counts, early = np.diff(self.ends, prepend=0), np.diff(self.early_ends, prepend=0)
        number = np.arange(self.n_rows) - np.repeat(firsts(counts), counts)
        late = counts - early
        return np.where(
            np.repeat(self.late_first, counts), number >= np.repeat(late, counts), number < np.repeat(early, counts)
        )

    def only(self, late: bool) -> Reading:
        """Return what of this is read for the next slab, or for the window's own."""
        counts, early = np.diff(self.ends, prepend=0), np.diff(self.early_ends, prepend=0)
        taken = counts - early if late else early
        early_ends = np.zeros_like(taken) if late else np.cumsum(taken)
        if self.picks is not None:
            picks = self.picks[self.early != late]
            return Reading(self.starts, self.stops, picks, np.cumsum(taken), early_ends, self.late_first)
        starts = np.where(self.late_first == late, self.starts, self.stops - taken)
        return Reading(starts, starts + taken, None, np.cumsum(taken), early_ends, self.late_first)

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


class OrderOptions(Protocol):
    """What the options of any order tell of its epochs."""

    @property
    def batch_rows(self) -> int:
        """Rows of a batch."""
        ...

    @property
    def n_batches(self) -> int:
        """Batches of every epoch."""
        ...

    @property
    def n_windows(self) -> int:
        """Windows of every epoch."""
        ...

    @property
    def dealt(self) -> bool:
        """Whether rows of a window go to two slabs."""
        ...

    @property
    def indexed(self) -> bool:
        """Whether rows go to other places than consecutive ones."""
        ...


class Plan(ABC):
    """The order of one epoch: a pure function of options and epoch.

    Attributes
    ----------
    epoch
        The epoch's number, from 0.
    batch_size
        Rows of a batch.
    n_batches, n_windows
        Batches and windows of the epoch.
    n_slabs
        As many as windows, one more where rows are dealt over two; some may be empty.
    indexed
        Whether rows go to other places than consecutive ones.

    """

    def __init__(self, epoch: int, options: OrderOptions) -> None:
        self.epoch = epoch
        self.batch_size = options.batch_rows
        self.n_batches = options.n_batches
        self.n_windows = options.n_windows
        self.n_slabs = options.n_windows + options.dealt
        self.indexed = options.indexed

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

    @abstractmethod
    def batch_rows(self, batch: int) -> NDArray[np.int64]:
        """Return the store's row numbers of one batch, in order; decides without reading anything."""
