"""Any source in a uniformly random order: two passes over its rows, within a ceiling of memory.

::

    first    rows of the source ─► runs on disk, beside the target, in the order of the upper bits of random keys
    second   some keys of all runs ─► a bucket, put in the order of the whole keys ─► the writer

Method: Rao (1961) and Sandelius (1962), "A simple randomization procedure": scatter to buckets at random, permute each.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.convert.buckets import (
    RAGGED_WORK_NBYTES,
    ROW_SHARE,
    ROW_WORK_NBYTES,
    SLAB_ITEMS,
    KeyRange,
    Room,
    bucket_nbytes_for,
    edges_of,
    memory_for,
    pieces_for,
    run_nbytes_for,
)
from oocload.convert.fields import Spec, parse_fields, spec_of
from oocload.convert.keys import order_of_keys, row_keys
from oocload.convert.lanes import join, lanes_of, ragged_fields, split
from oocload.convert.report import Reporter
from oocload.convert.runs import Counts, Run, Runs, Segment, read_header
from oocload.convert.scatter import Scatter, cores
from oocload.convert.sources.base import RowSource
from oocload.convert.sources.batches import cut_rows
from oocload.convert.sources.identity import Identity
from oocload.convert.sources.records import Records, RecordSource
from oocload.convert.sources.skipped import Skipped
from oocload.convert.stream import closing_batches
from oocload.convert.writer import check_rows
from oocload.errors import InvalidArgumentError, MemoryCeilingError
from oocload.layout import Meaning
from oocload.units import format_bytes

VERSION = 1
_PIECE_SHARE = 2  # of a piece, one in so many is the rows of a bucket: they are read, and then put in order
_ENTRY_NBYTES = 8
_DRAWN_BITS = 32


class Bucket(NamedTuple):
    """Rows that are put in order as one, without the first ones of that order."""

    runs: Runs
    segments: list[Segment]
    low: int
    prefix_bits: int
    skip: int


class ShuffledSource(RecordSource[Bucket]):
    """The rows of another source, in the order of their `row_keys`.

    Parameters
    ----------
    rows
        The other source.
    seed
        Of the keys.
    path
        Of what is written meanwhile: as much as all rows come to.
    memory
        What both passes may hold, in bytes.
    resume
        Whether to go on with what an earlier process has left there of the same source.
    progress
        Whether the first pass shows a bar.
    records
        Which part of the source says what it has skipped, if any.

    Attributes
    ----------
    peak_nbytes
        The most memory that was resident during the first pass, beyond what was there.

    """

    can_jump = True
    label = "shuffled rows"

    def __init__(
        self,
        rows: RowSource,
        seed: int,
        path: Path,
        memory: int,
        resume: bool = False,
        progress: bool | None = None,
        records: RecordSource[Any] | None = None,
    ) -> None:
        self._rows, self._seed, self._path, self._records = rows, seed, path, records
        self._memory, self._resume, self._progress = memory, resume, progress
        self._runs: Runs | None = None
        self._begun: Runs | None = None
        self._is_empty = False
        self.peak_nbytes = 0
        self._specs: Mapping[str, Spec] | None = None
        self.identity_is_proof = rows.identity_is_proof

    @property
    def record_specs(self) -> Mapping[str, Spec] | None:
        """Those of the source; where only its rows tell, the first pass is made."""
        if self._rows.specs is None:
            self._ensure_runs()
            return self._specs
        return self._rows.specs

    @property
    def record_meanings(self) -> Mapping[str, Meaning]:
        """Those of the source, which is asked when all its rows were read."""
        if self._runs is None:
            return self._rows.meanings
        return {name: Meaning(**_tuples(said)) for name, said in self._runs.whole["meanings"].items()}

    @property
    def n_records(self) -> int | None:
        """Those of the source."""
        return self._rows.n_rows

    @property
    def least_piece_nbytes(self) -> int:
        """A few rows, twice."""
        fixed = sum(lane.nbytes for lane in lanes_of(self.record_specs or {}) if not lane.is_items)
        return 2 * _PIECE_SHARE * fixed

    @property
    def wanted_piece_nbytes(self) -> int:
        """What makes buckets so large that each is read in few segments, of very many rows too."""
        return max(self.least_piece_nbytes, self._memory // 4)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What the source has left out."""
        return () if self._runs is None else tuple(Skipped(*one) for one in self._runs.whole["skipped"])

    def record_identity(self) -> Identity | None:
        """Return the seed, and what tells the source from others."""
        of = self._rows.identity()
        return None if of is None else {"shuffle": VERSION, "seed": self._seed, "of": of}

    def batches(
        self,
        piece_nbytes: int,
        start: int = 0,
        stop: int | None = None,
        n_ahead: int = 0,
        n_threads: int | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Yield rows of all fields, a bucket at a time; the first pass is made by the thread that asks first."""
        runs = self._ensure_runs()
        if runs is None:
            return  # not a row
        largest = runs.whole["largest"]
        if _PIECE_SHARE * largest > piece_nbytes:  # a row of several lengths is as large as it is
            piece_nbytes, n_ahead = _PIECE_SHARE * largest, 0
        yield from super().batches(piece_nbytes, start, stop, n_ahead, n_threads)

    def pieces(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[Bucket]:
        """Yield buckets, the first with what of it is not wanted."""
        assert self._runs is not None
        return self._buckets(self._runs, piece_nbytes // _PIECE_SHARE, start)

    def read(self, piece: Bucket, scratch: Scratch) -> Records:
        """Return the rows of a bucket in their order."""
        assert self._specs is not None
        keys, lanes = piece.runs.read(piece.segments, scratch)
        order = order_of_keys(keys - np.uint64(piece.low), piece.prefix_bits)
        rows = join(self._specs, lanes, order, SLAB_ITEMS)
        if piece.skip:
            return Records({name: cut_rows(some, piece.skip, len(order)) for name, some in rows.items()})
        return Records(rows)

    def close(self) -> None:
        """Let go of what is written; it stays for a later run where that may go on with it."""
        if self._runs is not None:
            self._runs.close()
        self._runs = self._begun = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        with suppress(OSError):  # not empty, or never made
            self._path.parent.rmdir()

    def _ensure_runs(self) -> Runs | None:
        """Return the runs of all rows, with what an earlier process has written of them; None where there is no row."""
        if self._runs is not None or self._is_empty:
            return self._runs
        self._path.parent.mkdir(exist_ok=True)
        found: Runs | None = None
        try:
            if self._rows.specs is not None:
                found = self._begin(parse_fields(self._rows.specs))
            if found is None or found.whole is None:
                found = self._first_pass(found)
                if found is not None:
                    found.finish(self._said(found))
        except BaseException:
            if self._begun is not None:
                self._begun.close()
            raise
        self._runs, self._is_empty = found, found is None
        return found

    def _said(self, runs: Runs) -> dict[str, Any]:
        """Return what is known when all rows were read, as JSON has it."""
        return {
            "meanings": {name: asdict(meaning) for name, meaning in self._rows.meanings.items()},
            "skipped": [list(one) for one in ([] if self._records is None else self._records.skipped)],
            "largest": runs.largest,
        }

    def _begin(self, specs: Mapping[str, Spec]) -> Runs:
        self._specs = specs
        identity = self.identity()
        fields = {name: str(spec) for name, spec in specs.items()}
        told = {} if identity is None else {"of": identity, "fields": fields}
        header = {"seed": self._seed, **told}  # the seed is drawn once
        self._begun = Runs(self._path, lanes_of(specs), KeyRange(), header, self._resume)
        return self._begun

    def _first_pass(self, runs: Runs | None) -> Runs | None:
        """Write the runs that are not there."""
        rows, n_threads = self._rows, cores()
        room = self._room(n_threads)
        at = 0 if runs is None else runs.n_rows
        reporter = Reporter("shuffle: reading", rows.n_rows, self._progress, at)
        batches = rows.batches(room.piece_nbytes, at, None, room.n_ahead, n_threads)
        with ExitStack() as stack:
            stack.enter_context(reporter)
            stack.enter_context(closing_batches(batches))
            scatter: Scatter | None = None
            while (batch := next(batches, None)) is not None:
                if runs is None:
                    runs = self._begin(parse_fields({name: spec_of(name, some) for name, some in batch.items()}))
                if scatter is None:
                    most_row_nbytes = self._memory // ROW_SHARE
                    scatter = stack.enter_context(Scatter(runs, room.run_nbytes, n_threads, most_row_nbytes))
                assert self._specs is not None
                given = check_rows(batch, self._specs)
                n_rows = len(next(iter(given.values())))
                if n_rows:
                    scatter.add(row_keys(self._seed, at, at + n_rows), split(given))
                at += n_rows
                reporter.update(at, runs.nbytes, 0)
                del batch, given  # before another piece is waited for, for the sake of memory
            if scatter is not None:
                scatter.flush()
        self.peak_nbytes = reporter.peak_nbytes
        return runs if at else None

    def _room(self, n_threads: int) -> Room:
        rows, memory = self._rows, self._memory
        piece_nbytes = pieces_for(memory, rows.least_piece_nbytes)
        n_ahead = n_threads
        while n_ahead and rows.held_nbytes(piece_nbytes, n_ahead, n_threads) > memory // 2:
            n_ahead -= 1
        held = rows.held_nbytes(piece_nbytes, n_ahead, n_threads)
        run_nbytes = run_nbytes_for(memory, held, n_threads)
        if not run_nbytes:
            raise MemoryCeilingError(
                f"memory must be at least {format_bytes(memory_for(held, n_threads))} to shuffle rows that are read in "
                f"pieces of {format_bytes(piece_nbytes)}, got {format_bytes(memory)}; "
                f"{rows.least_piece_reason or 'raise it'}"
            )
        return Room(piece_nbytes, n_ahead, run_nbytes)

    def _buckets(self, runs: Runs, most_nbytes: int, skip: int) -> Iterator[Bucket]:
        """Yield the buckets of some runs in order; those that are too large are cut into runs and buckets again."""
        work = ROW_WORK_NBYTES + RAGGED_WORK_NBYTES * len(ragged_fields(runs.lanes))
        slots = _Slots(runs, work)
        entry_nbytes = _ENTRY_NBYTES * (1 + len(slots.counts.items))
        wanted = bucket_nbytes_for(int(slots.nbytes.sum()), len(runs.runs), most_nbytes, entry_nbytes)
        edges = edges_of(slots.nbytes, wanted)
        table = _table_of(runs, edges)
        for bucket, (first, last) in enumerate(pairwise(edges.tolist())):
            rows = slice(first, last)
            n_rows = int(slots.counts.rows[rows].sum())
            if skip >= n_rows:
                skip -= n_rows
                continue
            segments = [part.segment(run, bucket) for run, part in zip(runs.runs, table, strict=True)]
            segments = [segment for segment in segments if segment.stop > segment.start]
            part = runs.keys.part(first, last)
            low = part.low
            if n_rows > 1 and slots.nbytes[rows].sum() > most_nbytes and part.shift < runs.keys.shift:
                yield from self._buckets(self._cut_again(runs, segments, part, most_nbytes), most_nbytes, skip)
            else:
                yield Bucket(runs, segments, low, runs.keys.prefix_bits(last - first), skip)
            skip = 0

    def _cut_again(self, runs: Runs, segments: list[Segment], keys: KeyRange, most_nbytes: int) -> Runs:
        """Return runs of the rows of some segments, in finer slots."""
        finer = Runs(self._path.with_name(f"{self._path.stem}.{keys.shift}.rows"), runs.lanes, keys)
        scratch = Scratch()
        with Scatter(finer, most_nbytes, 1, self._memory) as scatter:
            for segment in segments:
                for piece in runs.pieces(segment, most_nbytes // _PIECE_SHARE):
                    scatter.add(*runs.read([piece], scratch))
            scatter.flush()
        return finer


class _Slots:
    """Rows, items and bytes of each slot, of all runs."""

    def __init__(self, runs: Runs, work_nbytes: int) -> None:
        self.counts = Counts()
        for run in runs.runs:
            found = runs.counts(run)
            self.counts.rows += found.rows
            for name, items in found.items.items():
                self.counts.items[name] = self.counts.items.get(name, 0) + items
        fixed = work_nbytes + sum(lane.nbytes for lane in runs.lanes if not lane.is_items)
        self.nbytes = self.counts.rows * fixed
        for lane in runs.lanes:
            if lane.is_items:
                self.nbytes += self.counts.items[lane.field] * lane.nbytes


class _Table(NamedTuple):
    """Where the rows and items of each bucket begin in a run."""

    rows: NDArray[np.int64]
    items: Mapping[str, NDArray[np.int64]]

    def segment(self, run: Run, bucket: int) -> Segment:
        """Return the rows of a bucket."""
        start, stop = self.rows[bucket : bucket + 2].tolist()
        return Segment(run, start, stop, {n: tuple(at[bucket : bucket + 2].tolist()) for n, at in self.items.items()})


def _table_of(runs: Runs, edges: NDArray[np.int64]) -> list[_Table]:
    """Return where buckets begin in each run."""

    def begins(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])[edges]

    found = (runs.counts(run) for run in runs.runs)
    return [_Table(begins(c.rows), {name: begins(items) for name, items in c.items.items()}) for c in found]


def _tuples(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON has said, with the tuples that it has made lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}


def check_shuffle(shuffle: Any, seed: int | None, scheduler: Any) -> None:
    """Raise where a shuffle cannot be made as it is asked for.

    Raises
    ------
    InvalidArgumentError
        If ``shuffle`` is no bool, or goes with something that it cannot.

    """
    if not isinstance(shuffle, bool):
        raise InvalidArgumentError(f"shuffle must be True or False, got {shuffle!r}")
    if seed is not None and not shuffle:
        raise InvalidArgumentError(f"seed must be left out unless shuffle=True (--shuffle), got {seed!r}")
    if shuffle and scheduler is not None:
        raise InvalidArgumentError(
            "shuffle must be False where scheduler= is given: rows of all tasks would have to meet; convert with "
            "shuffle=True on one machine, without scheduler="
        )


def settle_seed(seed: int | None, path: Path, resume: bool) -> int:
    """Return a seed: the one that is given, that of what is resumed, or a new one."""
    if seed is not None:
        return seed
    begun = read_header(path) if resume else None
    return secrets.randbits(_DRAWN_BITS) if begun is None else int(begun["seed"])
