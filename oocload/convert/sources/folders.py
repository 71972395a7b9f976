"""Which files lie below a folder: relative paths in natural order, names that begin with a dot left out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError
from oocload.stores.joined import natural_key
from oocload.stores.zarr import is_zarr_directory

_MOST_LOOKED_AT = 1000  # entries of a folder, to see what is in it
_MOST_FOLDERS = 8


def check_folder(folder: str) -> None:
    """Raise where there is no folder of that name.

    Raises
    ------
    StoreNotFoundError
        If nothing lies there.
    InvalidArgumentError
        If it is something else.

    """
    if not os.path.exists(folder):
        raise StoreNotFoundError(f"source must exist, got {folder!r}; nothing lies at that path")
    if not os.path.isdir(folder):
        raise InvalidArgumentError(f"source must be a folder, got the file {folder!r}")


def files_below(folder: str, suffixes: Sequence[str]) -> list[str]:
    """Return the files with one of some suffixes, in any case of letters: paths with ``/``, relative to the folder.

    Raises
    ------
    StoreFormatError
        If there is none.

    """
    found = sorted(_walk(folder, "", tuple(suffixes)), key=natural_key)
    if not found:
        raise StoreFormatError(f"{folder} must hold files that end in {', '.join(suffixes)}, and holds none")
    return found


def holds_files(path: str, suffixes: Sequence[str], depth: int = 3) -> bool:
    """Whether a path is a folder of files with one of some suffixes, as far as its first entries tell.

    Zarr directories are none. Of folders in it, only the first ones are looked at.
    """
    if not os.path.isdir(path) or is_zarr_directory(Path(path)):
        return False
    folders = []
    with os.scandir(path) as entries:
        for entry in islice(entries, _MOST_LOOKED_AT):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.path)
            elif entry.name.lower().endswith(tuple(suffixes)):
                return True
    return depth > 1 and any(holds_files(folder, suffixes, depth - 1) for folder in sorted(folders)[:_MOST_FOLDERS])


def _walk(folder: str, above: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if name.lower().endswith(suffixes) and not entry.is_dir():
                yield above + name
            elif entry.is_dir() and not _leads_back(entry, folder):
                inner.append(name)
    for name in inner:
        yield from _walk(os.path.join(folder, name), f"{above}{name}/", suffixes)


def _leads_back(entry: os.DirEntry[str], folder: str) -> bool:
    """Whether a link leads to a folder that it is in."""
    if not entry.is_symlink():
        return False
    real = os.path.realpath(entry.path)
    return os.path.commonpath([real, os.path.realpath(folder)]) == real
