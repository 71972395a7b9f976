"""What users write for a ``DataLoader``: a map-style dataset that reads one row at a time with h5py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np


class Hdf5Rows:
    """Rows and labels of an HDF5 file, which each worker opens when it is first asked for a row."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        with h5py.File(path) as file:
            self._n_rows = len(file["x"])

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, row: int) -> tuple[np.ndarray, Any]:
        if self._file is None:
            self._file = h5py.File(self._path)
        return self._file["x"][row], self._file["y"][row]
