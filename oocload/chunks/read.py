"""One field's rows, from wherever they lie, to their places in a slab.

Five readers of one shape: `RawReader` and `ChunkReader` (own code), `LibraryReader` (h5py, zarr or NumPy),
`ResidentReader` (memory) and `PartsReader` (several of those, one after the other).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from oocload.chunks.decoded import ChunkReader
from oocload.chunks.raw import RawReader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Places, Ranges, Target
from oocload.layout import FieldLayout
from oocload.stores.base import Part, Store

_LIBRARY_READ_NBYTES = 2**20  # rows without chunks are read in pieces of this size
FILES_KEPT_OPEN = 32  # of one field: a chunk with a file of its own is read in several blocks, or announced


class FieldReader(Protocol):
    """Reads ranges of rows of one field."""

    def read(self, ranges: Ranges, target: Target, scratch: Scratch) -> int:
        """Put ranges of rows into a target, one after the other; return the bytes that were decoded for it."""
        ...

    @property
    def announces(self) -> bool:
        """Whether `announce` does anything."""
        ...

    def announce(self, ranges: Ranges) -> None:
        """Say which ranges of rows will be read soon; costs little where they are in the page cache."""
        ...

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Bytes that one thread needs beside the target, by buffer."""
        ...

    @property
    def held_nbytes(self) -> int:
        """Bytes that the reader itself holds."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class LibraryReader:
    """Reads rows through h5py or zarr, for what the direct path does not know."""

    def __init__(self, store: Store, field: FieldLayout) -> None:
        self._store = store
        self._field = field
        whole = max(1, _LIBRARY_READ_NBYTES // max(1, field.row_nbytes))
        self._step = field.chunk_rows if field.chunks else whole

    held_nbytes = 0
    announces = False

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Bytes of one decoded chunk band, and as much for what the library holds meanwhile."""
        band = self._field.chunk_rows * self._field.row_nbytes if self._field.chunks else _LIBRARY_READ_NBYTES
        rows = min(self._field.nbytes, max(band, self._field.row_nbytes))
        return {"library": 2 * max(rows, self._field.chunk_nbytes)}  # a chunk is decoded whole, however wide it is

    def read(self, ranges: Ranges, target: Target, scratch: Scratch) -> int:
        """Put ranges of rows into a target; return the bytes that were decoded for it."""
        for name, n_bytes in self.scratch_needs.items():
            scratch.reserve(name, n_bytes)
        height, at = self._step, 0
        for start, stop in ranges:
            first = start
            while first < stop:
                last = min(stop, (first // height + 1) * height)
                rows = np.ascontiguousarray(self._store.read_rows(self._field.name, first, last))
                target.put(at, rows)
                at, first = at + last - first, last
        return at * self._field.row_nbytes

    def announce(self, ranges: Ranges) -> None:
        """The library reads when it is asked to."""

    def close(self) -> None:
        """Nothing of its own is open."""


class ResidentReader:
    """Copies rows from a field that is held in memory whole.

    Parameters
    ----------
    reader
        Reads the field, once.
    field
        Its layout.

    """

    def __init__(self, reader: FieldReader, field: FieldLayout) -> None:
        try:
            self._rows = np.empty(field.shape, field.dtype)
            reader.read([(0, field.n_rows)], Places(self._rows), Scratch())
        finally:
            reader.close()

    announces = False

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Nothing is needed."""
        return {}

    @property
    def held_nbytes(self) -> int:
        """Bytes of the field."""
        return self._rows.nbytes

    def read(self, ranges: Ranges, target: Target, scratch: Scratch) -> int:
        """Put ranges of rows into a target; decodes nothing."""
        at = 0
        for start, stop in ranges:
            target.put(at, self._rows[start:stop])
            at += stop - start
        return 0

    def announce(self, ranges: Ranges) -> None:
        """All of it is in memory."""

    def close(self) -> None:
        """Nothing is open."""


class PartsReader:
    """Reads a field whose rows lie in fields of other stores, each by its own reader.

    Parameters
    ----------
    parts
        In the order of their rows.
    keep_open
        How many files stay open between reads.
    open_part
        Returns a part's reader; None takes `open_reader`.

    """

    def __init__(
        self, parts: Sequence[Part], keep_open: int, open_part: Callable[[Part, int], FieldReader] | None = None
    ) -> None:
        keep_open //= len(parts)  # with many, each read opens its file
        open_part = _open_part if open_part is None else open_part
        self._parts = parts
        self._starts = [p.start for p in parts]
        self._readers: list[FieldReader] = []
        try:
            self._readers.extend(open_part(p, keep_open) for p in parts)
        except BaseException:
            self.close()
            raise
        self.announces = any(reader.announces for reader in self._readers)

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Of each buffer, the most that a part needs."""
        return most_needs(reader.scratch_needs for reader in self._readers)

    @property
    def held_nbytes(self) -> int:
        """Bytes of all parts' chunk indexes."""
        return sum(reader.held_nbytes for reader in self._readers)

    def read(self, ranges: Ranges, target: Target, scratch: Scratch) -> int:
        """Put ranges of rows into a target, one after the other; return the bytes that were decoded for it."""
        decoded = at = 0
        for reader, start, stop in self._by_part(ranges):
            decoded += reader.read([(start, stop)], target.behind(at), scratch)
            at += stop - start
        return decoded

    def announce(self, ranges: Ranges) -> None:
        """Say to each part which of its rows will be read soon."""
        for reader, start, stop in self._by_part(ranges):
            reader.announce([(start, stop)])

    def _by_part(self, ranges: Ranges) -> Iterator[tuple[FieldReader, int, int]]:
        """Yield the reader of a part, and a range of its own rows."""
        for start, stop in ranges:
            number = bisect_right(self._starts, start) - 1
            while start < stop:
                part = self._parts[number]
                end = min(stop, part.stop)
                shift = part.source_start - part.start
                yield self._readers[number], start + shift, end + shift
                start, number = end, number + 1

    def close(self) -> None:
        """Close every part's reader."""
        for reader in self._readers:
            reader.close()


def _open_part(part: Part, keep_open: int) -> FieldReader:
    return open_reader(part.store, part.field, keep_open=keep_open)


def most_needs(each: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the bytes of each scratch buffer that one thread needs for any of some readers, given those of each."""
    needs: dict[str, int] = {}
    for of_reader in each:
        for buffer, n_bytes in of_reader.items():
            needs[buffer] = max(needs.get(buffer, 0), n_bytes)
    return needs


def open_reader(
    store: Store, field: FieldLayout, resident: bool = False, keep_open: int = FILES_KEPT_OPEN
) -> FieldReader:
    """Return the reader for a field: direct where its layout says so, and held in memory where asked for."""
    reader: FieldReader
    if parts := store.parts(field.name):
        reader = PartsReader(parts, keep_open)
    elif field.read_path != "direct" or field.row_nbytes == 0 or field.inline:
        reader = LibraryReader(store, field)
    elif not field.codecs and field.whole_rows:
        reader = RawReader(store, field, keep_open)
    else:
        reader = ChunkReader(store, field, keep_open)
    return ResidentReader(reader, field) if resident or field.inline else reader
