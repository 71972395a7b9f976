"""Transforms in processes: for functions that hold the GIL.

A batch is copied into a slot, memory that the processes share, and its result comes back in the same slot. The consumer
gets views of it, and the slot is free again when the last of them dies; where too few slots are left, copies. Slots
have no names: they go with the last process that has them, however it ends.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import pickle
import select
import signal
import socket
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess

from oocload.errors import ClosedError, InvalidArgumentError, OocloadError, TransformError
from oocload.forks import renew_in_child
from oocload.loader.growing import GrowingMemory
from oocload.loader.parcel import Memory, Parcel, opened
from oocload.loader.room import Room
from oocload.loader.transform import Numbered, Stages, Transforms
from oocload.loader.transform_child import REPLY, TASK, serve

_MOST_VIEWED = 2  # slots that the consumer looks at: its batch, and the one that it asks for
_FACTOR = 10  # times a batch: what bytes take beside themselves as float64, and their pickles
_END_S = 5.0
_LOOK_MS = 100  # how often to look again, should another thread have taken the message that was waited for


@dataclass(eq=False)
class _Slot:
    """Memory for a batch and its result."""

    number: int
    memory: GrowingMemory
    counted: int = 0  # bytes
    busy: bool = False
    viewed: bool = False
    known: set[int] = field(default_factory=set)  # processes that have it

    def free(self) -> None:
        """Note that nobody looks at it; finalizers may come here at any time."""
        self.busy = self.viewed = False


@dataclass(eq=False)
class _Worker:
    """A process, the channel to it, and what it was given, oldest first."""

    channel: socket.socket
    process: BaseProcess
    tasks: dict[int, _Task] = field(default_factory=dict)  # slot → what it holds
    given: int = 0  # when it was given the last one, in turns


@dataclass(eq=False)
class _Task:
    """A batch on its way through a process."""

    pool: TransformProcesses
    at: Numbered
    worker: _Worker | None = None
    start: int = 0
    nbytes: int = 0
    took_s: float = 0.0
    failed: bool = False
    error: OocloadError | None = None
    done: bool = False
    abandoned: bool = False
    holding: list[_Slot] = field(default_factory=list)  # the slot, until somebody else sees to it

    def finish(self, error: OocloadError | None = None) -> None:
        """Note that it is done, or never will be."""
        self.error, self.done = error, True
        if self.abandoned:
            self._free()

    def result(self) -> Numbered:
        """Wait for the batch."""
        self.pool.wait(self)
        try:
            return self.pool.deliver(self)
        finally:
            self.error = None  # its traceback refers to this frame

    def abandon(self) -> None:
        """Let go of it; takes no lock, since the collector may come here while one is held."""
        self.abandoned = True
        if self.done:
            self._free()

    def _free(self) -> None:
        with suppress(IndexError):  # another thread came first
            self.holding.pop().free()


class TransformProcesses:
    """A pool of processes, kept from one iteration to the next. Thread-safe.

    Parameters
    ----------
    stages
        What is applied.
    n_processes
        How many there are.
    batch_nbytes
        Of a batch as it is read.
    room
        Counts the slots.

    Raises
    ------
    InvalidArgumentError
        If processes are spawned, and a function cannot be pickled.

    """

    def __init__(self, stages: Stages, n_processes: int, batch_nbytes: int, room: Room) -> None:
        self._room = room
        self._n = n_processes
        self._slots: list[_Slot] = []
        self._numbers = itertools.count()
        self._turns = itertools.count(1)
        self._largest = _FACTOR * batch_nbytes + 2 * mmap.PAGESIZE  # bytes of a slot, until one is known
        self._learned = False
        self._workers: list[_Worker] = []
        self._broken = False
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self.most_waiting = 2 * n_processes  # batches in flight that keep all busy
        renew_in_child(self)
        context = multiprocessing.get_context()
        if context.get_start_method() != "fork":
            _check_pickles(stages)
        try:
            for i in range(n_processes):
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                name = f"oocload-transform-{i}"
                process = context.Process(target=serve, args=(theirs, stages), name=name, daemon=True)
                self._workers.append(_Worker(ours, process))
                with theirs:
                    process.start()
        except BaseException:
            self.close()
            raise

    def renew_locks(self) -> None:
        """Let go of the channels in a forked child: these processes are to end when their parent does."""
        for worker in self._workers:
            worker.channel.close()
        for slot in self._slots:
            slot.memory.close()

    @property
    def sound(self) -> bool:
        """Whether all processes live, and nothing was interrupted in the middle of a message."""
        return bool(self._workers) and not self._broken and all(w.process.is_alive() for w in self._workers)

    @property
    def idle(self) -> bool:
        """Whether no batch is in flight."""
        return not any(worker.tasks for worker in self._workers)

    def executor(self, transforms: Transforms) -> _Run:
        """Return what an iteration gives its batches to."""
        return _Run(self, transforms)

    def has_slot(self) -> bool:
        """Whether there is a slot for one batch more."""
        with self._lock:
            if not self._workers:
                return True  # to learn that it was closed
            for worker in self._workers:
                self._drain(worker)
            if self._room.left < 0:  # results are larger than those known before
                self._drop_free()
            if any(not slot.busy for slot in self._slots):
                return True
            most = self.most_waiting + _MOST_VIEWED if self._learned else 1
            return len(self._slots) < most and self._largest <= self._room.left

    def submit(self, transforms: Transforms, given: Numbered) -> _Task:
        """Copy a batch into a slot, and have it transformed by the process that has the least to do."""
        task = _Task(self, given._replace(batch=None))
        parcel = Parcel(given.batch)
        del given
        with self._lock:
            if not self._workers:
                task.finish(_closed())
                return task
            try:
                self._send(task, parcel, transforms)
            except BaseException:
                self._broken = True
                raise
        return task

    def wait(self, task: _Task) -> None:
        """Wait until a task is done, or can never be."""
        while not task.done:
            with self._lock:
                worker = task.worker
                assert worker is not None
                self._drain(worker)
                if task.done:
                    return
                descriptors = (worker.channel.fileno(), worker.process.sentinel)
            poll = select.poll()
            for descriptor in descriptors:
                poll.register(descriptor, select.POLLIN)
            poll.poll(_LOOK_MS)

    def deliver(self, task: _Task) -> Numbered:
        """Return the result of a task that is done."""
        if task.error is not None:
            raise task.error
        with self._lock:
            if not self._workers:
                raise _closed()
            slot = task.holding.pop()
            views = not task.failed and self._may_view()
            slot.viewed = True  # also while it is copied: `close` cuts off the memory of those that nobody looks at
            root = slot.memory.root(task.nbytes)
        if views:
            weakref.finalize(root, slot.free).atexit = False
        try:
            made = opened(root, task.start, copies=not views)
        finally:
            if not views:
                slot.free()
        if task.failed:
            raise made
        return task.at._replace(batch=made, took_s=task.took_s)

    def close(self) -> None:
        """End the processes and let go of slots; a second call does nothing."""
        if self._pid != os.getpid():
            return
        with self._lock:
            workers, self._workers = self._workers, []
            slots, self._slots = self._slots, []
            for worker in workers:
                for task in list(worker.tasks.values()):
                    task.finish(_closed())
                worker.channel.close()
            for slot in slots:
                self._drop(slot)
        for worker in workers:
            with suppress(ValueError, AttributeError):  # it was never started
                worker.process.kill()
        for worker in workers:
            if worker.process.pid is not None:
                worker.process.join()
                worker.process.close()

    # Slots

    def _slot(self) -> _Slot:
        slot = next((s for s in self._slots if not s.busy), None)
        if slot is None:
            slot = _Slot(next(self._numbers), GrowingMemory())
            self._slots.append(slot)
        slot.busy = True
        return slot

    def _grow(self, slot: _Slot, nbytes: int) -> Memory:
        """Return the slot's memory of at least so many bytes, and count it."""
        root = slot.memory.root(nbytes)
        self._room.take(slot.memory.nbytes - slot.counted)
        slot.counted = slot.memory.nbytes
        return root

    def _may_view(self) -> bool:
        """Whether the consumer may look at one slot more, and every process still has one to work on."""
        n_viewed = sum(slot.viewed for slot in self._slots)
        n_possible = len(self._slots) + max(0, self._room.left) // self._largest
        return n_viewed < _MOST_VIEWED and min(n_possible, self.most_waiting + _MOST_VIEWED) > n_viewed + self._n

    def _drop_free(self) -> None:
        for slot in [s for s in self._slots if not s.busy]:
            self._slots.remove(slot)
            self._drop(slot)

    def _drop(self, slot: _Slot) -> None:
        """Give memory back, also that which is mapped in the processes; what the consumer looks at stays."""
        self._room.give(slot.counted)
        if not slot.viewed:
            os.ftruncate(slot.memory.descriptor, 0)
        slot.memory.close()

    # Messages

    def _send(self, task: _Task, parcel: Parcel, transforms: Transforms) -> None:
        slot = self._slot()
        task.holding.append(slot)
        task.start = parcel.nbytes
        parcel.write(self._grow(slot, max(parcel.nbytes, self._largest if self._learned else 0)), 0)
        worker = task.worker = self._idlest()
        key = (task.at.epoch, task.at.number, transforms.rank, transforms.seed)
        message = TASK.pack(slot.number, task.start, task.at.n_rows, *key)
        worker.tasks[slot.number] = task
        try:
            known = worker.process.pid in slot.known
            socket.send_fds(worker.channel, [message], [] if known else [slot.memory.descriptor])
            slot.known.add(worker.process.pid or 0)
        except OSError:
            self._lose(worker)

    def _idlest(self) -> _Worker:
        """Return the process that has the least to do; of several, the one that was given something longest ago."""
        worker = min(self._workers, key=lambda w: (len(w.tasks), w.given))
        worker.given = next(self._turns)
        return worker

    def _drain(self, worker: _Worker) -> None:
        """Take the answers that are there; where a process has ended, no more will come."""
        ended = bool(worker.tasks) and not worker.process.is_alive()
        while worker.tasks:
            try:
                message = worker.channel.recv(REPLY.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            if not message:
                ended = True
                break
            self._take(worker, message)
        if ended:
            self._lose(worker)

    def _take(self, worker: _Worker, message: bytes) -> None:
        number, failed, nbytes, took_s = REPLY.unpack(message)
        task = worker.tasks.pop(number)
        task.failed, task.nbytes, task.took_s = bool(failed), nbytes, took_s
        self._grow(task.holding[0], nbytes)
        if not failed:
            self._largest = max(task.holding[0].counted, self._largest if self._learned else 1)
            self._learned = True
        task.finish()

    def _lose(self, worker: _Worker) -> None:
        """Give up what a process was given that has ended."""
        worker.process.join(_END_S)
        code = worker.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        tasks, worker.tasks = list(worker.tasks.values()), {}
        for task in tasks:
            at = f"batch {task.at.number} of epoch {task.at.epoch}"
            task.finish(
                TransformError(
                    f"processes of transform_workers must live until their batches are made, and one ended with {how} "
                    f"at {at}; it may have run out of memory, or a transform ended it"
                )
            )


class _Run:
    """One iteration's use of a pool."""

    def __init__(self, pool: TransformProcesses, transforms: Transforms) -> None:
        self._pool, self._transforms = pool, transforms

    def takes(self, n_waiting: int) -> bool:
        """Whether there is room for one batch more in flight."""
        return n_waiting < self._pool.most_waiting and self._pool.has_slot()

    def submit(self, given: Numbered) -> _Task:
        """Send a batch."""
        return self._pool.submit(self._transforms, given)

    def end(self) -> None:
        """Do nothing: the processes stay for the next iteration."""


def _closed() -> ClosedError:
    return ClosedError("loader must be open while it is iterated; it was closed")


def _check_pickles(stages: Stages) -> None:
    for stage in stages:
        try:
            pickle.dumps(stage.function)
        except Exception as exc:
            raise InvalidArgumentError(
                f"transform {stage.name!r} must pickle where processes are not forked, and does not: {exc}; define it "
                "at the top level of a module, or use transform_workers=None"
            ) from exc
