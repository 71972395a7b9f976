"""The shapes of a source: an array, ragged rows, and what a conversion reads."""

from __future__ import annotations

import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oocload.convert.fields import Spec
from oocload.convert.ragged import CsrSpec, RaggedSpec
from oocload.convert.spec import FieldSpec
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


class RaggedSource(ABC):
    """Rows of several lengths, read from front to back in pieces that their bytes settle.

    Attributes
    ----------
    label
        What they are called in errors: a path, or "rows".
    n_rows
        How many there are.
    spec
        What they are.
    row_nbytes
        Bytes of one, on average, about.

    """

    label: str
    n_rows: int
    spec: RaggedSpec | CsrSpec
    row_nbytes: int

    @abstractmethod
    def reach(self, start: int, stop: int, piece_nbytes: int) -> int:
        """Return the row, after ``start`` and at most ``stop``, up to which rows come to no more than a piece.

        Where a single row is larger, that one.
        """

    @abstractmethod
    def rows(self, start: int, stop: int) -> Any:
        """Return rows in a form that the spec takes; `reach` was asked for them before."""

    def close(self) -> None:
        """Close what is open; it opens again by itself."""
        return


class RowSource(Protocol):
    """What a conversion reads."""

    @property
    def specs(self) -> Mapping[str, Spec] | None:
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
    """Several arrays of equal length, or ragged rows, as the fields of one store.

    Raises
    ------
    InvalidArgumentError
        If they differ in length, are scalars, or hold Python objects.

    """

    def __init__(self, sources: Mapping[str, ArraySource | RaggedSource]) -> None:
        if not sources:
            raise InvalidArgumentError("source must have at least one field, got none")
        self._names = tuple(sources)
        self._arrays = {name: s for name, s in sources.items() if not isinstance(s, RaggedSource)}
        self._ragged = {name: s for name, s in sources.items() if isinstance(s, RaggedSource)}
        for name, a in self._arrays.items():
            _check_array(name, a)
        rows = {name: s.n_rows if isinstance(s, RaggedSource) else s.shape[0] for name, s in sources.items()}
        if len(set(rows.values())) > 1:
            shown = ", ".join(f"{name!r} has {n}" for name, n in rows.items())
            raise InvalidArgumentError(f"fields must have the same number of rows: {shown}; convert them one by one")
        self.n_rows: int | None = next(iter(rows.values()))
        dense = {name: FieldSpec(a.shape[1:], a.dtype.newbyteorder("=")) for name, a in self._arrays.items()}
        self._row_nbytes = sum(s.row_nbytes for s in dense.values()) + sum(s.row_nbytes for s in self._ragged.values())
        specs: dict[str, Spec] = {**dense, **{name: s.spec for name, s in self._ragged.items()}}
        self.specs: Mapping[str, Spec] | None = {name: specs[name] for name in self._names}

    def batches(self, piece_nbytes: int) -> Iterator[Mapping[str, Any]]:
        """Yield rows of all fields, about ``piece_nbytes`` at a time."""
        n_rows, step = self.n_rows or 0, max(1, piece_nbytes // max(1, self._row_nbytes))
        streams = {name: a.pieces(step) for name, a in self._arrays.items()}
        with ExitStack() as opened:
            for source in self._ragged.values():
                opened.callback(source.close)
            for start in range(0, n_rows, step):
                pieces = {name: next(stream) for name, stream in streams.items()}
                yield from self._cut(pieces, start, min(n_rows, start + step), piece_nbytes)
        for stream in streams.values():
            next(stream, None)  # checks that come after the last row, such as gzip's

    def _cut(
        self, pieces: Mapping[str, NDArray[Any]], start: int, stop: int, piece_nbytes: int
    ) -> Iterator[Mapping[str, Any]]:
        """Yield rows of all fields, cut where ragged ones come to a piece."""
        share = piece_nbytes // max(1, len(self._ragged))
        at = start
        while at < stop:
            end = min([stop, *(s.reach(at, stop, share) for s in self._ragged.values())])
            yield {
                name: pieces[name][at - start : end - start] if name in pieces else self._ragged[name].rows(at, end)
                for name in self._names
            }
            at = end


def _check_array(name: str, array: ArraySource) -> None:
    if not array.shape:
        raise InvalidArgumentError(f"field {name!r} must be an array whose axis 0 counts rows, got a scalar")
    if array.dtype.hasobject:
        raise InvalidArgumentError(
            f"field {name!r} ({array.label}) must have a fixed-size dtype, got object; pickled objects are never "
            "loaded: save it as numbers, as fixed-length text, or as rows of tokens"
        )


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
