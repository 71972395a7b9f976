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
from oocload.errors import StoreFormatError
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

    def __init__(self, codes: Sequence[StoreField], vocabularies: Sequence[tuple[str, ...]]) -> None:
        self._codes = codes
        every = tuple(dict.fromkeys(word for vocabulary in vocabularies for word in vocabulary))
        places = {word: code for code, word in enumerate(every)}
        self._stops = np.cumsum([each.n_rows for each in codes]).tolist()
        self._maps = [np.array([*(places[word] for word in v), -1], np.int32) for v in vocabularies]  # of -1 the last
        self._identity = list(map(list, vocabularies))
        self.label = codes[0].label
        self.shape = (self._stops[-1],)
        self.dtype = np.dtype(np.int32)
        self.readers = "one" if any(each.readers == "one" for each in codes) else "many"
        self.meaning = Meaning(vocabulary=every)

    @property
    def least_nbytes(self) -> int:
        """The smallest piece, and what it becomes."""
        return max(each.least_nbytes * (1 + 4 // each.dtype.itemsize) for each in self._codes)

    @property
    def scratch_nbytes(self) -> int:
        """What reading takes."""
        return max(each.scratch_nbytes for each in self._codes)

    def held_nbytes(self) -> int:
        """Return the bytes of the indexes of chunks."""
        return sum(each.held_nbytes() for each in self._codes)

    def identity(self) -> Identity:
        """Return those of the codes, and the categories."""
        return {"codes": [each.identity() for each in self._codes], "categories": self._identity}

    def reader(self, start: int, stop: int, ahead: ReadAhead) -> ReadRows:
        """Return what reads rows."""
        return self._read

    def close(self) -> None:
        """Close the files."""
        for each in self._codes:
            each.close()

    def _read(self, start: int, stop: int, scratch: Scratch) -> NDArray[Any]:
        rows = np.empty(stop - start, self.dtype)
        first = 0
        for each, last, recode in zip(self._codes, self._stops, self._maps, strict=True):
            low, high = max(first, start), min(last, stop)
            if low < high:
                codes = each.read(low - first, high - first, scratch)
                if codes.max() >= len(recode) - 1 or codes.min() < -1:
                    raise StoreFormatError(
                        f"{each.label} must have codes below {len(recode) - 1}, one for each category, or -1, got "
                        f"{codes.min()} to {codes.max()}; write the file again"
                    )
                rows[low - start : high - start] = recode[codes]
            first = last
        return rows
