"""From what the user gave to a `RowSource`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import oocload.stores as stores
from oocload.convert.ragged import is_sparse
from oocload.convert.sources.arrays import slices_like_an_array
from oocload.convert.sources.base import FieldGroup, FieldSource, RowSource
from oocload.convert.sources.batches import BatchSource
from oocload.convert.sources.dask import dask_sources, is_dask
from oocload.convert.sources.idx import IdxSource, is_idx
from oocload.convert.sources.image_folder import IMAGE_SUFFIXES
from oocload.convert.sources.known import known_source, source_of_object
from oocload.convert.sources.npy import NpzSource, npz_members
from oocload.convert.sources.one_field import in_memory, of_field
from oocload.convert.sources.records import OnError, RecordSource
from oocload.convert.sources.side_by_side import SideBySide
from oocload.convert.sources.store import StoreField
from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError, UnknownFieldError
from oocload.stores.base import Store

_KNOWN = ", ".join(
    (
        "a folder of images or .npy files",
        ".npy, .npz, IDX (gzip or not), .csv, .tsv, .parquet, .arrow, .feather, .tfrecord, .tar",
        *stores.HDF5_SUFFIXES,
        *stores.ZARR_SUFFIXES,
    )
)


def resolve(source: Any, fields: Sequence[str] | None, on_error: OnError | None = None) -> RowSource:
    """Return the rows of a source.

    Parameters
    ----------
    source
        A path, a glob or a list of paths of stores to join, a mapping name → path, array or ragged rows, an array, a
        tuple ``(x, y)`` of arrays, one of `oocload.sources`, a dataset of a framework, or an iterable of batches.
    fields
        Of a source that has names: those to take; None for all.
    on_error
        What becomes of records that cannot be read, "raise" or "skip"; None leaves it as the source has it.

    Raises
    ------
    InvalidArgumentError, StoreNotFoundError, StoreFormatError, UnknownFieldError
        If it is none of these, is not there, or is damaged.

    """
    known = known_of(source)
    if isinstance(known, RecordSource):
        records = known if on_error is None else known.with_on_error(on_error)
        return records if fields is None else records.choosing(fields)
    if on_error == "skip":
        raise InvalidArgumentError(
            "on_error must be 'raise' for this source, which has no records that could be skipped, got 'skip'"
        )
    found = _fields_of(source, known, fields)
    if found is not None:
        return SideBySide(found)
    if isinstance(source, Iterable):
        return BatchSource(source)
    raise InvalidArgumentError(
        f"source must be a path, an array, a dict of those, or an iterable of batches, got {type(source).__name__}"
    )


def known_of(source: Any) -> RecordSource[Any] | FieldGroup | None:
    """Return one of `oocload.sources` that is given, or that a path or an object of another library is; else None."""
    if isinstance(source, RecordSource | FieldGroup):
        return source
    if isinstance(source, str | os.PathLike) or is_paths(source):
        return known_source(source)
    return source_of_object(source)


def fields_of(source: Any, fields: Sequence[str] | None) -> dict[str, FieldSource] | None:
    """Return the fields of a source, as of `resolve`; None where it is none of those that have fields."""
    return _fields_of(source, known_of(source), fields)


def _fields_of(
    source: Any, known: RecordSource[Any] | FieldGroup | None, fields: Sequence[str] | None
) -> dict[str, FieldSource] | None:
    if isinstance(known, FieldGroup):
        each = known.field_sources()
        return _choose({name: partial(each.__getitem__, name) for name in each}, fields, known.label)
    if isinstance(source, str | os.PathLike | Store) or is_paths(source):
        return _arrays_of(source, fields)
    if fields is not None:
        raise InvalidArgumentError("fields must be left out unless the source is one file; choose when you pass it")
    named = named_values(source)
    return None if named is None else _each_field(named)


def named_values(source: Any) -> Mapping[str, Any] | None:
    """Return field → value of a mapping, an array or a tuple of arrays; None for anything else."""
    if isinstance(source, Mapping):
        return source
    if _is_field(source):
        return {"x": source}
    if isinstance(source, tuple) and 0 < len(source) <= 3 and all(map(_is_field, source)):
        return dict(zip(("x", "y", "sample_weight"), source, strict=False))
    return None


def is_paths(source: Any) -> bool:
    """Whether a source is a list of paths."""
    return isinstance(source, list | tuple) and bool(source) and all(isinstance(p, str | os.PathLike) for p in source)


def _is_field(value: Any) -> bool:
    return slices_like_an_array(value) or is_sparse(value)


def _each_field(values: Mapping[str, Any]) -> dict[str, FieldSource]:
    """Return the fields of a mapping; dask arrays together, as they may share what is computed."""
    together = dask_sources({name: value for name, value in values.items() if is_dask(value)})
    return {name: together[name] if name in together else _one_field(name, value) for name, value in values.items()}


def _one_field(name: str, value: Any) -> FieldSource:
    if isinstance(value, str | os.PathLike) and (found := known_source(value)) is not None:
        raise InvalidArgumentError(
            f"source of field {name!r} must hold one array, and {found.label} holds records of several fields; convert "
            "it by itself"
        )
    if isinstance(value, str | os.PathLike | Store):
        arrays = _arrays_of(value, None)
        if len(arrays) != 1:
            shown = ", ".join(map(repr, arrays))
            raise InvalidArgumentError(
                f"source of field {name!r} must hold one array, and {value} holds {shown}; name one as path::name"
            )
        return next(iter(arrays.values()))
    return in_memory(name, value)


def _arrays_of(source: stores.Paths | Store, fields: Sequence[str] | None) -> dict[str, FieldSource]:
    """Return the arrays of one file, or of several joined."""
    if isinstance(source, Store):
        return _of_store(source, fields)
    if not isinstance(source, str | os.PathLike) or stores.is_glob(source):
        return _of_store(_opened(source), fields)
    path, _, inner = os.fspath(source).partition("::")
    if not Path(path).exists():
        raise StoreNotFoundError(f"source must exist, got {path!r}; {stores.why_not_there(path)}")
    name = path.lower().rstrip("/")
    if name.endswith(".npz"):
        members = {m: lambda m=m: NpzSource(path, m) for m in npz_members(path)}
        return _choose(members, [inner] if inner else fields, path)
    if name.endswith(stores.NPY_SUFFIXES):
        store = stores.open(path)
        return _choose({"x": lambda: StoreField(store, store.field("x"), path)}, fields, path)
    if name.endswith((*stores.HDF5_SUFFIXES, *stores.ZARR_SUFFIXES)) or Path(path).is_dir():
        return _from_store_path(path, inner, fields)
    if is_idx(path):
        return _choose({"x": lambda: IdxSource(path)}, fields, path)
    raise _unknown(path)


def _opened(paths: stores.Paths) -> Store:
    """Return several stores, joined."""
    each = stores.expand(paths, "source")
    for path in each:
        file = path.partition("::")[0]
        try:
            stores.format_of(file)
        except StoreFormatError as exc:
            raise _unknown(file) from exc
    return stores.open(paths)


def _unknown(path: str) -> StoreFormatError:
    if path.lower().endswith(IMAGE_SUFFIXES):
        return StoreFormatError(f"source must be a folder of images, got the image {path!r}; pass the folder it is in")
    return StoreFormatError(
        f"source must be one of {_KNOWN}, got {path!r}; rename it, or pass an array, batches or one of oocload.sources"
    )


def _from_store_path(path: str, inner: str, fields: Sequence[str] | None) -> dict[str, FieldSource]:
    """Return the fields of a store; what follows ``::`` may be a group or one field."""
    try:
        store = stores.open(path)
    except StoreFormatError as exc:
        if path.lower().rstrip("/").endswith((*stores.HDF5_SUFFIXES, *stores.ZARR_SUFFIXES)):
            raise
        raise StoreFormatError(
            f"source must be one of {_KNOWN}, got the folder {path!r}, in which nothing of these was found"
        ) from exc
    if inner in store.fields:
        return _of_store(store, [inner])
    return _of_store(stores.open(f"{path}::{inner}"), fields) if inner else _of_store(store, fields)


def _of_store(store: Store, fields: Sequence[str] | None) -> dict[str, FieldSource]:
    names = fields if fields is not None else [n for n, f in store.fields.items() if f.shape]
    return {name: of_field(store, name) for name in names}


def _choose(
    makers: Mapping[str, Callable[[], FieldSource]], fields: Sequence[str] | None, path: str
) -> dict[str, FieldSource]:
    for name in fields or ():
        if name not in makers:
            raise UnknownFieldError(f"field {name!r} must be one of those in {path}, which has {', '.join(makers)}")
    return {name: make() for name, make in makers.items() if fields is None or name in fields}
