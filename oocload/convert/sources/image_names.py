"""What the folders of images say: classes, and sets above them.

::

    cat/1.png                     y, by the first folder
    train/cat/1.png, test/7.png   split by the first folder, y by the second; -1 where there is none
    1.png                         neither
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oocload.convert.sources.labels import encode_splits, encode_texts
from oocload.convert.sources.samples import Column
from oocload.errors import StoreFormatError
from oocload.layout import Meaning

_SETS = ("train", "training", "val", "valid", "validation", "test", "testing")  # in this order


class Folders(NamedTuple):
    """Labels and sets of files, by the folders that they are in."""

    labels: Column | None
    splits: Column | None


def read_folders(names: Sequence[str], label: str) -> Folders:
    """Return what relative paths say.

    Raises
    ------
    StoreFormatError
        If some files are in folders of classes and others beside these.

    """
    parts = [name.split("/") for name in names]
    first = {path[0] if len(path) > 1 else None for path in parts}
    sets = [name for name in _SETS if name in first]
    if len(sets) < len(first):
        return Folders(_classes(parts, 0, names, label), None)
    splits = encode_splits([path[0] for path in parts], sets)
    return Folders(_classes(parts, 1, names, label), splits)


def _classes(parts: Sequence[Sequence[str]], depth: int, names: Sequence[str], label: str) -> Column | None:
    """Return the classes by the folder at a depth; of whole sets without folders, -1."""
    found = [path[depth] if len(path) > depth + 1 else None for path in parts]
    classes = sorted({name for name in found if name is not None})
    if not classes:
        return None
    without = {path[0] if depth else None for path, name in zip(parts, found, strict=True) if name is None}
    for path, name, shown in zip(parts, found, names, strict=True):
        if name is not None and (path[0] if depth else None) in without:
            other = next(
                n for n, p, c in zip(names, parts, found, strict=True) if c is None and (not depth or p[0] == path[0])
            )
            raise StoreFormatError(
                f"{label} must have all images in folders of their classes, or none, and has {shown} and {other}"
            )
    if not without:
        return encode_texts([name for name in found if name is not None], classes)
    places = {name: place for place, name in enumerate(classes)}
    codes = np.array([-1 if name is None else places[name] for name in found], np.int64)
    return codes, Meaning(vocabulary=tuple(classes))
