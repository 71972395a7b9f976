"""Windows decoded ahead of the consumer by a few threads, delivered in order.

::

    consumer   takes window 0 ........ takes window 1 ........
    threads    blocks of 1, 2 as slabs come free: locate, fetch, decode, scatter

A thread that finds no work opens the next window as soon as a slab is free. Threads know nothing of batches.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.read import FieldReader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Target
from oocload.errors import ClosedError, KeptBatchesWarning
from oocload.layout import FieldLayout
from oocload.loader.budget import Budget
from oocload.loader.slabs import SlabPool, carve
from oocload.loader.stats import Stats
from oocload.plan.blocks import BlockGrid
from oocload.plan.epoch import EpochPlan, WindowPlan

# Blocks are grouped into tasks of about this many delivered bytes, and a window has at least so many: with tasks of
# 1 MiB, rows of 2 KiB in chunks of 512 KiB are read at 0.85 of the speed, raw rows at 0.7 to 0.8.
_TASK_NBYTES = 4 * 2**20
_TASKS_OF_A_WINDOW = 8
_GRACE_S = 0.25  # how long a slab may take to come back before the consumer is served from new memory


@dataclass
class Resources:
    """What all pipelines of one loader share."""

    fields: Mapping[str, FieldLayout]
    readers: Mapping[str, FieldReader]
    grid: BlockGrid
    pool: SlabPool
    budget: Budget
    stats: Stats
    condition: threading.Condition
    n_threads: int
    scratches: deque[Scratch] = field(default_factory=deque)  # of threads that ended; a fresh one costs page faults
    warned_kept: bool = False

    def take_scratch(self) -> Scratch:
        """Return the buffers of a thread that ended, or new ones."""
        try:
            return self.scratches.pop()
        except IndexError:
            return Scratch(lambda n_bytes: self.budget.take("scratch", n_bytes))


@dataclass
class WindowJob:
    """One window on its way: its plan, its slab, and what is left to do. Guarded by the condition."""

    epoch: EpochPlan
    plan: WindowPlan
    arrays: dict[str, NDArray[Any]]
    starts: NDArray[np.int64]
    n_left: int = 0
    error: BaseException | None = None

    @property
    def ready(self) -> bool:
        """Whether the consumer may have it, or its error."""
        return self.n_left == 0 or self.error is not None


@dataclass
class _Shared:
    """State of one pipeline that its threads see; they never see the pipeline, so that it can be abandoned."""

    resources: Resources
    source: Iterator[tuple[EpochPlan, int]]
    ahead: int
    tasks: deque[tuple[WindowJob, int, int]] = field(default_factory=deque)
    jobs: deque[WindowJob] = field(default_factory=deque)
    n_wanted: int = 0  # windows that the consumer has asked for
    n_opened: int = 0
    opening: bool = False
    beyond: bool = False  # the next window may be opened in a slab beyond the pool
    exhausted: bool = False
    error: BaseException | None = None
    closed: bool = False


class Pipeline:
    """Decodes a sequence of windows.

    Parameters
    ----------
    resources
        Readers, slabs, budget, stats.
    source
        Yields (epoch plan, window number).
    ahead
        How many windows may be opened before the consumer asks for them; slabs are a limit of their own.

    """

    def __init__(self, resources: Resources, source: Iterator[tuple[EpochPlan, int]], ahead: int = 1000) -> None:
        self._shared = _Shared(resources, source, ahead)
        self._pid = os.getpid()
        self._threads = [
            _Worker(target=_work, args=(self._shared,), name=f"oocload-{i}", daemon=True)
            for i in range(resources.n_threads)
        ]
        for thread in self._threads:
            thread.start()
        _live.add(self)

    def take(self) -> WindowJob | None:
        """Wait for the next window; None after the last.

        Raises
        ------
        OocloadError
            What a thread ran into while it read this window.

        """
        s = self._shared
        if self._pid != os.getpid():
            raise ClosedError(
                "an iterator must stay in its process, and this one crossed a fork; iterate the loader anew"
            )
        with s.resources.condition:
            s.n_wanted += 1
            s.resources.condition.notify_all()
            deadline = time.monotonic() + (0.0 if s.resources.warned_kept else _GRACE_S)
            while not (s.jobs and s.jobs[0].ready):
                if s.closed:
                    raise ClosedError("loader must be open while it is iterated; it was closed")
                if s.error is not None and not s.jobs:
                    raise s.error
                if s.exhausted and not s.jobs and not s.opening:
                    return None
                self._wait(deadline)
            job = s.jobs.popleft()
        if job.error is not None:
            raise job.error
        return job

    def close(self) -> bool:
        """Stop the threads and drop what they hold; a second call does nothing.

        Returns
        -------
        bool
            Whether they have ended. The collector may come here in any thread at any time: inside one of ours, or
            while the lock is held, nobody can be waited for, and they end soon after.

        """
        s, condition = self._shared, self._shared.resources.condition
        if self._pid != os.getpid():
            return True  # the threads stayed in the parent, and the lock may be held by one of them for ever
        may_wait = not _is_owned(condition) and not isinstance(threading.current_thread(), _Worker)
        with condition:
            s.closed = True
            s.tasks.clear()
            s.jobs.clear()
            condition.notify_all()
        if may_wait:
            for thread in self._threads:
                thread.join()
            self._threads = []
        return not self._threads

    def _wait(self, deadline: float) -> None:
        """Wait for a change; where only the consumer's own batches hold the slabs, allow one beyond them."""
        s = self._shared
        stuck = not s.jobs and not s.opening and not s.exhausted and not s.resources.pool.available()
        if not stuck or s.beyond:
            s.resources.condition.wait()
            return
        left = deadline - time.monotonic()
        if left > 0:
            s.resources.condition.wait(left)
            return
        s.beyond = True
        s.resources.condition.notify_all()
        if not s.resources.warned_kept:
            s.resources.warned_kept = True
            warnings.warn(
                "batches are kept after the next one was asked for, or two iterators of one loader run at once, so "
                "memory goes beyond the ceiling; copy what you keep (batch.copy()), or make a loader for each iterator",
                KeptBatchesWarning,
                stacklevel=4,
            )


class _Worker(threading.Thread):
    """A thread of a pipeline."""


def _is_owned(condition: threading.Condition) -> bool:
    """Whether this thread holds the condition's lock."""
    return bool(condition._is_owned())  # type: ignore[attr-defined]


_live: weakref.WeakSet[Pipeline] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for pipeline in list(_live):
        pipeline.close()


def _work(s: _Shared) -> None:
    """Run tasks until the pipeline closes; the body of each thread."""
    scratch = s.resources.take_scratch()
    try:
        while (step := _next_step(s)) is not None:
            step(scratch)
            del step  # it keeps its window's slab alive
    finally:
        s.resources.scratches.append(scratch)


def _next_step(s: _Shared) -> Callable[[Scratch], None] | None:
    """Wait for something to do: a task, or a window to open; None when the pipeline is closed."""
    condition = s.resources.condition
    with condition:
        while not s.closed:
            if _may_open(s):
                if (opening := _begin_opening(s)) is not None:
                    return opening
                condition.notify_all()
            if s.tasks:
                task = s.tasks.popleft()
                return partial(_run, s, *task)
            condition.wait()
        return None


def _begin_opening(s: _Shared) -> Callable[[Scratch], None] | None:
    """Take the next window and a slab for it; None after the last, or where there is no memory for a slab."""
    try:
        following = next(s.source, None)
        if following is None:
            s.exhausted = True
            return None
        root = s.resources.pool.lease(beyond=not s.resources.pool.available())
    except BaseException as exc:  # the consumer raises it
        s.error = exc
        return None
    s.opening, s.beyond = True, False
    return partial(_open, s, following, root)


def _may_open(s: _Shared) -> bool:
    """Whether the next window should be opened now: soon enough that no thread runs dry, if there is a slab."""
    if s.opening or s.exhausted or s.error is not None or len(s.tasks) >= 2 * s.resources.n_threads:
        return False
    if s.n_opened >= s.n_wanted + s.ahead:
        return False
    return s.beyond or s.resources.pool.available()


def _open(s: _Shared, following: tuple[EpochPlan, int], root: NDArray[np.uint8], _: Scratch) -> None:
    """Decide where each row of a window goes, and queue its tasks."""
    try:
        job = _plan_job(s.resources, *following, root)
    except BaseException as exc:
        with s.resources.condition:
            s.opening, s.error = False, exc
            s.resources.condition.notify_all()
        return
    with s.resources.condition:
        s.opening = False
        if not s.closed:
            s.n_opened += 1
            s.jobs.append(job)
            s.tasks.extend(_cut(job, s.resources))
        s.resources.condition.notify_all()


def _plan_job(r: Resources, epoch: EpochPlan, number: int, root: NDArray[np.uint8]) -> WindowJob:
    n_rows = epoch.window_rows(number)
    head_rows = epoch.head_rows(number)
    room, arrays = carve(root, r.fields, head_rows + n_rows, n_rows if epoch.options.shuffle else 0)
    plan = epoch.window(number, room)
    starts = np.concatenate([[0], np.cumsum(plan.stops - plan.starts)])
    if plan.destinations is not None:
        plan.destinations[:] += head_rows
    return WindowJob(epoch, plan, arrays, starts)


def _cut(job: WindowJob, r: Resources) -> list[tuple[WindowJob, int, int]]:
    """Cut a window into tasks of a few blocks each."""
    block_nbytes = r.grid.mean_rows * sum(f.row_nbytes for f in r.fields.values())
    n_blocks = len(job.plan.starts)
    step = max(1, min(_TASK_NBYTES // max(1, block_nbytes), n_blocks // _TASKS_OF_A_WINDOW))
    tasks = [(job, first, min(n_blocks, first + step)) for first in range(0, n_blocks, step)]
    job.n_left = len(tasks)
    return tasks


def _run(s: _Shared, job: WindowJob, first: int, last: int, scratch: Scratch) -> None:
    """Read some blocks of a window to their places."""
    r = s.resources
    error: BaseException | None = None
    decoded = 0
    began = time.perf_counter()
    try:
        if job.error is None:
            decoded = _read_blocks(job, first, last, r, scratch)
    except BaseException as exc:
        error = exc
    busy = time.perf_counter() - began
    with r.condition:
        r.stats.add_decoded(decoded, busy)
        job.n_left -= 1
        job.error = job.error or error
        s.error = s.error or error
        if job.ready:
            r.condition.notify_all()


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges with those that follow each other made one: they go to consecutive places."""
    merged = [ranges[0]]
    for start, stop in ranges[1:]:
        if start == merged[-1][1]:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged


def _read_blocks(job: WindowJob, first: int, last: int, r: Resources, scratch: Scratch) -> int:
    """Read blocks ``first`` to ``last`` of a window, all fields, to their places; return the bytes decoded."""
    ranges = list(zip(job.plan.starts[first:last].tolist(), job.plan.stops[first:last].tolist(), strict=True))
    index = None
    if job.plan.destinations is not None:
        index = job.plan.destinations[job.starts[first] : job.starts[last]]
    else:
        ranges = _merged(ranges)
    decoded = 0
    for name, reader in r.readers.items():
        target = Target(job.arrays[name], index, job.plan.head_rows + int(job.starts[first]))
        decoded += reader.read(ranges, target, scratch)
    return decoded
