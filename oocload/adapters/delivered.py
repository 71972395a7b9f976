"""What a `DataLoader` with workers has given, counted in the process that iterates over it.

Workers run ahead of the model, and what a `DataLoader` has taken from them is not what it has given. Its iterator is
found on the stack when it starts a worker: while a process is forked, or a dataset pickled for one that is spawned.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import weakref
from typing import Any

from oocload.loader.board import Board

_MOST_FRAMES = 24
_KNOWN = 64  # passes; those of iterators that are gone are needed until the next pass begins

_tokens = itertools.count(1)
_token_of: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_forking = threading.local()  # the token of the iterator that forks in this thread; a forked child has it too
_registered: list[int] = []


class Count:
    """How many batches the iterator of a pass has given."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = weakref.ref(iterator)
        self._n_given = 0
        take = type(iterator)._next_data

        def counted() -> Any:
            own: Any = self._iterator()
            data = take(own)
            self._n_given = own._rcvd_idx
            return data

        iterator._next_data = counted

    @property
    def ended(self) -> bool:
        """Whether the iterator is gone."""
        return self._iterator() is None

    @property
    def n_given(self) -> int:
        """Batches given; of an iterator that is used again, in its present pass."""
        iterator = self._iterator()
        return self._n_given if iterator is None else int(iterator._rcvd_idx)


def watch_forks() -> None:
    """Have a look at what forks from now on."""
    if not _registered:
        _registered.append(os.getpid())
        os.register_at_fork(before=_look_before_fork)


def token_of_fork() -> int:
    """Return the token of the iterator that forked this process; 0 where none did."""
    return int(getattr(_forking, "token", 0))


def setting_out() -> tuple[int, Any]:
    """Return the token of the iterator that starts a worker in this thread, and the iterator; 0 where there is none."""
    frame = sys._getframe(1)
    for _ in range(_MOST_FRAMES):
        if frame is None:
            break
        if frame.f_code.co_name == "__init__":
            iterator = frame.f_locals.get("self")
            if hasattr(iterator, "_workers_done_event") and hasattr(type(iterator), "_next_data"):
                return _known(iterator), iterator
        frame = frame.f_back  # type: ignore[assignment]
    return 0, None


def _known(iterator: Any) -> int:
    token = _token_of.get(iterator)
    if token is None:
        token = _token_of[iterator] = os.getpid() * 2**32 + next(_tokens)
        Board.counts[token] = Count(iterator)
        while len(Board.counts) > _KNOWN:
            del Board.counts[next(iter(Board.counts))]
        dataset = iterator._dataset
        if hasattr(dataset, "workers_set_out"):
            dataset.workers_set_out(iterator._prefetch_factor)
    return token


def _look_before_fork() -> None:
    _forking.token = setting_out()[0]
