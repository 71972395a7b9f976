"""scikit-learn's digits, augmented as in the demo, and written piece by piece."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[2]))

from demo import SIDE, augmented, held_out_split


def make_digits(folder: Path, n_rows: int, n_train: int) -> tuple[Path, Path]:
    """Write images.npy (uint8) and labels.npy (int64); rows from `n_train` on are of digits that no row before has."""
    x_train, y_train, x_test, y_test = held_out_split()
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (n_rows, SIDE, SIDE))
    labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", np.int64, (n_rows,))
    start = 0
    for source in (augmented(x_train, y_train, n_train), augmented(x_test, y_test, n_rows - n_train)):
        for x, y in source:
            images[start : start + len(x)], labels[start : start + len(x)] = x, y
            start += len(x)
    images.flush()
    labels.flush()
    return folder / "images.npy", folder / "labels.npy"
