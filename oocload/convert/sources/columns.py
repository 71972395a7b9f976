"""Fields made of the columns of a table: what their rows are, and how an Arrow table becomes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Protocol, Self

import numpy as np

from oocload.convert.fields import Spec
from oocload.convert.ragged import RaggedRows, RaggedSpec
from oocload.convert.sources.arrow_values import (
    RowError,
    as_strings,
    first_none,
    items,
    numbers,
    one_array,
    ragged_bytes,
)
from oocload.convert.sources.fresh import fresh_rows
from oocload.convert.sources.label_column import LabelCodes, LabelWords
from oocload.convert.sources.text import Text
from oocload.convert.sources.tokens import TokenIds, TokenWords, ids_spec
from oocload.convert.spec import FieldSpec
from oocload.errors import StoreFormatError
from oocload.layout import Meaning

_BYTES = RaggedSpec((), np.dtype(np.uint8))
_TOKENS_TAKE, _LISTS_TAKE = 16, 40  # bytes for each byte of text: lowercase, words, where they begin, their numbers


class Words(Protocol):
    """Gathers the vocabulary of a column."""

    def add(self, values: Any) -> None:
        """Take values."""
        ...

    def vocabulary(self) -> tuple[str, ...]:
        """Return the words so far."""
        ...


class ColumnField(ABC):
    """A field of a store, of one column of a table or several.

    Attributes
    ----------
    name
        Of the field.
    columns
        What it is made of.

    """

    name: str
    columns: tuple[str, ...]

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """What the rows are."""

    @property
    def meaning(self) -> Meaning:
        """What the values stand for; a vocabulary is there once it is found."""
        return Meaning()

    @abstractmethod
    def rows(self, table: Any) -> Any:
        """Return the rows of an Arrow table.

        Raises
        ------
        RowError
            If a value cannot be part of one.

        """

    def takes(self, n_rows: int, nbytes: int) -> int:
        """Return the bytes that `rows` takes for some rows, about; ``nbytes`` are those of its columns."""
        del nbytes
        return n_rows * self.spec.row_nbytes if isinstance(self.spec, FieldSpec) else 0

    def words(self) -> Words | None:
        """Return what gathers the vocabulary, where one is to be found first."""
        return None

    def with_vocabulary(self, vocabulary: Sequence[str]) -> Self:
        """Return this field with the vocabulary that was found."""
        raise NotImplementedError


@dataclass(frozen=True)
class NumberField(ColumnField):
    """A column of numbers."""

    name: str
    columns: tuple[str, ...]
    dtype: np.dtype[Any]

    @property
    def spec(self) -> Spec:
        """Scalar rows."""
        return FieldSpec((), self.dtype)

    def rows(self, table: Any) -> Any:
        """Return the values, without a copy where their dtype is the same."""
        with _column(self.columns[0]):
            return numbers(one_array(table.column(self.columns[0])), self.dtype)


@dataclass(frozen=True)
class MatrixField(ColumnField):
    """Columns of numbers side by side."""

    name: str
    columns: tuple[str, ...]
    dtype: np.dtype[Any]

    @property
    def spec(self) -> Spec:
        """Rows with one number of each column."""
        return FieldSpec((len(self.columns),), self.dtype)

    def rows(self, table: Any) -> Any:
        """Return the columns as one array."""
        rows = fresh_rows((len(table), len(self.columns)), self.dtype)
        for place, column in enumerate(self.columns):
            with _column(column):
                rows[:, place] = numbers(one_array(table.column(column)), self.dtype)
        return rows


@dataclass(frozen=True)
class BytesField(ColumnField):
    """A column of text, or of bytes, as it is."""

    name: str
    columns: tuple[str, ...]
    is_text: bool = True

    @property
    def spec(self) -> Spec:
        """Ragged rows of bytes."""
        return _BYTES

    @property
    def meaning(self) -> Meaning:
        """UTF-8, where it is text."""
        return Meaning(content="text" if self.is_text else "")

    def rows(self, table: Any) -> Any:
        """Return the bytes: of text and bytes without a copy, of numbers as they are written."""
        values = table.column(self.columns[0])
        return ragged_bytes(as_strings(values) if self.is_text else one_array(values))


@dataclass(frozen=True)
class LabelField(ColumnField):
    """A column of words as codes."""

    name: str
    columns: tuple[str, ...]
    vocabulary: tuple[str, ...] | None = None

    @property
    def spec(self) -> Spec:
        """Codes."""
        return FieldSpec((), LabelCodes.dtype)

    @property
    def meaning(self) -> Meaning:
        """The vocabulary."""
        return Meaning(vocabulary=self.vocabulary or ())

    def rows(self, table: Any) -> Any:
        """Return the code of each word."""
        with _column(self.columns[0]):
            return self._codes.codes(table.column(self.columns[0]))

    def words(self) -> Words | None:
        """Gather the words, where they were not given."""
        return LabelWords() if self.vocabulary is None else None

    def with_vocabulary(self, vocabulary: Sequence[str]) -> Self:
        """Return this field with the words that were found."""
        return replace(self, vocabulary=tuple(vocabulary))

    @cached_property
    def _codes(self) -> LabelCodes:
        return LabelCodes(self.vocabulary or ())


@dataclass(frozen=True)
class TokenField(ColumnField):
    """A column of text as numbers of tokens."""

    name: str
    columns: tuple[str, ...]
    text: Text
    vocabulary: tuple[str, ...] | None = None

    @property
    def spec(self) -> Spec:
        """Ragged or padded rows."""
        return ids_spec(self.text)

    @property
    def meaning(self) -> Meaning:
        """The vocabulary."""
        return Meaning(vocabulary=self.vocabulary or ())

    def rows(self, table: Any) -> Any:
        """Return the numbers of the tokens."""
        with _column(self.columns[0]):
            return self._ids.rows(table.column(self.columns[0]))

    def takes(self, n_rows: int, nbytes: int) -> int:
        """Return the bytes for tokens and their numbers."""
        return super().takes(n_rows, nbytes) + nbytes * (_LISTS_TAKE if callable(self.text.tokens) else _TOKENS_TAKE)

    def words(self) -> Words | None:
        """Count the tokens, where they are neither given nor hashed."""
        return TokenWords(self.text) if self.vocabulary is None and self.text.tokens != "hashing" else None

    def with_vocabulary(self, vocabulary: Sequence[str]) -> Self:
        """Return this field with the tokens that were found."""
        return replace(self, vocabulary=tuple(vocabulary))

    @cached_property
    def _ids(self) -> TokenIds:
        return TokenIds(self.text, self.vocabulary or ())


@dataclass(frozen=True)
class ItemsField(ColumnField):
    """A column of lists of numbers: of one length, perhaps of several axes, or of any length."""

    name: str
    columns: tuple[str, ...]
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    @property
    def spec(self) -> Spec:
        """Rows of a shape, or ragged ones."""
        sizes = tuple(n for n in self.shape if n is not None)
        return RaggedSpec(sizes, self.dtype) if None in self.shape else FieldSpec(sizes, self.dtype)

    def rows(self, table: Any) -> Any:
        """Return the items."""
        array = one_array(table.column(self.columns[0]))
        array = getattr(array, "storage", array)
        with _column(self.columns[0]):
            self._refuse_none(array)
            offsets = None
            while hasattr(array, "flatten"):  # as lists have it
                if hasattr(array, "offsets"):
                    places = items(array.offsets)
                    offsets = places.astype(np.int64) - int(places[0])
                array = array.flatten()
                self._refuse_none_inside(array)
            found = numbers(array, self.dtype)
        sizes = tuple(n for n in self.shape if n is not None)
        if offsets is None:
            return found.reshape(len(table), *sizes)
        return RaggedRows(found.reshape(-1, *sizes) if sizes else found, offsets)

    def takes(self, n_rows: int, nbytes: int) -> int:
        """Return the bytes where the values are cast, or hold bits."""
        del n_rows
        return nbytes

    def _refuse_none(self, array: Any) -> None:
        if array.null_count:
            row = first_none(array)
            raise RowError(row, "must have a list in every row, got none; leave the column or the row out")

    def _refuse_none_inside(self, array: Any) -> None:
        if array.null_count and self.dtype.kind not in "f":
            place = first_none(array)
            row = place // max(1, prod(n for n in self.shape if n is not None)) if None not in self.shape else 0
            raise RowError(row, "must have a value in every place of a list, got none")


class _column:  # noqa: N801
    """Names the column in errors."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, RowError):
            exc.reason = f"column {self._name!r} {exc.reason}"


def columns_of(fields: Sequence[ColumnField]) -> list[str]:
    """Return the columns that fields are made of."""
    return list(dict.fromkeys(column for field in fields for column in field.columns))


def complete(
    fields: Sequence[ColumnField], tables: Callable[[list[str]], Iterator[Any]], label: str
) -> tuple[ColumnField, ...]:
    """Return fields with their vocabularies, for which those columns are gone through that have none.

    Parameters
    ----------
    fields
        Some perhaps without a vocabulary.
    tables
        Given columns, all tables with these.
    label
        What they are of, in errors.

    Raises
    ------
    StoreFormatError
        If words cannot be made of a value.

    """
    gathering = {field.name: words for field in fields if (words := field.words()) is not None}
    if not gathering:
        return tuple(fields)
    wanted = [field for field in fields if field.name in gathering]
    for table in tables(list(dict.fromkeys(field.columns[0] for field in wanted))):
        for field in wanted:
            try:
                gathering[field.name].add(table.column(field.columns[0]))
            except RowError as exc:
                raise StoreFormatError(f"{label}: column {field.columns[0]!r} {exc.reason}") from exc
    return tuple(f.with_vocabulary(gathering[f.name].vocabulary()) if f.name in gathering else f for f in fields)
