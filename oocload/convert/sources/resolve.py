"""From what the user gave to a `RowSource`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import oocload.stores as stores
from oocload.convert.sources.arrays import SliceSource, slices_like_an_array
from oocload.convert.sources.base import ArraySource, RowSource, SideBySide
from oocload.convert.sources.batches import BatchSource
from oocload.convert.sources.idx import IdxSource, is_idx
from oocload.convert.sources.npy import NpzSource, npz_members
from oocload.convert.sources.store import StoreField
from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError, UnknownFieldError
from oocload.stores.base import Store

_KNOWN = ".npy, .npz, IDX (gzip or not), " + ", ".join((*stores.HDF5_SUFFIXES, *stores.ZARR_SUFFIXES))


def resolve(source: Any, fields: Sequence[str] | None) -> RowSource:
    """Return the rows of a source.

    Parameters
    ----------
    source
        A path, a glob or a list of paths of stores to join, a mapping name → path or array, an array, a tuple
        ``(x, y)`` of arrays, or an iterable of batches.
    fields
        Of a store or ``.npz``: the names to take; None for all.

    Raises
    ------
    InvalidArgumentError, StoreNotFoundError, StoreFormatError, UnknownFieldError
        If it is none of these, is not there, or is damaged.

    """
    if isinstance(source, str | os.PathLike | Store) or _is_paths(source):
        return SideBySide(_arrays_of(source, fields))
    if fields is not None:
        raise InvalidArgumentError("fields must be left out unless the source is one file; choose when you pass it")
    if isinstance(source, Mapping):
        return SideBySide({name: _one_array(name, value) for name, value in source.items()})
    if slices_like_an_array(source):
        return SideBySide({"x": SliceSource(source)})
    if isinstance(source, tuple) and 0 < len(source) <= 3 and all(map(slices_like_an_array, source)):
        names = ("x", "y", "sample_weight")
        return SideBySide({n: SliceSource(a) for n, a in zip(names, source, strict=False)})
    if isinstance(source, Iterable):
        return BatchSource(source)
    raise InvalidArgumentError(
        f"source must be a path, an array, a dict of those, or an iterable of batches, got {type(source).__name__}"
    )


def _is_paths(source: Any) -> bool:
    return isinstance(source, list | tuple) and bool(source) and all(isinstance(p, str | os.PathLike) for p in source)


def _one_array(name: str, value: Any) -> ArraySource:
    if isinstance(value, str | os.PathLike | Store):
        arrays = _arrays_of(value, None)
        if len(arrays) != 1:
            shown = ", ".join(map(repr, arrays))
            raise InvalidArgumentError(
                f"source of field {name!r} must hold one array, and {value} holds {shown}; name one as path::name"
            )
        return next(iter(arrays.values()))
    return SliceSource(value if slices_like_an_array(value) else np.asarray(value))


def _arrays_of(source: stores.Paths | Store, fields: Sequence[str] | None) -> dict[str, ArraySource]:
    """Return the arrays of one file, or of several joined."""
    if isinstance(source, Store):
        return _of_store(source, fields)
    if not isinstance(source, str | os.PathLike) or stores.is_glob(source):
        return _of_store(stores.open(source), fields)
    path, _, inner = os.fspath(source).partition("::")
    if not Path(path).exists():
        raise StoreNotFoundError(f"source must exist, got {path!r}; nothing lies at that path")
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
    raise StoreFormatError(f"source must be one of {_KNOWN}, got {path!r}; rename it, or pass an array or batches")


def _from_store_path(path: str, inner: str, fields: Sequence[str] | None) -> dict[str, ArraySource]:
    """Return the fields of a store; what follows ``::`` may be a group or one field."""
    store = stores.open(path)
    if inner in store.fields:
        return _of_store(store, [inner])
    return _of_store(stores.open(f"{path}::{inner}"), fields) if inner else _of_store(store, fields)


def _of_store(store: Store, fields: Sequence[str] | None) -> dict[str, ArraySource]:
    names = fields if fields is not None else [n for n, f in store.fields.items() if f.shape]
    for name in names:
        if (field := store.field(name)).read_path == "none":
            raise StoreFormatError(
                f"field {name!r} of {store.address} cannot be read: {field.reason}; choose other fields with fields="
            )
    return {name: StoreField(store, store.field(name)) for name in names}


def _choose(
    makers: Mapping[str, Callable[[], ArraySource]], fields: Sequence[str] | None, path: str
) -> dict[str, ArraySource]:
    for name in fields or ():
        if name not in makers:
            raise UnknownFieldError(f"field {name!r} must be one of those in {path}, which has {', '.join(makers)}")
    return {name: make() for name, make in makers.items() if fields is None or name in fields}
