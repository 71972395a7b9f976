"""How TensorFlow consumes an epoch of batches: in a loop of Python, and in one inside a function."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from consumers import Runs, plain_epoch

IN_FUNCTION = ", in a function"
WAYS = ("", IN_FUNCTION)


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
