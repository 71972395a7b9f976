"""Batches transformed ahead of the consumer, and delivered in order.

::

    source     b0 b1 b2 b3 b4 ...      views of slabs; asked for in the consumer's thread
    in flight     t1 t2 t3             in threads, or copied to processes
    consumer   t0                      an error comes after the batches before it

Batches in flight may hold a slab. So another slab is waited for only when none are in flight: at that point the
consumer holds what it would hold without transforms. One that is ready is taken at once.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator
from typing import Protocol

from oocload.forks import check_process
from oocload.loader.stats import Stats
from oocload.loader.transform import Numbered, Transforms


class Source(Protocol):
    """Batches as they are read."""

    @property
    def ready(self) -> bool:
        """Whether the next batch, or the end, can be had without waiting."""
        ...

    def __next__(self) -> Numbered: ...


class Work(Protocol):
    """A batch in flight."""

    def result(self) -> Numbered:
        """Wait for it; raises what its transforms raised."""
        ...

    def abandon(self) -> None:
        """Let go of it: nobody will ask."""
        ...


class Executor(Protocol):
    """What transforms batches beside the consumer's thread."""

    def takes(self, n_waiting: int) -> bool:
        """Whether there is room for one batch more in flight, beside those of this iteration."""
        ...

    def submit(self, given: Numbered) -> Work:
        """Begin with a batch."""
        ...

    def end(self) -> None:
        """Note that the iteration is over."""
        ...


def in_place(source: Source, transforms: Transforms) -> Generator[Numbered]:
    """Yield transformed batches, each made when it is asked for."""
    while (given := next(source, None)) is not None:
        made = transforms.applied(given)
        del given
        yield made
        del made


def ahead(source: Source, transforms: Transforms, executor: Executor, stats: Stats) -> Generator[Numbered]:
    """Yield transformed batches, of which some are made before they are asked for.

    Where memory leaves no room for one in flight, it is made when it is asked for.
    """
    pid = os.getpid()
    waiting: deque[Work] = deque()
    error: Exception | None = None
    more = True
    try:
        while True:
            check_process(pid)
            while more and (source.ready or not waiting) and executor.takes(len(waiting)):
                given, error = _following(source)
                more = given is not None
                if given is not None:
                    waiting.append(executor.submit(given))
                del given
            if waiting:
                began = time.perf_counter()
                try:
                    made = waiting.popleft().result()
                finally:
                    stats.wait_s += time.perf_counter() - began
            elif error is not None:
                raise error
            elif not more or (given := next(source, None)) is None:
                return
            else:
                made = transforms.applied(given)
                del given
            yield made
            del made
    finally:
        error = None  # its traceback refers to this frame
        if pid == os.getpid():
            while waiting:
                waiting.popleft().abandon()
            executor.end()


def _following(source: Source) -> tuple[Numbered | None, Exception | None]:
    """Return the next batch, or what reading it raised: that comes after the batches in flight."""
    try:
        return next(source), None
    except StopIteration:
        return None, None
    except Exception as exc:
        return None, exc
