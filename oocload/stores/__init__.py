"""What is in a file and where its bytes lie."""

from __future__ import annotations

import glob
import os
import reprlib
from collections.abc import Sequence
from pathlib import Path

import h5py

from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError
from oocload.stores.base import Store
from oocload.stores.hdf5 import Hdf5Store
from oocload.stores.joined import JoinedStore, natural_key
from oocload.stores.npy import NpyStore
from oocload.stores.recovery import finish_append
from oocload.stores.zarr import ZarrStore, is_zarr_directory

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4", ".h5ad", ".mat")
ZARR_SUFFIXES = (".zarr", ".zarr.zip", ".zip")
NPY_SUFFIXES = (".npy",)

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def open(path: Paths, *, index_cache: str | os.PathLike[str] | None = None) -> Store:
    """Open HDF5, Zarr and ``.npy`` files: fields, shapes, dtypes, chunks and codecs; no data is read.

    Parameters
    ----------
    path
        A file or directory, known by its suffix or, of HDF5 and Zarr, by what is in it; a group inside one,
        ``"train.h5::images/left"``; or several whose rows follow each other: a glob, ``"train-*.h5"``, joined in
        natural order (``part-2`` before ``part-10``), or a list, joined as it stands.
    index_cache
        Folder that keeps the addresses of an HDF5 file's chunks for the next opening of the same, unchanged file. It
        is made where it does not exist. Worth it from some hundred thousand chunks.

    Returns
    -------
    Store
        Print it to see the fields and on which path each will be read. It is a context manager.

    Raises
    ------
    StoreNotFoundError
        If nothing lies at the path, or the glob matches nothing.
    StoreFormatError
        If the suffix is unknown and the file is neither HDF5 nor Zarr, or the file is not what its suffix says, or is
        truncated; or if several files have no field in common.
    UnknownFieldError
        If the group is not in the file.

    Examples
    --------
    >>> import numpy as np, oocload
    >>> _ = oocload.convert({"x": np.zeros((100, 8), "float32")}, "zeros.h5")
    >>> with oocload.open("zeros.h5") as store:
    ...     store.fields["x"].shape
    (100, 8)
    >>> with oocload.open(["zeros.h5", "zeros.h5"]) as store:
    ...     store.fields["x"].shape
    (200, 8)

    """
    paths = expand(path)
    if isinstance(path, str | os.PathLike):
        return _join(paths, os.fspath(path), index_cache) if is_glob(path) else _open_one(paths[0], index_cache)
    shown = ", ".join(paths[:2]) + (f" … ({len(paths)} files)" if len(paths) > 2 else "")
    return _join(paths, shown, index_cache)


def expand(path: Paths, what: str = "store") -> list[str]:
    """Return the paths that a path, a glob or a list of them stands for, in the order of their rows.

    Errors name the argument: what they are the paths of.

    Raises
    ------
    StoreNotFoundError
        If a glob matches nothing.
    InvalidArgumentError
        If it is no path, or an empty list.

    """
    if isinstance(path, str | os.PathLike):
        return _expand(os.fspath(path), what) if is_glob(path) else [os.fspath(path)]
    if not isinstance(path, Sequence) or not all(isinstance(p, str | os.PathLike) for p in path):
        raise InvalidArgumentError(
            f"{what} must be a path, a glob or a list of paths, got {reprlib.repr(path)}; pass a str or a "
            "pathlib.Path, and write rows in memory to a store with oocload.convert"
        )
    if not path:
        raise InvalidArgumentError(f"{what} must be a path, a glob or a list of at least one path, got an empty list")
    return [p for each in path for p in expand(each, what)]


def is_glob(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a pattern, and no file of that name exists."""
    file = os.fspath(path).partition("::")[0]
    return glob.has_magic(file) and not os.path.exists(file)


def _expand(pattern: str, what: str) -> list[str]:
    file, mark, group = pattern.partition("::")
    found = sorted(glob.glob(file, recursive=True), key=natural_key)
    if not found:
        raise StoreNotFoundError(f"{what} must exist, got {pattern!r}; no path matches it")
    return [f"{path}{mark}{group}" for path in found]


def _join(paths: list[str], shown: str, index_cache: str | os.PathLike[str] | None) -> Store:
    stores: list[Store] = []
    try:
        stores.extend(_open_one(path, index_cache) for path in paths)
        return stores[0] if len(stores) == 1 else JoinedStore(stores, shown)
    except BaseException:
        for store in stores:
            store.close()
        raise


def why_not_there(path: str) -> str:
    """Return what an error says of a path at which nothing lies."""
    if "://" in path:
        return "stores and sources are read from a file system: copy it there first"
    return "nothing lies at that path"


def format_of(path: str) -> str:
    """Return "hdf5", "zarr" or "npy", by the suffix of a path or by what lies there; it may be damaged all the same.

    Raises
    ------
    StoreNotFoundError
        If nothing lies at the path.
    StoreFormatError
        If neither says what it is.

    """
    file = path.partition("::")[0]
    name = file.lower().rstrip("/")
    finish_append(file)
    if name.endswith(HDF5_SUFFIXES):
        return "hdf5"
    if name.endswith(ZARR_SUFFIXES) or is_zarr_directory(Path(file)):
        return "zarr"
    if name.endswith(NPY_SUFFIXES):
        return "npy"
    if not Path(file).exists():
        raise StoreNotFoundError(f"store must exist, got {file!r}; {why_not_there(file)}")
    if Path(file).is_dir():  # a Zarr hierarchy may lack metadata at its top
        return "zarr"
    if h5py.is_hdf5(file):
        return "hdf5"
    known = ", ".join((*HDF5_SUFFIXES, *ZARR_SUFFIXES, *NPY_SUFFIXES))
    raise StoreFormatError(
        f"store must have a suffix that names its format ({known}), got {file!r}; run oocload convert to "
        "make a store of it, or rename it"
    )


def _open_one(path: str, index_cache: str | os.PathLike[str] | None) -> Store:
    file, _, group = path.partition("::")
    found = format_of(path)
    if "://" in file and not Path(file).exists():
        raise StoreNotFoundError(f"store must exist, got {file!r}; {why_not_there(file)}")
    if found == "hdf5":
        return Hdf5Store(file, group, index_cache)
    return ZarrStore(file, group) if found == "zarr" else NpyStore(file)


__all__ = [
    "HDF5_SUFFIXES",
    "NPY_SUFFIXES",
    "ZARR_SUFFIXES",
    "Paths",
    "Store",
    "expand",
    "format_of",
    "is_glob",
    "open",
    "why_not_there",
]
