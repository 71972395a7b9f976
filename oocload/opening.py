"""Opening a store: to read it, or to append rows to it."""

from __future__ import annotations

import os
from typing import Literal, overload

from oocload import stores
from oocload.convert.append import Appender
from oocload.errors import InvalidArgumentError
from oocload.stores.base import Store


@overload
def open(
    path: stores.Paths, mode: Literal["r"] = "r", *, index_cache: str | os.PathLike[str] | None = None
) -> Store: ...


@overload
def open(path: stores.Paths, mode: Literal["a"], *, index_cache: str | os.PathLike[str] | None = None) -> Appender: ...


def open(
    path: stores.Paths, mode: Literal["r", "a"] = "r", *, index_cache: str | os.PathLike[str] | None = None
) -> Store | Appender:
    """Open HDF5, Zarr and ``.npy`` files: fields, shapes, dtypes, chunks and codecs; no data is read.

    Parameters
    ----------
    path
        A file or directory, known by its suffix or, of HDF5 and Zarr, by what is in it; a group inside one,
        ``"train.h5::images/left"``; or several whose rows follow each other: a glob, ``"train-*.h5"``, joined in
        natural order (``part-2`` before ``part-10``), or a list, joined as it stands.
    mode
        ``"r"`` to read. ``"a"`` to append rows to one HDF5 file or Zarr directory.
    index_cache
        Folder that keeps the addresses of an HDF5 file's chunks for the next opening of the same, unchanged file. It
        is made where it does not exist. Worth it from some hundred thousand chunks. Of no use to append.

    Returns
    -------
    Store or Appender
        A context manager. Print a store to see the fields and on which path each will be read.

    Raises
    ------
    StoreNotFoundError
        If nothing lies at the path, or the glob matches nothing.
    StoreFormatError
        If the suffix is unknown and the file is neither HDF5 nor Zarr, or the file is not what its suffix says, or is
        truncated; or if several files have no field in common. Or if an append to it was cut off and cannot be
        finished, which opening does where it can write.
    UnknownFieldError
        If the group is not in the file.
    ConversionError
        To append: if the store is open elsewhere, or cannot be written.
    InvalidArgumentError
        To append: if the path is not one HDF5 file or Zarr directory, or a field of it cannot grow.

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
    >>> with oocload.open("zeros.h5", "a") as appender:
    ...     appender.append(x=np.ones((20, 8), "float32"))
    ...     appender.n_rows
    120

    """
    if mode == "r":
        return stores.open(path, index_cache=index_cache)
    if mode != "a":
        raise InvalidArgumentError(f"mode must be 'r' or 'a', got {mode!r}; oocload.create makes new stores")
    return Appender(path)
