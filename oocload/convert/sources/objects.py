"""Open datasets of h5py and arrays of zarr, as users give them: the files that they read, where that is sure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from zarr.storage import LocalStore

from oocload.convert.sources.identity import Identity, array_identity, directory_facts


def object_identity(array: Any) -> Identity | None:
    """Return shape and dtype of such an array, and size and time of its files; None for anything else."""
    if isinstance(array, h5py.Dataset):
        return _of_dataset(array)
    if isinstance(array, zarr.Array) and isinstance(array.store, LocalStore):
        folder = Path(array.store.root, array.path)
        return array_identity(array.shape, np.dtype(array.dtype), [directory_facts(os.fspath(folder))], name=array.path)
    return None


def _of_dataset(dataset: h5py.Dataset) -> Identity | None:
    """Return the identity of a dataset whose rows all lie in a file that is open for reading alone."""
    file = dataset.file
    if file.mode != "r" or file.driver != "sec2" or dataset.is_virtual or dataset.external:
        return None
    status = os.fstat(file.id.get_vfd_handle())
    files = [[status.st_size, status.st_mtime_ns]]
    return array_identity(dataset.shape, dataset.dtype, files, name=str(dataset.name).strip("/"))
