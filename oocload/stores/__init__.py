"""What is in a file and where its bytes lie."""

from __future__ import annotations

import os
from pathlib import Path

from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError
from oocload.stores.base import Store
from oocload.stores.hdf5 import Hdf5Store
from oocload.stores.zarr import ZarrStore, is_zarr_directory

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4", ".h5ad", ".mat")
ZARR_SUFFIXES = (".zarr", ".zarr.zip")


def open(path: str | os.PathLike[str]) -> Store:
    """Open an HDF5 or Zarr store: its fields, shapes, dtypes, chunks and codecs; no data is read.

    Parameters
    ----------
    path
        A file or directory, named by its suffix, or a group inside one: ``"train.h5::images/left"``.

    Returns
    -------
    Store
        Print it to see the fields and on which path each will be read. It is a context manager.

    Raises
    ------
    StoreNotFoundError
        If nothing lies at the path.
    StoreFormatError
        If the suffix is unknown, or the file is not what its suffix says, or is truncated.
    UnknownFieldError
        If the group is not in the file.

    Examples
    --------
    >>> import numpy as np, oocload
    >>> _ = oocload.convert({"x": np.zeros((100, 8), "float32")}, "zeros.h5")
    >>> with oocload.open("zeros.h5") as store:
    ...     store.fields["x"].shape
    (100, 8)

    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidArgumentError(f"store must be a path, got {path!r}; pass a str or a pathlib.Path")
    file, _, group = os.fspath(path).partition("::")
    name = file.lower().rstrip("/")
    if name.endswith(HDF5_SUFFIXES):
        return Hdf5Store(file, group)
    if name.endswith(ZARR_SUFFIXES) or is_zarr_directory(Path(file)):
        return ZarrStore(file, group)
    if not Path(file).exists():
        raise StoreNotFoundError(f"store must exist, got {file!r}; nothing lies at that path")
    known = ", ".join((*HDF5_SUFFIXES, *ZARR_SUFFIXES))
    raise StoreFormatError(
        f"store must have a suffix that names its format ({known}), got {file!r}; rename it, or run oocload convert"
    )


__all__ = ["HDF5_SUFFIXES", "ZARR_SUFFIXES", "Store", "open"]
