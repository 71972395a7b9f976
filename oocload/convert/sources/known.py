"""The kinds of source beside stores and arrays: which of them a path is, or an object of another library."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Any, Protocol, Self

import oocload.stores as stores
from oocload.convert.sources.anndata import AnnDataSource
from oocload.convert.sources.arrow import ArrowSource
from oocload.convert.sources.base import FieldGroup
from oocload.convert.sources.csv import CsvSource
from oocload.convert.sources.hugging_face import HuggingFaceSource, HuggingFaceStream
from oocload.convert.sources.image_folder import ImageFolderSource
from oocload.convert.sources.npy_folder import NpyFolderSource
from oocload.convert.sources.records import RecordSource
from oocload.convert.sources.tf_data import TfDatasetSource
from oocload.convert.sources.tfrecord import TFRecordSource
from oocload.convert.sources.torch import TorchSource
from oocload.convert.sources.webdataset import WebDatasetSource
from oocload.convert.sources.xarray import XarraySource
from oocload.errors import InvalidArgumentError, StoreNotFoundError


class PathKind(Protocol):
    """A class of sources that are files or folders; `RecordSource`s and `FieldGroup`s both can be.

    Its constructor takes a path, or several as a list, and options that are keywords.
    """

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


PATH_KINDS: tuple[type[PathKind], ...] = (
    NpyFolderSource,
    CsvSource,
    ArrowSource,
    TFRecordSource,
    WebDatasetSource,
    AnnDataSource,
    ImageFolderSource,
)
OBJECT_KINDS: tuple[type[ObjectKind], ...] = (
    ArrowSource,
    HuggingFaceSource,
    HuggingFaceStream,
    TorchSource,
    TfDatasetSource,
    AnnDataSource,
    XarraySource,
)
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
    paths = stores.expand(source, "source")
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


def from_path(path: Any, **options: Any) -> RecordSource[Any] | FieldGroup:
    """Return the source of a path, a glob or a list of paths, with options of its kind.

    Parameters
    ----------
    path
        As for `oocload.convert`.
    options
        What the class that stands for this kind of file takes beside the path, such as ``label="species"`` of
        `CsvSource`.

    Raises
    ------
    InvalidArgumentError
        If files of this kind take no options, or none of that name.
    StoreNotFoundError
        If nothing lies at the path.

    Examples
    --------
    >>> import pathlib, oocload
    >>> _ = pathlib.Path("t.csv").write_text("size,species\\n1,cat\\n2,dog\\n")
    >>> oocload.convert(oocload.sources.from_path("t.csv", label="species"), "t.h5").fields
    ('size', 'y')

    """
    if not isinstance(path, str | os.PathLike | list | tuple):
        raise InvalidArgumentError(f"options must be given for one source, a path or a glob, got {path!r}")
    paths = stores.expand(path, "source")
    for one in paths:
        if not os.path.exists(one):
            raise StoreNotFoundError(f"source must exist, got {one!r}; nothing lies at that path")
    kind = _kind_of(paths[0])
    if kind is None:
        raise InvalidArgumentError(
            f"options must be left out for {paths[0]}, which takes none, got {', '.join(options)}"
        )
    known = [name for name, p in inspect.signature(kind).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise InvalidArgumentError(
                f"option of {kind.__name__} must be one of {', '.join(known) or 'none'}, got {name!r}"
            )
    found: Any = kind
    made = found(paths[0] if len(paths) == 1 else paths, **options)
    assert isinstance(made, RecordSource | FieldGroup)
    return made


def source_of_object(source: object) -> RecordSource[Any] | FieldGroup | None:
    """Return the source of an object of another library; None where no kind knows it."""
    kind = next((kind for kind in OBJECT_KINDS if kind.recognises_object(source)), None)
    found = None if kind is None else kind.from_object(source)
    assert found is None or isinstance(found, RecordSource | FieldGroup)
    return found


def _kind_of(path: str) -> type[PathKind] | None:
    return next((kind for kind in PATH_KINDS if os.path.exists(path) and kind.recognises(path)), None)
