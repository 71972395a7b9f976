"""Fields of an HDF5 or Zarr store, read by the direct path."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.read import FieldReader, open_reader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Places
from oocload.convert.sources.ahead import ReadAhead, Readers, ReadRows
from oocload.convert.sources.base import ArraySource
from oocload.convert.sources.fresh import fresh_rows
from oocload.convert.sources.identity import Identity, array_identity, lies_in_folders, store_facts
from oocload.layout import FieldLayout, Segment
from oocload.stores.base import Store


class StoreField(ArraySource):
    """One field of a store; the label is what errors call it."""

    def __init__(self, store: Store, field: FieldLayout, label: str | None = None) -> None:
        self.label = label or f"{store.address}, field {field.name!r}"
        self.shape = field.shape
        self.dtype: np.dtype[Any] = field.dtype
        self.readers: Readers = "one" if field.read_path == "h5py" else "many"  # h5py reads under a lock of its own
        self.meaning = field.meaning
        self._store = store
        self._field = field

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Where chunks begin that must be decoded whole."""
        return self._field.segments

    @property
    def least_nbytes(self) -> int:
        """Bytes of one chunk, or of a row where that is larger; chunks side by side may be decoded one by one."""
        layouts = _layouts(self._store, self._field)
        return max(self.row_nbytes, *(min(f.chunk_nbytes, f.nbytes) if f.rigid else 0 for f in layouts))

    @property
    def scratch_nbytes(self) -> int:
        """What the reader takes in each thread."""
        needs = dict(self._reader.scratch_needs)
        if all(f.stored_dtype == f.dtype for f in _layouts(self._store, self._field)):
            needs.pop("band", None)  # the rows of chunks side by side are joined where they go
        return sum(needs.values())

    def held_nbytes(self) -> int:
        """Return the bytes of the index of chunks."""
        return self._reader.held_nbytes

    @property
    def identity_walks(self) -> bool:
        """Whether it is made of folders, such as Zarr's."""
        return lies_in_folders(self._store, self._field)

    def identity(self) -> Identity:
        """Return shape and dtype, and size and time of every file."""
        return array_identity(self.shape, self.dtype, store_facts(self._store, self._field), name=self._field.name)

    def announce(self, start: int, stop: int) -> None:
        """Have the kernel fetch chunks, where they come from disk."""
        if self._reader.announces:
            self._reader.announce([(start, stop)])

    def reader(self, start: int, stop: int, ahead: ReadAhead) -> ReadRows:
        """Return what reads rows; any thread may."""
        return self.read

    def read(self, start: int, stop: int, scratch: Scratch) -> NDArray[Any]:
        """Return rows, read now."""
        rows = fresh_rows((stop - start, *self.shape[1:]), self.dtype)
        if stop > start:
            self._reader.read([(start, stop)], Places(rows), scratch)
        return rows

    def close(self) -> None:
        """Close files; a later read opens them again."""
        if "_reader" in self.__dict__:
            self._reader.close()
        if self._field.read_path != "direct":
            self._store.close()

    @cached_property
    def _reader(self) -> FieldReader:
        return open_reader(self._store, self._field)


def _layouts(store: Store, field: FieldLayout) -> list[FieldLayout]:
    """Return the layouts of a field's parts, or its own."""
    return [p.field for p in store.parts(field.name)] or [field]
