"""Data for the recipes, written piece by piece, so that it may be larger than memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

N_CLASSES = 10
PIECE_ROWS = 4096


def make_images(
    folder: Path,
    n_rows: int,
    shape: tuple[int, ...] = (32, 32, 3),
    seed: int = 0,
    labels: np.ndarray | None = None,
    contrast: int = 128,
) -> tuple[Path, Path]:
    """Write images.npy (uint8, of `shape` each) and labels.npy (int64): a pattern for each class, in noise.

    Classes are 0 to 9, in random order, where no `labels` are given. The less `contrast` (2 to 128) patterns have, the
    harder they are to tell.
    """
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, contrast, (N_CLASSES, *shape), dtype=np.uint8)
    if labels is None:
        labels = rng.integers(0, N_CLASSES, n_rows)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (n_rows, *shape))
    for start in range(0, n_rows, PIECE_ROWS):
        of_piece = labels[start : start + PIECE_ROWS]
        noise = np.frombuffer(rng.bytes(len(of_piece) * patterns[0].size), np.uint8) >> 1
        images[start : start + PIECE_ROWS] = patterns[of_piece] + noise.reshape(-1, *shape)
    images.flush()
    np.save(folder / "labels.npy", labels)
    return folder / "images.npy", folder / "labels.npy"
