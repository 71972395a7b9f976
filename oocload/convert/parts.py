"""A store in several files of bounded size: ``folder/part-*.h5``, each written whole, and one rename of the folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import oocload.stores as stores
from oocload.convert.arrays import NewArray
from oocload.convert.buffers import Rows
from oocload.convert.fields import Spec, parse_fields, spec_of
from oocload.convert.journal import Journal
from oocload.convert.options import Options
from oocload.convert.ragged import RaggedRows
from oocload.convert.recipe import SOURCE, VERSION, check_recipe
from oocload.convert.report import Callback, ConversionReport, Reporter
from oocload.convert.session import Source
from oocload.convert.sources.base import RowSource
from oocload.convert.spec import FieldSpec
from oocload.convert.stream import batches_for, least_piece, stored_nbytes
from oocload.convert.workplace import Workplace, check_target, journal_of, remove
from oocload.convert.writer import Writer, check_rows
from oocload.errors import InvalidArgumentError, TargetExistsError
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
    folder = folder_for(rows, path, part_nbytes, options)
    try:
        parts = _Parts(rows, folder, part_nbytes, options)
        before = (parts.n_rows, parts.nbytes, parts.stored_nbytes)
        with Reporter(path.name, rows.n_rows, progress, *before) as reporter:
            parts.write(reporter)
            folder.publish()
    except BaseException:
        folder.close()
        raise
    return ConversionReport(
        path=os.fspath(path),
        n_rows=parts.n_rows,
        fields=tuple(parts.fields),
        nbytes=parts.nbytes,
        stored_nbytes=parts.stored_nbytes,
        seconds=reporter.seconds,
        n_rows_before=before[0],
        peak_nbytes=reporter.peak_nbytes,
        codec=parts.codec,
    )


def folder_for(rows: RowSource, path: Path, part_nbytes: int, options: Options) -> PartsFolder:
    """Return the folder in which the files of a source are made, or are already."""
    source = Source(rows.identity(), rows.identity_is_proof, compared=True)
    first = path.with_name(path.name.replace(_STAR, f"{0:05d}"))
    is_made = False
    if options.resume and first.exists() and not journal_of(path.parent).exists() and source.identity is not None:
        try:
            writer = Writer(
                first, rows.specs, replace(options, overwrite=False), n_rows=rows.n_rows, source=part_of(source, 0)
            )
            is_made = writer.is_whole
        except TargetExistsError:  # something else
            pass
    return PartsFolder(path, part_nbytes, options, source, is_made)


def part_of(source: Source, first_row: int) -> Source:
    """Return what tells the rows of a file from others."""
    whole = source.identity
    return replace(source, identity=None if whole is None else {"rows": first_row, "of": whole})


class Size(NamedTuple):
    """Rows of a file, their bytes, and those that are stored."""

    n_rows: int
    nbytes: int
    stored_nbytes: int


class PartsFolder:
    """The folder in which files are made, which gets its name when all are there; a file that has its name is whole.

    Parameters
    ----------
    path
        The files, with a star for their number.
    part_nbytes
        The most bytes of one.
    options, source
        How they are written, and of what.
    is_made
        Whether a run before this one has made them, and left nothing else.

    Attributes
    ----------
    is_whole
        Whether all files are there.

    Raises
    ------
    InvalidArgumentError
        If what is resumed is of something else, or of a source that has changed.

    """

    def __init__(self, path: Path, part_nbytes: int, options: Options, source: Source, is_made: bool = False) -> None:
        self.source = source
        self._is_made = is_made
        self._name = path.name
        self._overwrite = options.overwrite
        self._place = Workplace(path.parent)
        self._journal = Journal.load(self._place.journal) if options.resume else None
        same = replace(options, memory=0, resume=False, overwrite=False)  # what makes no other files
        recipe = {"version": VERSION, "parts": path.name, "part_bytes": part_nbytes, "options": asdict(same)}
        try:
            if is_made:
                self._place.remove()
            elif self._journal is None:
                check_target(self._place.destination, options.overwrite)
                self._place.clear()
                self._place.store.mkdir()
                self._journal = Journal.begin(self._place.journal, recipe | {SOURCE: source.identity}, ())
            else:
                self._check(self._journal, recipe)
        except BaseException:
            self.close()
            raise
        self.is_whole = is_made or (self._journal is not None and self._journal.whole is not None)

    def path_of(self, number: int) -> Path:
        """Return the path of a file while all are made, or after it."""
        published = self.is_whole and self._is_published()
        return (self._place.destination if published else self._place.store) / self._name.replace(
            _STAR, f"{number:05d}"
        )

    @property
    def drafts(self) -> Path:
        """Where tasks write files that several of them may write."""
        return self._place.folder / "drafts"

    def publish(self) -> None:
        """Give the folder its name."""
        if self._is_made:
            return
        assert self._journal is not None
        if not self.is_whole:
            for begun in self._place.store.glob(".*.oocload"):  # here, and written wholly elsewhere since
                remove(begun)
            self._journal.commit(whole={"inode": os.stat(self._place.store).st_ino})
            self.is_whole = True
        if not self._is_published():
            self._place.publish(self._overwrite)
        self._journal.close()
        self._place.remove()

    def close(self) -> None:
        """Let go of it; files that are whole, and what is done of others, stay for a later run."""
        if self._journal is not None:
            self._journal.close()
        if self._place.store.is_dir() and any(self._place.store.iterdir()):
            self._place.close()
        else:
            self._place.remove()

    def _is_published(self) -> bool:
        if self._journal is None:
            return self._is_made
        return self._journal.whole is not None and self._place.is_published(self._journal.whole["inode"])

    def _check(self, journal: Journal, recipe: Mapping[str, Any]) -> None:
        remove(self.drafts)
        check_recipe(journal.recipe, recipe, os.fspath(self._place.folder))
        if journal.recipe[SOURCE] != self.source.identity and self.source.is_proof:
            raise InvalidArgumentError(
                f"source must be what it was when {self._place.destination} was begun, and has changed; convert it "
                "anew, without resume"
            )


def size_of(path: Path) -> Size:
    """Return the size of a file that is whole."""
    with stores.open(path) as store:
        fields = list(store.fields.values())
        return Size(fields[0].n_rows, sum(field.nbytes for field in fields), stored_nbytes(path))


class _Parts:
    """Writes files one after the other."""

    def __init__(self, rows: RowSource, folder: PartsFolder, part_nbytes: int, options: Options) -> None:
        self.n_rows = self.nbytes = self.stored_nbytes = 0
        self.codec = ""
        self.fields: Mapping[str, Spec] = {} if rows.specs is None else parse_fields(rows.specs)
        self._rows = rows
        self._folder = folder
        self._part_nbytes = part_nbytes
        self._options = options
        self._number = 0
        self._writer: Writer | None = None
        while (path := folder.path_of(self._number)).exists():
            self._count(size_of(path))

    def write(self, reporter: Reporter) -> None:
        """Write the files that are not there."""
        if self._folder.is_whole:
            return
        try:
            self._write(reporter)
        except BaseException:
            if self._writer is not None:
                self._writer.suspend()
            raise

    def _count(self, size: Size) -> None:
        self.n_rows += size.n_rows
        self.nbytes += size.nbytes
        self.stored_nbytes += size.stored_nbytes
        self._number += 1

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
        self._writer = Writer(
            self._folder.path_of(self._number),
            self.fields or None,
            replace(self._options, overwrite=False),
            n_rows=self._rows.n_rows,
            source=part_of(self._folder.source, self.n_rows),
            piece=least_piece(self._rows),
            meanings=lambda: self._rows.meanings,
        )
        return self._writer

    def _finish(self, writer: Writer) -> None:
        if not writer.n_rows and self._number:
            writer.abort()
            return
        writer.close()
        self.fields, self.codec = writer.fields, str(writer.encoding)
        if writer.encoding is not None:  # chosen by the first rows, where it was to be chosen
            self._options = replace(self._options, codec=writer.encoding.codec, level=writer.encoding.level)
        self._count(Size(writer.n_rows, writer.nbytes, stored_nbytes(writer.path)))

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
