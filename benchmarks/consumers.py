"""How an epoch of batches is consumed, and whether the batches are right; for the benchmarks of adapters.

Labels are the numbers of the rows, so that each batch says which rows it must have.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import machine
import numpy as np
import tensorflow as tf
from datasets import Dataset
from layouts import LAYOUTS
from lineup import Stored

import oocload

IN_FUNCTION = ", in a function"
WAYS = ("", IN_FUNCTION)

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


def epoch_in_function(dataset: Any) -> int:
    """Take all batches in a function that is given the iterator, as Keras does with ``steps_per_execution``."""
    return int(_count(iter(dataset)))


@tf.function
def _count(batches: Any) -> Any:
    n_rows = tf.constant(0)
    for _, y in batches:
        n_rows += tf.shape(y)[0]
    return n_rows


def both_ways(name: str, dataset: Any, n_rows: int) -> Runs:
    """Return the two ways to consume a dataset, by name; the function is traced, and gets all rows."""
    assert epoch_in_function(dataset) == n_rows, f"{name} delivers another number of rows in a function"
    return {name: partial(plain_epoch, dataset, n_rows), name + IN_FUNCTION: partial(epoch_in_function, dataset)}


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
    for x, y in batches:
        numbers = np.asarray(y)
        assert np.array_equal(np.asarray(x), array[numbers]), "rows have other bytes than their labels say"
        np.add.at(seen, numbers, 1)
    assert seen.max() == 1, "rows are delivered twice"
    assert seen.all(), "rows are left out"


def ratio(values: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Return how measurements compare with others, round by round."""
    return machine.spread([a / b for a, b in zip(values, others, strict=True)])
