"""Slabs and windows on their way: where the rows of some blocks go, in one slab or in two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.target import Dealt, Picked, Places, Target
from oocload.loader.arena import ItemRoom, RaggedArray, WithItems
from oocload.plan.windows import Plan, Reading, SlabPlan


@dataclass
class SlabJob:
    """One slab on its way: its plan, its memory, and what is left to do. Guarded by the condition.

    Attributes
    ----------
    plan, number
        Of the epoch, and of the slab in it.
    slab
        What the slab holds.
    arrays
        Field → array over the slab.
    places
        Of its own rows, in the order in which they are read; None where they are consecutive.
    n_left
        Tasks that are queued or run.
    sealed
        Whether all its tasks have been queued.
    count
        How many slabs the pipeline has opened before it.

    """

    plan: Plan
    number: int
    slab: SlabPlan
    arrays: dict[str, NDArray[Any]]
    places: NDArray[np.int64] | None
    n_left: int = 0
    sealed: bool = False
    error: BaseException | None = None
    count: int = 0

    @property
    def ready(self) -> bool:
        """Whether the consumer may have it, or its error."""
        return (self.sealed and self.n_left == 0) or self.error is not None


@dataclass
class WindowJob:
    """A window that is read: what is read, into its own slab (None where that is not wanted) and the next one."""

    reading: Reading
    covered: NDArray[np.int64]  # rows of all ranges before each, and of all
    own: SlabJob | None
    following: SlabJob | None
    announced: int = 0  # blocks so far
    regions: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)  # where items of ragged rows go, by range

    @classmethod
    def of(
        cls,
        reading: Reading,
        own: SlabJob | None,
        following: SlabJob | None,
        regions: Mapping[str, NDArray[np.int64]] = MappingProxyType({}),
    ) -> WindowJob:
        """Return what is read into some slabs."""
        covered = np.concatenate([[0], np.cumsum(reading.stops - reading.starts)])
        return cls(reading, covered, own, following, regions=regions)

    @property
    def slabs(self) -> list[SlabJob]:
        """The slabs that its rows go to."""
        return [job for job in (self.own, self.following) if job is not None]

    @property
    def in_order(self) -> bool:
        """Whether its rows follow each other in one slab as they do in the store."""
        return len(self.slabs) == 1 and self.reading.picks is None and self.slabs[0].places is None

    def ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the rows of blocks ``first`` to ``last``."""
        starts, stops = self.reading.starts[first:last], self.reading.stops[first:last]
        return list(zip(starts.tolist(), stops.tolist(), strict=True))


class Where:
    """Where the rows of some blocks of a window go, for every field."""

    def __init__(self, job: WindowJob, first: int, last: int) -> None:
        self._job = job
        self._ranges = first, last
        reading = job.reading
        low, high = (int(reading.ends[n - 1]) if n else 0 for n in (first, last))
        early = tuple(int(reading.early_ends[n - 1]) if n else 0 for n in (first, last))
        late = (low - early[0], high - early[1])
        self._early, self._late = early, late
        self._ends = _run_ends(reading, first, last) if job.following is not None and job.own is not None else None
        self._picks = None
        if reading.picks is not None:
            self._picks = reading.picks[low:high] - job.covered[first]

    def target(self, name: str) -> Target:
        """Return where a field's rows go."""
        own, following = self._job.own, self._job.following
        places: Target
        if own is None:
            assert following is not None
            places = _places(following, name, 0, *self._late)
        elif self._ends is None:
            places = _places(own, name, own.slab.n_late, *self._early)
        else:
            assert following is not None
            both = (_places(own, name, own.slab.n_late, *self._early), _places(following, name, 0, *self._late))
            places = Dealt(both, self._ends)
        target = places if self._picks is None else Picked(places, self._picks)
        if name not in self._job.regions:
            return target
        assert own is not None
        ends = self._job.regions[name]
        first, last = self._ranges
        return WithItems(target, ItemRoom(cast(Any, own.arrays[name]), int(ends[first]), int(ends[last])))


def _places(job: SlabJob, name: str, behind: int, first: int, last: int) -> Places:
    """Return the places of rows ``first`` to ``last`` of those that a window brings to a slab."""
    array = job.arrays[name]
    rows = array.references if isinstance(array, RaggedArray) else array
    if job.places is None:
        return Places(rows, None, job.slab.head_rows + behind + first)
    return Places(rows, job.places[behind + first : behind + last])


def _run_ends(reading: Reading, first: int, last: int) -> list[int]:
    """Return where runs of rows end that go to the window's own slab and to the next one, in turn."""
    counts = np.diff(reading.ends[first:last], prepend=reading.ends[first - 1] if first else 0)
    early = np.diff(reading.early_ends[first:last], prepend=reading.early_ends[first - 1] if first else 0)
    ends, to_own, at = [], True, 0
    for count, n_early, late_first in zip(
        counts.tolist(), early.tolist(), reading.late_first[first:last].tolist(), strict=True
    ):
        halves = (
            ((False, count - n_early), (True, n_early)) if late_first else ((True, n_early), (False, count - n_early))
        )
        for own, n_rows in halves:
            if own is not to_own:
                ends.append(at)
                to_own = own
            at += n_rows
    return [*ends, at]


def merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges with those that follow each other made one: they go to consecutive places."""
    merged = [ranges[0]]
    for start, stop in ranges[1:]:
        if start == merged[-1][1]:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged
