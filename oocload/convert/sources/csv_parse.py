"""Blocks of records as Arrow tables of known types; those that cannot be parsed are found by halving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from oocload.convert.sources.arrow_values import RowError, pyarrow
from oocload.convert.sources.csv_blocks import Block, Dialect, records_of
from oocload.convert.sources.csv_records import Data, n_lines, record_ends
from oocload.convert.sources.skipped import Skipped
from oocload.errors import StoreFormatError

T = TypeVar("T")


@dataclass(frozen=True)
class Parser:
    """Makes tables of records.

    Attributes
    ----------
    names
        Of all columns.
    types
        Column → Arrow type; others are found out.
    dialect
        How fields are written.

    """

    names: tuple[str, ...]
    types: Mapping[str, Any]
    dialect: Dialect

    def table(self, data: Data, columns: Sequence[str], lenient: bool = False) -> Any:
        """Return some columns of whole records, all if none is named; ``lenient`` drops rows of another length."""
        csv, arrow = pyarrow("csv"), pyarrow()
        return csv.read_csv(
            arrow.BufferReader(arrow.py_buffer(data if len(data) else b"\n")),
            read_options=csv.ReadOptions(use_threads=False, block_size=len(data) + 2, column_names=list(self.names)),
            parse_options=csv.ParseOptions(
                delimiter=self.dialect.delimiter,
                quote_char=self.dialect.quote or False,
                invalid_row_handler=(lambda row: "skip") if lenient else None,
            ),
            convert_options=self._convert_options(columns),
            memory_pool=arrow.system_memory_pool(),  # others keep 20 MiB more
        )

    def rows(
        self, block: Block, columns: Sequence[str], make: Callable[[Any], T], skips: bool
    ) -> tuple[T, list[Skipped]]:
        """Return what is made of some columns of a block, and the records that were left out.

        Raises
        ------
        StoreFormatError
            If there is one that would have to be, and may not.

        """
        try:
            return make(self.table(block.data, columns)), []
        except (pyarrow().ArrowInvalid, RowError):
            pass  # where it is, is found out below
        ends = record_ends(block.data, str(self.dialect.delimiter), self.dialect.quote)
        starts = np.concatenate([[0], ends[:-1]])
        kept, skipped = np.ones(len(ends), bool), []
        for number in self._bad(block.data, columns, make, starts, ends, 0, len(ends)):
            record = block.data[starts[number] : ends[number]]
            where = f"{block.path}, line {block.line + n_lines(block.data[: starts[number]])}"
            reason = self._reason(record, columns, make)
            if not skips:
                raise StoreFormatError(f"{where}: {reason}")
            kept[number] = False
            skipped.append(Skipped(where, reason))
        left = [block.data[starts[i] : ends[i]] for i in np.flatnonzero(kept)]
        return make(self.table(np.concatenate(left) if left else block.data[:0], columns)), skipped

    def _convert_options(self, columns: Sequence[str]) -> Any:
        missing = self.dialect.missing
        return pyarrow("csv").ConvertOptions(
            column_types=dict(self.types),
            include_columns=list(columns),
            null_values=None if missing is None else list(missing),
        )

    def _bad(
        self,
        data: Data,
        columns: Sequence[str],
        make: Callable[[Any], object],
        starts: Any,
        ends: Any,
        first: int,
        last: int,
    ) -> Iterator[int]:
        """Yield the numbers of the records, among some in which there is one, that cannot be parsed."""
        if last - first == 1:
            yield first
            return
        middle = (first + last) // 2
        for begin, end in ((first, middle), (middle, last)):
            try:
                make(self.table(data[starts[begin] : ends[end - 1]], columns))
            except (pyarrow().ArrowInvalid, RowError):
                yield from self._bad(data, columns, make, starts, ends, begin, end)

    def _reason(self, record: Data, columns: Sequence[str], make: Callable[[Any], object]) -> str:
        """Return why a record cannot be parsed."""
        found = records_of(record, self.dialect)
        if len(found) > 1:
            return f"must have quotes around values with carriage returns, got {_shown(record)}"
        fields = next(iter(found), [])
        if len(fields) != len(self.names):
            shown = _shown(record)
            hint = "; pass quote='\"' where values stand in quotes" if not self.dialect.quote and '"' in shown else ""
            return f"must have {len(self.names)} columns, got {len(fields)}: {shown}{hint}"
        for column in columns:
            try:
                self.table(record, [column])
            except pyarrow().ArrowInvalid:
                return _reason_of(column, self.types[column], fields[self.names.index(column)], record)
        try:
            make(self.table(record, columns))
        except RowError as exc:
            return exc.reason
        except pyarrow().ArrowInvalid as exc:
            return f"must be readable, got {_shown(record)}: {exc}"
        raise AssertionError("a record can be parsed alone, and not with others")


def _reason_of(column: str, kind: Any, value: str, record: Data) -> str:
    """Return what is wrong with a value."""
    types = pyarrow().types
    try:
        record.tobytes().decode()
    except UnicodeDecodeError:
        return f"column {column!r} must be UTF-8, got {_shown(record)}; pass encoding=, such as 'latin-1'"
    wanted = "whole numbers" if types.is_integer(kind) else "numbers" if types.is_floating(kind) else str(kind)
    advice = f"mend it, pass on_error='skip', missing=[...] if it stands for no value, or dtypes={{{column!r}: 'str'}}"
    if types.is_integer(kind) and _is_float(value):
        advice = f"pass dtypes={{{column!r}: 'float64'}}" + ("" if "." in value else f" or a larger dtype than {kind}")
    return f"column {column!r} must hold {wanted} as its first rows do, got {value!r}; {advice}"


def _is_float(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _shown(record: Data) -> str:
    text = record[:200].tobytes().decode("utf-8", "replace").rstrip("\r\n")
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
