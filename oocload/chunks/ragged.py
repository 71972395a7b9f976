"""Ragged fields: finds the items of rows by their offsets, reads them, and puts the rows into a slab as wanted.

::

    rows      ..| 3 |4|  5  | 6 |..      of a block
    items     ..a b c d e f g h i..      read in as few ranges as they lie in
    slab      5: e f g . .               each row at its place: padded, dense, or a reference beside the items

What lies beyond a row's kept items is read where that is quicker than to leave it out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.items import truncated
from oocload.chunks.read import FILES_KEPT_OPEN, FieldReader, PartsReader, most_needs, open_reader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Places, Ranges, Target
from oocload.errors import ChunkError
from oocload.layout import FieldLayout, RaggedLayout
from oocload.stores.base import Part, Store

PIECE_ROWS = 4096  # whose offsets are looked at together
PIECE_ITEMS_NBYTES = 2**20  # of their items, at least; of a longer row, what is kept is read alone
_TOGETHER_NBYTES = 2**19  # of items that are not encoded: a quarter of it gave 0.7 of the speed (benchmarks/padding.py)
_CHUNKS_TOGETHER = 8  # so that the chunks at both ends, of which others need the rest, are few among those decoded
_CHUNKS_NBYTES = 4 * 2**20  # which those have at most, where there are more than two
_MOST_RESIDENT_NBYTES = 2 * 2**20  # of offsets

REFERENCE = np.dtype([("start", np.int64), ("length", np.int64)])
"""A row as the number of its first item in an array of items, and how many there are."""


class Kept(NamedTuple):
    """How much of each row is read: at most so many items (None: all), the first ones or the last."""

    most: int | None = None
    end: bool = False


ALL = Kept()


class Piece(NamedTuple):
    """Rows that are handled together: their number in the target, and where their items are in the store."""

    first_row: int
    at: int
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @property
    def items(self) -> tuple[int, int]:
        """The items from the first row's to the last one's."""
        return int(self.starts[0]), int(self.starts[-1] + self.lengths[-1])

    @property
    def n_items(self) -> int:
        """How many those are."""
        first, last = self.items
        return last - first


def check_offsets(offsets: NDArray[np.int64], n_items: int, where: str, first_row: int) -> None:
    """Refuse offsets of rows that decrease or point past the items.

    Raises
    ------
    ChunkError
        If they do; says where, and the row.

    """
    wrong = (np.diff(offsets) < 0) | (offsets[:-1] < 0) | (offsets[1:] > n_items)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ChunkError(
            f"{where}, row {first_row + row}: offsets must not decrease, nor point past the {n_items} items, and go "
            f"from {offsets[row]} to {offsets[row + 1]}"
        )


class RaggedReader(ABC):
    """Reads ranges of ragged rows.

    Parameters
    ----------
    store
        The store.
    field
        Its layout; ``field.ragged`` says where the items are.
    kept
        How much of each row is wanted.
    keep_open
        How many files stay open between reads.

    """

    reads_items = True

    def __init__(
        self,
        store: Store,
        field: FieldLayout,
        kept: Kept = ALL,
        keep_open: int = FILES_KEPT_OPEN,
    ) -> None:
        assert field.ragged is not None
        self.layout: RaggedLayout = field.ragged
        self.kept = kept
        self._where = f"{store.address}, field {field.name!r}"
        offsets = self.layout.offsets
        resident = offsets.nbytes <= _MOST_RESIDENT_NBYTES
        self._members: list[FieldReader] = []
        try:
            self._offsets = self._open(store, offsets, resident, keep_open)
            if self.reads_items:
                self._values = self._open(store, self.layout.values, False, keep_open)
                columns = self.layout.columns
                self._columns = None if columns is None else self._open(store, columns, False, keep_open)
        except BaseException:
            self.close()
            raise

    def _open(self, store: Store, member: FieldLayout, resident: bool, keep_open: int) -> FieldReader:
        self._members.append(open_reader(store, member, resident, keep_open))
        return self._members[-1]

    # As every reader

    announces = False

    def announce(self, ranges: Ranges) -> None:
        """Do nothing: where items lie is known only when offsets are read."""
        return

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Bytes of the members' buffers, and of a piece's offsets and items."""
        needs = most_needs(member.scratch_needs for member in self._members)
        needs["offsets"] = (1 + PIECE_ROWS) * self.layout.offsets.dtype.itemsize
        needs["bounds"] = 8 * 8 * (1 + PIECE_ROWS)
        return needs

    @property
    def held_nbytes(self) -> int:
        """Bytes of the members' indexes, and of offsets that are held."""
        return sum(member.held_nbytes for member in self._members)

    def close(self) -> None:
        """Close the members."""
        for member in self._members:
            member.close()

    def read(self, ranges: Ranges, target: Target, scratch: Scratch) -> int:
        """Put ranges of rows into a target, one after the other; return the bytes that were decoded for it.

        Raises
        ------
        ChunkError
            If a chunk cannot be read, or offsets decrease or point past the items; names path, field and row.

        """
        decoded = at = 0
        for start, stop in ranges:
            for first in range(start, stop, PIECE_ROWS):
                last = min(stop, first + PIECE_ROWS)
                offsets = self._checked(first, self._read_offsets(first, last, scratch))
                starts, lengths = truncated(offsets[:-1], np.diff(offsets), *self.kept)
                for low, high in self._cut(offsets):
                    piece = Piece(first + low, at + low, starts[low:high], lengths[low:high])
                    decoded += self.put(piece, target, scratch)
                at += last - first
        return decoded

    def _checked(self, first_row: int, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        check_offsets(offsets, self.layout.values.n_rows, self._where, first_row)
        return offsets

    def _read_offsets(self, start: int, stop: int, scratch: Scratch) -> NDArray[np.int64]:
        dtype = self.layout.offsets.dtype
        raw = scratch.get("offsets", (stop - start + 1) * dtype.itemsize).view(dtype)
        self._offsets.read([(start, stop + 1)], Places(raw), scratch)
        return raw.astype(np.int64)

    def _cut(self, offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Yield ranges of rows whose items are few enough to be held at once, but for a row that is longer alone."""
        most_items, most_rows = self._most_items, self._most_rows
        low, n_rows = 0, len(offsets) - 1
        while low < n_rows:
            high = int(np.searchsorted(offsets, offsets[low] + most_items, side="right")) - 1
            high = min(max(low + 1, high), low + most_rows, n_rows)
            yield low, high
            low = high

    @property
    def _most_items(self) -> int:
        """Items that a piece has at most, unless it is one row."""
        return max(PIECE_ITEMS_NBYTES // self.item_nbytes, items_together(self.layout))

    @property
    def _most_rows(self) -> int:
        """Rows that a piece has at most."""
        return PIECE_ROWS

    @property
    def item_nbytes(self) -> int:
        """Bytes of one item, and of its column where there is one."""
        columns = 0 if self.layout.columns is None else self.layout.columns.dtype.itemsize
        return max(1, self.layout.values.row_nbytes + columns)

    @abstractmethod
    def put(self, piece: Piece, target: Target, scratch: Scratch) -> int:
        """Put some rows into a target; return the bytes that were decoded for it."""

    # What kinds of rows are made of

    @property
    def buffered_items(self) -> int:
        """Items of one piece, at most."""
        longest = self.layout.values.n_rows if self.kept.most is None else self.kept.most
        return min(self.layout.values.n_rows, max(self._most_items, longest))

    def read_items(self, piece: Piece, into: NDArray[Any], scratch: Scratch) -> int:
        """Read the items of a piece into an array; return the bytes decoded."""
        return self._values.read([piece.items], Places(into), scratch) if piece.n_items else 0

    def read_columns(self, piece: Piece, into: NDArray[Any], scratch: Scratch) -> int:
        """Read the columns of a piece's items.

        Raises
        ------
        ChunkError
            If one is not among the matrix's.

        """
        assert self._columns is not None
        decoded = self._columns.read([piece.items], Places(into), scratch) if piece.n_items else 0
        wrong = (into < 0) | (into >= self.layout.n_columns)
        if wrong.any():
            at = int(np.argmax(wrong))
            row = np.searchsorted(piece.starts - piece.starts[0], at, side="right") - 1
            raise ChunkError(
                f"{self._where}, row {piece.first_row + int(row)}: columns must be from 0 to "
                f"{self.layout.n_columns - 1}, got {into[at]}"
            )
        return decoded


def items_together(layout: RaggedLayout) -> int:
    """Return how many items should be read together, since chunks at both ends are decoded for their neighbours too."""
    members = [m for m in (layout.values, layout.columns) if m is not None]
    chunks = [m for m in members if m.rigid]
    if not chunks:
        return max(1, _TOGETHER_NBYTES // sum(max(1, m.row_nbytes) for m in members))
    nbytes = max(m.chunk_nbytes for m in chunks)
    n_chunks = max(2, min(_CHUNKS_TOGETHER, _CHUNKS_NBYTES // max(1, nbytes)))
    return n_chunks * max(m.chunk_rows for m in chunks)


def open_ragged(
    store: Store, field: FieldLayout, of_part: Callable[[Store, FieldLayout, int], FieldReader]
) -> FieldReader:
    """Return the reader of a ragged field, part by part where it is made of several.

    Parameters
    ----------
    store, field
        The field.
    of_part
        Given the store and field of a part, and how many files stay open, returns the part's reader.

    """
    parts = store.parts(field.name)

    def open_part(part: Part, keep_open: int) -> FieldReader:
        return of_part(part.store, part.field, keep_open)

    return PartsReader(parts, FILES_KEPT_OPEN, open_part) if parts else of_part(store, field, FILES_KEPT_OPEN)
