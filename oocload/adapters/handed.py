"""When batches were handed to a framework, for those who want to know how long it waited."""

from __future__ import annotations

import threading
from typing import NamedTuple

from oocload.adapters.replay import Base

_MOST = 2**16


class _Handing(NamedTuple):
    began: float
    ended: float
    thread: int


class Handed:
    """Notes of batches that were handed over and not asked about yet. Thread-safe."""

    def __init__(self) -> None:
        self._notes: dict[Base, _Handing] = {}
        self._lock = threading.Lock()

    def note(self, position: Base, began: float, ended: float) -> None:
        """Note that this thread began to get a batch, and had it."""
        with self._lock:
            self._notes[position] = _Handing(began, ended, threading.get_ident())
            if len(self._notes) > _MOST:  # of passes that were dropped, or nobody asks any more
                del self._notes[next(iter(self._notes))]

    def waited(self, position: Base, asked: float | None, thread: int) -> float:
        """Return the seconds for which a thread waited for a batch, and forget it.

        Parameters
        ----------
        position
            Of the batch.
        asked
            When the model asked for it; None where it asked for others before it at once.
        thread
            That of the model. What it hands over itself, it waits for.

        """
        with self._lock:
            note = self._notes.pop(position, None)
        if note is None:
            return 0.0
        if note.thread == thread:
            return note.ended - note.began
        return 0.0 if asked is None else max(0.0, note.ended - asked)
