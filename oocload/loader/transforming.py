"""How a loader applies its transforms: in the consumer's thread, in threads ahead of it, or in processes."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import weakref
from collections.abc import Generator
from dataclasses import dataclass

from oocload.loader.ahead import Source, ahead, in_place
from oocload.loader.options import Workers
from oocload.loader.room import Room
from oocload.loader.stats import Stats
from oocload.loader.transform import Numbered, Transforms
from oocload.loader.transform_processes import TransformProcesses
from oocload.loader.transform_threads import TransformThreads


@dataclass(frozen=True)
class Means:
    """What there is to transform with.

    Attributes
    ----------
    n_threads
        Threads of the loader.
    batch_nbytes
        Of a batch as it is read.
    tight
        Whether there is one slab, which no batch in flight may hold.

    """

    n_threads: int
    batch_nbytes: int
    tight: bool


class Transforming:
    """Applies transforms to the batches of iterations; keeps a pool of processes between them.

    Parameters
    ----------
    room
        Memory for batches in flight.
    means
        What there is to transform with.
    stats
        Are told how long was waited.

    """

    def __init__(self, room: Room, means: Means, stats: Stats) -> None:
        self._room, self._means, self._stats = room, means, stats
        self._processes: TransformProcesses | None = None
        self._threads: weakref.WeakSet[TransformThreads] = weakref.WeakSet()
        self._pid = os.getpid()
        _live.add(self)

    def prepare(self, transforms: Transforms, n_workers: Workers) -> None:
        """Start processes, if there are to be any: before threads are started, and slabs made, which they would see.

        Raises
        ------
        InvalidArgumentError
            If processes are spawned, and a function cannot be pickled.

        """
        if not isinstance(n_workers, int) or not n_workers:
            return
        if multiprocessing.current_process().daemon:  # which may not have children
            return
        if self._processes is None or not self._processes.sound:
            self._end_processes()
            self._processes = TransformProcesses(transforms.stages, n_workers, self._means.batch_nbytes, self._room)

    def run(self, source: Source, transforms: Transforms, n_workers: Workers) -> Generator[Numbered]:
        """Yield the batches of a source, transformed, in their order."""
        if not isinstance(n_workers, int) and not self._means.tight:
            threads = TransformThreads(transforms, self._means.n_threads if n_workers else 1, self._room)
            self._threads.add(threads)
            return ahead(source, transforms, threads, self._stats)
        if isinstance(n_workers, int) and n_workers and self._processes is not None:
            return ahead(source, transforms, self._processes.executor(transforms), self._stats)
        return in_place(source, transforms)

    def close(self) -> None:
        """End threads and processes, and let go of what is in flight."""
        if self._pid == os.getpid():
            for threads in list(self._threads):
                threads.close()
            self._end_processes()

    def rest(self) -> None:
        """End the processes, if they have nothing to do; they are started again when they are needed."""
        if self._processes is not None and self._processes.idle:
            self._end_processes()

    def _end_processes(self) -> None:
        if self._processes is not None:
            self._processes.close()
        self._processes = None


_live: weakref.WeakSet[Transforming] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for transforming in list(_live):
        transforming.close()
