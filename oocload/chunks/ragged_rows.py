"""What is made of ragged rows: padded or dense ones, their lengths and masks, or references beside their items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.items import PIECE_NBYTES, pad_rows, put_dense
from oocload.chunks.ragged import ALL, PIECE_ITEMS_NBYTES, PIECE_ROWS, REFERENCE, Kept, Piece, RaggedReader
from oocload.chunks.read import FILES_KEPT_OPEN
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Target
from oocload.layout import FieldLayout
from oocload.stores.base import Store

_DENSE_NBYTES = 2**20  # of dense rows, that are made together


class PaddedReader(RaggedReader):
    """Rows padded to one length.

    Parameters
    ----------
    width
        That length, in items.
    pre, value
        Whether rows stand behind the padding, and what it is.
    note
        Called with the items kept, and those of padding.

    """

    def __init__(
        self,
        store: Store,
        field: FieldLayout,
        width: int,
        kept_end: bool,
        pre: bool,
        value: Any,
        note: Callable[[int, int], None],
        keep_open: int = FILES_KEPT_OPEN,
    ) -> None:
        super().__init__(store, field, Kept(width, kept_end), keep_open=keep_open)
        self._width, self._pre, self._value, self._note = width, pre, value, note
        self._item_shape = self.layout.values.row_shape
        self._dtype = self.layout.values.dtype

    @property
    def _most_rows(self) -> int:
        return max(1, min(PIECE_ROWS, PIECE_ITEMS_NBYTES // max(1, self._width * self.item_nbytes)))

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Those of every ragged field; a piece's items, and its padded rows."""
        return {
            **super().scratch_needs,
            "items": self.buffered_items * self.item_nbytes,
            "padded": max(PIECE_NBYTES, self._width * self.item_nbytes),
        }

    def put(self, piece: Piece, target: Target, scratch: Scratch) -> int:
        """Read the items of some rows, and put the rows padded."""
        width, n_rows = self._width, len(piece.starts)
        buffer = scratch.get("items", piece.n_items * self.item_nbytes)
        items = buffer.view(self._dtype).reshape(-1, *self._item_shape)
        decoded = self.read_items(piece, items, scratch)
        starts = piece.starts - piece.items[0]
        step = max(1, PIECE_NBYTES // max(1, width * self.item_nbytes))
        for first in range(0, n_rows, step):
            last = min(n_rows, first + step)
            room = scratch.get("padded", (last - first) * width * self.item_nbytes)
            rows = room.view(self._dtype).reshape(last - first, width, *self._item_shape)
            pad_rows(items, starts[first:last], piece.lengths[first:last], rows, self._pre, self._value)
            target.put(piece.at + first, rows)
        n_kept = int(piece.lengths.sum())
        self._note(n_kept, n_rows * width - n_kept)
        return decoded


class LengthsReader(RaggedReader):
    """How many items of each row are kept; int64."""

    reads_items = False

    def put(self, piece: Piece, target: Target, scratch: Scratch) -> int:
        """Put the lengths of some rows."""
        target.put(piece.at, np.ascontiguousarray(piece.lengths))
        return piece.lengths.nbytes


class MeasuredReader(LengthsReader):
    """Lengths for planning: offsets that decrease or point past the items are told of when rows are read.

    Parameters
    ----------
    as_read
        Of a row that is truncated, count what is read with others: all of it, unless it is longer than a piece.

    """

    def __init__(
        self,
        store: Store,
        field: FieldLayout,
        kept: Kept = ALL,
        as_read: bool = False,
        keep_open: int = FILES_KEPT_OPEN,
    ) -> None:
        super().__init__(store, field, ALL if as_read else kept, keep_open)
        self._most = kept.most if as_read else None

    def put(self, piece: Piece, target: Target, scratch: Scratch) -> int:
        """Put the lengths of some rows."""
        if self._most is None:
            return super().put(piece, target, scratch)
        long = piece.lengths > self._most_items
        return super().put(
            piece._replace(lengths=np.where(long, np.minimum(piece.lengths, self._most), piece.lengths)),
            target,
            scratch,
        )

    def _checked(self, first_row: int, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        sound: NDArray[np.int64] = np.maximum.accumulate(np.clip(offsets, 0, self.layout.values.n_rows))
        return sound


class MaskReader(RaggedReader):
    """Which places of rows padded to one length are items; bool.

    Parameters
    ----------
    width, pre
        As for `PaddedReader`.

    """

    reads_items = False

    def __init__(
        self, store: Store, field: FieldLayout, width: int, pre: bool, keep_open: int = FILES_KEPT_OPEN
    ) -> None:
        super().__init__(store, field, Kept(width), keep_open=keep_open)
        self._width, self._pre = width, pre

    @property
    def _most_rows(self) -> int:
        return max(1, min(PIECE_ROWS, PIECE_NBYTES // max(1, self._width)))

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Those of every ragged field, and the masks of a piece."""
        return {**super().scratch_needs, "masks": self._most_rows * self._width}

    def put(self, piece: Piece, target: Target, scratch: Scratch) -> int:
        """Put the masks of some rows."""
        masks = scratch.get("masks", len(piece.lengths) * self._width).view(bool).reshape(-1, self._width)
        target.put(piece.at, mask_of(piece.lengths, self._width, self._pre, masks))
        return 0


def mask_of(lengths: NDArray[np.int64], width: int, pre: bool, out: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """Return which places of rows padded to one length are items; shape (rows, width)."""
    places, short = np.arange(width, dtype=np.int64), lengths[:, None]
    found: NDArray[np.bool_] = (
        np.greater_equal(places, width - short, out=out) if pre else np.less(places, short, out=out)
    )
    return found


class DenseReader(RaggedReader):
    """Rows of a sparse matrix as dense ones."""

    @property
    def _most_rows(self) -> int:
        return max(1, min(PIECE_ROWS, _DENSE_NBYTES // max(1, self._dense_nbytes)))

    @property
    def _dense_nbytes(self) -> int:
        return self.layout.n_columns * self.layout.values.dtype.itemsize

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Those of every ragged field; a piece's items and columns, what placing them takes, and its dense rows."""
        columns = cast(FieldLayout, self.layout.columns)
        n_items = self.buffered_items
        return {
            **super().scratch_needs,
            "items": n_items * self.layout.values.dtype.itemsize,
            "columns": n_items * (columns.dtype.itemsize + 6 * 8),
            "dense": self._most_rows * self._dense_nbytes,
        }

    def put(self, piece: Piece, target: Target, scratch: Scratch) -> int:
        """Read items and columns of some rows, and put the rows dense."""
        layout, columns = self.layout, cast(FieldLayout, self.layout.columns)
        n_items, n_rows = piece.n_items, len(piece.starts)
        values = scratch.get("items", n_items * layout.values.dtype.itemsize).view(layout.values.dtype)
        where = scratch.get("columns", n_items * columns.dtype.itemsize).view(columns.dtype)
        decoded = self.read_items(piece, values, scratch) + self.read_columns(piece, where, scratch)
        dense = scratch.get("dense", n_rows * self._dense_nbytes).view(layout.values.dtype)
        rows = dense.reshape(n_rows, layout.n_columns)
        put_dense(rows, values, where, piece.lengths)
        target.put(piece.at, rows)
        return decoded


class ReferenceTarget(Target, Protocol):
    """A target that takes references to rows, and their items."""

    def reserve(self, n_items: int) -> tuple[int, NDArray[Any], NDArray[Any] | None]:
        """Return the number of the first of some more items, and room for them and for their columns."""
        ...


class ReferenceReader(RaggedReader):
    """References to rows, whose items are read straight into the slab."""

    def put(self, piece: Piece, target: Target, scratch: Scratch) -> int:
        """Read the items of some rows into the slab, and put references to them."""
        first, items, columns = cast(ReferenceTarget, target).reserve(piece.n_items)
        decoded = self.read_items(piece, items, scratch)
        if columns is not None:
            decoded += self.read_columns(piece, columns, scratch)
        references = np.empty(len(piece.starts), REFERENCE)
        references["start"], references["length"] = piece.starts + (first - piece.items[0]), piece.lengths
        target.put(piece.at, references)
        return decoded
