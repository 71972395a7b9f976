"""Decoded windows as the consumer meets them: in order, with the rows carried over between them in place."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from oocload.loader.pipeline import Pipeline
from oocload.loader.runtime import Runtime
from oocload.plan.epoch import windows_from


@dataclass(slots=True)
class Window:
    """One decoded window: whole batches, one after the other from row 0 of its arrays.

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

    def batches(self) -> Iterator[tuple[int, int, int]]:
        """Yield (batch number, first row, row after the last) of each batch to deliver."""
        for batch in range(self.first_batch + self.skip, self.first_batch + self.n_batches):
            yield batch, *self.span(batch)

    def span(self, batch: int) -> tuple[int, int]:
        """Return (first row, row after the last) of a batch of this window."""
        start = (batch - self.first_batch) * self.batch_rows
        return start, min(start + self.batch_rows, self.n_rows)


def windows(runtime: Runtime, epoch: int, batch: int, endless: bool, ahead: int = 1000) -> Generator[Window]:
    """Yield the windows from the one where a batch begins; closing the generator stops the threads.

    Parameters
    ----------
    runtime
        Of the loader.
    epoch, batch
        Where to begin.
    endless
        Whether to go on with the next epoch.
    ahead
        How many windows may be decoded before they are asked for.

    """
    source = windows_from(runtime.options, epoch, batch, endless)
    first = (epoch, batch)
    with closing(runtime.open_pipeline(source, ahead)) as pipeline:
        tail: dict[str, NDArray[Any]] = {}
        while (window := _next(pipeline, runtime, tail, first)) is not None:
            if window.n_batches > window.skip:
                yield window
            del window  # so that nobody but the consumer holds its slab while the next one is waited for


def _next(pipeline: Pipeline, runtime: Runtime, tail: dict[str, NDArray[Any]], first: tuple[int, int]) -> Window | None:
    """Take the next window, with the rows that the window before left over at its head."""
    job = pipeline.take()
    if job is None:
        return None
    plan = job.plan
    n_rows = plan.head_rows + plan.n_rows
    for name, rows in tail.items():
        job.arrays[name][: plan.head_rows] = rows
    tail.clear()
    if plan.tail_rows:
        tail.update({name: a[n_rows - plan.tail_rows : n_rows] for name, a in job.arrays.items()})
    batch_rows = runtime.options.batch_rows
    skip = max(0, first[1] - plan.first_batch) if job.epoch.epoch == first[0] else 0
    return Window(
        epoch=job.epoch.epoch,
        first_batch=plan.first_batch,
        n_batches=plan.n_batches,
        skip=min(skip, plan.n_batches),
        batch_rows=batch_rows,
        n_rows=min(n_rows, plan.n_batches * batch_rows),
        arrays=job.arrays,
    )
