"""What the adapter tests share: a store of numbered rows, a model, and what a model was trained on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import oocload

N_ROWS = 2003
BATCH = 32
N_BATCHES = 63
WINDOW = oocload.Shuffle(window_rows=500)


def cheap(folder: Path) -> dict[str, str]:
    """Return the environment of processes that train models of some hundred weights, again and again the same ones.

    Threads and an optimizing compiler would only add their time; what JAX has compiled, it finds again in ``folder``.
    """
    return {
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_multi_thread_eigen=false",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def write(path: Path, labels: np.ndarray | None = None) -> Path:
    """Write 2,003 rows of 12 features, each row holding its own number."""
    numbers = np.arange(N_ROWS)
    with h5py.File(path, "w") as file:
        rows = numbers[:, None] + np.arange(12) * 10_000
        file.create_dataset("x", data=rows.astype("float32"), chunks=(25, 12), compression="gzip")
        file.create_dataset("y", data=numbers if labels is None else labels, chunks=(25,), compression="gzip")
        file.create_dataset("w", data=np.ones(N_ROWS, "float32"))
    return path


def damage(path: Path, chunk: int) -> None:
    """Overwrite a chunk of ``x`` with zeros, which are no gzip stream."""
    with h5py.File(path) as file:
        where = file["x"].id.get_chunk_info(chunk)
    data = bytearray(path.read_bytes())
    data[where.byte_offset : where.byte_offset + where.size] = bytes(where.size)
    path.write_bytes(data)


def stream(loader: oocload.Loader, n_epochs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the batches that the plain iterator gives."""
    return [(x.copy(), y.copy()) for _ in range(n_epochs) for x, y in loader]


def assert_same(a: list[tuple[np.ndarray, np.ndarray]], b: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert len(a) == len(b)
    for (x1, y1), (x2, y2) in zip(a, b, strict=True):
        assert x1.tobytes() == np.asarray(x2).tobytes()
        assert y1.tobytes() == np.asarray(y2).tobytes()


def seen() -> Any:
    """Return a metric whose logs tell which rows a model was trained on: how many, their sum, and that of a hash."""
    import keras

    class Seen(keras.metrics.Metric):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="seen")
            self.counts = [self.add_weight(name=name, initializer="zeros") for name in ("rows", "total", "hashed")]

        def update_state(self, y: Any, _: Any, sample_weight: Any = None) -> None:
            y = keras.ops.cast(keras.ops.reshape(y, (-1,)), "int32")
            parts = (keras.ops.ones_like(y), y, (y * 7919) % 1009)
            for count, part in zip(self.counts, parts, strict=True):
                count.assign_add(keras.ops.cast(keras.ops.sum(part), "float32"))

        def result(self) -> dict[str, Any]:
            return {name: count + 0 for name, count in zip(("rows", "total", "hashed"), self.counts, strict=True)}

    return Seen()


def every_row(rows: np.ndarray | None = None) -> dict[str, float]:
    """Return the logs of `seen` where each row was seen once."""
    rows = np.arange(N_ROWS) if rows is None else rows
    return {"rows": len(rows), "total": float(rows.sum()), "hashed": float((rows * 7919 % 1009).sum())}


def small_model(metrics: bool = True) -> Any:
    """Return a compiled model of the rows, always with the same weights."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12,)), keras.layers.Rescaling(1e-5), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[seen()] if metrics else None)
    return model


def fit(model: Any, *args: object, **options: Any) -> dict[str, list[float]]:
    """Fit in silence, and return the history."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`shuffle=True` was passed", UserWarning)
        warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
        return model.fit(*args, **{"verbose": 0, **options}).history
