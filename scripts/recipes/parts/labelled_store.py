"""What recipes must know of a store of labelled rows, of their own or of the user's, before they train from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import h5py

import oocload


@dataclass(frozen=True)
class LabelledStore:
    """A store whose field `y` has the class, 0 and up, of each row of `x`."""

    path: Path
    n_rows: int
    row_nbytes: int  # of x
    n_inputs: int
    n_classes: int

    @property
    def nbytes(self) -> int:
        """Of all rows of x, decoded."""
        return self.n_rows * self.row_nbytes


def labelled_store(path: Path, hdf5: bool = False) -> LabelledStore:
    """Look a store over.

    Raises
    ------
    OocloadError
        It cannot be read, lacks a field, or its labels are no classes; or, with `hdf5`, it is not an HDF5 file.

    """
    with oocload.Loader(path, batch_size=1, x="x", y="y", shuffle=False) as loader:
        x, y = loader.fields["x"], loader.fields["y"]
    if x.dtype.kind not in "buif" or 0 in x.shape:
        raise oocload.InvalidArgumentError(
            f"field 'x' of {path} must have numbers, got shape {x.shape} and dtype {x.dtype}"
        )
    histogram = oocload.stats(path, "y")["y"].histogram
    if y.dtype.kind not in "ui" or y.shape[1:] or list(histogram or ()) != list(range(len(histogram or ()))):
        raise oocload.InvalidArgumentError(
            f"field 'y' of {path} must have one class for each row, all of 0, 1, 2 … up to the last, got shape "
            f"{y.shape} and dtype {y.dtype}" + (f" with labels {list(histogram)[:5]} …" if histogram else "")
        )
    if hdf5 and not h5py.is_hdf5(path):
        raise oocload.InvalidArgumentError(
            f"the store must be an HDF5 file, which the code by hand reads, got {path}; oocload reads this one too"
        )
    return LabelledStore(path, x.n_rows, x.row_nbytes, math.prod(x.shape[1:]), len(histogram))
