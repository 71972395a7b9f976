"""One run of making a store: its folder, journal, target and pipeline, begun anew or gone on with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

import oocload.stores as stores
from oocload.chunks.read import open_reader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Places
from oocload.convert.arrays import NewArray
from oocload.convert.budget import Budget
from oocload.convert.buffers import Buffers, Rows
from oocload.convert.encode import Encoding
from oocload.convert.fields import Spec
from oocload.convert.hdf5_target import Hdf5Target
from oocload.convert.journal import Journal, Records
from oocload.convert.own_thread import OwnThread
from oocload.convert.pipeline import Pipeline
from oocload.convert.recipe import SOURCE, check_recipe, digest, recipe_of
from oocload.convert.target import Target
from oocload.convert.workplace import Workplace
from oocload.convert.zarr_target import ZarrTarget, show_written
from oocload.errors import InvalidArgumentError
from oocload.layout import FieldLayout, Meaning
from oocload.stores.checksums import SEGMENT_CHUNKS, ArrayChecksums, Segment
from oocload.stores.meaning import meaning_attributes
from oocload.stores.redo import recover

_STRIDE_NBYTES = 2**19

StoreFormat = Literal["hdf5", "zarr2", "zarr3"]
Meanings = Callable[[], Mapping[str, Meaning]]


@dataclass(frozen=True, slots=True)
class Source:
    """What tells a source from others.

    Attributes
    ----------
    identity
        As JSON has it; None where nothing but its rows tells.
    is_proof
        Whether another identity means another source; else its rows are compared.
    compared
        Whether rows without an identity are all given again, to be compared; else from `Session.n_rows` on.

    """

    identity: Mapping[str, Any] | None = None
    is_proof: bool = False
    compared: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made.

    Attributes
    ----------
    format
        Of the store.
    fields, arrays, encoding
        What is written.
    source
        Of what.
    budget
        What it may hold.
    overwrite
        Whether the store replaces what has its name.
    meanings
        Asked, when all rows are there, for field → what its values stand for.

    """

    format: StoreFormat
    fields: Mapping[str, Spec]
    arrays: Mapping[str, NewArray]
    encoding: Encoding
    source: Source
    budget: Budget
    overwrite: bool
    meanings: Meanings = dict

    @property
    def recipe(self) -> dict[str, Any]:
        """What a journal says of it."""
        return recipe_of(self.format, self.fields, self.arrays, self.encoding, self.source.identity)


class Chunk(NamedTuple):
    """What a journal says of a chunk that another process has written."""

    array: str
    number: int
    nbytes: int
    crc: int
    raw: int


class Done(NamedTuple):
    """What a journal says of a store that is whole: its inode, by which it is known whatever its name, and its size."""

    inode: int
    n_rows: int
    nbytes: int


class Session:
    """Makes one store.

    Parameters
    ----------
    place
        The folder in which it is made; it belongs to the session from now on.
    order
        What is made.
    journal
        That of an earlier run that is gone on with; None to begin anew.

    Attributes
    ----------
    n_rows
        Rows that are there, or on their way.

    Raises
    ------
    InvalidArgumentError
        If the journal is of something else, or of a source that has changed.

    """

    def __init__(self, place: Workplace, order: Order, journal: Journal | None) -> None:
        self._place = place
        self._order = order
        self._target: Target | None = None
        self._pipeline: Pipeline | None = None
        self._journal = journal
        self._buffers = Buffers(order.fields, order.arrays)
        self._stride = _stride(order.arrays)
        self.n_rows = 0
        try:
            if journal is not None and not must_compare(journal, order, place):
                self._go_on(journal)
            self._open(journal or self._begin())
        except BaseException:
            self.suspend()
            raise

    @property
    def order(self) -> Order:
        """What is made."""
        return self._order

    @property
    def place(self) -> Workplace:
        """Where."""
        return self._place

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, decoded."""
        return self._buffers.nbytes

    @property
    def stored_nbytes(self) -> int:
        """Bytes of the chunks that are written."""
        return 0 if self._journal is None else self._journal.stored_nbytes

    @property
    def n_rows_kept(self) -> int:
        """Rows that a later run need not write again."""
        return 0 if self._journal is None else self._journal.mark.n_rows

    def append(self, rows: Mapping[str, Rows], owned: bool) -> None:
        """Take rows of all fields."""
        assert self._pipeline is not None
        n_rows = len(next(iter(rows.values())))
        at = 0
        while at < n_rows:  # so that there are rows to go back to even where all came at once
            end = min(n_rows, at + self._stride - self.n_rows % self._stride)
            for name, given in rows.items():
                for full in self._buffers.add(name, given[at:end], owned):
                    self._pipeline.put(*full)
            self.n_rows += end - at
            self._pipeline.mark(self.n_rows, self._buffers.lengths)
            at = end

    def finish(self) -> None:
        """Write what is left, the checksums, and give the store its name."""
        assert self._pipeline is not None
        lengths = self._buffers.lengths
        for full in self._buffers.rest():
            self._pipeline.put(*full)
        self._pipeline.drain()
        self._conclude(lengths, self._buffers.attributes(self.n_rows))

    def take(self, chunks: Iterable[Chunk], n_rows: int) -> None:
        """Note chunks that others have written; all chunks of the first rows are there by now."""
        assert self._pipeline is not None
        assert self._journal is not None
        for chunk in chunks:
            self._journal.add(*chunk)
        self._pipeline.mark(n_rows, dict.fromkeys(self._order.arrays, n_rows))
        self._pipeline.reach(n_rows)
        self._pipeline.commit()

    def has(self, names: Iterable[str], start: int, stop: int) -> bool:
        """Whether all chunks of some rows of some arrays are written."""
        assert self._journal is not None
        records, arrays = self._journal.records, self._order.arrays
        return all(
            records[name].has(chunk)
            for name in names
            for chunk in range(start // arrays[name].height, -(-stop // arrays[name].height))
        )

    def conclude(self, n_rows: int) -> None:
        """Finish a store whose chunks others have written."""
        self.n_rows = n_rows
        self._conclude(dict.fromkeys(self._order.arrays, n_rows), {})

    def _conclude(self, lengths: Mapping[str, int], attributes: Mapping[str, Mapping[str, Any]]) -> None:
        assert self._pipeline is not None
        assert self._target is not None
        said = {name: dict(attributes.get(name, {})) for name in self._order.fields}
        for name, meaning in self._order.meanings().items():
            said[name] |= meaning_attributes(meaning)
        self._target.finish(lengths, {name: found for name, found in said.items() if found})
        self._pipeline.commit()
        self._target.prove(dict(self._checksums()))
        nbytes = sum(n * self._order.arrays[name].spec.row_nbytes for name, n in lengths.items())
        done = Done(os.stat(self._place.store).st_ino, self.n_rows, nbytes)
        self._pipeline.commit(whole=done._asdict())
        self._close()
        self._place.publish(self._order.overwrite)
        self._place.remove()

    def suspend(self) -> bool:
        """Stop; return whether anything is kept for a later run."""
        try:
            if self._pipeline is not None:
                with suppress(OSError, RuntimeError, ValueError):  # a full disk has said so already
                    self._pipeline.give_up()
        finally:
            kept = self._let_go()
        return kept

    def discard(self) -> None:
        """Stop, and keep nothing."""
        self._close()
        self._place.clear()
        self._place.remove()

    def _let_go(self) -> bool:
        """Close all, and let go of the folder, whatever happens; return whether anything is kept."""
        kept = (self._journal is not None and bool(self._journal.n_commits)) or self._place.scratch.exists()
        try:
            self._close()
        finally:
            self._place.close() if kept else self._place.remove()
        return kept

    def _close(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
        if self._target is not None:
            self._target.close()
        if self._journal is not None:
            self._journal.close()

    def _begin(self) -> Journal:
        self._place.clear()
        self._journal = Journal.begin(self._place.journal, self._order.recipe, tuple(self._order.arrays))
        return self._journal

    def _open(self, journal: Journal) -> None:
        order, place = self._order, self._place
        if order.format == "hdf5":
            self._target = OwnThread(Hdf5Target(place.store, place.redo, order.arrays, order.encoding))
        else:
            number: Literal[2, 3] = 2 if order.format == "zarr2" else 3
            self._target = ZarrTarget(place.store, order.arrays, order.encoding, number, journal.records)
        self._pipeline = Pipeline(self._target, journal, order.arrays, order.budget, self._buffers)
        self._pipeline.commit()  # from now on there is a state to go back to

    def _go_on(self, journal: Journal) -> None:
        """Take up where the journal's mark stands."""
        mark, arrays = journal.mark, self._order.arrays
        starts = {name: n - n % arrays[name].height for name, n in mark.lengths.items()}
        written = {n: (start, mark.lengths[n]) for n, start in starts.items() if n not in mark.heads}
        heads = dict(self._read({n: rows for n, rows in written.items() if rows[0] < rows[1]}, journal))
        for name, head in mark.heads.items():
            heads[name] = np.frombuffer(head, arrays[name].spec.dtype).reshape(-1, *arrays[name].spec.row_shape)
        for name, start in starts.items():
            self._buffers.go_on(name, start, heads.get(name, np.empty(0)))
        self.n_rows = mark.n_rows

    def _read(self, ranges: Mapping[str, tuple[int, int]], journal: Journal) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield array → rows that are written."""
        if not ranges:
            return
        if self._order.format != "hdf5":
            show_written(self._place.store, self._order.arrays, journal.records)
        with stores.open(self._place.store) as store:
            for name, (start, stop) in ranges.items():
                layout = store.array(name)
                rows = np.empty((stop - start, *layout.row_shape), layout.dtype)
                with closing(open_reader(store, layout)) as reader:
                    reader.read([(start, stop)], Places(rows), Scratch())
                yield name, rows

    def _checksums(self) -> Iterator[tuple[str, ArrayChecksums]]:
        assert self._journal is not None
        conversion = digest(self._order.recipe)
        with stores.open(self._place.store) as store:
            for name, records in self._journal.records.items():
                yield name, _checksums_of(store.array(name), records, conversion)


def _stride(arrays: Mapping[str, NewArray]) -> int:
    """Return rows that are taken at a time: whole chunks of large fields, but not so few that calls weigh."""
    largest = max(arrays.values(), key=lambda array: array.chunk_nbytes)
    return largest.height * max(1, _STRIDE_NBYTES // max(1, largest.chunk_nbytes))


def must_compare(journal: Journal, order: Order, place: Workplace) -> bool:
    """Whether all rows must be gone through again, as nothing else says that the source is what it was.

    Raises
    ------
    InvalidArgumentError
        If the journal is of something else, or of a source that has changed.

    """
    asked = order.recipe
    check_recipe(journal.recipe, asked, os.fspath(place.folder))
    was, now = journal.recipe[SOURCE], asked[SOURCE]
    if was == now:
        return now is None and order.source.compared
    if order.source.is_proof and was is not None:
        raise InvalidArgumentError(
            f"source must be what it was when {place.destination} was begun, and has changed; convert it anew, without "
            "resume"
        )
    return True


def load_journal(place: Workplace, store_format: StoreFormat) -> Journal | None:
    """Return the journal of an earlier run, if any, and bring its store to the state of which that speaks."""
    if store_format != "hdf5":
        return Journal.load(place.journal)
    note = recover(place.store, place.redo) if place.store.is_file() else None
    if note is None:
        published = Journal.load(place.journal)
        if published is not None and published.whole is not None:
            return published
        return None
    return Journal.load(place.journal, int(note))


def _checksums_of(layout: FieldLayout, records: Records, conversion: str) -> ArrayChecksums:
    found = ArrayChecksums.describing(layout, conversion)
    n_chunks = min(records.n_chunks, found.n_chunks)  # rows without items are in no chunk
    for first in range(0, max(1, n_chunks), SEGMENT_CHUNKS):
        part = slice(first, min(n_chunks, first + SEGMENT_CHUNKS))
        found.segments.append(Segment(first, records.nbytes[part], records.crc[part]))
    return found
