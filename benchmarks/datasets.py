"""The arrays that the benchmarks read: what a row is, how rows are chunked and batched, and how they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

IMAGE_SHAPE = (64, 64, 3)
WINDOW_CHUNKS = 16  # what a hand-written window, and a shard, holds

_N_FACTORS = 4
_PIECE_ROWS = 4096


@dataclass(frozen=True)
class Dataset:
    """An array of rows, and how it is stored and read.

    Attributes
    ----------
    n_rows, quick_rows
        How many rows there are when nobody says, and under ``--quick``.

    """

    name: str
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int
    batch_rows: int
    n_rows: int
    quick_rows: int
    make: Callable[[int], np.ndarray]

    @property
    def row_nbytes(self) -> int:
        return prod(self.row_shape) * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        return (self.chunk_rows, *self.row_shape)

    @property
    def shards(self) -> tuple[int, ...]:
        return (WINDOW_CHUNKS * self.chunk_rows, *self.row_shape)

    def facts(self, n_rows: int) -> dict[str, Any]:
        """Return what a result says about the array."""
        return {
            "n_rows": n_rows,
            "row_shape": self.row_shape,
            "dtype": self.dtype.name,
            "row_nbytes": self.row_nbytes,
            "chunk_rows": self.chunk_rows,
            "batch_rows": self.batch_rows,
        }

    def __str__(self) -> str:
        shape = " × ".join(map(str, self.row_shape))
        return f"{shape} {self.dtype.name}, chunks of {self.chunk_rows} rows, batches of {self.batch_rows}"


def make_images(n_rows: int) -> np.ndarray:
    """Return smooth images with some noise, which compress about as photographs do, losslessly."""
    rng = np.random.default_rng(0)
    images = np.empty((n_rows, *IMAGE_SHAPE), np.uint8)
    ramp = np.linspace(0, 2 * np.pi, 64)
    for i in range(n_rows):
        a, b, c, d = rng.uniform(0.3, 2, 4)
        plane = 110 + 70 * np.sin(a * ramp + 6 * c)[:, None] * np.cos(b * ramp + 6 * d)[None]
        images[i] = plane[..., None] + np.array([0, 10, 20]) + rng.integers(0, 5, IMAGE_SHAPE)
    return images


def make_features(n_rows: int, width: int) -> np.ndarray:
    """Return sums of a few random factors with three significant digits, as a table of measurements has them."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(_N_FACTORS, width))
    features = np.empty((n_rows, width), np.float32)
    for start in range(0, n_rows, _PIECE_ROWS):
        piece = features[start : start + _PIECE_ROWS]
        piece[:] = _three_digits(rng.normal(size=(len(piece), _N_FACTORS)) @ loadings)
    return features


def _three_digits(values: np.ndarray) -> np.ndarray:
    """Round to a mantissa of 10 bits, as floats are before they are compressed (numcodecs' BitRound does so too).

    Decimal rounding leaves every bit in use: shuffle and LZ4, which want zeros, save 5 to 10 % of it instead of half.
    """
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)


DATASETS = {
    d.name: d
    for d in (
        Dataset("images", IMAGE_SHAPE, np.dtype("u1"), 256, 256, 32_768, 1000, make_images),
        Dataset("features", (512,), np.dtype("f4"), 256, 256, 196_608, 2000, lambda n: make_features(n, 512)),
        # A batch of 256 such rows would be 32 KiB, which any reader hands out in less time than a loop of Python takes.
        Dataset("small", (32,), np.dtype("f4"), 4096, 1024, 3_145_728, 30_000, lambda n: make_features(n, 32)),
    )
}
