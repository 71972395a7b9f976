"""A store in several files of bounded size, ``folder/part-*.h5``: each written whole, and the folder renamed at the end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

import oocload.stores as stores
from oocload.convert.arrays import NewArray
from oocload.convert.buffers import Rows
from oocload.convert.fields import Spec, parse_fields, spec_of
from oocload.convert.journal import Journal
from oocload.convert.options import Options
from oocload.convert.ragged import RaggedRows
from oocload.convert.recipe import SOURCE, VERSION, check_recipe
from oocload.convert.report import Callback, ConversionReport, Reporter, peak_nbytes
from oocload.convert.session import Source
from oocload.convert.sources.base import RowSource
from oocload.convert.spec import FieldSpec
from oocload.convert.stream import batches_for, stored_nbytes
from oocload.convert.workplace import Workplace, check_target
from oocload.convert.writer import Writer, check_rows
from oocload.errors import InvalidArgumentError
from oocload.units import format_bytes, parse_bytes

_STAR = "*"
_OFFSET_NBYTES = 8
_HEADER_NBYTES = 2**15  # of a file, before it holds a row
_INDEX_SHARE = 64  # of the bytes of a file, one in so many is left to the index of its chunks


def check_parts(path: Path, part_bytes: int | str | None) -> int:
    """Return the most bytes of a file, 0 where there is to be one store.

    Raises
    ------
    InvalidArgumentError
        If the name of the files has no place for a number, or nothing bounds them.

    """
    if part_bytes is None:
        if _STAR in path.name:
            raise InvalidArgumentError(
                f"part_bytes must be given for a target of several files, got {os.fspath(path)!r}; pass such as "
                "part_bytes='2 GiB'"
            )
        return 0
    if path.name.count(_STAR) != 1 or _STAR in os.fspath(path.parent) or not path.parent.name:
        raise InvalidArgumentError(
            "target must be files of a folder of their own, with one star in their name, such as 'train/part-*.h5', "
            f"where part_bytes is given, got {os.fspath(path)!r}"
        )
    return parse_bytes(part_bytes, "part_bytes")


def write_parts(
    rows: RowSource, path: Path, part_nbytes: int, options: Options, progress: bool | Callback | None
) -> ConversionReport:
    """Write all rows of a source as several files."""
    parts = _Parts(rows, path, part_nbytes, options)
    try:
        with Reporter(path.name, rows.n_rows, progress, parts.n_rows, parts.nbytes, parts.stored_nbytes) as reporter:
            parts.write(reporter)
    except BaseException:
        parts.close()
        raise
    return ConversionReport(
        path=os.fspath(path),
        n_rows=parts.n_rows,
        fields=tuple(parts.fields),
        nbytes=parts.nbytes,
        stored_nbytes=parts.stored_nbytes,
        seconds=reporter.seconds,
        n_rows_before=parts.n_rows_before,
        peak_nbytes=peak_nbytes(),
        codec=parts.codec,
    )


class _Parts:
    """Writes the files of a store one after the other; a file that has its name is whole."""

    def __init__(self, rows: RowSource, path: Path, part_nbytes: int, options: Options) -> None:
        self.n_rows = self.n_rows_before = self.nbytes = self.stored_nbytes = 0
        self.codec = ""
        self.fields: Mapping[str, Spec] = {} if rows.specs is None else parse_fields(rows.specs)
        self._rows = rows
        self._name = path.name
        self._part_nbytes = part_nbytes
        self._options = options
        self._source = Source(rows.identity(), rows.identity_is_proof, compared=True)
        self._number = 0
        self._writer: Writer | None = None
        self._place = Workplace(path.parent)
        self._journal = Journal.load(self._place.journal) if options.resume else None
        try:
            if self._journal is None:
                self._begin()
            else:
                self._go_on(self._journal)
        except BaseException:
            self.close()
            raise

    def write(self, reporter: Reporter) -> None:
        """Write the files that are not there, and give the folder its name."""
        assert self._journal is not None
        if self._journal.whole is None:
            self._write(reporter)
            self._journal.commit(whole={"inode": os.stat(self._place.store).st_ino})
        assert self._journal.whole is not None
        if not self._place.is_published(self._journal.whole["inode"]):
            self._place.publish(self._options.overwrite)
        self._journal.close()
        self._place.remove()

    def close(self) -> None:
        """Stop; files that are whole, and what is done of the next, stay for a later run."""
        if self._writer is not None:
            self._writer.suspend()
        if self._journal is not None:
            self._journal.close()
        if self._place.store.is_dir() and any(self._place.store.iterdir()):
            self._place.close()
        else:
            self._place.remove()

    @property
    def _recipe(self) -> dict[str, Any]:
        options = replace(self._options, memory=0, resume=False, overwrite=False)
        said = {"version": VERSION, "parts": self._name, "part_bytes": self._part_nbytes, "options": asdict(options)}
        return said | {SOURCE: self._source.identity}

    def _begin(self) -> None:
        check_target(self._place.destination, self._options.overwrite)
        self._place.clear()
        self._place.store.mkdir()
        self._journal = Journal.begin(self._place.journal, self._recipe, ())

    def _go_on(self, journal: Journal) -> None:
        check_recipe(journal.recipe, self._recipe, os.fspath(self._place.folder))
        if journal.recipe[SOURCE] != self._source.identity and self._source.is_proof:
            raise InvalidArgumentError(
                f"source must be what it was when {self._place.destination} was begun, and has changed; convert it "
                "anew, without resume"
            )
        folder = self._place.store
        if journal.whole is not None and self._place.is_published(journal.whole["inode"]):
            folder = self._place.destination
        while (path := folder / self._name_of(self._number)).exists():
            with stores.open(path) as store:
                self.n_rows += next(iter(store.fields.values())).n_rows
                self.nbytes += sum(field.nbytes for field in store.fields.values())
            self.stored_nbytes += stored_nbytes(path)
            self._number += 1
        self.n_rows_before = self.n_rows

    def _write(self, reporter: Reporter) -> None:
        writer = self._open()
        with batches_for(self._rows, writer, self.n_rows + writer.n_rows) as batches:
            for batch in batches:
                self.fields = self.fields or writer.fields or parse_fields({n: spec_of(n, r) for n, r in batch.items()})
                rows = check_rows(batch, self.fields)
                at, stop = 0, len(next(iter(rows.values())))
                while at < stop:
                    if n := self._room(writer, rows, at, stop):
                        writer.append_batch({name: r[at : at + n] for name, r in rows.items()}, self._rows.owned)
                        at += n
                        reporter.update(*self._reached(writer))
                    else:
                        self._finish(writer)
                        writer = self._open()
        self._finish(writer)

    def _open(self) -> Writer:
        """Begin the next file, or go on with it."""
        identity = self._source.identity
        source = replace(self._source, identity=identity and {"rows": self.n_rows, "of": identity})
        self._writer = Writer(
            self._place.store / self._name_of(self._number),
            self.fields or None,
            replace(self._options, overwrite=False),
            n_rows=self._rows.n_rows,
            source=source,
            piece_nbytes=self._rows.least_piece_nbytes,
        )
        return self._writer

    def _finish(self, writer: Writer) -> None:
        if not writer.n_rows and self._number:
            writer.abort()
            return
        writer.close()
        self.fields, self.codec = writer.fields, writer.codec
        self.n_rows, self.nbytes = self.n_rows + writer.n_rows, self.nbytes + writer.nbytes
        self.stored_nbytes += stored_nbytes(writer.path)
        self._number += 1

    def _reached(self, writer: Writer) -> tuple[int, int, int]:
        return (
            self.n_rows + writer.n_rows,
            self.nbytes + writer.nbytes,
            self.stored_nbytes + writer.stored_nbytes,
        )

    def _room(self, writer: Writer, rows: Mapping[str, Rows], at: int, stop: int) -> int:
        """Return how many rows still go into a file: whole chunks, where each has one size."""
        arrays = self._options.arrays_of(self.fields, self._options.format_of(writer.path), self._rows.n_rows)
        room, height = room_for_rows(self._part_nbytes, arrays)
        dense = [spec.row_nbytes for spec in self.fields.values() if isinstance(spec, FieldSpec)]
        ragged = [_nbytes_of(given, at, stop) for given in rows.values() if isinstance(given, RaggedRows)]
        if not ragged:
            return min(stop - at, rows_of_part(room, sum(dense), height) - writer.n_rows)
        ends = np.cumsum(sum(ragged) + sum(dense))
        n = int(np.searchsorted(ends, room - writer.nbytes, "right"))
        return n or int(not writer.n_rows)  # a row that is larger than a file has one of its own

    def _name_of(self, number: int) -> str:
        return self._name.replace(_STAR, f"{number:05d}")


def room_for_rows(part_nbytes: int, arrays: Mapping[str, NewArray]) -> tuple[int, int]:
    """Return bytes of rows that a file may hold, and rows of the chunks of its largest field.

    What is left is for the file's header, the index of its chunks, and last chunks of small fields, which are stored
    whole.
    """
    largest = max(arrays.values(), key=lambda array: array.chunk_nbytes)
    last = sum(array.chunk_nbytes for array in arrays.values() if array.height != largest.height)
    return part_nbytes - part_nbytes // _INDEX_SHARE - _HEADER_NBYTES - last, largest.height


def rows_of_part(room: int, row_nbytes: int, height: int) -> int:
    """Return rows of a file: whole chunks.

    Raises
    ------
    InvalidArgumentError
        If not even one chunk fits.

    """
    n_rows = room // max(1, row_nbytes) // height * height
    if n_rows < 1:
        least = (height * row_nbytes + _HEADER_NBYTES) * _INDEX_SHARE // (_INDEX_SHARE - 1)
        raise InvalidArgumentError(
            f"part_bytes must have room for a chunk of every field, {format_bytes(least)} at least; raise it, or make "
            "chunks smaller with chunk_bytes or chunk_rows"
        )
    return n_rows


def _nbytes_of(rows: RaggedRows, start: int, stop: int) -> Any:
    """Return the bytes of each of some rows."""
    item_nbytes = rows.values.dtype.itemsize * int(np.prod(rows.values.shape[1:]))
    if rows.columns is not None:
        item_nbytes += rows.columns.dtype.itemsize
    return np.diff(rows.offsets[start : stop + 1]) * item_nbytes + _OFFSET_NBYTES
