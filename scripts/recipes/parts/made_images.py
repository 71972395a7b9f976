"""Images of ten classes, written piece by piece, so that they may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

N_CLASSES = 10
SHAPE = (32, 32, 3)
CHUNK_ROWS = 128
PIECE_ROWS = 32 * CHUNK_ROWS


def make_images(folder: Path, labels: np.ndarray, contrast: int = 128) -> tuple[Path, Path]:
    """Write images.npy (uint8), a pattern for each class in noise, and labels.npy (int64).

    The less `contrast` (2 to 128) the patterns have, the harder classes are to tell.
    """
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (len(labels), *SHAPE))
    for start, piece in _pieces(labels, contrast):
        images[start : start + len(piece)] = piece
    images.flush()
    np.save(folder / "labels.npy", labels)
    return folder / "images.npy", folder / "labels.npy"


def make_h5(folder: Path, labels: np.ndarray) -> Path:
    """Write train.h5 as h5py does with gzip: the images as "x", their classes as "y"."""
    with h5py.File(folder / "train.h5", "w") as file:
        chunks = (min(CHUNK_ROWS, len(labels)), *SHAPE)
        images = file.create_dataset("x", (len(labels), *SHAPE), "uint8", chunks=chunks, compression="gzip")
        file["y"] = labels
        for start, piece in _pieces(labels, contrast=128):
            images[start : start + len(piece)] = piece & 0xF0
    return folder / "train.h5"


def any_class(n_rows: int) -> np.ndarray:
    """Return classes in random order."""
    return np.random.default_rng(1).integers(0, N_CLASSES, n_rows)


def by_class(n_rows: int) -> np.ndarray:
    """Return classes in runs, one after the other."""
    return np.arange(n_rows) * N_CLASSES // n_rows


def _pieces(labels: np.ndarray, contrast: int) -> Iterator[tuple[int, np.ndarray]]:
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, contrast, (N_CLASSES, *SHAPE), dtype=np.uint8)
    for start in range(0, len(labels), PIECE_ROWS):
        of_piece = labels[start : start + PIECE_ROWS]
        noise = np.frombuffer(rng.bytes(len(of_piece) * patterns[0].size), np.uint8) >> 1
        yield start, patterns[of_piece] + noise.reshape(-1, *SHAPE)
