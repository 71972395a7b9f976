"""Chunks on their way into a target: encoded on all cores, put in order, and committed together with the journal.

A chunk that the journal knows already, from before a kill, is compared with what was written, and not written again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.convert.arrays import NewArray
from oocload.convert.budget import Budget
from oocload.convert.buffers import Buffers
from oocload.convert.encoders import Encoded
from oocload.convert.journal import Journal, Mark
from oocload.convert.target import Target
from oocload.errors import ConversionError
from oocload.stores.checksums import stored_crc32c

# Stored bytes, or seconds, after which there is a commit: benchmarks/convert.py.
_COMMIT_NBYTES = 4 * 2**20
_COMMIT_SECONDS = 0.5
_MARKS_KEPT = 1024
_MOST_HEAD_NBYTES = 64 * 2**10  # a chunk of labels holds the rows of hundreds of chunks of images


class _Encoded(NamedTuple):
    encoded: Encoded
    crc: int
    raw: int


class _Pending(NamedTuple):
    array: str
    chunk: int
    rows: NDArray[Any]
    work: Future[_Encoded | None]


class Pipeline:
    """Encodes ahead, and puts in order.

    Parameters
    ----------
    target, journal
        Where chunks go, and where they are noted.
    arrays
        Name → what it is.
    budget
        How many threads encode, and how many bytes of rows may wait for it.
    buffers
        Where rows wait that do not fill a chunk yet.

    """

    def __init__(
        self,
        target: Target,
        journal: Journal,
        arrays: Mapping[str, NewArray],
        budget: Budget,
        buffers: Buffers,
    ) -> None:
        self._target = target
        self._journal = journal
        self._arrays = arrays
        self._room = budget.pending_nbytes
        self._buffers = buffers
        self._pool = ThreadPoolExecutor(budget.n_threads, thread_name_prefix="oocload-encode")
        self._pending: deque[_Pending] = deque()
        self._lengths = {name: n - n % arrays[name].height for name, n in buffers.lengths.items()}
        self._n_pending = dict.fromkeys(arrays, 0)
        self._marks: deque[tuple[int, Mapping[str, int]]] = deque()
        self._committed = time.monotonic()

    def put(self, array: str, start: int, rows: NDArray[Any]) -> None:
        """Queue rows from ``start``, where a chunk begins; only an array's last chunk may be short."""
        height = self._arrays[array].height
        for first in range(0, len(rows), height):
            chunk = rows[first : first + height]
            number = (start + first) // height
            work = self._pool.submit(self._encode, array, number, chunk)
            self._pending.append(_Pending(array, number, chunk, work))
            self._n_pending[array] += 1
            self._room -= self._arrays[array].chunk_nbytes
            while self._room < 0 and len(self._pending) > 1:
                self._put_oldest()

    def mark(self, n_rows: int, lengths: Mapping[str, int]) -> None:
        """Note that after some rows each array has a length: from there the source can be read again."""
        self._marks.append((n_rows, dict(lengths)))
        if len(self._marks) > _MARKS_KEPT:  # many small appends: every other one will do
            self._marks = deque(list(self._marks)[1::2])

    def drain(self) -> None:
        """Put everything that waits, and commit."""
        while self._pending:
            self._put_oldest()
        self.commit()

    def commit(self, whole: Mapping[str, Any] | None = None) -> None:
        """Make what was put the state to which a kill leads back."""
        if whole is None:
            self._target.flush()
        self._target.commit(str(self._journal.commit(self._reached(), whole)).encode())
        self._committed = time.monotonic()

    def close(self) -> None:
        """End the threads; what waits is lost. A second call does nothing."""
        self._pool.shutdown(cancel_futures=True)
        self._pending.clear()

    def _encode(self, array: str, number: int, rows: NDArray[Any]) -> _Encoded | None:
        new, records = self._arrays[array], self._journal.records[array]
        whole = _padded(rows, new.height)
        raw = stored_crc32c(as_bytes(whole))
        if not records.has(number):
            encoded = self._target.encode(array, number, whole)
            return _Encoded(encoded, stored_crc32c(as_bytes(encoded.data), encoded.skipped), raw)
        if records.raw(number) != raw:
            start = number * new.height
            raise ConversionError(
                f"source must be what it was, and has changed: rows {start} to {start + len(rows)} of {array!r} are "
                "others than those that were converted; start anew, without resume"
            )
        return None

    def _put_oldest(self) -> None:
        array, chunk, rows, work = self._pending.popleft()
        self._n_pending[array] -= 1
        done = work.result()
        new = self._arrays[array]
        if done is not None:
            self._target.put(array, chunk, done.encoded)
            nbytes = memoryview(done.encoded.data).nbytes
            self._journal.add(array, chunk, nbytes, done.crc, done.raw, done.encoded.skipped)
        self._lengths[array] = chunk * new.height + len(rows)
        self._room += new.chunk_nbytes
        self._buffers.give_back(array, rows)
        late = time.monotonic() - self._committed > _COMMIT_SECONDS
        if late or self._journal.pending_nbytes >= _COMMIT_NBYTES:
            self.commit()

    def _reached(self) -> Mark | None:
        """Return the latest mark whose rows are put, but for a few that can be kept in the journal itself."""
        reached = None
        while self._marks and all(self._is_safe(name, n) for name, n in self._marks[0][1].items()):
            reached = self._marks.popleft()
        if reached is None:
            return None
        n_rows, lengths = reached
        heads = {name: (put, lengths[name]) for name, put in self._lengths.items() if put < lengths[name]}
        return Mark(n_rows, dict(lengths), {name: self._buffers.head(name, *rows) for name, rows in heads.items()})

    def _is_safe(self, array: str, length: int) -> bool:
        missing = length - self._lengths[array]
        if missing <= 0:
            return True
        return not self._n_pending[array] and missing * self._arrays[array].spec.row_nbytes <= _MOST_HEAD_NBYTES


def as_bytes(data: Any) -> NDArray[np.uint8]:
    """Return the bytes of anything that is contiguous, not copied."""
    if isinstance(data, np.ndarray):
        return data.reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


def _padded(rows: NDArray[Any], height: int) -> NDArray[Any]:
    """Return a whole chunk: both formats store edge chunks in full."""
    if len(rows) == height and rows.flags.c_contiguous:
        return rows
    chunk = np.zeros((height, *rows.shape[1:]), rows.dtype)
    chunk[: len(rows)] = rows
    return chunk
