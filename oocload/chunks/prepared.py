"""A field whose rows pass through operations on their way to their places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.convert import Converter, UnfitLabelError
from oocload.chunks.read import FieldReader
from oocload.chunks.scratch import Bytes, Scratch
from oocload.chunks.target import Ranges, Target, Through
from oocload.errors import InvalidArgumentError
from oocload.layout import FieldLayout
from oocload.ops.program import Program


class PreparedReader:
    """Reads rows by another reader, and puts what operations make of them into the target.

    Parameters
    ----------
    stored
        Reads the field as it is stored.
    field
        Its stored layout.
    program
        What is done to its rows.

    """

    def __init__(self, stored: FieldReader, field: FieldLayout, program: Program) -> None:
        self.stored = stored
        self._field = field
        self._converter = Converter(program)

    @property
    def announces(self) -> bool:
        """Whether `announce` does anything."""
        return self.stored.announces

    def announce(self, ranges: Ranges) -> None:
        """Say which ranges of rows will be read soon."""
        self.stored.announce(ranges)

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """What the stored rows need, and a piece of what is made of them."""
        return {**self.stored.scratch_needs, **self._converter.scratch_needs}

    @property
    def held_nbytes(self) -> int:
        """Bytes that the reader of the stored rows holds, and the numbers of the operations."""
        return self.stored.held_nbytes + self._converter.nbytes

    def read(self, ranges: Ranges, target: Target, scratch: Scratch) -> int:
        """Put ranges of rows into a target, one after the other; return the bytes that were decoded for it.

        Raises
        ------
        ChunkError
            If a chunk cannot be read or decoded.
        InvalidArgumentError
            If a label is no class of `ops.one_hot`.

        """

        def prepared(places: Target, picks: NDArray[np.int64] | None) -> Target:
            return PreparedTarget(places, self._converter, scratch, picks)

        try:
            return self.stored.read(ranges, target.through(prepared), scratch)
        except UnfitLabelError as exc:
            raise self._error(_nth(ranges, exc.row), exc.label) from None

    def close(self) -> None:
        """Close the reader of the stored rows."""
        self.stored.close()

    def _error(self, row: int, label: int) -> InvalidArgumentError:
        program, field = self._converter.program, self._field
        chunk = f" (chunk {row // field.chunk_rows})" if field.chunks else ""
        return InvalidArgumentError(
            f"labels of field {field.name!r} must be below the number of classes and not negative for {program.text}, "
            f"got {label} at row {row}{chunk}; give one_hot more classes, or leave the row out with select()"
        )


class PreparedTarget:
    """Makes rows for delivery of those that are put, a piece at a time, and puts them to their places.

    Parameters
    ----------
    target
        Where they go.
    converter
        Makes them.
    scratch
        Of this thread.
    picks
        Where not all rows come: the number of each one that does; None where all do.

    """

    __slots__ = ("_at", "_converter", "_picks", "_scratch", "_target")

    in_order = False
    takes_all = False  # stored rows are not written to their places

    def __init__(
        self, target: Target, converter: Converter, scratch: Scratch, picks: NDArray[np.int64] | None, at: int = 0
    ) -> None:
        self._target = target
        self._converter = converter
        self._scratch = scratch
        self._picks = picks
        self._at = at

    def behind(self, at: int) -> PreparedTarget:
        """Return where rows from number ``at`` on go."""
        if at == 0:
            return self
        return PreparedTarget(self._target.behind(at), self._converter, self._scratch, self._picks, self._at + at)

    def through(self, wrap: Through) -> Target:
        """Return this behind another that changes rows first."""
        return wrap(self, None)

    def put(self, at: int, rows: NDArray[Any]) -> None:
        """Put what is made of C-contiguous rows to the places numbered from ``at``."""
        step = self._converter.piece_rows
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            span = self._target.span(at + first, len(part))
            made = self._room(len(part)) if span is None else self._as_rows(span, len(part))
            try:
                self._converter.convert(part, made, self._scratch)
            except UnfitLabelError as exc:
                number = self._at + at + first + exc.row
                raise UnfitLabelError(number if self._picks is None else int(self._picks[number]), exc.label) from None
            if span is None:
                self._target.put(at + first, made)

    def fill(self, at: int, n_rows: int, item: NDArray[Any]) -> None:
        """Put what is made of rows of one value, given as an array of shape (1,)."""
        program = self._converter.program
        shape = tuple(cut.stop for cut in program.cuts)
        step = min(n_rows, self._converter.piece_rows)
        if not step:
            return
        row = np.empty((1, *program.shape), program.dtype)
        try:
            self._converter.convert(
                np.broadcast_to(item.reshape((1,) * (1 + len(shape))), (1, *shape)), row, self._scratch
            )
        except UnfitLabelError as exc:
            number = self._at + at
            raise UnfitLabelError(number if self._picks is None else int(self._picks[number]), exc.label) from None
        rows = self._room(step)
        rows[...] = row
        for first in range(0, n_rows, step):
            self._target.put(at + first, rows[: n_rows - first])

    def span(self, at: int, n_rows: int) -> Bytes | None:
        """Nothing is written directly."""
        return None

    def row_buffers(self) -> list[memoryview]:
        """Rows have no place as they are stored."""
        raise AssertionError("rows that operations change pass through scratch")

    def _room(self, n_rows: int) -> NDArray[Any]:
        return self._as_rows(self._scratch.get("prepared", n_rows * self._converter.row_nbytes), n_rows)

    def _as_rows(self, room: Bytes, n_rows: int) -> NDArray[Any]:
        program = self._converter.program
        return room.view(program.dtype).reshape(n_rows, *program.shape)


def _nth(ranges: Ranges, number: int) -> int:
    """Return the row of the field that comes as the ``number``-th of some ranges."""
    for start, stop in ranges:
        if number < stop - start:
            return start + number
        number -= stop - start
    raise AssertionError("a row comes from one of the ranges")
