"""What do declared operations cost: bytes to normalized floats while rows are written, beside NumPy in a transform?"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np
from consumers import ratio
from datasets import DATASETS
from limits import on_all_cores

import oocload
from oocload import ops

_BATCH_ROWS = 256
_MEMORY = "2 GiB"
_MEAN = np.array([120.0, 118.0, 110.0], np.float32)
_STD = np.array([60.0, 61.0, 62.0], np.float32)
_FILL_NBYTES = 2**22  # at a time, as the tasks of a loader are


def normalized(x: np.ndarray) -> np.ndarray:
    """Return what people write: a batch as floats, minus the mean, by the deviation."""
    return (x.astype(np.float32) - _MEAN) / _STD


class Fill:
    """Write floats to memory as large as a slab, on all cores: what no reader can beat that delivers floats."""

    def __init__(self, window_rows: int, row_items: int, n_rows: int) -> None:
        self._slab = np.ones((window_rows, row_items), np.float32)
        self._step = max(1, _FILL_NBYTES // self._slab[0].nbytes)
        self._n_rows = n_rows

    def __call__(self) -> int:
        parts = [self._slab[i : i + self._step] for i in range(0, len(self._slab), self._step)]
        n_passes = max(1, round(self._n_rows / len(self._slab)))
        on_all_cores([partial(part.fill, 1.5) for part in parts] * n_passes, machine.n_cores())
        return n_passes * len(self._slab)


def fused_ops(folder: Path, rounds: int, quick: bool = False) -> dict[str, Any]:
    """Measure one epoch of each in turn, on raw uint8 images in the page cache, shuffled.

    Returns
    -------
    dict
        Rows per second of ``ops``, ``transform``, ``raw`` (neither) and ``fill``, and the speed of ``ops`` beside each
        of the others, round by round.

    """
    dataset = DATASETS["images"]
    path = folder / "fused_ops.h5"
    array = dataset.make(dataset.quick_rows if quick else dataset.n_rows)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=array)
    n_rows, row_items = len(array), array[0].size
    batch_rows = min(_BATCH_ROWS, n_rows // 2)
    options: dict[str, Any] = {"shuffle": oocload.Shuffle(window_rows=8 * batch_rows), "seed": 0, "memory": _MEMORY}
    loaders = {
        "ops": oocload.Loader(path, batch_rows, x="x", ops={"x": ops.normalize(_MEAN, _STD)}, **options),
        "transform": oocload.Loader(path, batch_rows, x="x", transform=normalized, **options),
        "raw": oocload.Loader(path, batch_rows, x="x", **options),
    }
    try:
        _check(loaders, array)
        del array
        runs = {name: partial(_epoch, loader, n_rows) for name, loader in loaders.items()}
        fill = Fill(loaders["ops"].window_rows, row_items, n_rows)
        for run in (*runs.values(), fill):
            run()  # slabs are new memory once
        rates = machine.by_round({**runs, "fill": fill}, rounds, gc.collect)
    finally:
        for loader in loaders.values():
            loader.close()
        path.unlink()
    seconds = {name: [n_rows / rate for rate in values] for name, values in rates.items()}
    return {
        "n_rows": n_rows,
        "batch_rows": batch_rows,
        "row_nbytes": {"stored": row_items, "delivered": 4 * row_items},
        "rows_per_s": {name: machine.spread(values) for name, values in rates.items()},
        "speed_of_ops_beside": {n: ratio(seconds[n], seconds["ops"]) for n in rates if n != "ops"},
    }


def _epoch(loader: Iterable[np.ndarray], n_rows: int) -> int:
    for _ in loader:
        pass
    return n_rows


def _check(loaders: dict[str, oocload.Loader], array: np.ndarray) -> None:
    """Fail unless all give the same rows, of which the floats agree."""
    for number, (made, plain, raw) in enumerate(zip(*loaders.values(), strict=True)):
        rows = array[loaders["raw"].batch_rows(number)]
        np.testing.assert_array_equal(raw, rows)
        np.testing.assert_allclose(made, plain, rtol=1e-5, atol=1e-5)
    for loader in loaders.values():
        loader.go_to(0, 0)
