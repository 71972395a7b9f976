"""An HDF5 file for the recipes that begin with one, written piece by piece, so that it may be larger than memory."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

N_CLASSES = 10
SHAPE = (32, 32, 3)
CHUNK_ROWS = 128
PIECE_ROWS = 32 * CHUNK_ROWS


def make_h5(folder: Path, n_rows: int, by_class: bool = False, seed: int = 0) -> Path:
    """Write train.h5 with gzip: images "x" (uint8), a pattern for each class, in noise; labels "y", sorted or not."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 160, (N_CLASSES, *SHAPE), dtype=np.uint8)
    labels = np.arange(n_rows) * N_CLASSES // n_rows if by_class else rng.integers(0, N_CLASSES, n_rows)
    path = folder / "train.h5"
    with h5py.File(path, "w") as file:
        chunks = (min(CHUNK_ROWS, n_rows), *SHAPE)
        images = file.create_dataset("x", (n_rows, *SHAPE), "uint8", chunks=chunks, compression="gzip")
        file["y"] = labels
        for start in range(0, n_rows, PIECE_ROWS):
            of_piece = labels[start : start + PIECE_ROWS]
            noise = np.frombuffer(rng.bytes(len(of_piece) * patterns[0].size), np.uint8) % 96
            images[start : start + PIECE_ROWS] = (patterns[of_piece] & 0xF0) + (noise & 0xF8).reshape(-1, *SHAPE)
    return path
