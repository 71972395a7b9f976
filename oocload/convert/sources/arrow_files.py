"""Parquet and Arrow IPC files and tables in memory, as parts that can be read one by one: row groups, batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from oocload.convert.sources.arrow_values import as_strings, pyarrow
from oocload.convert.sources.identity import Facts, file_facts
from oocload.errors import InvalidArgumentError, StoreFormatError

PARQUET = (".parquet", ".pq")
IPC = (".arrow", ".feather", ".ipc", ".arrows")


_FRAME_PART_NBYTES = 2**22
_PAGE_NBYTES = 2**20  # as Parquet is mostly written; a page is held as it is stored, and decoded


class Part(NamedTuple):
    """Rows that are read together: how many, and about how many bytes they are in memory."""

    n_rows: int
    nbytes: int


class ArrowFile(Protocol):
    """What holds a table.

    Attributes
    ----------
    label
        What it is called in errors.
    part_name
        What a part of it is called.

    """

    label: str
    part_name: str

    @property
    def schema(self) -> Any:
        """The Arrow schema."""
        ...

    @property
    def parts(self) -> Sequence[Part]:
        """The parts, in order."""
        ...

    @property
    def pages_nbytes(self) -> int:
        """What decoding takes beside the rows."""
        ...

    @property
    def dictionaries(self) -> Mapping[str, tuple[str, ...]]:
        """Column → its words, of those that are known without reading."""
        ...

    def facts(self) -> Facts | None:
        """Return what tells it from what it was; None where nothing does."""
        ...

    def read(self, part: int, columns: Sequence[str], n_rows: int) -> Iterator[Any]:
        """Yield record batches of a part, of at most some rows where that needs less memory."""
        ...


class ParquetFile:
    """A Parquet file; its parts are row groups."""

    part_name = "row group"

    def __init__(self, path: str) -> None:
        self.label = path
        self.dictionaries: Mapping[str, tuple[str, ...]] = {}

    @cached_property
    def schema(self) -> Any:
        """The Arrow schema."""
        with _opened(self.label):
            return pyarrow("parquet").read_schema(self.label)

    @cached_property
    def parts(self) -> Sequence[Part]:
        """Row groups."""
        with _opened(self.label):
            metadata = pyarrow("parquet").read_metadata(self.label)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        return [Part(group.num_rows, group.total_byte_size) for group in groups]

    @cached_property
    def pages_nbytes(self) -> int:
        """What the pages of all columns take that are decoded at a time."""
        with _opened(self.label):
            metadata = pyarrow("parquet").read_metadata(self.label)
        largest = max((metadata.row_group(i) for i in range(metadata.num_row_groups)), key=_nbytes, default=None)
        if largest is None:
            return 0
        columns = [largest.column(i).total_uncompressed_size for i in range(largest.num_columns)]
        return sum(2 * min(_PAGE_NBYTES, nbytes) for nbytes in columns)

    def facts(self) -> Facts | None:
        """Return size and time."""
        return file_facts(self.label)

    def read(self, part: int, columns: Sequence[str], n_rows: int) -> Iterator[Any]:
        """Yield batches of a row group, decoded page by page."""
        open_file = pyarrow("parquet").ParquetFile
        with _opened(self.label), open_file(self.label, pre_buffer=False, buffer_size=2**16) as file:
            yield from file.iter_batches(max(1, n_rows), row_groups=[part], columns=list(columns), use_threads=False)


class IpcFile:
    """An Arrow IPC file, or a stream; its parts are record batches, of a stream all in one."""

    part_name = "record batch"
    pages_nbytes = 0

    def __init__(self, path: str) -> None:
        self.label = path
        self.dictionaries: Mapping[str, tuple[str, ...]] = {}

    @cached_property
    def schema(self) -> Any:
        """The Arrow schema."""
        with _opened(self.label), pyarrow().memory_map(self.label) as file, self._reader(file) as reader:
            return reader.schema

    @cached_property
    def parts(self) -> Sequence[Part]:
        """Record batches; those of a stream are gone through to know how many rows there are."""
        return [part for part, _ in self._found]

    @cached_property
    def _found(self) -> list[tuple[Part, int]]:
        """The parts, and where each begins in a stream."""
        found = []
        with _opened(self.label), pyarrow().memory_map(self.label) as file:
            with self._reader(file) as reader:
                first = next(_batches(reader), None)
            rate = 0 if first is None else -(-first.nbytes // max(1, first.num_rows))
            file.seek(0)
            with self._reader(file, [0]) as reader:  # one column tells how many rows there are
                at = file.tell()
                for batch in _batches(reader):
                    found.append((Part(batch.num_rows, rate * batch.num_rows), at))
                    at = file.tell()
        return found

    @cached_property
    def _has_dictionaries(self) -> bool:
        """Whether batches need what came before them."""
        return "dictionary<" in str(self.schema)

    def facts(self) -> Facts | None:
        """Return size and time."""
        return file_facts(self.label)

    def read(self, part: int, columns: Sequence[str], n_rows: int) -> Iterator[Any]:
        """Yield a record batch, in slices."""
        wanted = [self.schema.get_field_index(name) for name in columns]
        with _opened(self.label), pyarrow().OSFile(self.label) as file, self._reader(file, wanted) as reader:
            if hasattr(reader, "get_batch"):
                batch = reader.get_batch(part)
            elif not self._has_dictionaries:  # going through what comes before takes long where there are many
                file.seek(self._found[part][1])
                batch = reader.read_next_batch()
            else:
                batch = next(b for number, b in enumerate(reader) if number == part)
            yield from _slices(batch.select(list(columns)), n_rows)

    def _reader(self, file: Any, columns: list[int] | None = None) -> Any:
        ipc, arrow = pyarrow("ipc"), pyarrow()
        options = ipc.IpcReadOptions(use_threads=False, included_fields=columns)
        pool = arrow.system_memory_pool()  # others keep what they get
        try:
            return ipc.open_file(file, options=options, memory_pool=pool)
        except arrow.ArrowInvalid:  # without the magic number of a file, it may be a stream
            file.seek(0)
            return ipc.open_stream(file, options=options, memory_pool=pool)


class MemoryTable:
    """A table in memory; its parts are its chunks."""

    part_name = "chunk"
    pages_nbytes = 0
    label = "table"

    def __init__(self, table: Any) -> None:
        self._batches = table.unify_dictionaries().to_batches()
        self.schema = table.schema

    @property
    def parts(self) -> Sequence[Part]:
        """Chunks."""
        return [Part(batch.num_rows, batch.nbytes) for batch in self._batches]

    @property
    def dictionaries(self) -> Mapping[str, tuple[str, ...]]:
        """Column → words, which are the same in all chunks."""
        return dictionaries_of(self._batches[0]) if self._batches else {}

    def facts(self) -> Facts | None:
        """Nobody knows."""
        return None

    def read(self, part: int, columns: Sequence[str], n_rows: int) -> Iterator[Any]:
        """Yield a chunk, in slices."""
        yield from _slices(self._batches[part].select(list(columns)), n_rows)


class Frame:
    """A DataFrame of pandas, without its index; its parts are some rows each, that become Arrow's one by one."""

    part_name = "part"
    pages_nbytes = 0
    label = "DataFrame"

    def __init__(self, frame: Any) -> None:
        self._frame = frame.copy(deep=False)
        self._frame.columns = [str(name) for name in frame.columns]  # numbers, where nobody named them
        self._step = max(1, _FRAME_PART_NBYTES * len(frame) // max(1, int(frame.memory_usage(index=False).sum())))

    @cached_property
    def schema(self) -> Any:
        """The Arrow schema."""
        names = list(self._frame.columns)
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise InvalidArgumentError(f"columns of the DataFrame must have names of their own, got {twice!r} twice")
        with _from_pandas():
            return pyarrow().Schema.from_pandas(self._frame, preserve_index=False)

    @property
    def parts(self) -> Sequence[Part]:
        """So many rows at a time."""
        n_rows = len(self._frame)
        counts = [min(self._step, n_rows - start) for start in range(0, n_rows, self._step)]
        return [Part(n, _FRAME_PART_NBYTES * n // self._step) for n in counts]

    @property
    def dictionaries(self) -> Mapping[str, tuple[str, ...]]:
        """Column → categories."""
        return dictionaries_of(self._batch(0, 1))

    def facts(self) -> Facts | None:
        """Nobody knows."""
        return None

    def read(self, part: int, columns: Sequence[str], n_rows: int) -> Iterator[Any]:
        """Yield some rows, in slices."""
        yield from _slices(self._batch(part * self._step, (part + 1) * self._step).select(list(columns)), n_rows)

    def _batch(self, start: int, stop: int) -> Any:
        rows = self._frame.iloc[start:stop]
        with _from_pandas():
            return pyarrow().RecordBatch.from_pandas(rows, schema=self.schema, preserve_index=False)


def dictionaries_of(batch: Any) -> dict[str, tuple[str, ...]]:
    """Return column → the words of its dictionary, of the columns that have one."""
    types = pyarrow().types
    found = {f.name: batch.column(f.name).dictionary for f in batch.schema if types.is_dictionary(f.type)}
    words = {name: _words_of(getattr(dictionary, "storage", dictionary)) for name, dictionary in found.items()}
    return {name: each for name, each in words.items() if each}


def _words_of(dictionary: Any) -> tuple[str, ...]:
    """Return the words of a dictionary as rows of it are turned to text; none where they are not so many texts."""
    types, kind = pyarrow().types, dictionary.type
    if types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind) or dictionary.null_count:
        return ()
    words = as_strings(dictionary).to_pylist()
    return tuple(words) if len(set(words)) == len(words) else ()


def file_of(path: str) -> ArrowFile:
    """Return a file as its suffix says."""
    return ParquetFile(path) if path.lower().endswith(PARQUET) else IpcFile(path)


def is_arrow(path: str) -> bool:
    """Whether a path ends as those of Parquet and Arrow IPC files do."""
    return path.lower().endswith((*PARQUET, *IPC)) and os.path.isfile(path)


def _nbytes(group: Any) -> int:
    return int(group.total_byte_size)


def _batches(reader: Any) -> Iterator[Any]:
    if hasattr(reader, "get_batch"):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _slices(batch: Any, n_rows: int) -> Iterator[Any]:
    for start in range(0, batch.num_rows, max(1, n_rows)):
        yield batch.slice(start, max(1, n_rows))


@contextmanager
def _from_pandas() -> Iterator[None]:
    """Have what Arrow says of a column that it cannot take be an error for people."""
    arrow = pyarrow()
    try:
        yield
    except (arrow.ArrowException, TypeError) as exc:
        raise InvalidArgumentError(
            f"columns of the DataFrame must each hold values of one kind, such as Arrow has: {exc}"
        ) from exc


@contextmanager
def _opened(path: str) -> Iterator[None]:
    """Have what Arrow says of a damaged file name it."""
    try:
        yield
    except (pyarrow().ArrowInvalid, pyarrow().ArrowNotImplementedError, OSError) as exc:
        raise StoreFormatError(
            f"{path} must be a whole Parquet or Arrow file that can be read, and is not: {exc}"
        ) from exc
