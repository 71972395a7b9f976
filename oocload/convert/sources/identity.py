"""What tells a source from another, and from what it was: names, shapes, dtypes, and the size and time of every file.

Paths are no part of it: a source may be moved between a conversion and its resumption. All is what JSON can say.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from oocload.errors import StoreNotFoundError
from oocload.layout import FieldLayout
from oocload.stores.base import Store

Identity = dict[str, Any]
Facts = list[Any]


def array_identity(shape: Sequence[int], dtype: np.dtype[Any], files: Sequence[Facts], **more: Any) -> Identity:
    """Return the identity of one array in some files."""
    described = dtype.str if dtype.fields is None else repr(dtype.descr)
    return {"shape": list(shape), "dtype": described, "files": list(files), **more}


def file_facts(path: str) -> Facts:
    """Return the size of a file and the time of its last change.

    Raises
    ------
    StoreNotFoundError
        If it is gone.

    """
    try:
        status = os.stat(path)
    except OSError as exc:
        raise StoreNotFoundError(f"source must exist, and {path} is gone: {exc}") from exc
    return [status.st_size, status.st_mtime_ns]


def store_facts(store: Store, field: FieldLayout) -> list[Facts]:
    """Return what tells the files of a field: of a Zarr directory, also how many files of chunks there are.

    Chunks of a Zarr directory have no index that would tell when one is written anew, so all its files are looked at:
    how many they are, the sum of their sizes, and the latest of the times.
    """
    if parts := store.parts(field.name):
        return [[p.source_start, p.stop - p.start, *store_facts(p.store, p.field)] for p in parts]
    facts: list[Facts] = [[stamp.nbytes, stamp.mtime_ns] for stamp in store.stamps()]
    root, _, group = store.address.partition("::")
    if os.path.isdir(root):
        top = os.path.join(root, group)
        own = os.path.join(top, field.name)
        facts.append(directory_facts(own if os.path.isdir(own) else top))
    return facts


def lies_in_folders(store: Store, field: FieldLayout) -> bool:
    """Whether a field, or a part of it, has files of its own in a folder."""
    stores = [p.store for p in store.parts(field.name)] or [store]
    return any(os.path.isdir(s.address.partition("::")[0]) for s in stores)


def directory_facts(path: str) -> Facts:
    """Return the number of files below a folder, the sum of their sizes, and the latest time of a change."""
    n_files = nbytes = latest = 0
    folders = [path]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                    continue
                status = entry.stat()
                n_files, nbytes, latest = n_files + 1, nbytes + status.st_size, max(latest, status.st_mtime_ns)
    return [n_files, nbytes, latest]
