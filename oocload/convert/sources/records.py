"""Sources whose fields come together, a record at a time: lines, files, examples. Read in pieces, by threads, in order.

::

    one thread    pieces()   finds the next piece: a range of files, a block of bytes
    many threads  read()     makes rows of it; records that cannot be read are an error, or skipped and listed
    consumer                 rows in the order of the pieces
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar, get_args

from oocload.chunks.scratch import Scratch
from oocload.convert.fields import Spec
from oocload.convert.sources.ahead import Pending, ReadAhead
from oocload.convert.sources.batches import count_rows, cut_rows
from oocload.convert.sources.identity import Identity
from oocload.convert.sources.skipped import Skipped
from oocload.errors import InvalidArgumentError, UnknownFieldError
from oocload.layout import Meaning

P = TypeVar("P")
OnError = Literal["raise", "skip"]


class Records(NamedTuple):
    """What a piece becomes: field → rows, all of one length, and what was left out of it."""

    rows: Mapping[str, Any]
    skipped: Sequence[Skipped] = ()


class RecordSource(ABC, Generic[P]):
    """A `RowSource` of records. Making one validates its arguments, and reads no more than names of files.

    Attributes
    ----------
    label
        What it is called in errors.
    on_error
        What becomes of a record that cannot be read: "raise", or "skip", where `skips` says that it may.
    by_caller
        Whether all is read by the thread that asks for rows, nothing ahead: for what belongs to the user.
    owned, can_jump, identity_is_proof
        As of a `RowSource`.

    """

    label: str
    on_error: OnError = "raise"
    skips: ClassVar[bool] = False
    by_caller: ClassVar[bool] = False
    owned: bool = True
    can_jump: bool = False
    identity_is_proof: bool = True
    least_piece_reason: str = ""
    _chosen: tuple[str, ...] | None = None
    _skipped: tuple[Skipped, ...] | list[Skipped] = ()

    @property
    @abstractmethod
    def record_specs(self) -> Mapping[str, Spec] | None:
        """Field → spec, of all fields; None where only the first piece tells."""

    @property
    def record_meanings(self) -> Mapping[str, Meaning]:
        """Field → what its values stand for, where the store is to say so: a vocabulary, text, images."""
        return {}

    @property
    def n_records(self) -> int | None:
        """Records in all; None where that is not known before they are read."""
        return None

    @property
    def least_piece_nbytes(self) -> int:
        """The smallest piece that can be read, with what reading takes beside the rows."""
        return 0

    @property
    def wanted_piece_nbytes(self) -> int:
        """The smallest piece with which nothing is read twice."""
        return self.least_piece_nbytes

    @abstractmethod
    def record_identity(self) -> Identity | None:
        """Return what tells the records and the options from others; None where only the rows can."""

    @abstractmethod
    def pieces(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[P]:
        """Yield what is read as one, in order; runs in one thread at a time, ahead of `read`.

        Parameters
        ----------
        piece_nbytes
            What a piece may come to, with all that reading it takes.
        start, stop
            The records wanted, for sources that `can_jump`: the first piece begins at ``start``, the last one may end
            after ``stop``. Others begin at the first record; what is not wanted is dropped later.

        """

    @abstractmethod
    def read(self, piece: P, scratch: Scratch) -> Records:
        """Return the rows of a piece; runs in any thread, several at a time."""

    @property
    def specs(self) -> Mapping[str, Spec] | None:
        """Field → spec, or None where only the first piece tells."""
        found = self.record_specs
        return None if found is None else {name: found[name] for name in self._names(found)}

    @property
    def meanings(self) -> Mapping[str, Meaning]:
        """Field → what its values stand for."""
        found = self.record_meanings
        return {n: meaning for n, meaning in found.items() if self._chosen is None or n in self._chosen}

    @property
    def n_rows(self) -> int | None:
        """Rows in all; None where that is not known, as where some may be skipped."""
        return self.n_records if self.on_error == "raise" else None

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What the last iteration has left out so far."""
        return tuple(self._skipped)

    def with_on_error(self, on_error: OnError) -> Self:
        """Return this source with another rule for records that cannot be read.

        Raises
        ------
        InvalidArgumentError
            If there is no such rule, or nothing of this source can be skipped.

        """
        check_on_error(on_error)
        if on_error == "skip" and not self.skips:
            raise InvalidArgumentError(
                f"on_error must be 'raise' for {self.label}, which has nothing to skip, got 'skip'"
            )
        return self._with(on_error=on_error)

    def choosing(self, fields: Sequence[str]) -> Self:
        """Return this source with some of its fields.

        Raises
        ------
        UnknownFieldError
            If one is not there.

        """
        return self._with(_chosen=tuple(fields))

    def held_nbytes(self, piece_nbytes: int, n_ahead: int = 0, n_threads: int | None = None) -> int:
        """Return the bytes that reading takes: pieces, each with what reading it takes."""
        del n_threads
        n_ahead = 0 if self.by_caller else n_ahead
        return (n_ahead + 1) * max(piece_nbytes, self.least_piece_nbytes)

    def identity(self) -> Identity | None:
        """Return what tells this source from others; None where only its rows can."""
        found = self.record_identity()
        return None if found is None else {**found, "on_error": self.on_error}

    def batches(
        self,
        piece_nbytes: int,
        start: int = 0,
        stop: int | None = None,
        n_ahead: int = 0,
        n_threads: int | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Yield rows of all fields, at most about ``piece_nbytes`` at a time."""
        skipped: list[Skipped] = []
        self._skipped = skipped
        jumps = self.can_jump and self.on_error == "raise"  # which record a row is, is else known only by counting
        at = start if jumps else 0
        pieces = self.pieces(max(piece_nbytes, self.least_piece_nbytes), start if jumps else 0, stop if jumps else None)
        with ReadAhead(0 if self.by_caller else n_ahead, n_threads) as ahead:
            ahead.callback(getattr(pieces, "close", lambda: None))
            for records in _in_order(self, pieces, ahead):
                skipped.extend(records.skipped)
                names = self._names(records.rows)
                n_rows = count_rows(records.rows[names[0]])
                low, high = max(start - at, 0), n_rows if stop is None else min(stop - at, n_rows)
                at += n_rows
                if low < high:
                    whole = low == 0 and high == n_rows
                    found = {name: records.rows[name] for name in names}
                    del records
                    yield found if whole else {name: cut_rows(rows, low, high) for name, rows in found.items()}
                if stop is not None and at >= stop:
                    return

    def _names(self, found: Mapping[str, Any]) -> tuple[str, ...]:
        if self._chosen is None:
            return tuple(found)
        for name in self._chosen:
            if name not in found:
                known = ", ".join(map(repr, found))
                raise UnknownFieldError(f"field {name!r} must be one of those in {self.label}, which has {known}")
        return self._chosen

    def _with(self, **changed: Any) -> Self:
        """Return a copy with other attributes, that finds out anew what follows from them."""
        found = copy.copy(self)
        for kind in type(self).__mro__:
            for name, value in vars(kind).items():
                if isinstance(value, cached_property):
                    found.__dict__.pop(name, None)
        found.__dict__.update(changed)
        return found


def check_on_error(on_error: Any) -> None:
    """Raise where there is no such rule.

    Raises
    ------
    InvalidArgumentError
        If it is neither "raise" nor "skip".

    """
    if on_error not in get_args(OnError):
        raise InvalidArgumentError(f"on_error must be 'raise' or 'skip', got {on_error!r}")


def _in_order(source: RecordSource[P], pieces: Iterator[P], ahead: ReadAhead) -> Iterator[Records]:
    """Yield what pieces become; up to ``n_ahead`` are read before they are asked for."""
    find, read = ahead.submit("one"), ahead.submit("many")
    pending: deque[Pending[Records | None]] = deque()

    def begin(n_pieces: int) -> None:
        while len(pending) < n_pieces:
            found = find(partial(next, pieces, None))
            pending.append(read(partial(_read, source, found, ahead)))

    begin(ahead.n_ahead)
    while True:
        begin(1)
        records = pending.popleft().result()
        if records is None:
            return
        begin(ahead.n_ahead)
        yield records
        del records  # before another piece is waited for, for the sake of memory


def _read(source: RecordSource[P], found: Pending[P | None], ahead: ReadAhead) -> Records | None:
    piece = found.result()
    return None if piece is None else source.read(piece, ahead.scratch)
