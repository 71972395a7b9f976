"""Windows decoded ahead of the consumer into slabs, by a few threads; slabs are delivered in order.

::

    consumer   takes slab 0 ........ takes slab 1 ........
    threads    blocks of windows 1, 2 as slabs come free: locate, fetch, decode, scatter

A thread that finds no work opens the next slab as soon as one is free. A window is read when all slabs that its rows go
to are open: its own, and the next one where rows are dealt over two. Threads know nothing of batches.
"""

from __future__ import annotations

import atexit
import gc
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.read import FieldReader
from oocload.chunks.scratch import Scratch
from oocload.errors import ClosedError
from oocload.forks import check_process
from oocload.layout import FieldLayout
from oocload.loader.arena import NONE, Arenas
from oocload.loader.buckets import Buckets
from oocload.loader.budget import Budget
from oocload.loader.jobs import SlabJob, Where, WindowJob, merged
from oocload.loader.slabs import KeptBatches, Pool, carve
from oocload.loader.stats import Stats
from oocload.plan.windows import Plan

# Blocks are grouped into tasks of about this many delivered bytes, and a window has at least so many: with tasks of
# 1 MiB, rows of 2 KiB in chunks of 512 KiB are read at 0.85 of the speed, raw rows at 0.7 to 0.8.
_TASK_NBYTES = 4 * 2**20
_TASKS_OF_A_WINDOW = 8
_GRACE_S = 0.25  # how long a slab may take to come back before the consumer is served from new memory
_LOOK_S = 0.01


class Part(NamedTuple):
    """What one of several processes reads: which part of each window (of how many), and where to."""

    pool: Pool
    share: tuple[int, int]
    n_threads: int


@dataclass
class Resources:
    """What all pipelines of one loader share."""

    fields: Mapping[str, FieldLayout]
    readers: Mapping[str, FieldReader]
    block_rows: int
    pool: Pool
    budget: Budget
    stats: Stats
    condition: threading.Condition
    n_threads: int
    kept: KeptBatches
    permuting_nbytes: int = 0  # per pipeline
    scratch_nbytes: int = 0  # per thread, at most
    spare_nbytes: int = 0  # of the ceiling, when one pipeline has all that it takes
    scratches: deque[Scratch] = field(default_factory=deque)  # of threads that ended; a fresh one costs page faults
    n_pipelines: int = 0
    share: tuple[int, int] = (0, 1)  # which part of each window is read, and of how many
    buckets: Buckets | None = None
    arenas: Arenas = NONE
    items: Mapping[str, int] = field(default_factory=dict)  # of ragged fields: those that a slab has room for
    left_over: Mapping[str, int] = field(default_factory=dict)  # how many of them for rows of the slab before

    def restricted(self, part: Part) -> Resources:
        """Return what one process needs that reads a part of each window; scratch and counts are shared with this."""
        return replace(self, pool=part.pool, share=part.share, n_threads=part.n_threads, n_pipelines=0)

    def take_scratch(self) -> Scratch:
        """Return the buffers of a thread that ended, or new ones."""
        try:
            return self.scratches.pop()
        except IndexError:
            return Scratch(lambda n_bytes: self.budget.take("scratch", n_bytes))

    def give_scratch(self, scratch: Scratch) -> None:
        """Keep the buffers of a thread that ends for the next one, or let go of them where there are enough."""
        with self.condition:
            if len(self.scratches) < self.n_threads:
                self.scratches.append(scratch)
            else:
                self.budget.give("scratch", scratch.nbytes)

    def threads_of_another(self) -> int:
        """Return how many threads the next pipeline has: beside others, as many as the ceiling leaves room for."""
        if not self.n_pipelines:
            return self.n_threads
        room = (self.spare_nbytes - self.permuting_nbytes) // max(1, self.scratch_nbytes)
        return max(1, min(self.n_threads, room))


@dataclass
class _Shared:
    """State of one pipeline that its threads see; they never see the pipeline, so that it can be abandoned."""

    resources: Resources
    source: Iterator[tuple[Plan, int]]
    ahead: int
    tasks: deque[tuple[WindowJob, int, int]] = field(default_factory=deque)
    jobs: deque[SlabJob] = field(default_factory=deque)
    unsealed: SlabJob | None = None  # the slab opened last, where it gets rows of a window still to be read
    n_wanted: int = 0  # slabs that the consumer has asked for
    n_opened: int = 0
    opening: bool = False
    beyond: bool = False  # the next slab may be one beyond the pool
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
        Yields (plan of an epoch, slab number).
    ahead
        How many slabs may be opened before the consumer asks for them; their number is a limit of its own.

    """

    def __init__(self, resources: Resources, source: Iterator[tuple[Plan, int]], ahead: int = 1000) -> None:
        self._shared = _Shared(resources, source, ahead)
        self._pid = os.getpid()
        self._counted = True
        n_threads = resources.threads_of_another()
        resources.n_pipelines += 1
        resources.budget.take("permuting", resources.permuting_nbytes)
        self._threads: list[_Worker] = []
        try:
            for i in range(n_threads):
                thread = _Worker(target=_work, args=(self._shared,), name=f"oocload-{i}", daemon=True)
                thread.start()
                self._threads.append(thread)
        except BaseException:  # no more threads are allowed: those there are must end
            self.close()
            raise
        _live.add(self)

    def take(self) -> SlabJob | None:
        """Wait for the next slab; None after the last.

        Raises
        ------
        OocloadError
            What a thread ran into while it read this slab's rows.

        """
        s = self._shared
        check_process(self._pid)
        with s.resources.condition:
            s.n_wanted += 1
            s.resources.condition.notify_all()
            deadline = time.monotonic() + (0.0 if s.resources.kept.told else _GRACE_S)
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
        s.resources.pool.gather(job.count)
        return job

    @property
    def ready(self) -> bool:
        """Whether `take` would return, or raise, at once."""
        s = self._shared
        if self._pid != os.getpid():
            return True
        with s.resources.condition:
            if s.jobs:
                return s.jobs[0].ready and s.resources.pool.poll_s is None
            return s.closed or s.error is not None or (s.exhausted and not s.opening)

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
            if self._counted:
                s.resources.n_pipelines -= 1
                s.resources.budget.give("permuting", s.resources.permuting_nbytes)
            self._counted = False
            s.closed = True
            s.tasks.clear()
            s.jobs.clear()
            s.unsealed = None
            condition.notify_all()
        if may_wait:
            for thread in self._threads:
                thread.join()
            self._threads = []
        return not self._threads

    def _wait(self, deadline: float) -> None:
        """Wait for a change; where only the consumer's own batches hold the slabs, allow one beyond them."""
        s = self._shared
        if s.resources.pool.poll_s is not None:
            s.resources.condition.wait(s.resources.pool.poll_s)
            s.resources.pool.check()
            return
        complete = bool(s.jobs) and s.jobs[0].sealed
        stuck = not complete and not s.opening and not s.exhausted and not s.resources.pool.available()
        if not stuck or s.beyond:
            s.resources.condition.wait()
            return
        pool, budget = s.resources.pool, s.resources.budget
        if s.resources.n_pipelines > 1 and budget.held + pool.slab_nbytes <= budget.ceiling:
            s.beyond = True  # a batch asked for by its number, in the middle of an iteration
            s.resources.condition.notify_all()
            return
        left = deadline - time.monotonic()
        if left > 0:
            s.resources.condition.wait(min(left, _LOOK_S))
            self._collect()
            return
        s.beyond = True
        s.resources.condition.notify_all()
        s.resources.kept.tell()

    def _collect(self) -> None:
        """Have batches let go of that only the collector can free: JAX lets go of those it is done with there."""
        condition = self._shared.resources.condition
        condition.release()  # whatever is finalized may need the lock
        try:
            gc.collect(0)
        finally:
            condition.acquire()


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
        s.resources.give_scratch(scratch)


def _next_step(s: _Shared) -> Callable[[Scratch], None] | None:
    """Wait for something to do: a task, or a slab to open; None when the pipeline is closed."""
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
            condition.wait(None if s.exhausted else s.resources.pool.poll_s)
        return None


def _begin_opening(s: _Shared) -> Callable[[Scratch], None] | None:
    """Take the next slab and memory for it; None after the last, or where there is no memory."""
    try:
        following = next(s.source, None)
        if following is None:
            s.exhausted = True
            return None
        root = s.resources.pool.lease(beyond=not s.resources.pool.available())
    except BaseException as exc:  # the consumer raises it
        _fail(s, exc)
        return None
    s.opening, s.beyond = True, False
    return partial(_open, s, following, root)


def _fail(s: _Shared, error: BaseException) -> None:
    """Note that no more slabs can be opened; the last one will not get all its rows. Call it under the condition."""
    s.error = error
    if s.unsealed is not None:
        s.unsealed.error = s.unsealed.error or error
        _tell(s, [s.unsealed])


def _tell(s: _Shared, jobs: Sequence[SlabJob]) -> None:
    """Tell others that share the slabs which of them are ready. Call it under the condition."""
    for job in jobs:
        if job.ready:
            s.resources.pool.filled(job.count, job.error)


def _may_open(s: _Shared) -> bool:
    """Whether the next slab should be opened now: soon enough that no thread runs dry, if there is memory."""
    if s.opening or s.exhausted or s.error is not None or len(s.tasks) >= 2 * s.resources.n_threads:
        return False
    if s.n_opened >= s.n_wanted + s.ahead:
        return False
    return s.beyond or s.resources.pool.available()


def _open(s: _Shared, following: tuple[Plan, int], root: NDArray[np.uint8], _: Scratch) -> None:
    """Queue the tasks of the window that can be read now that there is one slab more."""
    try:
        tasks = _queue(s, *following, root)
        if tasks:
            window, first, stop = tasks[0]
            _announce(window, s.resources.n_threads * (stop - first), s.resources)
    except BaseException as exc:
        with s.resources.condition:
            s.opening = False
            _fail(s, exc)
            s.resources.condition.notify_all()


def _queue(s: _Shared, plan: Plan, number: int, root: NDArray[np.uint8]) -> list[tuple[WindowJob, int, int]]:
    """Decide where each row of a slab goes, and queue the tasks of the window that can now be read; return them."""
    job = _plan_slab(s.resources, plan, number, root)
    before = s.unsealed
    read = _plan_window(plan, number, before, job, s.resources)
    tasks = _cut(read, s.resources) if read is not None else []
    with s.resources.condition:
        s.opening = False
        if not s.closed:
            job.count = s.n_opened
            s.n_opened += 1
            s.jobs.append(job)
            for filled in read.slabs if read is not None else []:
                filled.n_left += len(tasks)
            s.tasks.extend(tasks)
            if before is not None:
                before.sealed = True
            job.sealed = number == plan.n_slabs - 1 or plan.n_slabs == plan.n_windows
            s.unsealed = None if job.sealed else job
            _tell(s, [job] if before is None else [before, job])
        s.resources.condition.notify_all()
    return tasks


def _plan_slab(r: Resources, plan: Plan, number: int, root: NDArray[np.uint8]) -> SlabJob:
    slab = plan.slab(number)
    n_index = slab.n_own if plan.indexed else 0
    room, arrays = carve(root, r.fields, slab.n_places, 0 if r.pool.apart else n_index, r.arenas, r.items)
    if r.pool.apart:
        room = np.empty(n_index, np.int64)
    places = plan.places(number, room)
    if r.buckets is not None and places is not None:
        places[:] = r.buckets.places(plan, number, places)
    return SlabJob(plan, number, slab, arrays, places)


def _plan_window(plan: Plan, number: int, before: SlabJob | None, job: SlabJob, r: Resources) -> WindowJob | None:
    """Return what is read once a slab is open: its window, or the one before it where rows go to two slabs."""
    if plan.n_slabs == plan.n_windows:
        reading = plan.reading(number)
        regions = {name: arena.regions(reading, r.left_over[name]) for name, arena in r.arenas.of.items()}
        return WindowJob.of(reading, job, None, regions)
    if number == 0:
        return None
    return WindowJob.of(plan.reading(number - 1, late_only=before is None), before, job)


def _cut(job: WindowJob, r: Resources) -> list[tuple[WindowJob, int, int]]:
    """Cut a window into tasks of a few blocks each."""
    block_nbytes = r.block_rows * sum(f.row_nbytes for f in r.fields.values())
    n_blocks = len(job.reading.starts)
    part, n_parts = r.share
    low, high = n_blocks * part // n_parts, n_blocks * (part + 1) // n_parts
    step = max(1, min(_TASK_NBYTES // max(1, block_nbytes), (high - low) // _TASKS_OF_A_WINDOW))
    return [(job, first, min(high, first + step)) for first in range(low, high, step)]


def _run(s: _Shared, job: WindowJob, first: int, last: int, scratch: Scratch) -> None:
    """Read some blocks of a window to their places."""
    r = s.resources
    error: BaseException | None = None
    decoded = 0
    began = time.perf_counter()
    try:
        if any(slab.error is None for slab in job.slabs):
            decoded = _read_blocks(job, first, last, r, scratch)
    except BaseException as exc:
        error = exc
    busy = time.perf_counter() - began
    with r.condition:
        r.stats.add_decoded(decoded, last - first, busy)
        s.error = s.error or error
        for slab in job.slabs:
            slab.n_left -= 1
            slab.error = slab.error or error
        _tell(s, job.slabs)
        if any(slab.ready for slab in job.slabs):
            r.condition.notify_all()


def _announce(job: WindowJob, stop: int, r: Resources) -> None:
    """Let the kernel fetch a window's next blocks while others are decoded."""
    readers = [reader for reader in r.readers.values() if reader.announces]
    if not readers or job.in_order:  # which the kernel sees by itself
        return
    first, job.announced = job.announced, max(job.announced, stop)  # if two threads meet here, some are announced twice
    if ranges := job.ranges(first, stop):
        for reader in readers:
            reader.announce(ranges)


def _read_blocks(job: WindowJob, first: int, last: int, r: Resources, scratch: Scratch) -> int:
    """Read blocks ``first`` to ``last`` of a window, all fields, to their places; return the bytes decoded."""
    where, ranges = Where(job, first, last), job.ranges(first, last)
    _announce(job, last + r.n_threads * (last - first), r)
    if job.in_order:
        ranges = merged(ranges)
    return sum(reader.read(ranges, where.target(name), scratch) for name, reader in r.readers.items())
