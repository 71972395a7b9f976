"""The two shapes of a source."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oocload.convert.fields import FieldSpec
from oocload.errors import InvalidArgumentError, StoreFormatError


class ArraySource(Protocol):
    """One array whose axis 0 counts rows, read from front to back."""

    @property
    def label(self) -> str:
        """What it is called in errors: a path, or "array"."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the rows."""
        ...

    def pieces(self, step: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows, ``step`` at a time; the last piece may be short."""
        ...


class RowSource(Protocol):
    """What a conversion reads."""

    @property
    def specs(self) -> Mapping[str, FieldSpec] | None:
        """Field → spec, or None where only the first batch tells."""
        ...

    @property
    def n_rows(self) -> int | None:
        """Rows in all, or None where that is not known."""
        ...

    def batches(self, piece_nbytes: int) -> Iterator[Mapping[str, Any]]:
        """Yield rows of all fields, about ``piece_nbytes`` at a time."""
        ...


class SideBySide:
    """Several arrays of equal length as the fields of one store.

    Raises
    ------
    InvalidArgumentError
        If they differ in length, are scalars, or hold Python objects.

    """

    def __init__(self, arrays: Mapping[str, ArraySource]) -> None:
        if not arrays:
            raise InvalidArgumentError("source must have at least one field, got none")
        for name, a in arrays.items():
            if not a.shape:
                raise InvalidArgumentError(f"field {name!r} must be an array whose axis 0 counts rows, got a scalar")
            if a.dtype.hasobject:
                raise InvalidArgumentError(
                    f"field {name!r} ({a.label}) must have a fixed-size dtype, got object; pickled objects are never "
                    "loaded: save it as numbers or fixed-length text"
                )
        lengths = {name: a.shape[0] for name, a in arrays.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name!r} has {n}" for name, n in lengths.items())
            raise InvalidArgumentError(f"fields must have the same number of rows: {shown}; convert them one by one")
        self._arrays = arrays
        self.n_rows: int | None = next(iter(lengths.values()))
        self.specs: Mapping[str, FieldSpec] | None = {
            name: FieldSpec(a.shape[1:], a.dtype.newbyteorder("=")) for name, a in arrays.items()
        }

    def batches(self, piece_nbytes: int) -> Iterator[Mapping[str, Any]]:
        """Yield rows of all fields, about ``piece_nbytes`` at a time."""
        assert self.specs is not None
        step = max(1, piece_nbytes // max(1, sum(s.row_nbytes for s in self.specs.values())))
        streams = {name: a.pieces(step) for name, a in self._arrays.items()}
        for _ in range(0, self.n_rows or 0, step):
            yield {name: next(stream) for name, stream in streams.items()}
        for stream in streams.values():
            next(stream, None)  # checks that come after the last row, such as gzip's


def truncated(label: str, missing: int) -> StoreFormatError:
    """Return the error for a file that ends before its header says."""
    return StoreFormatError(f"{label} is truncated: {missing} bytes are missing; copy or write it again")


def read_pieces(
    stream: Any, label: str, shape: tuple[int, ...], dtype: np.dtype[Any], step: int
) -> Iterator[NDArray[Any]]:
    """Yield rows from a binary stream that stands at the first one.

    Raises
    ------
    StoreFormatError
        If the stream ends too early, or cannot be decompressed.

    """
    for start in range(0, shape[0], step):
        rows = np.empty((min(step, shape[0] - start), *shape[1:]), dtype)
        wanted = memoryview(rows.reshape(-1).view(np.uint8))
        while len(wanted):
            try:
                n = stream.readinto(wanted)
            except (
                EOFError,
                OSError,
                ValueError,
                zlib.error,
                zipfile.BadZipFile,
            ) as exc:  # gzip and zip say so in these ways
                raise StoreFormatError(f"{label} is damaged or truncated: {exc}") from exc
            if not n:
                raise truncated(label, len(wanted))
            wanted = wanted[n:]
        yield rows
