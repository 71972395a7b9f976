"""Chunks on their way into a target: encoded on all cores, put in order, and committed together with the journal.

A chunk that the journal knows already, from before a kill, is compared with what was written, and not written again.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import as_bytes
from oocload.convert.arrays import NewArray
from oocload.convert.budget import Budget
from oocload.convert.buffers import Buffers
from oocload.convert.encoders import Encoded
from oocload.convert.journal import Journal, Mark
from oocload.convert.target import Target
from oocload.errors import ConversionError
from oocload.stores.checksums import stored_crc32c

# There is a commit after so many stored bytes, but no more often than this, and after so many seconds: what a kill or
# a full disk costs, against half a millisecond a commit.
_COMMIT_NBYTES = 2**20
_COMMIT_SECONDS_LEAST = 0.03
_COMMIT_SECONDS_MOST = 0.5
_MARKS_KEPT = 1024
# A chunk of labels holds the rows of hundreds of chunks of images, so these wait in the journal at each commit, as long
# as they stay a small share of all that is written.
_MOST_HEAD_NBYTES = 64 * 2**10
_HEADS_NBYTES = 2**20
_HEADS_SHARE = 100


class Made(NamedTuple):
    """A chunk as it is stored, with the crc32c of its stored bytes, and that of its rows."""

    encoded: Encoded
    crc: int
    raw: int


class _Pending(NamedTuple):
    array: str
    chunk: int
    rows: NDArray[Any]
    work: Future[Made | None]


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
        self._marks: deque[tuple[int, Mapping[str, int]]] = deque()
        self._committed = time.monotonic()
        self._failed = False  # a chunk is missing, so no later one may be put

    def put(self, array: str, start: int, rows: NDArray[Any]) -> None:
        """Queue rows from ``start``, where a chunk begins; only an array's last chunk may be short."""
        height = self._arrays[array].height
        for first in range(0, len(rows), height):
            chunk = rows[first : first + height]
            number = (start + first) // height
            work = self._pool.submit(self._encode, array, number, chunk)
            self._pending.append(_Pending(array, number, chunk, work))
            self._room -= self._arrays[array].chunk_nbytes
            while self._room < 0 and len(self._pending) > 1:
                self._put_oldest()

    def mark(self, n_rows: int, lengths: Mapping[str, int]) -> None:
        """Note that after some rows each array has a length: from there the source can be read again."""
        self._marks.append((n_rows, dict(lengths)))
        if len(self._marks) > _MARKS_KEPT:  # many small appends: every other one will do
            self._marks = deque(list(self._marks)[1::2])

    def reach(self, n_rows: int) -> None:
        """Count the first rows of every array as put, by others."""
        self._lengths = dict.fromkeys(self._arrays, n_rows)

    def drain(self) -> None:
        """Put everything that waits, and commit."""
        while self._pending:
            self._put_oldest()
        self.commit()

    def commit(self, whole: Mapping[str, Any] | None = None, most_head_nbytes: int | None = None) -> None:
        """Make what was put the state to which a kill leads back."""
        if most_head_nbytes is None:
            is_much = self._journal.heads_nbytes > _HEADS_NBYTES + self._journal.stored_nbytes // _HEADS_SHARE
            most_head_nbytes = 0 if is_much else _MOST_HEAD_NBYTES
        if whole is None:
            self._target.flush()
        self._target.commit(str(self._journal.commit(self._reached(most_head_nbytes), whole)).encode())
        self._committed = time.monotonic()

    def give_up(self) -> None:
        """Put what waits, unless that has failed, and commit with all rows that wait for their chunk to be full."""
        while self._pending and not self._failed:
            self._put_oldest()
        self.commit(most_head_nbytes=sys.maxsize)

    def close(self) -> None:
        """End the threads; what waits is lost. A second call does nothing."""
        self._pool.shutdown(cancel_futures=True)
        self._pending.clear()

    def _encode(self, array: str, number: int, rows: NDArray[Any]) -> Made | None:
        new, records = self._arrays[array], self._journal.records[array]
        if not records.has(number):
            return make_chunk(self._target, array, new, number, rows)
        if records.raw(number) != stored_crc32c(as_bytes(padded(rows, new.height))):
            start = number * new.height
            raise ConversionError(
                f"source must be what it was, and has changed: rows {start} to {start + len(rows)} of {array!r} are "
                "others than those that were converted; start anew, without resume"
            )
        return None

    def _put_oldest(self) -> None:
        self._failed = True
        array, chunk, rows, work = self._pending.popleft()
        done = work.result()
        new = self._arrays[array]
        if done is not None:
            self._target.put(array, chunk, done.encoded, len(rows))
            nbytes = memoryview(done.encoded.data).nbytes
            self._journal.add(array, chunk, nbytes, done.crc, done.raw, done.encoded.skipped)
        self._lengths[array] = chunk * new.height + len(rows)
        self._room += new.chunk_nbytes
        self._buffers.give_back(array, rows)
        passed = time.monotonic() - self._committed
        enough = self._journal.pending_nbytes >= _COMMIT_NBYTES and passed > _COMMIT_SECONDS_LEAST
        if enough or passed > _COMMIT_SECONDS_MOST:
            self.commit()
        self._failed = False

    def _reached(self, most_head_nbytes: int) -> Mark | None:
        """Return the latest mark whose rows are put, but for a few that can be kept in the journal itself."""
        reached = None
        while self._marks and all(self._is_safe(name, n, most_head_nbytes) for name, n in self._marks[0][1].items()):
            reached = self._marks.popleft()
        if reached is None:
            return None
        n_rows, lengths = reached
        heads = {name: (put, lengths[name]) for name, put in self._lengths.items() if put < lengths[name]}
        return Mark(n_rows, dict(lengths), {name: self._buffers.head(name, *rows) for name, rows in heads.items()})

    def _is_safe(self, array: str, length: int, most_head_nbytes: int) -> bool:
        put = self._lengths[array]
        if length <= put:
            return True
        head_nbytes = (length - put) * self._arrays[array].spec.row_nbytes
        return head_nbytes <= most_head_nbytes and self._buffers.has_head(array, put, length)


def make_chunk(target: Target, array: str, new: NewArray, number: int, rows: NDArray[Any]) -> Made:
    """Encode the rows of a chunk, of which an array's last may be short."""
    whole = padded(rows, new.height)
    encoded = target.encode(array, number, whole)
    crc = stored_crc32c(np.frombuffer(encoded.data, np.uint8), encoded.skipped)
    return Made(encoded, crc, stored_crc32c(as_bytes(whole)))


def padded(rows: NDArray[Any], height: int) -> NDArray[Any]:
    """Return a whole chunk: both formats store edge chunks in full."""
    if len(rows) == height and rows.flags.c_contiguous:
        return rows
    chunk = np.zeros((height, *rows.shape[1:]), rows.dtype)
    chunk[: len(rows)] = rows
    return chunk
