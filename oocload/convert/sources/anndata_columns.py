"""Columns of AnnData files that are made of two arrays, or of codes that differ from file to file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.convert.sources.ahead import ReadAhead, ReadRows
from oocload.convert.sources.base import ArraySource
from oocload.convert.sources.identity import Identity
from oocload.convert.sources.store import StoreField
from oocload.layout import Meaning
from oocload.stores.base import Store

BOOLS = Meaning(vocabulary=("False", "True"))


class Nullable(ArraySource):
    """Numbers of which some are missing: whole ones become ``float64`` with NaN, bools codes with -1."""

    def __init__(self, store: Store, name: str) -> None:
        self._values = StoreField(store, store.field(f"{name}/values"))
        self._mask = StoreField(store, store.field(f"{name}/mask"))
        is_bool = self._values.dtype.kind == "b"
        self.label = f"{store.address}, {name}"
        self.shape = self._values.shape
        self.dtype = np.dtype(np.int8 if is_bool else np.float64)
        self.meaning = BOOLS if is_bool else Meaning()
        self.readers = self._values.readers

    @property
    def least_nbytes(self) -> int:
        """The smallest piece of both."""
        return self._values.least_nbytes + self._mask.least_nbytes

    @property
    def scratch_nbytes(self) -> int:
        """What reading either takes, and the values before they are floats."""
        return self._values.scratch_nbytes + self._mask.scratch_nbytes

    def held_nbytes(self) -> int:
        """Return the bytes of the indexes of chunks."""
        return self._values.held_nbytes() + self._mask.held_nbytes()

    def identity(self) -> Identity:
        """Return the identities of both."""
        return {"values": self._values.identity(), "mask": self._mask.identity()}

    def reader(self, start: int, stop: int, ahead: ReadAhead) -> ReadRows:
        """Return what reads rows."""
        return self._read

    def close(self) -> None:
        """Close both."""
        self._values.close()
        self._mask.close()

    def _read(self, start: int, stop: int, scratch: Scratch) -> NDArray[Any]:
        rows = self._values.read(start, stop, scratch).astype(self.dtype)
        rows[self._mask.read(start, stop, scratch)] = -1 if self.dtype.kind == "i" else np.nan
        return rows


class Recoded(ArraySource):
    """Codes of several files, each with categories of its own, as codes of all, in the order in which they come."""

    def __init__(self, store: Store, name: str, vocabularies: Sequence[tuple[str, ...]]) -> None:
        self._codes = StoreField(store, store.field(name))
        every = tuple(dict.fromkeys(word for vocabulary in vocabularies for word in vocabulary))
        places = {word: code for code, word in enumerate(every)}
        self._stops = [part.stop for part in store.parts(name)]
        self._maps = [np.array([*(places[word] for word in v), -1], np.int32) for v in vocabularies]  # of -1 the last
        self._identity = list(map(list, vocabularies))
        self.label = self._codes.label
        self.shape = self._codes.shape
        self.dtype = np.dtype(np.int32)
        self.readers = self._codes.readers
        self.meaning = Meaning(vocabulary=every)

    @property
    def least_nbytes(self) -> int:
        """The smallest piece, and what it becomes."""
        return self._codes.least_nbytes * (1 + 4 // self._codes.dtype.itemsize)

    @property
    def scratch_nbytes(self) -> int:
        """What reading takes."""
        return self._codes.scratch_nbytes

    def held_nbytes(self) -> int:
        """Return the bytes of the index of chunks."""
        return self._codes.held_nbytes()

    def identity(self) -> Identity:
        """Return that of the codes, and the categories."""
        return {"codes": self._codes.identity(), "categories": self._identity}

    def reader(self, start: int, stop: int, ahead: ReadAhead) -> ReadRows:
        """Return what reads rows."""
        return self._read

    def close(self) -> None:
        """Close the files."""
        self._codes.close()

    def _read(self, start: int, stop: int, scratch: Scratch) -> NDArray[Any]:
        codes = self._codes.read(start, stop, scratch)
        rows = np.empty(len(codes), self.dtype)
        first = 0
        for last, recode in zip(self._stops, self._maps, strict=True):
            part = slice(max(first, start) - start, max(0, min(last, stop) - start))
            rows[part] = recode[codes[part]]
            first = last
        return rows
