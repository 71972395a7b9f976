"""What the beginning of the first CSV file tells of all: delimiter, names, types, and how much memory rows take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from oocload.convert.sources.arrow_values import computed, items_or, one_array, pyarrow
from oocload.convert.sources.columns import ColumnField, columns_of
from oocload.convert.sources.csv_blocks import (
    AUTO,
    Block,
    Dialect,
    RecordTooLongError,
    Rooms,
    blocks_of,
    check_names,
    names_in,
    sniffed,
    sniffed_quote,
    without_header,
)
from oocload.convert.sources.csv_parse import Parser
from oocload.convert.sources.csv_records import record_ends
from oocload.convert.sources.table_choice import ColumnKind, TableChoice

PASS_NBYTES = 2**18  # of the blocks in which vocabularies are found
_SAMPLE_NBYTES = 2**20  # pyarrow tells types from as much
_MOST_SAMPLE_NBYTES = 2**28
_LEAST_BLOCK_NBYTES = 2**16
_MOST_BLOCK_NBYTES = 2**30  # so that pyarrow's 32-bit offsets do
_READING_TAKES = 4  # the block, what the parser holds of it, and where quotes and line ends are looked for
_NOT_EXACT = 2.0**53  # whole numbers from here on may have no float64
_VALUE_TAKES = 4  # of the parser, for each value


class CsvFacts:
    """Facts on files of one kind, each found when it is first asked for.

    Parameters
    ----------
    paths
        The files.
    asked
        How they are written, as far as that was said.
    choice
        What is taken of them.

    """

    def __init__(self, paths: Sequence[str], asked: Dialect, choice: TableChoice) -> None:
        self.paths = tuple(paths)
        self._asked = asked
        self._choice = choice

    @cached_property
    def dialect(self) -> Dialect:
        """How values are written, with the delimiter that was found, and the quote that goes with it."""
        asked = self._asked
        delimiter = asked.delimiter or sniffed(self.paths[0], asked)
        found = replace(asked, delimiter=delimiter)
        return found if asked.quote != AUTO else replace(found, quote=sniffed_quote(self.paths[0], found))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return names_in(self._beginning, self.dialect)

    @cached_property
    def kinds(self) -> dict[str, ColumnKind]:
        """Column → what it holds."""
        return {name: ColumnKind(_dtype_of(kind)) for name, kind in self._types.items()}

    @cached_property
    def fields(self) -> tuple[ColumnField, ...]:
        """The fields, those that need a vocabulary still without."""
        return self._choice.fields(self.kinds, self.paths[0])

    @cached_property
    def parser(self) -> Parser:
        """What makes tables of records."""
        return Parser(self.names, self._types, self.dialect)

    def least_nbytes(self, fields: Sequence[ColumnField]) -> int:
        """Return what a block takes that has room for twice the longest record so far."""
        longest = 2 * int(np.diff(self._ends, prepend=0).max(initial=0))
        return int(max(_LEAST_BLOCK_NBYTES, longest) * self.takes(fields)) + 1

    def block_nbytes(self, piece_nbytes: int, fields: Sequence[ColumnField]) -> int:
        """Return the size of the blocks of which reading takes so much memory."""
        return min(_MOST_BLOCK_NBYTES, max(_LEAST_BLOCK_NBYTES, int(piece_nbytes / self.takes(fields))))

    def takes(self, fields: Sequence[ColumnField]) -> float:
        """Return the bytes that reading takes for each byte of a file, with all that is made of it."""
        data, n_rows = self._rows.data, len(self._ends)
        if not len(data):
            return _READING_TAKES
        nbytes = {name: int(self._sample.column(name).nbytes) for name in columns_of(fields)}
        made = sum(field.takes(n_rows, sum(nbytes[name] for name in field.columns)) for field in fields)
        parsed = sum(nbytes.values()) + _VALUE_TAKES * n_rows * len(self.names)
        return float(_READING_TAKES + (parsed + made) / len(data))

    def blocks(self, nbytes: int) -> Iterator[Block]:
        """Yield all records, in blocks; every file must have the columns of the first."""
        rooms = Rooms(nbytes)
        for path in self.paths:
            for number, block in enumerate(blocks_of(path, self.dialect, rooms)):
                if number == 0 and path != self.paths[0]:
                    check_names(names_in(block, self.dialect), self.names, path, self.paths[0])
                yield block if number else without_header(block, self.dialect)

    @cached_property
    def _beginning(self) -> Block:
        """The beginning of the first file, with its header."""
        nbytes = _SAMPLE_NBYTES
        while True:
            try:
                rooms = Rooms(nbytes)
                empty = Block(self.paths[0], 1, _NO_BYTES, _NO_BYTES, rooms)
                return next(blocks_of(self.paths[0], self.dialect, rooms), empty)
            except RecordTooLongError:
                nbytes *= 4
                if nbytes > _MOST_SAMPLE_NBYTES:
                    raise

    @cached_property
    def _rows(self) -> Block:
        return without_header(self._beginning, self.dialect)

    @cached_property
    def _utf8(self) -> Any:
        """The bytes of these rows, mended where they are no UTF-8, of which reading tells where it comes to them."""
        data = self._rows.data.tobytes()
        try:
            data.decode()
        except UnicodeDecodeError:
            return np.frombuffer(data.decode("utf-8", "replace").encode(), np.uint8)
        return self._rows.data

    @cached_property
    def _ends(self) -> Any:
        return record_ends(self._rows.data, str(self.dialect.delimiter), self.dialect.quote)

    @cached_property
    def _types(self) -> dict[str, Any]:
        """Column → Arrow type."""
        arrow = pyarrow()
        types = {name: self._type_for(name) for name in self.names}
        for name, dtype in self._choice.dtypes.items():
            if name in types:
                types[name] = _arrow_type(dtype)
        matrices = self._choice.matrices({name: ColumnKind(_dtype_of(kind)) for name, kind in types.items()})
        for matrix, columns in matrices.items():
            for name in columns:
                if name in types and not arrow.types.is_boolean(types[name]):
                    dtype = self._choice.matrix_dtype(matrix)
                    whole = arrow.uint64() if dtype == np.uint64 else arrow.int64()
                    types[name] = arrow.float64() if dtype.kind == "f" else whole
        return types

    @cached_property
    def _sample(self) -> Any:
        """The rows of the beginning that have the right number of columns, of the types that they look like."""
        return self._beginning_as({name: pyarrow().string() for name in self._choice.as_text & set(self.names)}, ())

    def _beginning_as(self, types: dict[str, Any], columns: Sequence[str]) -> Any:
        return Parser(self.names, types, self.dialect).table(self._utf8, columns, lenient=True)

    def _type_for(self, name: str) -> Any:
        """Return the type as which a column is read: a number where it looks like one, else text."""
        arrow, column = pyarrow(), self._sample.column(name)
        types, kind = arrow.types, column.type
        if types.is_integer(kind) and (not column.null_count or not _is_exact(column)):
            return kind
        if types.is_floating(kind) and not _is_exact(column):
            with suppress(arrow.ArrowInvalid):  # it has floats, too
                self._beginning_as({name: arrow.uint64()}, [name])
                return arrow.uint64()
        if types.is_floating(kind) or types.is_null(kind) or types.is_integer(kind):
            return arrow.float64()  # numbers of which some are missing are floats, for the sake of NaN
        if types.is_boolean(kind) and not column.null_count:
            return kind
        return (None if name in self._choice.as_text else _mostly_numbers(column)) or arrow.string()


_LEAST_SHARE = 0.5  # of the beginning of a column, for a column of numbers
_EMPTY = r"^\s*$"
_WHOLE = r"^\s*[-+]?[0-9]+\s*$"
_NUMBER = r"^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$"
_NO_BYTES = np.empty(0, np.uint8)


def _is_exact(column: Any) -> bool:
    """Whether float64 has all numbers of a column, were they whole ones."""
    found = items_or(one_array(column), 0)
    return bool((np.abs(found.astype(np.float64)) < _NOT_EXACT).all())


def _mostly_numbers(column: Any) -> Any:
    """Return the type of a column of which more than half are numbers: what else is there is to be named as wrong."""
    arrow = pyarrow()
    if not arrow.types.is_string(column.type):
        return None

    def count(pattern: str) -> int:
        return int(computed("sum", computed("match_substring_regex", column, pattern=pattern)).as_py() or 0)

    n_numbers, n_values = count(_NUMBER), len(column) - count(_EMPTY)
    if n_numbers <= _LEAST_SHARE * n_values:
        return None
    return arrow.int64() if n_values == len(column) and n_numbers == count(_WHOLE) else arrow.float64()


def _arrow_type(dtype: np.dtype[Any]) -> Any:
    arrow = pyarrow()
    if dtype.kind == "U":
        return arrow.string()
    return arrow.float32() if dtype == np.float16 else arrow.from_numpy_dtype(dtype)


def _dtype_of(kind: Any) -> np.dtype[Any]:
    return np.dtype(str) if pyarrow().types.is_string(kind) else np.dtype(kind.to_pandas_dtype())
