"""A ``keras.utils.PyDataset`` over a loader, for any Keras backend."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, cast

from oocload.adapters.tickets import Ticket, Tickets
from oocload.loader.batch import Batch
from oocload.optional import require

if TYPE_CHECKING:
    from oocload.loader.source import BatchSource

keras: Any = require("keras", "tensorflow", "to_keras()")


class KerasDataset(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of a loader for ``fit``, ``evaluate`` and ``predict``; each pass is one epoch of the loader.

    Whatever order of indices Keras asks for, batches come in the loader's order: with ``fit(shuffle=True)`` too each
    block is decoded once an epoch and each row is seen exactly once. For ``predict``, use a loader with
    ``shuffle=False``.

    Parameters
    ----------
    loader
        Gives the batches; do not iterate it elsewhere meanwhile.

    Notes
    -----
    There is one worker and no option for more: Keras' workers would ask in an order of their own, and reading and
    decoding run in the loader's threads anyhow.

    """

    def __init__(self, loader: BatchSource) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.loader = loader
        self._tickets = Tickets(len(loader))
        self._lock = threading.Lock()
        self._pass = -1
        self._start: dict[str, Any] = {}
        self._following: dict[str, Any] | None = None
        self._batches: Generator[Batch] | None = None

    @property
    def num_batches(self) -> int:
        """Batches of one epoch."""
        return len(self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    def __getitem__(self, index: int) -> Batch:
        """Return the next batch of the pass, whatever the index; thread-safe."""
        with self._lock:
            ticket = self._tickets.take(index)
            if ticket.n_pass != self._pass or ticket.rewound:
                self._begin(ticket)
            assert self._batches is not None
            batch = next(self._batches)
            if ticket.batch == len(self.loader) - 1:
                self._following = self.loader.state_dict()
                self._batches.close()  # threads and slabs go now, not when the next epoch begins
            return batch

    def on_epoch_begin(self) -> None:
        """Note a boundary."""
        self._boundary()

    def on_epoch_end(self) -> None:
        """Note a boundary."""
        self._boundary()

    def _boundary(self) -> None:
        with self._lock:
            self._tickets.boundary()

    def _begin(self, ticket: Ticket) -> None:
        """Begin a pass: the same again, where the one before ended, or at the next epoch if that was abandoned.

        A pass has as many batches as an epoch, and is one, unless a state was loaded in the middle of it; only then is
        more read ahead than it has.
        """
        if self._batches is not None:
            self._batches.close()
        state = self._start if ticket.rewound else self._following or self.loader.begin_state()
        self.loader.load_state_dict(state)
        self._pass, self._start, self._following = ticket.n_pass, state, None
        batches = self.loader.forever() if state["batch"] else iter(self.loader)
        self._batches = cast("Generator[Batch]", batches)


def to_keras(loader: BatchSource) -> KerasDataset:
    """Return a `KerasDataset` over a loader."""
    return KerasDataset(loader)
