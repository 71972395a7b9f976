"""Filled slabs as the consumer meets them: in order, with the rows carried over between them in place."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from oocload.loader.jobs import SlabJob
from oocload.loader.pipeline import Part, Pipeline
from oocload.loader.runtime import Runtime
from oocload.loader.slabs import BatchCopies
from oocload.plan.epoch import slabs_from
from oocload.plan.windows import SlabPlan


@dataclass(slots=True)
class Slab:
    """One filled slab: whole batches, one after the other from row 0 of its arrays.

    Attributes
    ----------
    epoch
        The epoch that it belongs to.
    first_batch, n_batches
        Number of the first of its batches within the epoch, and how many there are.
    skip
        How many of those come before the position from which iteration began.
    batch_rows, n_rows
        Rows of one batch, and rows that belong to its batches (the last one of an epoch may be short).
    arrays
        Field → array over the slab.

    """

    epoch: int
    first_batch: int
    n_batches: int
    skip: int
    batch_rows: int
    n_rows: int
    arrays: dict[str, NDArray[Any]]

    def cut_last(self, copies: BatchCopies) -> Slab | None:
        """Take off the last batch and return a copy of it, so that the slab is free while the consumer has that one."""
        if self.n_batches == self.skip:
            return None
        start, stop = self.span(self.first_batch + self.n_batches - 1)
        last = Slab(
            epoch=self.epoch,
            first_batch=self.first_batch + self.n_batches - 1,
            n_batches=1,
            skip=0,
            batch_rows=self.batch_rows,
            n_rows=stop - start,
            arrays=copies.of(self.arrays, slice(start, stop), stop - start),
        )
        self.n_batches, self.n_rows = self.n_batches - 1, start
        return last

    def rows(self) -> dict[str, NDArray[Any]]:
        """Return the rows of the batches to deliver; views."""
        start = self.skip * self.batch_rows
        return {name: array[start : self.n_rows] for name, array in self.arrays.items()}

    def batches(self) -> Iterator[tuple[int, int, int]]:
        """Yield (batch number, first row, row after the last) of each batch to deliver."""
        for batch in range(self.first_batch + self.skip, self.first_batch + self.n_batches):
            yield batch, *self.span(batch)

    def span(self, batch: int) -> tuple[int, int]:
        """Return (first row, row after the last) of a batch of this slab."""
        start = (batch - self.first_batch) * self.batch_rows
        return start, min(start + self.batch_rows, self.n_rows)


class SlabStream(Iterator[Slab]):
    """The slabs from the one where a batch begins; closing it stops the threads.

    Parameters
    ----------
    runtime
        Of the loader.
    epoch, batch
        Where to begin.
    endless
        Whether to go on with the next epoch.
    ahead
        How many slabs may be filled before they are asked for; one more where rows are dealt over two.
    part
        What of it this process reads, where others read the rest.
    timed
        Whether the loader's stats are told how long was waited.

    """

    def __init__(
        self,
        runtime: Runtime,
        epoch: int,
        batch: int,
        endless: bool,
        ahead: int = 1000,
        part: Part | None = None,
        timed: bool = False,
    ) -> None:
        self._stats = runtime.stats if timed else None
        source = slabs_from(runtime.options, epoch, batch, endless)
        one_slab = runtime.fit.tight and part is None
        self._pipeline = runtime.open_pipeline(source, ahead + runtime.options.dealt, part)
        self._slabs = _in_order(self._pipeline, runtime, (epoch, batch), one_slab)

    def __next__(self) -> Slab:
        began = time.perf_counter()
        try:
            return next(self._slabs)
        finally:
            if self._stats is not None:
                self._stats.wait_s += time.perf_counter() - began

    @property
    def ready(self) -> bool:
        """Whether the next slab is there, or none will come, so that nobody has to wait for it."""
        return self._pipeline.ready

    def close(self) -> None:
        """Stop the threads and let go of what they have filled; a second call does nothing."""
        self._slabs.close()
        self._pipeline.close()


def _in_order(pipeline: Pipeline, runtime: Runtime, first: tuple[int, int], one_slab: bool) -> Generator[Slab]:
    left = _LeftOver(runtime.copies)
    try:
        while (slab := _next(pipeline, runtime, left, first)) is not None:
            last = slab.cut_last(runtime.copies) if one_slab else None
            if slab.n_batches > slab.skip:
                yield slab
            del slab  # so that nobody but the consumer holds its slab while the next one is waited for
            if last is not None:
                yield last
            del last
    finally:
        pipeline.close()


class _LeftOver:
    """Rows of a slab that the next one's first batches begin with: copies, so that they do not hold all of it."""

    def __init__(self, copies: BatchCopies) -> None:
        self._copies = copies
        self._arrays: dict[str, NDArray[Any]] = {}

    def move(self, job: SlabJob) -> None:
        """Put what was left over to its places in the next slab."""
        for name, rows in self._arrays.items():
            job.arrays[name][job.slab.head] = rows
        self._arrays = {}

    def take(self, job: SlabJob, following: SlabPlan) -> None:
        """Keep what the next slab needs of this one."""
        if following.head_rows:
            self._arrays = self._copies.of(job.arrays, following.head_from, following.head_rows)


def _next(pipeline: Pipeline, runtime: Runtime, left: _LeftOver, first: tuple[int, int]) -> Slab | None:
    """Take the next slab, with the rows that the one before left over in place."""
    job = pipeline.take()
    if job is None:
        return None
    slab, plan = job.slab, job.plan
    left.move(job)
    if job.number + 1 < plan.n_slabs:
        left.take(job, plan.slab(job.number + 1))
    skip = max(0, first[1] - slab.first_batch) if plan.epoch == first[0] else 0
    return Slab(
        epoch=plan.epoch,
        first_batch=slab.first_batch,
        n_batches=slab.n_batches,
        skip=min(skip, slab.n_batches),
        batch_rows=runtime.options.batch_rows,
        n_rows=slab.n_rows,
        arrays=job.arrays,
    )
