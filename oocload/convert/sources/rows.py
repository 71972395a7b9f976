"""Rows from a Python iterable: dicts, tuples ``(x, y)``, or values alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from functools import cached_property
from itertools import chain, islice
from typing import Any

from oocload.chunks.scratch import Scratch
from oocload.convert.fields import Spec, parse_fields
from oocload.convert.sources.identity import Identity
from oocload.convert.sources.records import Records, RecordSource
from oocload.convert.sources.stacking import Form, Stack, form_of, named
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning


class RowsSource(RecordSource[dict[str, Any]]):
    """Any iterable of rows, gathered into batches by their bytes. It is iterated by the thread that converts.

    A row is a dict, a tuple ``(x, y)`` or ``(x, y, sample_weight)``, or one value, which becomes ``x``. Values are
    numbers, arrays or lists of numbers, text, or bytes. The first row tells fields, shapes and dtypes; text and bytes
    become ragged rows of bytes.

    Parameters
    ----------
    rows
        The iterable. One that can be gone through only once, such as a generator, can be converted only once.
    fields
        Field → ``(row_shape, dtype)``, or what else `oocload.create` takes, of those that the first row does not tell;
        whole numbers must then fit.
    ragged
        Fields whose rows differ in length, or True for all that have one: arrays of one shape but for axis 0.

    Raises
    ------
    InvalidArgumentError
        If ``rows`` cannot be iterated, or ``fields`` are none.

    Examples
    --------
    >>> import numpy as np, oocload
    >>> rows = ({"x": np.full((2, 3), i), "name": f"row {i}"} for i in range(100))
    >>> oocload.convert(oocload.sources.RowsSource(rows), "rows.h5").fields
    ('x', 'name')

    """

    by_caller = True
    identity_is_proof = False

    def __init__(
        self,
        rows: Iterable[Any],
        *,
        fields: Mapping[str, Any] | None = None,
        ragged: Sequence[str] | bool = (),
    ) -> None:
        if not isinstance(rows, Iterable) or isinstance(rows, str | bytes | Mapping):
            raise InvalidArgumentError(f"rows must be an iterable of rows, got {type(rows).__name__}")
        if isinstance(ragged, str):
            raise InvalidArgumentError(f"ragged must be a list of names, got {ragged!r}; pass [{ragged!r}]")
        self.label = type(rows).__name__
        self._rows = _Iterable(rows)
        self._fields = {} if fields is None else parse_fields(fields)
        self._ragged = ragged

    @property
    def record_specs(self) -> Mapping[str, Spec] | None:
        """Field → spec."""
        return self._form.specs

    @property
    def record_meanings(self) -> Mapping[str, Meaning]:
        """Field → whether it is text."""
        return self._form.meanings

    @property
    def n_records(self) -> int | None:
        """Length of the iterable, where it has one."""
        return self._rows.n_rows

    def record_identity(self) -> Identity | None:
        """Only the rows can tell."""
        return None

    def pieces(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[dict[str, Any]]:
        """Yield rows of all fields that come to a piece."""
        stack = Stack(self._form, piece_nbytes)
        for number, row in self.numbered(start, stop):
            stack.add(named(row, where := f"row {number}"), where)
            if stack.is_full:
                yield stack.take()
        if len(stack):
            yield stack.take()

    def numbered(self, start: int, stop: int | None) -> Iterator[tuple[int, Any]]:
        """Yield the number of each row, and the row."""
        del start, stop
        return enumerate(self._rows)

    def look(self) -> Any:
        """Return the first row."""
        return self._rows.look()

    def read(self, piece: dict[str, Any], scratch: Scratch) -> Records:
        """Return them."""
        del scratch
        return Records(piece)

    @cached_property
    def _form(self) -> Form:
        """What the first row tells."""
        return form_of(named(self.look(), "row 0"), "row 0", self._ragged, self._fields)


class _Iterable:
    """Rows that can be gone through, and the first of them looked at before."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = rows
        self._begun: Iterator[Any] | None = None
        self._first: list[Any] = []

    def look(self) -> Any:
        """Return the first row; it comes again when they are gone through."""
        if not self._first:
            rows = iter(self._rows)
            self._first = list(islice(rows, 1))
            if rows is self._rows:
                self._begun = chain(self._first, rows)
        if not self._first:
            raise InvalidArgumentError("rows must have at least one row, got none")
        return self._first[0]

    @property
    def n_rows(self) -> int | None:
        """How many there are, where that is known."""
        return len(self._rows) if isinstance(self._rows, Sized) else None

    def __iter__(self) -> Iterator[Any]:
        """Return all rows, from the first one on."""
        rows = iter(self._rows)
        if rows is not self._rows:
            return rows
        self.look()
        begun, self._begun = self._begun, None
        if begun is None:
            raise InvalidArgumentError(
                "rows must be an iterable that can be gone through again, got one that is used up; pass a list, or an "
                "object whose __iter__ begins anew"
            )
        return begun
