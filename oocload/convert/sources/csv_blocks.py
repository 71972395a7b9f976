"""Delimited text in blocks of whole records: files opened, unpacked and cut; nothing here looks into a field."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from oocload.convert.sources.arrow_values import pyarrow
from oocload.convert.sources.csv_records import Data, last_end, n_lines, quoted_ranges, record_ends
from oocload.convert.sources.fresh import fresh_rows
from oocload.errors import StoreFormatError, StoreNotFoundError
from oocload.units import format_bytes

PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}
TABS = (".tsv", ".tab")
AUTO = "auto"
_DELIMITERS = ",\t;|"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Dialect:
    """How fields are written.

    Attributes
    ----------
    delimiter
        Between two fields; None is found in the first line of the first file.
    quote
        Around fields that hold delimiters or line ends; None where quotes are characters as others; `AUTO` where the
        delimiter is to tell.
    header
        Whether the first record has the names, or the names themselves.
    skip_lines
        Lines before the header, or before the rows where there is none.
    encoding
        Of the characters.
    missing
        Words that stand for a missing value; None for those of pyarrow.

    """

    delimiter: str | None = None
    quote: str | None = '"'
    header: bool | tuple[str, ...] = True
    skip_lines: int = 0
    encoding: str = "utf-8"
    missing: tuple[str, ...] | None = None

    def describe(self) -> list[Any]:
        """Return what tells this from another, as JSON has it."""
        header = list(self.header) if isinstance(self.header, tuple) else self.header
        missing = None if self.missing is None else list(self.missing)
        return [self.delimiter, self.quote, header, self.skip_lines, self.encoding, missing]


class Rooms:
    """Memory for blocks that goes round: fresh pages cost more than all else that is done to a block before parsing."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._free: list[Data] = []

    def take(self) -> Data:
        """Return memory for a block."""
        try:
            return self._free.pop()
        except IndexError:
            return fresh_rows((self.nbytes,), np.dtype(np.uint8))

    def give_back(self, room: Data) -> None:
        """Take the memory of a block back; from any thread."""
        self._free.append(room)


@dataclass(frozen=True)
class Block:
    """Whole records: of which file, and the number of their first line, from 1.

    Attributes
    ----------
    path, line, data
        Of the records.
    room, rooms
        What holds the data, and where it goes when nothing refers to it any more.

    """

    path: str
    line: int
    data: Data
    room: Data
    rooms: Rooms

    def release(self) -> None:
        """Give the memory back; the data is not to be used afterwards."""
        self.rooms.give_back(self.room)


class RecordTooLongError(StoreFormatError):
    """A record does not fit into a block."""


def stem_suffix(path: str) -> str:
    """Return the suffix of a path without what says how it is packed."""
    name = path.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return name[name.rfind(".") :] if "." in name else ""


def blocks_of(path: str, dialect: Dialect, rooms: Rooms) -> Iterator[Block]:
    """Yield a file from its first byte on, in blocks that fit into a room; a delimiter must be known.

    Raises
    ------
    RecordTooLongError
        If a record is longer.
    StoreFormatError
        If the file is damaged, or a quote is never closed.
    StoreNotFoundError
        If it is gone.

    """
    assert dialect.delimiter is not None
    line, rest = 1, np.empty(0, np.uint8)
    with ExitStack() as stack:
        stream = open_text(path, dialect.encoding, stack)
        while True:
            room = rooms.take()
            room[: len(rest)] = rest
            filled = len(rest) + _fill(path, stream, memoryview(room)[len(rest) :])
            is_last = filled < len(room)
            data = room[:filled]
            end = last_end(data, dialect.delimiter, dialect.quote)
            if is_last:
                _check_closed(path, line + n_lines(data[:end]), data[end:], dialect)
                end = filled
            elif not end:
                raise _too_long(path, line, len(room))
            n_passed, kept = n_lines(data[:end]), data[end:].copy()  # the block is not ours when it comes back
            if end:
                yield Block(path, line, data[:end], room, rooms)
            if is_last:
                return
            line += n_passed
            rest = kept


def without_header(block: Block, dialect: Dialect) -> Block:
    """Return the first block of a file from its first row on."""
    start = _first_end(block, dialect) if dialect.header is True else _preamble(block, dialect)
    if dialect.header is True:
        _check_one_line(block, _preamble(block, dialect), start, dialect)
    return replace(block, line=block.line + n_lines(block.data[:start]), data=block.data[start:])


def names_in(block: Block, dialect: Dialect) -> tuple[str, ...]:
    """Return the names of the columns, given the first block of a file.

    Raises
    ------
    StoreFormatError
        If there is no record to tell, or two columns have one name.

    """
    if isinstance(dialect.header, tuple):
        return dialect.header
    found = fields_of_record(block.data[_preamble(block, dialect) : _first_end(block, dialect)], dialect)
    if not found:
        raise StoreFormatError(f"{block.path} must begin with the names of its columns, got nothing")
    names = tuple(name if dialect.header and name else f"column_{number}" for number, name in enumerate(found))
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise StoreFormatError(
            f"columns of {block.path} must have names of their own, got {twice!r} twice; "
            "pass header=[names] and skip_lines=1"
        )
    return names


def fields_of_record(data: Data, dialect: Dialect) -> list[str]:
    """Return the fields of one record, or of the first of several, as text."""
    return next(iter(records_of(data, dialect)), [])


def records_of(data: Data, dialect: Dialect) -> list[list[str]]:
    """Return the fields of the records that are not empty: several where carriage returns alone end lines, too."""
    assert dialect.delimiter is not None
    text = data.tobytes().decode("utf-8", "replace")
    lines = io.StringIO(text, newline="")
    reader = (
        csv.reader(lines, delimiter=dialect.delimiter, quoting=csv.QUOTE_NONE)
        if dialect.quote is None
        else csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote)
    )
    limit = csv.field_size_limit(max(len(data), csv.field_size_limit()))
    try:
        return [fields for fields in reader if fields]
    finally:
        csv.field_size_limit(limit)


def sniffed(path: str, dialect: Dialect) -> str:
    """Return the delimiter of a file: by its suffix, or the one that occurs most often in its first line."""
    if stem_suffix(path) in TABS:
        return "\t"
    lines = _first_lines(path, dialect)
    return max(_DELIMITERS, key=lines[0].count) if lines else _DELIMITERS[0]


def sniffed_quote(path: str, dialect: Dialect) -> str | None:
    """Return the quote of a file of a known delimiter.

    Tab-separated values have none (IANA's text/tab-separated-values). But many programs write them so: that is what it
    is where records have one number of columns if quotes are heeded, and others if they are not.
    """
    assert dialect.delimiter is not None
    if dialect.delimiter != "\t":
        return '"'
    lines = _first_lines(path, dialect)
    plain = {line.count("\t") for line in lines}
    if len(plain) == 1 or not any('"' in line for line in lines):
        return None
    heeded = [len(row) for row in csv.reader(lines, delimiter="\t") if row]
    return '"' if len(set(heeded[:-1])) == 1 else None


def _first_lines(path: str, dialect: Dialect) -> list[str]:
    """Return the lines at the beginning of a file, with their ends; the last may be cut off, and is left out."""
    with ExitStack() as stack:
        stream = open_text(path, dialect.encoding, stack)
        room = np.empty(2**16, np.uint8)
        data = room[: _fill(path, stream, memoryview(room))]
    lines = [line + "\n" for line in data.tobytes().decode("utf-8", "replace").split("\n")][dialect.skip_lines :]
    return [line for line in (lines[:-1] if len(data) == len(room) else lines) if line.strip("\r\n")]


def open_text(path: str, encoding: str, stack: ExitStack) -> Any:
    """Open a file as a stream of UTF-8 bytes, unpacked."""
    arrow = pyarrow()
    try:
        stream = stack.enter_context(arrow.OSFile(path))
    except OSError as exc:
        raise StoreNotFoundError(f"source must exist and be readable, got {path!r}: {exc}") from exc
    packed = next((codec for suffix, codec in PACKED.items() if path.lower().endswith(suffix)), None)
    if packed is not None:
        stream = stack.enter_context(arrow.CompressedInputStream(stream, packed))
    if encoding != "utf-8":
        stream = stack.enter_context(arrow.transcoding_input_stream(stream, encoding, "utf-8"))
    return stream


def check_names(found: Sequence[str], wanted: Sequence[str], path: str, first: str) -> None:
    """Raise where a file has other columns than the first.

    Raises
    ------
    StoreFormatError
        If it has.

    """
    if tuple(found) != tuple(wanted):
        raise StoreFormatError(
            f"{path} must have the columns of {first}, {', '.join(wanted)}, got {', '.join(found)}; "
            "convert files of one kind at a time"
        )


def _fill(path: str, stream: Any, room: memoryview) -> int:
    filled = 0
    try:
        while filled < len(room) and (n := stream.readinto(room[filled:])):
            filled += n
    except (OSError, EOFError) as exc:
        raise StoreFormatError(f"{path} must be a whole file of its kind, and is damaged: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise StoreFormatError(f"{path} must be {exc.encoding}, and is not: {exc}; pass encoding=") from exc
    return filled


def _preamble(block: Block, dialect: Dialect) -> int:
    """Return where the header begins."""
    start = len(_BOM) if block.data[: len(_BOM)].tobytes() == _BOM else 0
    if dialect.skip_lines:
        newlines = np.flatnonzero(block.data == ord("\n"))[: dialect.skip_lines]
        start = int(newlines[-1]) + 1 if len(newlines) == dialect.skip_lines else len(block.data)
    return start


def _first_end(block: Block, dialect: Dialect) -> int:
    """Return where the first record ends that is not empty."""
    assert dialect.delimiter is not None
    start = _preamble(block, dialect)
    begin = start
    for end in record_ends(block.data[start:], dialect.delimiter, dialect.quote).tolist():
        if block.data[begin : start + end].tobytes().strip(b"\r\n"):
            return int(start + end)
        begin = start + end
    return len(block.data)


def _check_one_line(block: Block, begin: int, end: int, dialect: Dialect) -> None:
    """Raise where the names of the columns, up to a line feed, come to several lines, of which rows would get lost."""
    if len(records_of(block.data[begin:end], dialect)) > 1:
        raise StoreFormatError(
            f"{block.path} must have lines that end in a line feed, and its first ends in a carriage return alone; "
            "write it again with such line ends"
        )


def _check_closed(path: str, line: int, data: Data, dialect: Dialect) -> None:
    """Raise where a quote of the last record is never closed, which pyarrow takes for a long text."""
    assert dialect.delimiter is not None
    ranges = quoted_ranges(data, dialect.delimiter, dialect.quote)
    if len(ranges) and ranges[-1, 1] > len(data):
        opened = line + n_lines(data[: ranges[-1, 0]])
        raise StoreFormatError(
            f"{path}, line {opened}: a quote must close, and this one never does; pass quote=None where quotes are "
            "characters as others"
        )


def _too_long(path: str, line: int, nbytes: int) -> RecordTooLongError:
    return RecordTooLongError(
        f"{path}, line {line}: a record must fit into {format_bytes(nbytes)}, and is longer; raise memory=, or pass "
        "quote=None where quotes are characters as others"
    )
