"""Fields of an HDF5 or Zarr store, read by the direct path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.read import open_reader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Places
from oocload.layout import FieldLayout
from oocload.stores.base import Store


class StoreField:
    """One field of a store; the label is what errors call it."""

    def __init__(self, store: Store, field: FieldLayout, label: str | None = None) -> None:
        self.label = label or f"{store.address}, field {field.name!r}"
        self.shape = field.shape
        self.dtype: np.dtype[Any] = field.dtype
        self._store = store
        self._field = field

    def pieces(self, step: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows, ``step`` at a time; chunks cut by a piece's end are decoded for both."""
        scratch = Scratch()
        with closing(open_reader(self._store, self._field)) as reader:
            for start in range(0, self.shape[0], step):
                stop = min(self.shape[0], start + step)
                rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
                reader.read([(start, stop)], Places(rows), scratch)
                yield rows
