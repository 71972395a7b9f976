"""Ragged and sparse fields of stores: their items are read as any array is, and the offsets cut them into rows.

::

    offsets    0     3  4        8  9      from the thread that iterates, many rows at a time
    items      |---------|---------|--     pieces, read ahead, that end where chunks of items end
    batches    |-----|--||--------||-      rows that lie within a piece, and then the one that crosses its end
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.convert.ragged import CsrSpec, RaggedRows, RaggedSpec
from oocload.convert.sources.ahead import Pieces, ReadAhead
from oocload.convert.sources.base import FieldSource
from oocload.convert.sources.cut import shares
from oocload.convert.sources.identity import Identity, array_identity, lies_in_folders, store_facts
from oocload.convert.sources.ragged import OFFSET_NBYTES, item_nbytes
from oocload.convert.sources.store import StoreField
from oocload.errors import ChunkError
from oocload.layout import FieldLayout
from oocload.stores.base import Store

_OFFSETS_READ = 2**16  # at a time, at least


class StoreRagged(FieldSource):
    """A ragged or sparse field of a store, or of several joined."""

    def __init__(self, store: Store, field: FieldLayout) -> None:
        ragged = field.ragged
        assert ragged is not None
        self.label = f"{store.address}, field {field.name!r}"
        self.n_rows = field.n_rows
        self._spec: RaggedSpec | CsrSpec
        if ragged.columns is None:
            self._spec = RaggedSpec(ragged.values.row_shape, field.dtype)
        else:
            self._spec = CsrSpec(field.dtype, ragged.n_columns)
        self.meaning = field.meaning
        self._n_items = ragged.values.n_rows
        self._store, self._field = store, field
        parts = store.parts(field.name)
        self._parts = [(p.start, _Part(p.store, p.field)) for p in parts] or [(0, _Part(store, field))]

    @property
    def spec(self) -> RaggedSpec | CsrSpec:
        """What the rows are."""
        return self._spec

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row, on average."""
        return self._n_items * item_nbytes(self._spec) // max(1, self.n_rows) + OFFSET_NBYTES

    @property
    def least_nbytes(self) -> int:
        """The smallest piece of items that can be read."""
        return max(sum(item.least_nbytes for item in part.items) for _, part in self._parts)

    @property
    def wanted_nbytes(self) -> int:
        """The smallest piece of items with which no chunk is decoded twice."""
        return max(sum(item.wanted_nbytes for item in part.items) for _, part in self._parts)

    @property
    def scratch_nbytes(self) -> int:
        """What the readers take in each thread."""
        return max(array.scratch_nbytes for _, part in self._parts for array in (*part.items, part.offsets))

    def held_nbytes(self) -> int:
        """Return the bytes of indexes of chunks, and of the offsets that are looked at."""
        arrays = [array for _, part in self._parts for array in (*part.items, part.offsets)]
        most = max(part.offsets_read for _, part in self._parts)
        return sum(array.held_nbytes() for array in arrays) + 2 * OFFSET_NBYTES * most

    @property
    def identity_walks(self) -> bool:
        """Whether it is made of folders, such as Zarr's."""
        return lies_in_folders(self._store, self._field)

    def identity(self) -> Identity:
        """Return shapes and dtypes, and size and time of every file."""
        ragged = self._field.ragged
        assert ragged is not None
        files = store_facts(self._store, self._field)
        return array_identity(
            (self.n_rows, *ragged.values.shape), self._field.dtype, files, name=self._field.name, spec=str(self._spec)
        )

    def track(self, start: int, stop: int, piece_nbytes: int, ahead: ReadAhead) -> _PartsTrack:
        """Return rows from ``start`` to ``stop`` on their way."""
        return _PartsTrack(self._parts, start, stop, piece_nbytes, ahead)

    def close(self) -> None:
        """Close the readers."""
        for _, part in self._parts:
            for array in (*part.items, part.offsets):
                array.close()


class _Part:
    """Ragged rows of one store: its offsets, and its items with their columns."""

    def __init__(self, store: Store, field: FieldLayout) -> None:
        ragged = field.ragged
        assert ragged is not None
        self.n_rows = field.n_rows
        self.n_items = ragged.values.n_rows
        self.n_columns = ragged.n_columns
        self.where = f"{store.address}, field {field.name!r}"
        self.offsets = StoreField(store, ragged.offsets)
        self.items = [StoreField(store, f) for f in (ragged.values, ragged.columns) if f is not None]
        height = ragged.offsets.chunk_rows if ragged.offsets.rigid else 1
        self.offsets_read = -(-_OFFSETS_READ // height) * height  # whole chunks

    def read_offsets(self, start: int, stop: int, ahead: ReadAhead) -> NDArray[np.int64]:
        """Return where rows begin, and where the last of them ends.

        Raises
        ------
        ChunkError
            If that cannot be.

        """
        offsets = self.offsets.read(start, stop + 1, ahead.scratch).astype(np.int64, copy=False)
        problem = ""
        if offsets.min() < 0 or offsets.max() > self.n_items:
            problem = f"be from 0 to the number of items, {self.n_items}, got {offsets.min()} to {offsets.max()}"
        elif (offsets[1:] < offsets[:-1]).any():
            problem = f"never fall, and do after row {start + int(np.argmax(offsets[1:] < offsets[:-1]))}"
        elif not start and offsets[0]:
            problem = f"begin with 0, got {offsets[0]}"
        elif stop == self.n_rows and offsets[-1] != self.n_items:
            problem = f"end with the number of items, {self.n_items}, got {offsets[-1]}"
        if problem:
            raise ChunkError(f"{self.where}: offsets must {problem}; the file is damaged")
        return offsets


class _PartTrack:
    """Rows of one part on their way."""

    def __init__(self, part: _Part, start: int, stop: int, piece_nbytes: int, ahead: ReadAhead) -> None:
        self._part, self._ahead = part, ahead
        self._at, self._stop = start, stop
        self._first, self._offsets = start, self._read_offsets(start)
        last = self._offsets[-1:] if self._ends_at(stop) else part.read_offsets(stop, stop, ahead)
        first, self._last_item = int(self._offsets[0]), int(last[-1])
        each = shares(piece_nbytes, [i.row_nbytes for i in part.items], [i.least_nbytes for i in part.items])
        self._items: list[Pieces] = [
            item.track(first, max(first, self._last_item), share, ahead)
            for item, share in zip(part.items, each, strict=True)
        ]

    def available(self) -> int:
        """Return how many rows have items that are there; 1 where the next row has more, and 0 at the end."""
        if self._at == self._stop:
            return 0
        if self._ends_at(self._at):
            self._first, self._offsets = self._at, self._read_offsets(self._at)
        offsets = self._offsets[self._at - self._first :]
        n_items = min(item.available() for item in self._items)
        return max(1, int(np.searchsorted(offsets, offsets[0] + n_items, "right")) - 1)

    def take(self, n_rows: int) -> RaggedRows:
        """Return the next rows."""
        start, stop = self._at, self._at + n_rows
        offsets = self._offsets[start - self._first : stop + 1 - self._first]
        n_items = int(offsets[-1] - offsets[0])
        if offsets[-1] > self._last_item:
            raise ChunkError(
                f"{self._part.where}: offsets must never fall, and do after row {stop - 1}; the file is damaged"
            )
        values, *columns = (item.take(n_items) for item in self._items)
        self._at = stop
        if not columns:
            return RaggedRows(values, offsets - offsets[0])
        self._check_columns(columns[0], start, stop)
        return RaggedRows(values, offsets - offsets[0], columns[0])

    def _check_columns(self, columns: NDArray[Any], start: int, stop: int) -> None:
        n_columns = self._part.n_columns
        if len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < n_columns:
            raise ChunkError(
                f"{self._part.where}, rows {start} to {stop}: columns must be from 0 to {n_columns - 1}, "
                f"got {columns.min()} to {columns.max()}; the file is damaged"
            )

    def _read_offsets(self, start: int) -> NDArray[np.int64]:
        read = self._part.offsets_read
        stop = min(self._stop, (start // read + 1) * read - 1)
        return self._part.read_offsets(start, max(stop, start + 1), self._ahead)

    def _ends_at(self, row: int) -> bool:
        return self._first + len(self._offsets) - 1 == row


class _PartsTrack:
    """Rows of one part after the other on their way."""

    def __init__(
        self, parts: list[tuple[int, _Part]], start: int, stop: int, piece_nbytes: int, ahead: ReadAhead
    ) -> None:
        self._left = [
            (part, max(0, start - first), min(part.n_rows, stop - first))
            for first, part in parts
            if first < stop and start < first + part.n_rows
        ]
        self._piece_nbytes, self._ahead = piece_nbytes, ahead
        self._track: _PartTrack | None = None

    def available(self) -> int:
        """Return how many rows can be taken at once; those of one part."""
        n_rows = self._track.available() if self._track is not None else 0
        while not n_rows and self._left:
            part, start, stop = self._left.pop(0)
            self._track = None
            self._track = _PartTrack(part, start, stop, self._piece_nbytes, self._ahead)
            n_rows = self._track.available()
        return n_rows

    def take(self, n_rows: int) -> RaggedRows:
        """Return the next rows."""
        assert self._track is not None
        return self._track.take(n_rows)
