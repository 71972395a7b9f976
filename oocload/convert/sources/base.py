"""The shapes of a source: what a conversion reads, its fields, and rows of one field on their way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from oocload.convert.fields import Spec
from oocload.convert.sources.ahead import Pieces, ReadAhead, Readers, ReadRows
from oocload.convert.sources.cut import band_rows, pieces_of
from oocload.convert.sources.identity import Identity
from oocload.convert.spec import FieldSpec
from oocload.layout import NO_MEANING, Meaning, Segment


class RowSource(Protocol):
    """What a conversion reads."""

    @property
    def specs(self) -> Mapping[str, Spec] | None:
        """Field → spec, or None where only the first batch tells."""
        ...

    @property
    def meanings(self) -> Mapping[str, Meaning]:
        """Field → what its values stand for, where the store is to say so; asked for when all rows were read."""
        ...

    @property
    def n_rows(self) -> int | None:
        """Rows in all, or None where that is not known."""
        ...

    @property
    def owned(self) -> bool:
        """Whether arrays of batches are never changed afterwards, so that views of them may be kept."""
        ...

    @property
    def can_jump(self) -> bool:
        """Whether to begin at a row costs no reading of those before it."""
        ...

    @property
    def identity_is_proof(self) -> bool:
        """Whether another identity means that rows have changed; else it means that nobody knows."""
        ...

    @property
    def least_piece_nbytes(self) -> int:
        """The smallest piece that can be read: a chunk, or a row, of every field."""
        ...

    @property
    def least_piece_reason(self) -> str:
        """Which field asks for the most of it, and what can be done."""
        ...

    @property
    def wanted_piece_nbytes(self) -> int:
        """The smallest piece with which no chunk is decoded twice."""
        ...

    def held_nbytes(self, piece_nbytes: int, n_ahead: int = 0, n_threads: int | None = None) -> int:
        """Return the bytes that reading takes: pieces, scratch of every thread, and indexes of chunks."""
        ...

    def identity(self) -> Identity | None:
        """Return what tells this source from others; None where only its rows can."""
        ...

    def batches(
        self,
        piece_nbytes: int,
        start: int = 0,
        stop: int | None = None,
        n_ahead: int = 0,
        n_threads: int | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Yield rows of all fields, at most about ``piece_nbytes`` at a time.

        Parameters
        ----------
        piece_nbytes
            Of a piece over all fields; less than `least_piece_nbytes` is taken as that.
        start, stop
            The rows; None is up to the last.
        n_ahead
            Pieces that threads read before they are asked for. Up to ``n_ahead + 1`` pieces exist at a time, given
            that the consumer lets go of a batch before it asks for the next.
        n_threads
            Threads that read pieces of one field at the same time; None is one for each core.

        """
        ...


class Track(Protocol):
    """Rows of one field on their way, from front to back."""

    def available(self) -> int:
        """Return how many rows can be taken at once, waiting for some where there are none; 0 at the end."""
        ...

    def take(self, n_rows: int) -> Any:
        """Return the next rows, in a form that the spec takes."""
        ...


class FieldSource(ABC):
    """One field.

    Attributes
    ----------
    label
        What it is called in errors: a path, "array" or "rows".
    n_rows
        How many rows there are.
    spec
        What they are.
    meaning
        What their values stand for.
    row_nbytes
        Bytes of one, on average, about.
    owned, can_jump, identity_is_proof
        As of a `RowSource`.
    advice
        What can be done where the smallest piece is too large.

    """

    label: str
    n_rows: int
    meaning: Meaning = NO_MEANING
    owned: bool = True
    can_jump: bool = True
    identity_is_proof: ClassVar[bool] = True
    advice: ClassVar[str] = "raise memory="

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """What the rows are."""

    @property
    @abstractmethod
    def row_nbytes(self) -> int:
        """Bytes of one row, on average, about."""

    @property
    def least_nbytes(self) -> int:
        """The smallest piece that can be read."""
        return self.row_nbytes

    @property
    def wanted_nbytes(self) -> int:
        """The smallest piece with which no chunk is decoded twice."""
        return self.least_nbytes

    @property
    def scratch_nbytes(self) -> int:
        """What a thread that reads takes beside the rows."""
        return 0

    def held_nbytes(self) -> int:
        """Return what the source itself holds while it is read, such as the index of chunks."""
        return 0

    @property
    def identity_walks(self) -> bool:
        """Whether `identity` looks at every file of a folder, of which there may be very many."""
        return False

    def identity(self) -> Identity | None:
        """Return what tells the field from others; None where only its rows can."""
        return None

    @abstractmethod
    def track(self, start: int, stop: int, piece_nbytes: int, ahead: ReadAhead) -> Track:
        """Return rows from ``start`` to ``stop`` on their way."""

    def close(self) -> None:
        """Close what is open; it opens again by itself."""
        return


class ArraySource(FieldSource):
    """A field that is one array, whose axis 0 counts rows.

    Attributes
    ----------
    shape, dtype
        Of the whole array.
    readers
        Who may read: "many" threads at a time, any rows; "one" thread, rows one after the other; or only the
        "caller", for what belongs to the user.

    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    readers: Readers = "one"

    @property
    def n_rows(self) -> int:  # type: ignore[override]
        """Length of axis 0."""
        return self.shape[0] if self.shape else 0

    @property
    def spec(self) -> FieldSpec:
        """Shape and dtype of a row."""
        return FieldSpec(self.shape[1:], self.dtype.newbyteorder("="))

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row."""
        return self.spec.row_nbytes

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Where chunks begin that must be decoded whole."""
        return (Segment(0, self.n_rows, 0, 0),)

    @property
    def wanted_nbytes(self) -> int:
        """Bytes of the rows of the tallest chunk."""
        return max(self.least_nbytes, band_rows(self.segments) * self.row_nbytes)

    @abstractmethod
    def reader(self, start: int, stop: int, ahead: ReadAhead) -> ReadRows:
        """Return what reads rows between two; of "one" thread, it is asked for all of them one after the other."""

    def announce(self, start: int, stop: int) -> None:
        """Say that rows will be read soon."""
        return

    def track(self, start: int, stop: int, piece_nbytes: int, ahead: ReadAhead) -> Pieces:
        """Return rows from ``start`` to ``stop`` on their way."""
        step = max(1, piece_nbytes // max(1, self.row_nbytes))
        return Pieces(
            self.reader(start, stop, ahead),
            pieces_of(self.segments, start, stop, step),
            ahead,
            self.readers,
            self.announce,
            np.empty((0, *self.shape[1:]), self.dtype),
        )


class FieldGroup(ABC):
    """What holds several fields, each to be read by itself: an AnnData, an xarray dataset.

    Attributes
    ----------
    label
        What it is called in errors.

    """

    label: str

    @abstractmethod
    def field_sources(self) -> Mapping[str, FieldSource]:
        """Return field → source, in order."""
