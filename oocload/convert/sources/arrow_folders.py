"""Folders of Parquet and Arrow files, whose names may be values of columns: ``split=train/part-0.parquet``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import numpy as np

from oocload.convert.sources.arrow_files import IPC, PARQUET, is_arrow
from oocload.convert.sources.arrow_values import pyarrow
from oocload.stores.joined import natural_key

_ZARR = ("zarr.json", ".zgroup", ".zarray")


def files_in(folder: str) -> Iterator[str]:
    """Yield the files of a folder and of those below it, in natural order, without hidden ones and ``_metadata``."""
    for name in sorted(os.listdir(folder), key=natural_key):
        path = os.path.join(folder, name)
        if name.startswith((".", "_")):
            continue
        if os.path.isdir(path):
            yield from files_in(path)
        elif is_arrow(path):
            yield path


def holds_files(folder: str) -> bool:
    """Whether there are such files in a folder, or folders that are named as values; looks no deeper."""
    if any(os.path.exists(os.path.join(folder, name)) for name in _ZARR):
        return False
    with os.scandir(folder) as entries:
        return any(
            entry.name.lower().endswith((*PARQUET, *IPC))
            or ("=" in entry.name and entry.is_dir() and next(files_in(entry.path), None) is not None)
            for entry in entries
        )


def partition_of(folder: str, path: str) -> dict[str, str]:
    """Return column → value, as the names of the folders between two say it."""
    between = os.path.relpath(os.path.dirname(path), folder).split(os.sep) if path != folder else []
    pairs = (name.partition("=") for name in between if "=" in name)
    return {column: unquote(value) for column, _, value in pairs}


def repeated(value: str, n_rows: int) -> Any:
    """Return an Arrow array of one text, again and again."""
    arrow, encoded = pyarrow(), value.encode()
    places = arrow.py_buffer(np.arange(n_rows + 1, dtype=np.int64) * len(encoded))
    return arrow.LargeStringArray.from_buffers(n_rows, places, arrow.py_buffer(encoded * n_rows))
