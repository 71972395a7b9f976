"""Several fields of equal length as what a conversion reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from oocload.convert.fields import Spec
from oocload.convert.sources.ahead import ReadAhead, threads_for
from oocload.convert.sources.base import ArraySource, FieldSource
from oocload.convert.sources.cut import shares
from oocload.convert.sources.identity import Identity
from oocload.errors import InvalidArgumentError
from oocload.layout import NO_MEANING, Meaning
from oocload.units import format_bytes


class SideBySide:
    """Fields of one store. Each is cut into pieces of its own; a batch ends where a piece of any field does.

    ::

        x        |------|------|------|------|
        y        |-----------------|-----------
        batches  |------|------|---|--|------|

    Attributes
    ----------
    fields
        Name → field.

    Raises
    ------
    InvalidArgumentError
        If they differ in length, are scalars, or hold Python objects.

    """

    def __init__(self, sources: Mapping[str, FieldSource]) -> None:
        if not sources:
            raise InvalidArgumentError("source must have at least one field, got none")
        self.fields = dict(sources)
        for name, source in sources.items():
            if isinstance(source, ArraySource):
                _check_array(name, source)
        rows = {name: s.n_rows for name, s in sources.items()}
        if len(set(rows.values())) > 1:
            shown = ", ".join(f"{name!r} has {n}" for name, n in rows.items())
            group = next((name.rpartition("/")[0] for name in rows if "/" in name), "")
            remedy = f"; convert a group at a time, such as PATH::{group}" if group else ""
            raise InvalidArgumentError(
                f"fields must have the same number of rows: {shown}; row n of each is one sample{remedy}"
            )
        self._n_rows = next(iter(rows.values()))
        self.n_rows: int | None = self._n_rows
        self.specs: Mapping[str, Spec] | None = {name: s.spec for name, s in sources.items()}

    @property
    def meanings(self) -> Mapping[str, Meaning]:
        """Field → what its values stand for."""
        return {name: s.meaning for name, s in self.fields.items() if s.meaning != NO_MEANING}

    @property
    def owned(self) -> bool:
        """Whether arrays of batches are never changed afterwards."""
        return all(s.owned for s in self.fields.values())

    @property
    def can_jump(self) -> bool:
        """Whether to begin at a row costs no reading of those before it."""
        return all(s.can_jump for s in self.fields.values())

    @property
    def identity_is_proof(self) -> bool:
        """Whether another identity means that rows have changed."""
        return all(s.identity_is_proof for s in self.fields.values())

    @property
    def least_piece_nbytes(self) -> int:
        """The smallest piece that can be read."""
        return sum(s.least_nbytes for s in self.fields.values())

    @property
    def least_piece_reason(self) -> str:
        """Which field asks for the most of it, and what can be done."""
        name, source = max(self.fields.items(), key=lambda item: item[1].least_nbytes)
        return f"field {name!r} ({source.label}) has pieces of {format_bytes(source.least_nbytes)}; {source.advice}"

    @property
    def wanted_piece_nbytes(self) -> int:
        """The smallest piece with which no chunk is decoded twice."""
        return sum(s.wanted_nbytes for s in self.fields.values())

    def held_nbytes(self, piece_nbytes: int, n_ahead: int = 0, n_threads: int | None = None) -> int:
        """Return the bytes that reading takes: pieces, scratch of every thread, and indexes of chunks."""
        scratch = max(s.scratch_nbytes for s in self.fields.values())
        pieces = (n_ahead + 1) * max(piece_nbytes, self.least_piece_nbytes)
        n_readers = threads_for(n_ahead, n_threads) + (1 if n_ahead else 0)  # the caller may read, too
        return pieces + n_readers * scratch + sum(s.held_nbytes() for s in self.fields.values())

    def identity(self) -> Identity | None:
        """Return what tells these fields from others; None where of one only its rows can."""
        found = {name: s.identity() for name, s in self.fields.items()}
        if any(identity is None for identity in found.values()):
            return None
        return {"n_rows": self._n_rows, "fields": found}

    def batches(
        self,
        piece_nbytes: int,
        start: int = 0,
        stop: int | None = None,
        n_ahead: int = 0,
        n_threads: int | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Yield rows of all fields, at most about ``piece_nbytes`` at a time."""
        stop = self._n_rows if stop is None else min(stop, self._n_rows)
        rates = [s.row_nbytes for s in self.fields.values()]
        each = shares(piece_nbytes, rates, [s.least_nbytes for s in self.fields.values()])
        with ExitStack() as opened:
            for source in self.fields.values():
                opened.callback(source.close)
            ahead = opened.enter_context(ReadAhead(n_ahead, n_threads))
            tracks = {
                name: source.track(start, stop, share, ahead)
                for (name, source), share in zip(self.fields.items(), each, strict=True)
            }
            while start < stop:
                n_rows = min(track.available() for track in tracks.values())
                assert n_rows, "a field has fewer rows than it said"
                yield {name: track.take(n_rows) for name, track in tracks.items()}
                start += n_rows


def _check_array(name: str, array: ArraySource) -> None:
    if not array.shape:
        raise InvalidArgumentError(f"field {name!r} must be an array whose axis 0 counts rows, got a scalar")
    if array.dtype.hasobject:
        raise InvalidArgumentError(
            f"field {name!r} ({array.label}) must have a fixed-size dtype, got object; pickled objects are never "
            "loaded: save it as numbers, as fixed-length text, or as rows of tokens"
        )
