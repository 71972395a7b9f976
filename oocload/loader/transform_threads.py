"""Transforms in threads: for functions that release the GIL, as most of NumPy's do."""

from __future__ import annotations

import queue
import threading
from typing import Any

import numpy as np

from oocload.errors import ClosedError
from oocload.loader.batch import Batch
from oocload.loader.room import Room
from oocload.loader.transform import Numbered, Transforms, parts_of

_MOST_THREADS = 8
_END_S = 5.0  # how long to wait for a function that is running when an iteration ends


class TransformThreads:
    """Threads of one iteration. They see tasks only, so that an iteration can be abandoned.

    Parameters
    ----------
    transforms
        What is applied.
    n_threads
        Wished for.
    room
        Counts what batches in flight take beside the slabs that they look at.

    """

    def __init__(self, transforms: Transforms, n_threads: int, room: Room) -> None:
        self._room = room
        self._largest: int | None = None  # bytes of a batch; known after the first
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._closed = False
        self._threads: list[threading.Thread] = []
        n_threads = min(n_threads, _MOST_THREADS)
        self._most = n_threads + 1
        try:
            for i in range(n_threads):
                args = (self._tasks, transforms)
                thread = threading.Thread(target=_work, args=args, name=f"oocload-transform-{i}", daemon=True)
                thread.start()
                self._threads.append(thread)
        except BaseException:  # no more threads are allowed: those there are must end
            self.close()
            raise

    def takes(self, n_waiting: int) -> bool:
        """Whether there is room for one batch more in flight."""
        if self._largest is None:
            return n_waiting == 0
        return n_waiting < self._most and (not self._largest or self._largest <= self._room.left)

    def submit(self, given: Numbered) -> _Task:
        """Queue a batch."""
        task = _Task(self, given, self._largest or 0)
        self._room.take(task.reserved)
        if self._closed:
            task.fail(_closed())
        self._tasks.put(task)
        return task

    def learn(self, nbytes: int) -> None:
        """Note what a batch took."""
        self._largest = max(self._largest or 0, nbytes)

    def give(self, nbytes: int) -> None:
        """Note that a batch is no longer in flight."""
        self._room.give(nbytes)

    def end(self) -> None:
        """Stop the threads."""
        self.close()

    def close(self) -> None:
        """Stop the threads and let go of what is queued; a second call does nothing.

        The collector may come here in any thread at any time: inside one of these, or while a lock is held that one of
        them wants. Then nobody is waited for, and they end soon after.
        """
        self._closed = True
        try:
            while (task := self._tasks.get_nowait()) is not None:
                task.fail(_closed())
                del task
        except queue.Empty:
            pass
        for _ in self._threads:
            self._tasks.put(None)
        if threading.current_thread() in self._threads or self._room.locked_here:
            return
        for thread in self._threads:
            thread.join(_END_S)
        self._threads = []


class _Task:
    """A batch on its way through the threads."""

    def __init__(self, threads: TransformThreads, given: Numbered, reserved: int) -> None:
        self._threads = threads
        self.given: Numbered | None = given
        self.reserved = reserved
        self._made: Numbered | None = None
        self._error: BaseException | None = None
        self._nbytes = 0
        self._done = threading.Event()

    def run(self, transforms: Transforms) -> None:
        """Make the batch; what is raised is kept for whoever asks."""
        given, self.given = self.given, None
        if given is None:
            return
        try:
            made = transforms.applied(given)
            self._nbytes = _nbytes_beside(made.batch, given.batch)
            self._made = made
        except BaseException as exc:
            self._error = exc
        del given  # before the consumer goes on: it may keep a slab alive
        self._done.set()

    def fail(self, error: BaseException) -> None:
        """Give it up before it was begun."""
        self.given, self._error = None, error
        self._done.set()

    def result(self) -> Numbered:
        """Wait for the batch."""
        try:
            self._done.wait()
            made, self._made = self._made, None
            if made is None:
                assert self._error is not None
                raise self._error
            self._threads.learn(self._nbytes)
            return made
        finally:
            self._error = None  # its traceback refers to this frame
            self.abandon()

    def abandon(self) -> None:
        """Let go of the batch."""
        self._threads.give(self.reserved)
        self.reserved, self.given, self._made = 0, None, None


def _work(tasks: queue.SimpleQueue[_Task | None], transforms: Transforms) -> None:
    while (task := tasks.get()) is not None:
        task.run(transforms)
        del task  # it may keep a slab alive


def _closed() -> ClosedError:
    return ClosedError("loader must be open while it is iterated; it was closed")


def _nbytes_beside(made: Batch, given: Batch) -> int:
    """Return the bytes of the memory that a batch lies in, without that of the batch that it was made from."""
    known = {id(_root(part)) for part in parts_of(given)}
    roots = {id(root): root for root in map(_root, parts_of(made)) if id(root) not in known}
    return sum(int(getattr(root, "nbytes", 0) or 0) for root in roots.values())


def _root(part: Any) -> Any:
    while isinstance(part, np.ndarray) and isinstance(part.base, np.ndarray):
        part = part.base
    return part
