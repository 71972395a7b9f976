"""Fields whose items have a variable length, in HDF5 (vlen) and Zarr: as ragged rows, read by h5py or zarr."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from oocload.convert.ragged import RaggedSpec
from oocload.convert.sources.ahead import ReadAhead
from oocload.convert.sources.base import FieldSource
from oocload.convert.sources.identity import Identity, array_identity, store_facts
from oocload.convert.sources.ragged import OFFSET_NBYTES
from oocload.layout import NO_MEANING, FieldLayout, Meaning
from oocload.stores.base import Store

_ROWS_READ = 256  # at a time: how long they are shows only then


def vlen_item_dtype(field: FieldLayout) -> np.dtype[Any] | None:
    """Return the dtype of what rows of variable length are made of, of text and bytes uint8; None for all else."""
    if len(field.shape) != 1 or not field.dtype.hasobject:
        return None
    if _is_text(field) or any(codec.name == "vlen-bytes" for codec in field.codecs):
        return np.dtype(np.uint8)
    base = h5py.check_vlen_dtype(field.dtype)
    if base is None or np.dtype(base).hasobject:
        return None
    found: np.dtype[Any] = np.dtype(base).newbyteorder("=")
    return found


def _is_text(field: FieldLayout) -> bool:
    return h5py.check_string_dtype(field.dtype) is not None or any(c.name == "vlen-utf8" for c in field.codecs)


class VlenSource(FieldSource):
    """One such field."""

    def __init__(self, store: Store, field: FieldLayout, item_dtype: np.dtype[Any]) -> None:
        self.label = f"{store.address}, field {field.name!r}"
        self.n_rows = field.n_rows
        self.meaning = Meaning(content="text") if _is_text(field) else NO_MEANING
        self._spec = RaggedSpec((), item_dtype)
        self._store = store
        self._field = field

    @property
    def spec(self) -> RaggedSpec:
        """What the rows are."""
        return self._spec

    @cached_property
    def row_nbytes(self) -> int:
        """Bytes of a row, by the first of them."""
        rows = self.read(0, min(self.n_rows, _ROWS_READ))
        return sum(row.nbytes for row in rows) // max(1, len(rows)) + OFFSET_NBYTES

    def held_nbytes(self) -> int:
        """Return the bytes of the rows that are read at a time, about, and of what h5py keeps of a chunk."""
        return 2 * _ROWS_READ * self.row_nbytes + self._field.chunk_nbytes

    def identity(self) -> Identity:
        """Return shape and dtype, and size and time of the file."""
        files = store_facts(self._store, self._field)
        return array_identity(self._field.shape, self._spec.dtype, files, name=self._field.name, spec=str(self._spec))

    def track(self, start: int, stop: int, piece_nbytes: int, ahead: ReadAhead) -> _VlenTrack:
        """Return rows from ``start`` to ``stop`` on their way; h5py's lock leaves nothing to be read ahead."""
        return _VlenTrack(self, start, stop, piece_nbytes)

    def read(self, start: int, stop: int) -> list[NDArray[Any]]:
        """Return rows."""
        return [self._as_array(row) for row in self._store.read_rows(self._field.name, start, stop)]

    def _as_array(self, row: Any) -> NDArray[Any]:
        if isinstance(row, str):
            row = row.encode("utf-8", "surrogateescape")
        return np.frombuffer(row, np.uint8) if isinstance(row, bytes) else np.asarray(row, self._spec.dtype)

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        self._store.close()


class _VlenTrack:
    """Rows on their way: those that were read to know their length, and are not taken yet."""

    def __init__(self, source: VlenSource, start: int, stop: int, piece_nbytes: int) -> None:
        self._source, self._at, self._stop, self._piece_nbytes = source, start, stop, piece_nbytes
        self._known: list[NDArray[Any]] = []

    def available(self) -> int:
        """Return how many rows come to no more than a piece."""
        total = n_rows = 0
        while self._at + n_rows < self._stop:
            if n_rows == len(self._known):
                first = self._at + n_rows
                self._known += self._source.read(first, min(self._stop, first + _ROWS_READ))
            total += self._known[n_rows].nbytes
            if total > self._piece_nbytes:
                return max(1, n_rows)
            n_rows += 1
        return n_rows

    def take(self, n_rows: int) -> list[NDArray[Any]]:
        """Return the next rows."""
        rows = self._known[:n_rows]
        del self._known[:n_rows]
        self._at += n_rows
        return rows
