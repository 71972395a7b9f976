"""The items of ragged rows in a slab: how much room they need at most, and where each block's go.

::

    slab   | references, one per row, at their places |  left over  | block 7 | block 2 | block 5 |   items
              (start, length) ─────────────────────────────────────────► ▓▓▓▓

Items stay where they are read; only references are shuffled. So a row that is drawn twice is read once, and bytes
rather than rows bound a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.items import numbers_of
from oocload.chunks.ragged import REFERENCE, Kept, open_ragged
from oocload.chunks.ragged_rows import MeasuredReader
from oocload.chunks.read import FieldReader
from oocload.chunks.scratch import Bytes, Scratch, align
from oocload.chunks.target import Places, Ranges, Target, Through
from oocload.errors import ChunkError
from oocload.layout import FieldLayout
from oocload.plan.room import most_items
from oocload.plan.windows import Reading
from oocload.stores.base import Store

_PIECE_ROWS = 2**13  # whose offsets are read together when a store is measured
_MEASURED_ROW_NBYTES = 6 * 8  # while they are


class RaggedArray:
    """Ragged rows over one array of items, sliced as an array's rows are; views.

    Attributes
    ----------
    references
        The rows, shape (rows,), dtype `REFERENCE`.
    items
        What they refer to, shape (items, *item shape).
    columns
        Of sparse rows: the column of each item.
    n_columns
        Of sparse rows: the length of a dense one.

    """

    __slots__ = ("columns", "items", "n_columns", "references")

    def __init__(
        self,
        references: NDArray[Any],
        items: NDArray[Any],
        columns: NDArray[Any] | None = None,
        n_columns: int = 0,
    ) -> None:
        self.references, self.items, self.columns, self.n_columns = references, items, columns, n_columns

    def __len__(self) -> int:
        return len(self.references)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.references)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Number of each row's first item."""
        return np.ascontiguousarray(self.references["start"])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items of each row."""
        return np.ascontiguousarray(self.references["length"])

    def __getitem__(self, rows: Any) -> RaggedArray:
        return RaggedArray(self.references[rows], self.items, self.columns, self.n_columns)

    def __setitem__(self, places: Any, rows: RaggedArray) -> None:
        """Copy rows, with their items to the front of these items: for those left over, which come first of all."""
        lengths = rows.lengths
        n_items = int(lengths.sum())
        taken = numbers_of(rows.starts, lengths)
        np.take(rows.items, taken, axis=0, out=self.items[:n_items], mode="clip")
        if self.columns is not None and rows.columns is not None:
            np.take(rows.columns, taken, out=self.columns[:n_items], mode="clip")
        references = np.empty(len(lengths), REFERENCE)
        references["start"], references["length"] = np.cumsum(lengths) - lengths, lengths
        self.references[places] = references

    def copy(self) -> RaggedArray:
        """Return a copy with no other rows' items in it."""
        n_items = int(self.lengths.sum())
        columns = None if self.columns is None else np.empty(n_items, self.columns.dtype)
        items = np.empty((n_items, *self.items.shape[1:]), self.items.dtype)
        made = RaggedArray(np.empty(len(self), REFERENCE), items, columns, self.n_columns)
        made[:] = self
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        own = self.copy()
        return type(self), (own.references, own.items, own.columns, own.n_columns)


@dataclass(frozen=True, slots=True, eq=False)
class Arena:
    """What a field's items need in slabs.

    Attributes
    ----------
    field
        The field, as it is stored.
    group_starts
        First row of each of the groups that epochs are made of, ascending.
    group_rows, group_items
        Rows that each gives, and items of the range of rows that is read for them.
    longest
        Items of the longest rows of all, descending; as many as a batch has rows.
    measuring_nbytes
        Bytes that were held while all this was found.

    """

    field: FieldLayout
    group_starts: NDArray[np.int64]
    group_rows: NDArray[np.int64]
    group_items: NDArray[np.int64]
    longest: NDArray[np.int64]
    measuring_nbytes: int

    @property
    def held_nbytes(self) -> int:
        """Bytes of these facts."""
        return self.group_items.nbytes + self.longest.nbytes

    def of_rows(self, n_rows: int) -> int:
        """Return how many items some rows have at most."""
        shortest = int(self.longest[-1]) if len(self.longest) else 0
        return int(self.longest[:n_rows].sum()) + max(0, n_rows - len(self.longest)) * shortest

    def of_window(self, n_rows: int, again: tuple[int, int]) -> int:
        """Return how many items the windows of so many rows have at most, with some visits as `visits_again` says."""
        return most_items(self.group_rows, self.group_items, n_rows, *again)

    def nbytes(self, n_items: int) -> int:
        """Return the bytes of some items, with their columns."""
        ragged = self.field.ragged
        assert ragged is not None
        columns = 0 if ragged.columns is None else align(n_items * ragged.columns.dtype.itemsize)
        return align(n_items * ragged.values.row_nbytes) + columns

    def carve(self, root: Bytes, references: NDArray[Any], n_items: int) -> RaggedArray:
        """Return rows over some memory."""
        ragged = self.field.ragged
        assert ragged is not None
        values = ragged.values
        items = root[: n_items * values.row_nbytes].view(values.dtype).reshape(n_items, *values.row_shape)
        columns = None
        if ragged.columns is not None:
            first = align(items.nbytes)
            columns = root[first : first + n_items * ragged.columns.dtype.itemsize].view(ragged.columns.dtype)
        return RaggedArray(references, items, columns, ragged.n_columns)

    def regions(self, reading: Reading, before: int) -> NDArray[np.int64]:
        """Return where the items of each range of rows that is read begin, behind some others, and where they end."""
        group = np.searchsorted(self.group_starts, reading.starts, side="right") - 1
        return before + np.concatenate([[0], np.cumsum(self.group_items[group])])


class Arenas:
    """What all ragged fields of a loader need in slabs.

    Parameters
    ----------
    of
        Field → arena.

    """

    def __init__(self, of: Mapping[str, Arena]) -> None:
        self.of = of

    @property
    def held_nbytes(self) -> int:
        """Bytes of these facts."""
        return sum(arena.held_nbytes for arena in self.of.values())

    @property
    def measuring_nbytes(self) -> int:
        """Bytes that are held while this is found, one field after the other."""
        return max((arena.measuring_nbytes for arena in self.of.values()), default=0)

    def left_over(self, n_rows: int) -> dict[str, int]:
        """Return the items of each field that some rows have at most."""
        return {name: arena.of_rows(n_rows) for name, arena in self.of.items()}

    def of_slab(self, n_rows: int, again: tuple[int, int], n_left_over: int) -> dict[str, int]:
        """Return the items of each field in a slab, at most: those of a window, and those of rows left over."""
        before = self.left_over(n_left_over)
        return {name: before[name] + arena.of_window(n_rows, again) for name, arena in self.of.items()}

    def nbytes(self, n_items: Mapping[str, int]) -> int:
        """Return the bytes of some items of each field."""
        return sum(self.of[name].nbytes(n) for name, n in n_items.items())


NONE = Arenas({})


def measure(
    store: Store, field: FieldLayout, kept: Kept, groups: tuple[NDArray[np.int64], ...], n_longest: int
) -> Arena:
    """Return what a field's items need, from one pass over its offsets.

    Parameters
    ----------
    store, field
        The field.
    kept
        How much of each row is read.
    groups
        First row, last row + 1, and rows given, of each group that epochs are made of.
    n_longest
        Rows of a batch.

    """
    starts, stops, rows = groups
    items = np.zeros(len(starts), np.int64)
    longest: NDArray[np.int64] = np.empty(0, np.int64)
    covered = np.cumsum(stops - starts)
    with closing(open_lengths(store, field, kept, as_read=True)) as reader:
        scratch, first = Scratch(), 0
        while first < len(starts):
            before = int(covered[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(covered, before + _PIECE_ROWS, side="right")))
            if last == first + 1:  # perhaps one that is higher than a piece
                for low in range(int(starts[first]), int(stops[first]), _PIECE_ROWS):
                    lengths = lengths_of(reader, [(low, min(int(stops[first]), low + _PIECE_ROWS))], scratch)
                    items[first] += lengths.sum()
                    longest = _longest(longest, lengths, n_longest)
            else:
                ranges = list(zip(starts[first:last].tolist(), stops[first:last].tolist(), strict=True))
                lengths = lengths_of(reader, ranges, scratch)
                items[first:last] = np.add.reduceat(
                    lengths, covered[first:last] - (stops - starts)[first:last] - before
                )
                longest = _longest(longest, lengths, n_longest)
            first = last
        measuring = sum(reader.scratch_needs.values()) + _MEASURED_ROW_NBYTES * (_PIECE_ROWS + n_longest)
    return Arena(field, starts, rows, items, longest, measuring)


def _longest(known: NDArray[np.int64], lengths: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return the longest of some rows known and others, descending."""
    both = np.concatenate([known, lengths])
    if len(both) > most:
        both = np.partition(both, len(both) - most)[len(both) - most :]
    return -np.sort(-both)


def open_lengths(store: Store, field: FieldLayout, kept: Kept, as_read: bool = False) -> FieldReader:
    """Return a reader of how many items of each row are kept, or, ``as_read``, take room while it is read."""
    return open_ragged(store, field, lambda s, f, keep_open: MeasuredReader(s, f, kept, as_read, keep_open))


def lengths_of(reader: FieldReader, ranges: Ranges, scratch: Scratch) -> NDArray[np.int64]:
    """Return the lengths of the rows of some ranges."""
    lengths = np.empty(sum(stop - start for start, stop in ranges), np.int64)
    reader.read(ranges, Places(lengths), scratch)
    return lengths


class ItemRoom:
    """Room for the items of some blocks, one after the other.

    Parameters
    ----------
    rows
        Over the slab's memory.
    first, stop
        Which items are room for them.

    """

    __slots__ = ("_at", "_rows", "_stop")

    def __init__(self, rows: RaggedArray, first: int, stop: int) -> None:
        self._rows, self._at, self._stop = rows, first, stop

    def reserve(self, n_items: int) -> tuple[int, NDArray[Any], NDArray[Any] | None]:
        """Return the number of the first of some more items, and room for them and for their columns."""
        first, last = self._at, self._at + n_items
        if last > self._stop:
            raise ChunkError(
                f"rows of a block must have {self._stop - first} items at most, as their offsets said when the store "
                f"was opened, and have {n_items}"
            )
        self._at = last
        assert last <= len(self._rows.items)
        columns = self._rows.columns
        return first, self._rows.items[first:last], None if columns is None else columns[first:last]


class WithItems:
    """A target for references that has room for what they refer to.

    Parameters
    ----------
    places
        Where references go.
    room
        For their items.

    """

    __slots__ = ("_places", "_room")

    in_order = False
    takes_all = False

    def __init__(self, places: Target, room: ItemRoom) -> None:
        self._places, self._room = places, room

    def behind(self, at: int) -> WithItems:
        """Return where rows from number ``at`` on go."""
        return WithItems(self._places.behind(at), self._room)

    def through(self, wrap: Through) -> Target:
        """References are not changed."""
        raise AssertionError("references are put as they are")

    def put(self, at: int, rows: NDArray[Any]) -> None:
        """Copy references to their places."""
        self._places.put(at, rows)

    def fill(self, at: int, n_rows: int, item: NDArray[Any]) -> None:
        """Set every reference of some rows' places to one value."""
        self._places.fill(at, n_rows, item)

    def span(self, at: int, n_rows: int) -> Bytes | None:
        """Nothing is written directly."""
        return None

    def row_buffers(self) -> list[memoryview]:
        """References pass through memory of their own."""
        raise AssertionError("references are put")

    def reserve(self, n_items: int) -> tuple[int, NDArray[Any], NDArray[Any] | None]:
        """Return the number of the first of some more items, and room for them and for their columns."""
        return self._room.reserve(n_items)
