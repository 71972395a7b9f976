"""How an epoch of batches is consumed, and whether the batches are right; for the benchmarks of adapters.

Labels are the numbers of the rows, so that each batch says which rows it must have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np
from datasets import Dataset
from layouts import LAYOUTS
from lineup import Stored

import oocload

Runs = dict[str, Callable[[], int]]


def write_labelled(layout_name: str, dataset: Dataset, array: np.ndarray, folder: Path) -> Stored:
    """Write an array as field ``x``, and the numbers of its rows as field ``y``."""
    layout = next(layout for layout in LAYOUTS if layout.name == layout_name)
    path = layout.write(folder, array, dataset)
    with h5py.File(path, "a") as file:
        file["y"] = np.arange(len(array))
    return Stored(dataset, layout, path, array)


def plain_epoch(batches: Iterable[tuple[Any, Any]], n_rows: int, n_epochs: int = 1) -> int:
    """Take all batches in a loop of Python that touches nothing."""
    for _ in range(n_epochs):
        for _x, _y in batches:
            pass
    return n_rows


def equal_batches(loader: oocload.Loader, datasets: Mapping[str, Any]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield an epoch of the plain iterator, each batch compared with those of datasets over equal loaders."""
    for number, (batch, *others) in enumerate(zip(loader, *datasets.values(), strict=True)):
        for name, other in zip(datasets, others, strict=True):
            for mine, given in zip(batch, map(np.asarray, other), strict=True):
                same = mine.dtype == given.dtype and np.array_equal(mine, given)
                assert same, f"{name} delivers other bytes in batch {number}"
        yield batch


def check_rows(batches: Iterable[tuple[Any, Any]], array: np.ndarray) -> None:
    """Check that rows are those that their labels name, and that each comes exactly once."""
    seen = np.zeros(len(array), np.int64)
    for batch in batches:
        np.add.at(seen, labelled_rows(batch, array), 1)
    assert seen.max() == 1, "rows are delivered twice"
    assert seen.all(), "rows are left out"


def labelled_rows(batch: tuple[Any, Any], array: np.ndarray) -> np.ndarray:
    """Return the row numbers that labels name, when the rows are those."""
    rows, numbers = map(np.asarray, batch)
    assert np.array_equal(rows, array[numbers]), "rows have other bytes than their labels say"
    return numbers


def ratio(values: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Return how measurements compare with others, round by round."""
    return machine.spread([a / b for a, b in zip(values, others, strict=True)])
