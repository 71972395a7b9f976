"""Runs of rows on disk: one file of bytes, lane after lane of each run, and one of lines that say what lies where.

::

    shuffle.rows    keys | lane | lane |keys | lane | lane |
    shuffle.index   {what and of what}  {"rows": 1000, "items": {...}}  {...}  {"whole": ...}

A line is written when its run is, so a kill costs one run. Rows of runs are in the order of their slots.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.fetch import read_all
from oocload.chunks.scratch import Scratch
from oocload.convert.buckets import N_SLOTS, KeyRange, ranges_of
from oocload.convert.keys import Keys, slots_of
from oocload.convert.lanes import Elements, Lane, lengths_of, ragged_fields
from oocload.errors import ConversionError

_LOOK_ROWS = 2**18  # of keys, at a time
_WHOLE = "whole"


class Run(NamedTuple):
    """Rows of one run, items of its ragged fields, where its lanes begin, and bytes of its largest row."""

    n_rows: int
    n_items: Mapping[str, int]
    at: Sequence[int]
    end: int
    largest: int


class Segment(NamedTuple):
    """Consecutive rows of a run, and the first and the last items of each ragged field."""

    run: Run
    start: int
    stop: int
    items: Mapping[str, tuple[int, int]]


@dataclass
class Counts:
    """Rows and items in each slot."""

    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(N_SLOTS, np.int64))
    items: dict[str, NDArray[np.int64]] = field(default_factory=dict)


class Runs:
    """The runs of one range of keys.

    Parameters
    ----------
    path
        Of the bytes; the index lies beside it.
    lanes, keys
        What rows consist of, and which keys they have.
    header
        What tells these runs from others; None where nobody asks: then nothing is left when they are let go of,
        whatever happens. Where it has no ``of``, nobody goes on with them, and the index alone is left, where a store
        in the making lies beside it.
    resume
        Whether runs of the same header that are there are gone on with.

    Attributes
    ----------
    runs
        Those that are whole.
    whole
        What was said when the last one was.

    Raises
    ------
    ConversionError
        If another process is writing them, or they cannot be written.

    """

    def __init__(
        self,
        path: Path,
        lanes: Sequence[Lane],
        keys: KeyRange,
        header: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        self.path, self.lanes, self.keys = path, lanes, keys
        self.runs: list[Run] = []
        self.whole: Any = None
        self._index = -1
        with writing(path):
            self._file = self._open(path)
            self._can_be_told = header is not None and "of" in header
            if not self._can_be_told:
                path.unlink()
            if header is None:
                return
            self._index = self._open(index_of(path))
            self._hold()
            if not (resume and self._can_be_told and self._load(header)):
                self._begin(header)

    @property
    def n_rows(self) -> int:
        """Rows of all runs."""
        return sum(run.n_rows for run in self.runs)

    @property
    def nbytes(self) -> int:
        """Bytes of all runs."""
        return self.runs[-1].end if self.runs else 0

    @property
    def largest(self) -> int:
        """Bytes of the largest row, about."""
        return max((run.largest for run in self.runs), default=0)

    def place(self, n_rows: int, n_items: Mapping[str, int], largest: int) -> Run:
        """Return where the next run goes."""
        at, end = [], self.nbytes
        for lane in self.lanes:
            at.append(end)
            end += (n_items[lane.field] if lane.is_items else n_rows) * lane.nbytes
        return Run(n_rows, dict(n_items), at, end, largest)

    def write(self, run: Run, lane: int, first: int, some: Elements) -> None:
        """Write elements of a lane, from one on; any thread may."""
        left = memoryview(some.reshape(-1))
        at = run.at[lane] + first * self.lanes[lane].nbytes
        with writing(self.path):
            while len(left):
                n = os.pwrite(self._file, left, at)
                left, at = left[n:], at + n

    def add(self, run: Run) -> None:
        """Count a run as written."""
        self._say({"rows": run.n_rows, "items": run.n_items, "largest": run.largest})
        self.runs.append(run)

    def finish(self, said: Any) -> None:
        """Say that there are no more runs, and something more."""
        self._say({_WHOLE: said})
        self.whole = said

    def counts(self, run: Run) -> Counts:
        """Return how many rows and items of a run are in each slot."""
        found = Counts(items={name: np.zeros(N_SLOTS, np.int64) for name in ragged_fields(self.lanes)})
        for start in range(0, run.n_rows, _LOOK_ROWS):
            stop = min(run.n_rows, start + _LOOK_ROWS)
            slots = slots_of(self._read_rows(run, 0, start, stop).view(np.uint64).reshape(-1), *self.keys)
            found.rows += np.bincount(slots, minlength=N_SLOTS)
            for number, lane in enumerate(self.lanes[:-1]):
                if self.lanes[number + 1].is_items and not lane.is_items:
                    lengths = lengths_of(self._read_rows(run, number, start, stop))
                    found.items[lane.field] += np.bincount(slots, lengths, N_SLOTS).astype(np.int64)  # exact to 2**53
        return found

    def pieces(self, segment: Segment, piece_nbytes: int) -> Iterator[Segment]:
        """Yield a segment in pieces of some bytes, or of one row."""
        row_nbytes = np.full(segment.stop - segment.start, sum(one.nbytes for one in self.lanes if not one.is_items))
        firsts: dict[str, NDArray[np.int64]] = {}
        for number, lane in enumerate(self.lanes):
            if lane.is_items:
                if lane.field not in firsts:
                    lengths = lengths_of(self._read_rows(segment.run, number - 1, segment.start, segment.stop))
                    firsts[lane.field] = segment.items[lane.field][0] + _from_zero(lengths)
                row_nbytes += np.diff(firsts[lane.field]) * lane.nbytes
        for start, stop in ranges_of(row_nbytes, piece_nbytes):
            items = {name: (int(first[start]), int(first[stop])) for name, first in firsts.items()}
            yield Segment(segment.run, segment.start + start, segment.start + stop, items)

    def read(self, segments: Sequence[Segment], scratch: Scratch) -> tuple[Keys, list[Elements]]:
        """Return the rows of some segments, lane by lane, in memory that the scratch keeps."""
        found = [self._read_lane(number, segments, scratch) for number in range(len(self.lanes))]
        return found[0].view(np.uint64).reshape(-1), found[1:]

    def close(self) -> None:
        """Let go of the index, for others to go on with; the bytes are closed when the last who reads them is gone."""
        if self._index >= 0:
            with suppress(OSError):  # where the store is whole, the folder is gone
                if not self._can_be_told and os.listdir(self.path.parent) == [index_of(self.path).name]:
                    index_of(self.path).unlink()
            os.close(self._index)
        self._index = -1

    def discard(self) -> None:
        """Remove the files, where there are any."""
        for path in (index_of(self.path), self.path):
            path.unlink(missing_ok=True)

    def _read_lane(self, number: int, segments: Sequence[Segment], scratch: Scratch) -> Elements:
        lane = self.lanes[number]
        ranges = [(s.run, *(s.items[lane.field] if lane.is_items else (s.start, s.stop))) for s in segments]
        n = sum(stop - start for _, start, stop in ranges)
        whole = scratch.get(f"lane {number}", n * lane.nbytes)
        at = 0
        for run, start, stop in ranges:
            end = at + (stop - start) * lane.nbytes
            if end > at:
                read_all(self._file, run.at[number] + start * lane.nbytes, [memoryview(whole[at:end])])
            at = end
        return whole.reshape(n, lane.nbytes)

    def _read_rows(self, run: Run, number: int, start: int, stop: int) -> Elements:
        nbytes = self.lanes[number].nbytes
        found = np.empty((stop - start, nbytes), np.uint8)
        read_all(self._file, run.at[number] + start * nbytes, [memoryview(found.reshape(-1))])
        return found

    def _open(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if path == self.path:
            weakref.finalize(self, os.close, descriptor)
        return descriptor

    def _hold(self) -> None:
        try:
            fcntl.flock(self._index, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self.close()
            raise ConversionError(
                f"target must be written by one process at a time, and another is shuffling rows in {self.path.parent};"
                " wait for it, or choose another place"
            ) from exc

    def _begin(self, header: Mapping[str, Any]) -> None:
        os.ftruncate(self._index, 0)
        os.ftruncate(self._file, 0)
        self._say(header)

    def _load(self, header: Mapping[str, Any]) -> bool:
        """Take up runs that are there; return whether they are of this header."""
        lines = _lines(self._index)
        begun = next(lines, None)
        if begun is None or begun[0] != json.loads(json.dumps(header)):
            return False
        end = begun[1]
        for said, stop in lines:
            end = stop
            if _WHOLE in said:
                self.whole = said[_WHOLE]
            else:
                self.runs.append(self.place(said["rows"], said["items"], said["largest"]))
        os.ftruncate(self._index, end)
        return True

    def _say(self, said: Mapping[str, Any]) -> None:
        if self._index >= 0:
            with writing(self.path):
                os.pwrite(self._index, json.dumps(said).encode() + b"\n", os.fstat(self._index).st_size)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk says into one clear error."""
    try:
        yield
    except ConversionError:
        raise
    except OSError as exc:
        full = exc.errno == errno.ENOSPC
        why = "the disk is full, and shuffling needs room for all rows beside the target" if full else str(exc)
        raise ConversionError(f"writing {path} failed: {why}; free some space or choose another place") from exc


def _from_zero(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where rows of some lengths begin, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def index_of(path: Path) -> Path:
    """Return the path of the index of some runs."""
    return path.with_suffix(".index")


def read_header(path: Path) -> Mapping[str, Any] | None:
    """Return what an earlier process has said of the runs that it wrote, if any."""
    try:
        descriptor = os.open(index_of(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return next((said for said, _ in _lines(descriptor)), None)
    finally:
        os.close(descriptor)


def _lines(descriptor: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield what whole lines say, and where each ends."""
    text = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    at = 0
    for line in text.splitlines(keepends=True):
        at += len(line)
        if line.endswith(b"\n"):
            yield json.loads(line), at
