"""The kinds of source beside stores and arrays: which of them a path is, or an object of another library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, Self

import oocload.stores as stores
from oocload.convert.sources.arrow import ArrowSource
from oocload.convert.sources.base import FieldGroup
from oocload.convert.sources.csv import CsvSource
from oocload.convert.sources.records import RecordSource
from oocload.errors import InvalidArgumentError


class PathKind(Protocol):
    """A class of sources that are files or folders; `RecordSource`s and `FieldGroup`s both can be."""

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether a path that exists is of this kind: by its suffix, or by what lies in a folder."""
        ...

    @classmethod
    def from_paths(cls, paths: Sequence[str]) -> Self:
        """Return the source of one path, or of several whose rows follow each other, with default options."""
        ...


class ObjectKind(Protocol):
    """A class of sources that are objects of another library, which is not imported to know them."""

    @classmethod
    def recognises_object(cls, source: object) -> bool:
        """Whether an object is of this kind; looks at `sys.modules`, imports nothing."""
        ...

    @classmethod
    def from_object(cls, source: Any) -> Self:
        """Return the source of it, with default options."""
        ...


PATH_KINDS: tuple[type[PathKind], ...] = (CsvSource, ArrowSource)
OBJECT_KINDS: tuple[type[ObjectKind], ...] = (ArrowSource,)
"""Both in the order in which they are asked."""


def known_source(source: Any) -> RecordSource[Any] | FieldGroup | None:
    """Return the source of a path, a glob or a list of paths of one kind; None where no path is of any.

    Raises
    ------
    InvalidArgumentError
        If some are of another kind than the first.
    StoreNotFoundError
        If a glob matches nothing.

    """
    paths = stores.expand(source)
    kind = _kind_of(paths[0])
    if kind is None:
        return None
    for path in paths:
        if not kind.recognises(path):
            raise InvalidArgumentError(
                f"source must be files of one kind, got {paths[0]!r} beside {path!r}; convert them one by one"
            )
    found = kind.from_paths(paths)
    assert isinstance(found, RecordSource | FieldGroup)
    return found


def source_of_object(source: object) -> RecordSource[Any] | FieldGroup | None:
    """Return the source of an object of another library; None where no kind knows it."""
    kind = next((kind for kind in OBJECT_KINDS if kind.recognises_object(source)), None)
    found = None if kind is None else kind.from_object(source)
    assert found is None or isinstance(found, RecordSource | FieldGroup)
    return found


def _kind_of(path: str) -> type[PathKind] | None:
    return next((kind for kind in PATH_KINDS if os.path.exists(path) and kind.recognises(path)), None)
