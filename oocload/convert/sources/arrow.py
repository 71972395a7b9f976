"""Parquet and Arrow: files, folders of them, tables and DataFrames, read a row group or a record batch at a time."""

from __future__ import annotations

import os
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple, Self

from numpy.typing import DTypeLike

import oocload.stores as stores
from oocload.chunks.scratch import Scratch
from oocload.convert.fields import Spec
from oocload.convert.sources.arrow_files import ArrowFile, Frame, MemoryTable, file_of, is_arrow
from oocload.convert.sources.arrow_folders import files_in, holds_files, partition_of, repeated
from oocload.convert.sources.arrow_types import kinds_of, simple
from oocload.convert.sources.arrow_values import RowError, pyarrow
from oocload.convert.sources.columns import ColumnField, columns_of, complete
from oocload.convert.sources.identity import Identity
from oocload.convert.sources.records import Records, RecordSource
from oocload.convert.sources.table_choice import ColumnKind, Features, Labels, TableChoice, Texts
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError
from oocload.layout import Meaning

_READING_TAKES = 2  # what Arrow holds of rows, and what is made of them
_TOKENS_TAKE = 16
_PASS_NBYTES = 2**20


class Rows(NamedTuple):
    """Some rows of a part of a file; where the batch is not there yet, all of the part from a row on."""

    file: int
    part: int
    first: int
    batch: Any | None


class ArrowSource(RecordSource[Rows]):
    """Rows of Parquet or Arrow IPC files, of a folder of such, of a `pyarrow.Table` or of a `pandas.DataFrame`.

    Each column becomes a field of its name. Numbers and bools keep their type, where missing floats are NaN. Lists of
    one length and tensors become rows of that shape, lists of any length ragged rows; text and bytes ragged bytes.
    Dictionaries and categories become codes with a vocabulary. Decimals become floats, dates and times the whole
    numbers that they are stored as: days, or the type's unit, since 1970. An index of pandas is left out.

    Parameters
    ----------
    source
        A path (``.parquet``, ``.pq``; ``.arrow``, ``.feather``, ``.ipc``: files or streams), a folder of such files, in
        natural order, a glob or a list of these, whose rows follow each other and whose columns are the same; or a
        table. Names of folders such as ``split=train`` become columns.
    columns, features, label, labels, text, dtypes
        As of `CsvSource`.

    Raises
    ------
    InvalidArgumentError
        If an option breaks its rule.
    StoreNotFoundError
        If a file is not there.

    Examples
    --------
    >>> import oocload, pyarrow, pyarrow.parquet
    >>> table = pyarrow.table({"length": [5.1, 6.4], "species": ["setosa", "virginica"]})
    >>> pyarrow.parquet.write_table(table, "flowers.parquet")
    >>> source = oocload.sources.ArrowSource("flowers.parquet", label="species")
    >>> oocload.convert(source, "flowers.h5").fields
    ('length', 'y')

    """

    can_jump = True

    def __init__(
        self,
        source: Any,
        *,
        columns: Sequence[str] | None = None,
        features: Features = None,
        label: str | None = None,
        labels: Labels = None,
        text: Texts = None,
        dtypes: Mapping[str, DTypeLike] | None = None,
    ) -> None:
        self._choice = TableChoice.checked(columns, features, label, labels, text, dtypes)
        self._files, self._partitions = _files_of(source)
        first = self._files[0].label
        self.label = first if len(self._files) == 1 else f"{first} and others"
        self.identity_is_proof = not self._choice.has_function
        self.least_piece_reason = "raise memory=, or write the files with smaller pages"

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether a path is a Parquet or Arrow file by its suffix, or a folder in which there are such."""
        return is_arrow(path) or (os.path.isdir(path) and holds_files(path))

    @classmethod
    def from_paths(cls, paths: Sequence[str]) -> Self:
        """Return the source of files, with default options."""
        return cls(paths)

    @classmethod
    def recognises_object(cls, source: object) -> bool:
        """Whether an object is a table of pyarrow, or a DataFrame of pandas."""
        return _is_table(source) or _is_frame(source)

    @classmethod
    def from_object(cls, source: Any) -> Self:
        """Return the source of a table, with default options."""
        return cls(source)

    @property
    def record_specs(self) -> Mapping[str, Spec]:
        """Field → spec, as the schema tells."""
        return {field.name: field.spec for field in self._fields}

    @property
    def record_meanings(self) -> Mapping[str, Meaning]:
        """Field → text or vocabulary; the latter may take a pass over the columns."""
        return {field.name: field.meaning for field in self._complete if field.meaning != Meaning()}

    @property
    def n_records(self) -> int:
        """Rows of all files."""
        return self._starts[-1]

    @property
    def least_piece_nbytes(self) -> int:
        """A row, and the pages of a row group that are decoded at a time."""
        return self._pages_nbytes + max(_PASS_NBYTES // 4, self._row_nbytes)

    def record_identity(self) -> Identity | None:
        """Return sizes and times of files, and the options; None for tables in memory."""
        facts = [file.facts() for file in self._files]
        if None in facts:
            return None
        return {"files": facts, "choice": self._choice.describe(), "partitions": [list(p) for p in self._partitions]}

    def pieces(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[Rows]:
        """Yield row groups and record batches; those that are too large are decoded here, some rows at a time."""
        _ = self._complete  # the vocabularies, before many threads ask for them
        step = max(1, (piece_nbytes - self._pages_nbytes) // self._row_nbytes)
        end = self.n_records if stop is None else stop
        at = bisect_right(self._starts, start) - 1
        while at < len(self._places) and self._starts[at] < end:
            yield from self._rows_of(at, max(0, start - self._starts[at]), step)
            at += 1

    def read(self, piece: Rows, scratch: Scratch) -> Records:
        """Return the fields of some rows."""
        del scratch
        if piece.batch is None:
            columns = columns_of(self._complete)
            n_rows = self._files[piece.file].parts[piece.part].n_rows
            table = self._table(piece.file, list(self._read(piece.file, piece.part, columns, n_rows)))
            table = table.slice(piece.first)
        else:
            table = self._table(piece.file, [piece.batch])
        try:
            return Records({field.name: field.rows(table) for field in self._complete})
        except RowError as exc:
            file = self._files[piece.file]
            raise StoreFormatError(
                f"{file.label}, {file.part_name} {piece.part}, row {piece.first + exc.row}: {exc.reason}"
            ) from exc

    def _rows_of(self, at: int, skip: int, step: int) -> Iterator[Rows]:
        """Yield the rows of one part from one on."""
        file, part = self._places[at]
        if self._files[file].parts[part].n_rows <= step:
            yield Rows(file, part, skip, None)
            return
        first = 0
        for batch in self._read(file, part, columns_of(self._complete), step):
            if (left := first + batch.num_rows - skip) > 0:
                yield Rows(file, part, max(first, skip), batch.slice(max(0, batch.num_rows - left)))
            first += batch.num_rows

    def _read(self, file: int, part: int, columns: Sequence[str], n_rows: int) -> Iterator[Any]:
        stored = [name for name in columns if name not in self._partitions[file]]
        return self._files[file].read(part, stored, n_rows)

    def _table(self, file: int, batches: Sequence[Any]) -> Any:
        """Return rows as a table of simple types, with the columns that the names of folders are."""
        arrow = pyarrow()
        table = arrow.Table.from_batches(batches)
        columns = {name: simple(table.column(name)) for name in table.column_names}
        n_rows = table.num_rows
        columns |= {name: repeated(value, n_rows) for name, value in self._partitions[file].items()}
        return arrow.Table.from_arrays(list(columns.values()), names=list(columns))

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        """File and part of all parts, in order."""
        return [(i, j) for i, file in enumerate(self._files) for j in range(len(file.parts))]

    @cached_property
    def _starts(self) -> list[int]:
        """Row at which each part begins, and the end of the last."""
        return [0, *accumulate(self._files[i].parts[j].n_rows for i, j in self._places)]

    @cached_property
    def _kinds(self) -> dict[str, ColumnKind]:
        first = self._files[0]
        names = first.schema.names
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise StoreFormatError(f"columns of {first.label} must have names of their own, got {twice!r} twice")
        for file in self._files[1:]:
            if file.schema.names != first.schema.names or file.schema.types != first.schema.types:
                raise StoreFormatError(
                    f"{file.label} must have the columns of {first.label}, got "
                    f"{_difference(file.schema, first.schema)}; convert files of one kind at a time"
                )
        kinds = kinds_of(first.schema, first.dictionaries)
        for name in self._partitions[0]:
            words = tuple(sorted({partition[name] for partition in self._partitions}))
            kinds[name] = ColumnKind(vocabulary=words, is_words=True)
        return kinds

    @cached_property
    def _fields(self) -> tuple[ColumnField, ...]:
        return self._choice.fields(self._kinds, self._files[0].label)

    @cached_property
    def _complete(self) -> tuple[ColumnField, ...]:
        """The fields that were chosen, with their vocabularies, which may take a pass over some columns."""
        names = self._names({field.name: None for field in self._fields})

        def tables(columns: list[str]) -> Iterator[Any]:
            for file, part in self._places:
                for batch in self._read(file, part, columns, max(1, _PASS_NBYTES // self._row_nbytes)):
                    yield self._table(file, [batch])

        return complete([field for field in self._fields if field.name in names], tables, self.label)

    @cached_property
    def _pages_nbytes(self) -> int:
        """The share of a piece, of which there are two at least, in pages that one thread decodes."""
        return self._files[0].pages_nbytes // 2

    @cached_property
    def _row_nbytes(self) -> int:
        """What reading takes for a row, about."""
        stored = max((-(-p.nbytes // p.n_rows) for f in self._files for p in f.parts if p.n_rows), default=1)
        made = sum(field.spec.row_nbytes for field in self._fields if isinstance(field.spec, FieldSpec))
        return _READING_TAKES * (stored + made) + (_TOKENS_TAKE * stored if self._choice.text else 0)


def _files_of(source: Any) -> tuple[list[ArrowFile], list[dict[str, str]]]:
    """Return the files of a source, and of each what the names of its folders say."""
    if _is_table(source):
        whole = source if hasattr(source, "to_batches") else pyarrow().Table.from_batches([source])
        return [MemoryTable(whole)], [{}]
    if _is_frame(source):
        return [Frame(source)], [{}]
    files: list[ArrowFile] = []
    partitions: list[dict[str, str]] = []
    for path in stores.expand(source, "source"):
        if not os.path.exists(path):
            raise StoreNotFoundError(f"source must exist, got {path!r}; nothing lies at that path")
        inside = list(files_in(path)) if os.path.isdir(path) else [path]
        if not inside:
            raise StoreNotFoundError(f"source must be a folder of Parquet or Arrow files, got {path!r}, with none")
        files.extend(map(file_of, inside))
        partitions.extend(partition_of(path, each) for each in inside)
    if any(p.keys() != partitions[0].keys() for p in partitions):
        raise InvalidArgumentError(
            f"folders below {source!r} must all have names of the same kind, such as split=train"
        )
    return files, partitions


def _is_table(source: object) -> bool:
    arrow = sys.modules.get("pyarrow")
    return arrow is not None and isinstance(source, arrow.Table | arrow.RecordBatch)


def _is_frame(source: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(source, getattr(pandas, "DataFrame", ()))


def _difference(found: Any, wanted: Any) -> str:
    """Return the first column that differs."""
    for name in (*wanted.names, *found.names):
        pair = [s.field(name).type if name in s.names else "none" for s in (found, wanted)]
        if pair[0] != pair[1]:
            return f"{name!r} of {pair[0]} instead of {pair[1]}"
    return "others in their order"
