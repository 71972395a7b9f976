"""Batches on their way to a device: copies that run while the model works, some batches ahead of it.

::

    loader     slab 0: b0 b1 b2 b3 ...                  views of host memory, held until their copies are done
    copies         b0 b1 b2 ──► device                  started in order, ahead of the model
    model      b0                                       waits for its own copy, on the device

Before another slab is asked for, all copies out of the last one are done: the loader may fill it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from oocload.adapters.replay import Base
from oocload.loader.batch import Batch

if TYPE_CHECKING:
    from oocload.loader.source import BatchSource


class Copy(Protocol):
    """A copy of one batch that was started."""

    def wait(self) -> None:
        """Return when the host memory is no longer read."""
        ...

    def result(self) -> Batch:
        """Return the batch on the device, for work that is queued from now on."""
        ...


class Started:
    """A copy of which the host's memory needs no watching: it is done, or the framework holds that memory."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def wait(self) -> None:
        """Return at once."""

    def result(self) -> Batch:
        """Return the batch."""
        return self._batch


class Device(Protocol):
    """Where batches go."""

    def start(self, batch: Batch) -> Copy:
        """Start to copy a batch, whose memory stays as it is until `Copy.wait` returns."""
        ...


def batches_ahead(loader: BatchSource, device: Device, n_ahead: int) -> Generator[Batch]:
    """Yield one epoch's batches on a device; the loader's position is that of the batch after the one yielded.

    Parameters
    ----------
    loader
        Gives the batches: the rest of a loaded epoch, or the next.
    device
        Copies them.
    n_ahead
        How many copies are started beyond the batch that is given.

    """
    place = _Place(loader)
    waiting: deque[Copy] = deque()
    with closing(_copies(loader, device, n_ahead)) as copies:
        error: Exception | None = None
        more = True
        while True:
            while more and len(waiting) <= n_ahead:
                try:
                    waiting.append(place.kept(copies))
                except StopIteration:
                    more = False
                except Exception as exc:  # after the batches before it
                    error, more = exc, False
            if not waiting:
                break
            batch = waiting.popleft().result()
            place.advance()
            yield batch
            del batch
        if error is not None:
            try:
                raise error
            finally:
                error = None  # its traceback refers to this frame
    place.finish()


class _Place:
    """The loader's position, as long as nobody else moves it."""

    def __init__(self, loader: BatchSource) -> None:
        self._loader = loader
        epoch, batch, self._turn = loader.stand()
        self._first, self._n_given = Base(epoch, batch), 0

    def kept(self, copies: Generator[Copy]) -> Copy:
        """Return the next copy, whatever that does to the position being our own doing."""
        ours = self._loader.stand().turn == self._turn
        try:
            return next(copies)
        finally:
            if ours:
                self._turn = self._loader.stand().turn
                self._set()

    def advance(self) -> None:
        """Note that one batch more is given."""
        self._n_given += 1
        if self._loader.stand().turn == self._turn:
            self._set()

    def finish(self) -> None:
        """Note that the epoch was given to its end."""
        if self._loader.stand().turn == self._turn:
            self._loader.stand_at(self._first.epoch + 1, 0, begun=False)

    def _set(self) -> None:
        self._loader.stand_at(self._first.epoch, self._first.batch + self._n_given, begun=True)


def _copies(loader: BatchSource, device: Device, n_ahead: int) -> Generator[Copy]:
    """Yield copies that have been started; those out of one slab are done when the next one is asked for."""
    if loader.transform is None and loader.uniform and not loader.tight:
        return _of_slabs(loader, device, n_ahead)
    return _of_batches(loader, device)


def _of_slabs(loader: BatchSource, device: Device, n_ahead: int) -> Generator[Copy]:
    running: deque[Copy] = deque()
    step = loader.batch_size
    with closing(loader.slabs()) as slabs:
        try:
            for arrays in slabs:
                n_rows = len(next(iter(arrays.values())))
                for first in range(0, n_rows, step):
                    while len(running) > n_ahead:
                        running.popleft().wait()
                    copy = device.start(loader.form.slice(arrays, first, min(first + step, n_rows)))
                    running.append(copy)
                    yield copy
                    del copy
                _wait(running)
                del arrays
        finally:
            _wait(running)


def _of_batches(loader: BatchSource, device: Device) -> Generator[Copy]:
    for batch in loader:
        copy = device.start(batch)
        del batch
        try:
            yield copy
        finally:
            copy.wait()
        del copy


def _wait(running: deque[Copy]) -> None:
    while running:
        running.popleft().wait()
