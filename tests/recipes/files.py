"""HDF5 files that the recipes on images cannot use, and what they say of them."""

from pathlib import Path

import h5py
import numpy as np

X = np.zeros((300, 8, 8, 3), np.uint8)
Y = np.arange(300) % 10

WRONG = {
    "other names": ({"a": X, "y": Y}, "UnknownFieldError: field 'x' must be one of those in {}, which has 'a', 'y'"),
    "other lengths": ({"x": X, "y": Y[1:]}, "InvalidArgumentError: chosen fields must have the same number of rows: "),
    "one-hot labels": ({"x": X, "y": np.eye(10)[Y]}, "InvalidArgumentError: field 'y' of {} must have one class "),
    "negative labels": ({"x": X, "y": Y - 1}, "InvalidArgumentError: field 'y' of {} must have one class "),
    "no file": (None, "StoreNotFoundError: store must exist, got '{}'; nothing lies at that path"),
}


def write_wrong(folder: Path, name: str) -> tuple[Path, str]:
    """Return the path of a file, and how the line begins in which a recipe ends that is given it."""
    path = folder / "wrong.h5"
    fields, message = WRONG[name]
    if fields is not None:
        with h5py.File(path, "w") as file:
            for field, rows in fields.items():
                file[field] = rows
    return path, message.format(path)
