"""Feeds: a field of a batch as it lies in a slab, and how its rows get there from the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from oocload.chunks.read import FieldReader, open_reader
from oocload.layout import FieldLayout
from oocload.stores.base import Store


class Feed(Protocol):
    """One field of a batch. Pickles, as it is part of a loader's options."""

    @property
    def layout(self) -> FieldLayout:
        """The field as it lies in a slab: name, shape and dtype; its `segments` are those of what is read."""
        ...

    @property
    def source(self) -> str:
        """The field of the store that it is made of."""
        ...

    @property
    def read_row_nbytes(self) -> int:
        """Bytes of a row as it is read: what the order of rows follows from, whatever is made of them."""
        ...

    @property
    def resident_nbytes(self) -> int:
        """Bytes that are held where the field is resident."""
        ...

    @property
    def together(self) -> int:
        """Rows that should be read together, at least; 1 where the segments say all."""
        ...

    @property
    def resident_needs(self) -> Mapping[str, int]:
        """Bytes that one thread needs to put its rows into a slab where it is resident, by buffer."""
        ...

    def open(self, store: Store, resident: bool = False) -> FieldReader:
        """Return what puts its rows into a slab; where ``resident``, from memory."""
        ...


@dataclass(frozen=True, slots=True)
class StoredFeed:
    """A field that is delivered as it is stored."""

    layout: FieldLayout

    @property
    def source(self) -> str:
        """The field of the store."""
        return self.layout.name

    @property
    def read_row_nbytes(self) -> int:
        """Bytes of a row."""
        return self.layout.row_nbytes

    @property
    def resident_nbytes(self) -> int:
        """Bytes of the field."""
        return self.layout.nbytes

    together = 1

    @property
    def resident_needs(self) -> Mapping[str, int]:
        """Nothing is needed."""
        return {}

    def open(self, store: Store, resident: bool = False) -> FieldReader:
        """Return the field's reader."""
        return open_reader(store, self.layout, resident)
