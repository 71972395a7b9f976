"""Pieces of a source read before they are asked for: in order, a bounded number at a time, by threads that end.

::

    consumer   piece 0                             takes rows of it
    threads    piece 1, 2, ... n_ahead             read at the same time, or one after the other by one thread
    not begun  piece n_ahead + 1, ...              until piece 0 is used up

An exception of a thread reaches the consumer where the rows of its piece would have come.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.convert.sources.fresh import fresh_rows

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Readers = Literal["many", "one", "caller"]
ReadRows = Callable[[int, int, Scratch], NDArray[Any]]
"""Returns rows between two, given the scratch of the thread that calls it."""


class Pending(Protocol[T_co]):
    """What will be there."""

    def result(self) -> T_co:
        """Wait for it; raises what making it raised."""
        ...


class _Later(Generic[T]):
    """What is made when it is asked for, by whoever asks."""

    def __init__(self, make: Callable[[], T]) -> None:
        self.result = make


class ReadAhead:
    """The threads of one iteration over a source.

    Parameters
    ----------
    n_ahead
        Pieces of each field that are read before they are asked for; 0 needs no threads.
    n_threads
        How many threads read pieces in any order; None is one for each core.

    """

    def __init__(self, n_ahead: int = 0, n_threads: int | None = None) -> None:
        self.n_ahead = n_ahead
        self.n_threads = threads_for(n_ahead, n_threads)
        self._many: ThreadPoolExecutor | None = None
        self._executors: list[ThreadPoolExecutor] = []
        self._local = threading.local()
        self._after = ExitStack()
        self._shared: dict[int, Any] = {}

    def submit(self, readers: Readers) -> Callable[[Callable[[], T]], Pending[T]]:
        """Return what has something made: by threads of all fields, by one more thread, or when it is asked for."""
        if not self.n_ahead or readers == "caller":
            return _Later
        if readers == "one":
            return self._start("oocload-source-stream", 1).submit
        if self._many is None:
            self._many = self._start("oocload-source", self.n_threads)
        return self._many.submit

    @property
    def scratch(self) -> Scratch:
        """The scratch of the thread that asks."""
        found: Scratch | None = getattr(self._local, "scratch", None)
        if found is None:
            found = self._local.scratch = Scratch()
        return found

    def shared(self, owner: object, make: Callable[[], T]) -> T:
        """Return what several fields use in this iteration, made by the first that asks."""
        if id(owner) not in self._shared:
            self._shared[id(owner)] = make()
        found: T = self._shared[id(owner)]
        return found

    def callback(self, close: Callable[[], object]) -> None:
        """Have something called when the threads have ended."""
        self._after.callback(close)

    def close(self) -> None:
        """End the threads, when what they are at is done; nothing else is begun."""
        with self._after:
            for executor in self._executors:
                executor.shutdown(wait=False, cancel_futures=True)
            for executor in self._executors:
                executor.shutdown(wait=True)
        self._shared.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, name: str, n_threads: int) -> ThreadPoolExecutor:
        self._executors.append(ThreadPoolExecutor(n_threads, name))
        return self._executors[-1]


def threads_for(n_ahead: int, n_threads: int | None) -> int:
    """Return how many threads read pieces in any order: one for each core, no more than there are pieces."""
    return max(1, min(n_ahead, len(os.sched_getaffinity(0)) if n_threads is None else n_threads))


class Pieces:
    """Rows of one array on their way.

    Parameters
    ----------
    read
        Reads a piece.
    ranges
        The pieces, in order.
    ahead, readers
        Who reads.
    announce
        Called with each piece before it is read.
    none
        No rows, of their shape and dtype.

    """

    def __init__(
        self,
        read: ReadRows,
        ranges: Iterator[tuple[int, int]],
        ahead: ReadAhead,
        readers: Readers,
        announce: Callable[[int, int], None],
        none: NDArray[Any],
    ) -> None:
        self._read = read
        self._ranges = ranges
        self._ahead = ahead
        self._submit: Callable[[Callable[[], NDArray[Any]]], Pending[NDArray[Any]]] = ahead.submit(readers)
        self._n_ahead = 0 if readers == "caller" else ahead.n_ahead
        self._announce = announce
        self._pending: deque[Pending[NDArray[Any]]] = deque()
        self._none = none
        self._rows, self._at = none, 0
        self._begin(self._n_ahead)

    def available(self) -> int:
        """Return the rows left of this piece, or those of the next; 0 at the end."""
        if self._at == len(self._rows):
            self._rows, self._at = self._none, 0  # before another piece is begun, for the sake of memory
            self._begin(1)
            if not self._pending:
                return 0
            self._rows = self._pending.popleft().result()
            self._begin(self._n_ahead)
        return len(self._rows) - self._at

    def take(self, n_rows: int) -> NDArray[Any]:
        """Return the next rows: a view of one piece, or a copy where they lie in several."""
        if n_rows <= self.available():
            self._at += n_rows
            return self._rows[self._at - n_rows : self._at]
        joined = fresh_rows((n_rows, *self._rows.shape[1:]), self._rows.dtype)
        at = 0
        while at < n_rows:
            n = min(n_rows - at, self.available())
            assert n, "fewer rows than were asked for"
            joined[at : at + n] = self.take(n)
            at += n
        return joined

    def _begin(self, n_pieces: int) -> None:
        """Begin pieces until so many are not yet there."""
        while len(self._pending) < n_pieces and (piece := next(self._ranges, None)) is not None:
            if self._n_ahead:
                self._announce(*piece)
            self._pending.append(self._submit(partial(self._read_piece, *piece)))

    def _read_piece(self, start: int, stop: int) -> NDArray[Any]:
        return self._read(start, stop, self._ahead.scratch)
