"""What the adapter tests share: a store of numbered rows, and recording what a framework receives."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

import oocload

N_ROWS = 2003
BATCH = 32
WINDOW = oocload.Shuffle(window_rows=500)


def write(path: Path, labels: np.ndarray | None = None) -> Path:
    """Write 2,003 rows of 12 features, each row holding its own number."""
    numbers = np.arange(N_ROWS)
    with h5py.File(path, "w") as file:
        rows = numbers[:, None] + np.arange(12) * 10_000
        file.create_dataset("x", data=rows.astype("float32"), chunks=(25, 12), compression="gzip")
        file.create_dataset("y", data=numbers if labels is None else labels, chunks=(25,), compression="gzip")
        file.create_dataset("w", data=np.ones(N_ROWS, "float32"))
    return path


def stream(loader: oocload.Loader, n_epochs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the batches that the plain iterator gives."""
    return [(x.copy(), y.copy()) for _ in range(n_epochs) for x, y in loader]


def assert_same(a: list[tuple[np.ndarray, np.ndarray]], b: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert len(a) == len(b)
    for (x1, y1), (x2, y2) in zip(a, b, strict=True):
        assert x1.tobytes() == np.asarray(x2).tobytes()
        assert y1.tobytes() == np.asarray(y2).tobytes()
