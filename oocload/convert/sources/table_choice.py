"""What of a table is taken, and as what: the options that sources of tables share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from oocload.convert.sources.columns import (
    BytesField,
    ColumnField,
    ItemsField,
    LabelField,
    MatrixField,
    NumberField,
    TokenField,
)
from oocload.convert.sources.text import Text
from oocload.errors import InvalidArgumentError, StoreFormatError, UnknownFieldError

Features = Sequence[str] | Mapping[str, Sequence[str]] | Literal[True] | None
Labels = Sequence[str] | Mapping[str, Sequence[str] | None] | None
Texts = Mapping[str, Any] | Sequence[str] | str | None
LABEL, FEATURES = "y", "x"
TEXT = np.dtype(str)


@dataclass(frozen=True)
class ColumnKind:
    """What a column holds: text, bytes, words of a dictionary, numbers, or lists of numbers.

    Attributes
    ----------
    dtype
        Of numbers; of text that of `str`, of bytes that of `bytes`.
    shape
        Of lists: their lengths, None for any.
    vocabulary
        Of words of a dictionary: which there are, where that is known; None else.
    is_words
        Whether it is words of a dictionary.
    problem
        Why it cannot be taken; empty where it can.

    """

    dtype: np.dtype[Any] = TEXT
    shape: tuple[int | None, ...] = ()
    vocabulary: tuple[str, ...] | None = None
    is_words: bool = False
    problem: str = ""

    @property
    def is_numbers(self) -> bool:
        """Whether a row is one number."""
        return self.dtype.kind in "biuf" and not self.shape and not self.problem


@dataclass(frozen=True)
class TableChoice:
    """What of a table is taken; see `CsvSource` for the parameters."""

    columns: tuple[str, ...] | None = None
    features: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    label: str | None = None
    labels: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    text: Mapping[str, Text] = field(default_factory=dict)
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)

    @classmethod
    def checked(
        cls,
        columns: Sequence[str] | None,
        features: Features,
        label: str | None,
        labels: Labels,
        text: Texts,
        dtypes: Mapping[str, DTypeLike] | None,
    ) -> TableChoice:
        """Return what was asked for.

        Raises
        ------
        InvalidArgumentError
            If an option breaks its rule.

        """
        if label is not None and not isinstance(label, str):
            raise InvalidArgumentError(f"label must be the name of one column, got {label!r}; more go into labels=")
        found = cls(
            None if columns is None else _names("columns", columns),
            _checked_features(features),
            label,
            _checked_labels(labels),
            _checked_text(text),
            _checked_dtypes(dtypes),
        )
        matrices = [column for each in found.features.values() for column in each or ()]
        named = [*matrices, *{label, *found.labels} - {None}, *found.text]
        for column in named:
            if named.count(column) > 1:
                raise InvalidArgumentError(
                    f"column {column!r} must be named once in features=, label= or labels=, and text=, got it twice"
                )
        return found

    def describe(self) -> dict[str, Any]:
        """Return what tells this from another, as JSON has it."""
        return {
            "columns": None if self.columns is None else list(self.columns),
            "features": {name: None if each is None else list(each) for name, each in self.features.items()},
            "label": self.label,
            "labels": {name: None if words is None else list(words) for name, words in self.labels.items()},
            "text": {name: text.describe() for name, text in self.text.items()},
            "dtypes": {name: dtype.str for name, dtype in self.dtypes.items()},
        }

    @property
    def has_function(self) -> bool:
        """Whether a function makes tokens, of which nobody knows whether it is the same."""
        return any(callable(text.tokens) for text in self.text.values())

    @property
    def as_text(self) -> set[str]:
        """Columns that are read as text whatever they look like."""
        forced = {name for name, dtype in self.dtypes.items() if dtype.kind == "U"}
        return {*self.labels, *self.text, *forced}

    def matrix_dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of several columns side by side."""
        return self.dtypes.get(name, np.dtype(np.float32))

    def matrices(self, kinds: Mapping[str, ColumnKind]) -> dict[str, tuple[str, ...]]:
        """Return matrix → its columns."""
        found = {name: columns for name, columns in self.features.items() if columns is not None}
        used = {*self.labels, *self.text, self.label, *(c for columns in found.values() for c in columns)}
        taken = kinds if self.columns is None else {c: k for c, k in kinds.items() if c in self.columns}
        rest = tuple(c for c, kind in taken.items() if kind.is_numbers and c not in used)
        return {name: rest if columns is None else columns for name, columns in self.features.items()}

    def fields(self, kinds: Mapping[str, ColumnKind], label: str) -> tuple[ColumnField, ...]:
        """Return the fields that come of columns.

        Parameters
        ----------
        kinds
            Column → what it holds, in their order.
        label
            The table, for messages.

        Raises
        ------
        UnknownFieldError
            If a column is not there.
        StoreFormatError, InvalidArgumentError
            If one holds something else than is asked for, or two fields have one name.

        """
        self._check_known(kinds, label)
        matrices = self.matrices(kinds)
        place = {column: name for name, columns in matrices.items() for column in columns}
        named = {self.label, *self.labels, *self.text, *place}
        found: dict[str, ColumnField] = {}
        for column, kind in kinds.items():
            if self.columns is not None and column not in self.columns and column not in named:
                continue
            name = place.get(column, LABEL if column == self.label else column)
            if column in place and name in found:
                continue
            if name in found:
                raise InvalidArgumentError(
                    f"fields of {label} must have names of their own, got {name!r} twice; choose with columns="
                )
            found[name] = (
                self._matrix(name, matrices[name], kinds, label)
                if column in place
                else self._field(name, column, kind, label)
            )
        return tuple(found.values())

    def _field(self, name: str, column: str, kind: ColumnKind, label: str) -> ColumnField:
        wanted = self.dtypes.get(column, self.dtypes.get(name))
        if kind.problem:
            raise StoreFormatError(f"column {column!r} of {label} {kind.problem}; leave it out with columns=")
        if kind.shape and (column in self.text or column in self.labels or (wanted is not None and wanted.kind == "U")):
            raise StoreFormatError(f"column {column!r} of {label} must hold text or numbers to become text, got lists")
        if kind.dtype.kind in "SU" and wanted is not None and wanted.kind != "U":
            raise StoreFormatError(
                f"column {column!r} of {label} must hold numbers to become {wanted}, got text or bytes"
            )
        if column in self.text:
            return TokenField(name, (column,), self.text[column], self.text[column].known)
        if column in self.labels:
            words = self.labels[column]
            return LabelField(name, (column,), kind.vocabulary if words is None else words)
        if kind.shape:
            return ItemsField(name, (column,), wanted or kind.dtype, kind.shape)
        if kind.dtype.kind == "S":
            return BytesField(name, (column,), is_text=False)
        if kind.dtype.kind != "U" and (wanted is None or wanted.kind != "U"):
            return NumberField(name, (column,), wanted or kind.dtype)
        if (kind.is_words and wanted is None) or column == self.label:
            return LabelField(name, (column,), kind.vocabulary)
        return BytesField(name, (column,))

    def _matrix(self, name: str, columns: tuple[str, ...], kinds: Mapping[str, ColumnKind], label: str) -> ColumnField:
        for column in columns:
            if not kinds[column].is_numbers:
                raise StoreFormatError(
                    f"column {column!r} of {label} must hold numbers to be one of features=, got "
                    f"{kinds[column].problem or 'text or lists'}; name it in labels= or text= instead"
                )
        return MatrixField(name, columns, self.matrix_dtype(name))

    def _check_known(self, kinds: Mapping[str, ColumnKind], label: str) -> None:
        matrices = [column for columns in self.features.values() for column in columns or ()]
        for column in (*(self.columns or ()), *matrices, self.label, *self.labels, *self.text):
            if column is not None and column not in kinds:
                known = ", ".join(map(repr, kinds))
                raise UnknownFieldError(f"column {column!r} must be one of those in {label}, which has {known}")
        for name in self.dtypes:
            if name not in kinds and name not in self.features and not (name == LABEL and self.label is not None):
                raise UnknownFieldError(f"dtypes must name columns or fields of {label}, got {name!r}")


def _checked_text(text: Texts) -> dict[str, Text]:
    if text is None:
        return {}
    if isinstance(text, Mapping):
        return {name: _one_text(name, said) for name, said in text.items()}
    return {name: Text() for name in ((text,) if isinstance(text, str) else _names("text", text))}


def _one_text(column: str, said: Any) -> Text:
    if isinstance(said, Text):
        return said
    if isinstance(said, str) or callable(said):
        return Text(said)
    known = [field.name for field in fields(Text)]
    if not isinstance(said, Mapping) or not set(said) <= set(known):
        raise InvalidArgumentError(
            f"text of column {column!r} must be Text(...), its tokens, or a dict of its options ({', '.join(known)}), "
            f"got {said!r}"
        )
    return Text(**said)


def _checked_features(features: Features) -> dict[str, tuple[str, ...] | None]:
    if features is None:
        return {}
    if features is True:
        return {FEATURES: None}
    if isinstance(features, Mapping):
        found = {name: _names(f"features[{name!r}]", columns) for name, columns in features.items()}
        return dict(found)
    return {FEATURES: _names("features", features)}


def _checked_labels(labels: Labels) -> dict[str, tuple[str, ...] | None]:
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        return dict.fromkeys(_names("labels", labels))
    found = {name: None if words is None else _names(f"labels[{name!r}]", words) for name, words in labels.items()}
    return dict(found)


def _checked_dtypes(dtypes: Mapping[str, DTypeLike] | None) -> dict[str, np.dtype[Any]]:
    if dtypes is None:
        return {}
    if not isinstance(dtypes, Mapping):
        raise InvalidArgumentError(f"dtypes must map columns to dtypes, got {dtypes!r}")
    found = {}
    for name, given in dtypes.items():
        try:
            dtype = np.dtype(given)
        except TypeError as exc:
            raise InvalidArgumentError(f"dtypes[{name!r}] must be a dtype, got {given!r}") from exc
        if dtype.kind not in "biufU" or (dtype.kind == "f" and dtype.itemsize > 8):
            raise InvalidArgumentError(f"dtypes[{name!r}] must be one of numbers or 'str', got {dtype}")
        found[name] = dtype
    return found


def is_names(given: Any) -> bool:
    """Whether an option is a list of text."""
    return isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(n, str) for n in given)


def _names(option: str, names: Any) -> tuple[str, ...]:
    if not is_names(names):
        raise InvalidArgumentError(f"{option} must be a list of names, got {names!r}")
    if not names or len(set(names)) < len(names):
        raise InvalidArgumentError(f"{option} must have at least one name, each once, got {list(names)!r}")
    return tuple(names)
