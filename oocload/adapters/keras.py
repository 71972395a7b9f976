"""A ``keras.utils.PyDataset`` over a loader, for any Keras backend."""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oocload.adapters import asking
from oocload.adapters.replay import Base, Replay
from oocload.adapters.shapes import check_arrays
from oocload.errors import ClosedError, InvalidArgumentError
from oocload.forks import renew_in_child
from oocload.loader.batch import Batch
from oocload.loader.options import whole_number
from oocload.optional import require_keras

if TYPE_CHECKING:
    from oocload.loader.source import BatchSource

keras: Any = require_keras("to_keras()")

_KNOWN_PASSES = 8  # of generators; those that Keras dropped do not say so
_EARLY_S = 1.0  # how long a generator waits that Keras starts before the next epoch, which may never come
_LOOK_S = 0.02
_ENDED = "epochs must be under way where batches are asked for, and Keras has ended the last"


@dataclass(eq=False)
class Run:
    """One run of ``fit``, ``evaluate`` or ``predict``: where its first pass began, where the next one does."""

    first: Base
    following: Base
    n_epochs: int = 0  # that Keras has begun
    done_in: int = -1  # in which of them a pass was taken to its end
    iterator: weakref.ref[Any] | None = None

    @property
    def dropped(self) -> bool:
        """Whether Keras' iterator over epochs is gone."""
        return self.iterator is not None and self.iterator() is None


@dataclass(eq=False)
class Pass:
    """One pass over the data: from where, how long, whose it is, and how far it is."""

    base: Base
    n_batches: int
    owner: weakref.ref[Any] | None = None
    run: Run | None = None
    in_epoch: int = 0  # of the run; on TensorFlow a pass begins as soon as the one before ends, still in its epoch
    n_taken: int = 0

    @property
    def done(self) -> bool:
        """Whether all its batches were taken."""
        return self.n_taken >= self.n_batches

    @property
    def early(self) -> bool:
        """Whether the epoch that it is for has not begun, and perhaps never will."""
        return self.run is not None and self.in_epoch == self.run.done_in == self.run.n_epochs > 0


class KerasDataset(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of a loader for ``fit``, ``evaluate`` and ``predict``; each pass is one epoch of the loader.

    Whatever order of indices Keras asks for, batches come in the loader's order: with ``fit(shuffle=True)`` too each
    block is decoded once an epoch and each row is seen exactly once. For ``predict``, use a loader with
    ``shuffle=False``.

    Asked by anyone else, ``dataset[i]`` is batch ``i`` of an epoch (after a loaded state: the ``i``-th from there),
    which is decoded for it alone unless it follows the one before. The next epoch begins after ``on_epoch_end()``, or
    with index 0 when all were asked for.

    Parameters
    ----------
    loader
        Gives the batches; do not iterate it elsewhere meanwhile, and validate on another (`split` gives one).
    workers, use_multiprocessing, max_queue_size
        Taken as Keras' own datasets take them, so that old code runs, but no workers are started: reading, decoding
        and shuffling run in the loader's threads already, and workers would each decode for themselves.

    Raises
    ------
    InvalidArgumentError
        If they are not a whole number from 0, True or False, and a whole number from 1.

    """

    def __init__(
        self, loader: BatchSource, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10
    ) -> None:
        super().__init__(max_queue_size=whole_number("max_queue_size", max_queue_size, 1))
        self.workers, self.use_multiprocessing = workers, use_multiprocessing
        self.loader = loader
        self._base = Base(0, 0)
        self._replay: Replay | None = None
        self._own: Pass | None = None  # of requests by index
        self._passes: dict[int, Pass] = {}  # generator's frame → pass
        self._runs: weakref.WeakKeyDictionary[Any, Run] = weakref.WeakKeyDictionary()  # adapter → run
        self._begin_at(self._stand())
        self.renew_locks()

    def renew_locks(self) -> None:
        """Make the lock, or replace it in a forked child, to which what was under way does not belong."""
        self._condition = threading.Condition(threading.RLock())
        self._replay = None
        renew_in_child(self)

    def __getstate__(self) -> dict[str, Any]:
        base = self._base if self._own is None else self._own.base
        return {"loader": self.loader, "base": base, "max_queue_size": self.max_queue_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["loader"], max_queue_size=state["max_queue_size"])  # type: ignore[misc]
        self._begin_at(state["base"])

    # What Keras asks for

    @property
    def workers(self) -> int:
        """Workers beside the thread that trains: none are wanted, whatever was given."""
        return 1

    @workers.setter
    def workers(self, value: int) -> None:
        whole_number("workers", value, 0)

    @property
    def use_multiprocessing(self) -> bool:
        """Whether workers are processes: none are wanted, whatever was given."""
        return False

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise InvalidArgumentError(f"use_multiprocessing must be True or False, got {value!r}")

    @property
    def num_batches(self) -> int:
        """Batches of one pass: those of an epoch, or fewer where a checkpoint was loaded in the middle of one."""
        asker = asking.generator(directly=True)
        if asker is None:
            return len(self.loader)
        with self._condition:
            return self._begin(asker).n_batches

    def __len__(self) -> int:
        return len(self.loader)

    def __getitem__(self, index: int) -> Batch:
        """Return the next batch of the generator of Keras' that asks, whatever the index; else batch ``index``.

        Thread-safe.

        Raises
        ------
        IndexError
            If there is no such batch.

        """
        asker = asking.generator()
        if asker is not None and asker.wanted != index:
            asker = None  # a dataset around this one asks for others than Keras asked it for
        self._acquire(asker)
        try:
            if asker is None:
                return self._by_index(self.loader.number(index))
            under_way = self._passes.get(asker.frame)
            if under_way is None or under_way.done or under_way.owner != asker.owner:
                under_way = self._begin(asker)
            if under_way.early:
                self._await_epoch(under_way)
            batch = self._take(under_way, under_way.n_taken)
            if under_way.done and under_way.run is not None:
                under_way.run.done_in = under_way.run.n_epochs
            return batch
        finally:
            self._condition.release()

    def on_epoch_begin(self) -> None:
        """Note that the passes begun so far in a run are needed."""
        begin = asking.epoch_call()
        if begin is None:
            return
        with self._condition:
            run = self._run(begin.owner)
            run.n_epochs += 1
            run.iterator = weakref.ref(begin.iterator)
            self._base = max(self._base, run.following)
            self._condition.notify_all()

    def on_epoch_end(self) -> None:
        """Go on with the next epoch where batches were asked for by index, unless Keras only looked at a few."""
        end = asking.epoch_call()
        with self._condition:
            self._sync()
            if end is not None and end.reset:
                self._take_back(end.owner)
                self.loader.stand_at(*self._base, begun=False)
            elif self._own is not None and self._own.n_taken:
                self._base = self._after(self._own)
            elif end is not None and end.by_workers:
                self._base = self._base.plus(len(self.loader), len(self.loader))
            self._own = None

    # Passes

    def _acquire(self, asker: asking.Asker | None) -> None:
        """Take the lock, which another thread has while it waits for a batch.

        The collector may run in that thread and drop TensorFlow's iterator of a run that is over, which waits for its
        thread to end: that one must not wait here.
        """
        while not self._condition.acquire(timeout=_LOOK_S):
            run = None if asker is None else self._runs.get(asker.owner())
            if run is not None and run.dropped:
                raise ClosedError(_ENDED)

    def _begin_at(self, base: Base) -> None:
        """Forget all passes; the next begins here."""
        self._base = base
        self._turn = self.loader.stand().turn
        self._own = None
        self._passes.clear()
        self._runs.clear()

    def _stand(self) -> Base:
        return Base(*self.loader.stand()[:2])

    def _sync(self) -> None:
        """Follow the loader where someone else has moved it: loaded a state, or iterated over it."""
        if self.loader.stand().turn != self._turn:
            self._rest()
            self._begin_at(self._stand())

    def _begin(self, asker: asking.Asker) -> Pass:
        """Begin the pass of a generator where the one before of the same run ended."""
        self._sync()
        if self._own is not None and self._own.done:
            self._base = self._after(self._own)
        self._own = None
        run = self._run(asker.owner())
        if asker.owner() is self:  # a loop over this dataset: as long as it lives, its passes are of one run
            run.following = max(run.following, self._base)
        n_batches = self.loader.pass_lengths.get(run.following, len(self.loader))
        begun = Pass(run.following, n_batches, asker.owner, run, run.n_epochs)
        run.following = self._after(begun)
        if not begun.early:
            self._base = max(self._base, run.following)
        self._passes.pop(asker.frame, None)
        self._passes[asker.frame] = begun
        if len(self._passes) > _KNOWN_PASSES:
            del self._passes[next(iter(self._passes))]
        return begun

    def _take_back(self, owner: Any) -> None:
        """Forget the passes of a run of Keras', which only looked at batches."""
        run = self._runs.pop(owner, None)
        if run is not None and self._base == run.following:
            self._base = run.first
        self._passes = {frame: p for frame, p in self._passes.items() if p.run is not run}

    def _run(self, owner: Any) -> Run:
        return self._runs.setdefault(owner, Run(self._base, self._base))

    def _await_epoch(self, early: Pass) -> None:
        """Wait until Keras begins the epoch that an early pass is for: after the last one it drops it instead."""
        deadline = time.monotonic() + _EARLY_S
        while early.early and time.monotonic() < deadline:
            if early.run is not None and early.run.dropped:
                raise ClosedError(_ENDED)
            self._condition.wait(_LOOK_S)

    def _by_index(self, index: int) -> Batch:
        self._sync()
        own = self._own
        if own is not None and own.done and index == 0:
            self._base, own = self._after(own), None
        if own is None:
            own = self._own = Pass(self._base, len(self.loader))
        if index == own.n_taken or (self._replay is not None and self._replay.has(own.base, index)):
            return self._take(own, index)
        own.n_taken = max(own.n_taken, 1)
        return self.loader.batch_at(*own.base.plus(index, len(self.loader)))

    def _take(self, of: Pass, index: int) -> Batch:
        """Return a batch of a pass, and let go of the loader's threads and slabs after the last."""
        began = time.perf_counter()
        try:
            if self._replay is None or not self._replay.has(of.base, index):
                self._rest()
                endless = of.base.batch + of.n_batches > len(self.loader)
                self._replay = Replay(self.loader, of.base, index, endless)
            batch = self._replay.get(index)
            epoch, last = of.base.plus(index, len(self.loader))
            self.loader.stand_at(epoch, last + 1, begun=True)
            self._turn = self.loader.stand().turn
        except BaseException:
            self._rest()
            raise
        of.n_taken = max(of.n_taken, index + 1)
        if of.done:
            self._rest()
            self.loader.stand_at(*self._after(of), begun=False)
        if self.loader.handed is not None:
            self.loader.handed.note(of.base.plus(index, len(self.loader)), began, time.perf_counter())
        return batch

    def _after(self, a_pass: Pass) -> Base:
        return a_pass.base.plus(a_pass.n_batches, len(self.loader))

    def _rest(self) -> None:
        if self._replay is not None:
            self._replay.close()
        self._replay = None


def to_keras(loader: BatchSource, workers: int, use_multiprocessing: bool, max_queue_size: int) -> KerasDataset:
    """Return a `KerasDataset` over a loader."""
    check_arrays(loader, "to_keras()", static=keras.backend.backend() == "tensorflow")
    _check_dtypes(loader)
    return KerasDataset(loader, workers, use_multiprocessing, max_queue_size)


def _check_dtypes(loader: BatchSource) -> None:
    """Refuse text and dates, which Keras would refuse at the first batch, without the name of the field."""
    for name, field in loader.fields.items() if loader.transform is None else ():
        if field.dtype.kind in "SUmM":
            raise InvalidArgumentError(
                f"field {name!r} must have a dtype that Keras has, got {field.dtype}; choose fields with x= and y=, or "
                "make numbers of it by map()"
            )
