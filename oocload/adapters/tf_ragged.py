"""Batches with ragged and sparse rows as TensorFlow has them, and their specs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.loader.batch import Batch
from oocload.loader.padding import Ragged
from oocload.optional import require

tf: Any = require("tensorflow", "tensorflow", "to_tf()")


def as_composite(batch: Batch) -> Batch:
    """Return a batch with a ``tf.RaggedTensor`` for each `Ragged`, and a ``tf.SparseTensor`` for each CSR array."""
    if isinstance(batch, Ragged):
        return tf.RaggedTensor.from_row_splits(batch.values, batch.offsets, validate=False)
    if isinstance(batch, Mapping):
        return {key: as_composite(value) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(as_composite(value) for value in batch)
    return _as_sparse(batch) if hasattr(batch, "indptr") else batch


def spec_of(batch: Batch, wider: Batch, n_rows: int | None) -> Any:
    """Return the spec of batches of so many rows (None: several numbers), given two whose padded rows differ in length.

    Where the shapes of the two differ, those of others do.
    """
    if isinstance(batch, Ragged):
        values = batch.values
        return tf.RaggedTensorSpec((n_rows, None, *values.shape[1:]), values.dtype, ragged_rank=1)
    if isinstance(batch, Mapping):
        return {key: spec_of(value, wider[key], n_rows) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(spec_of(value, other, n_rows) for value, other in zip(batch, wider, strict=True))
    if hasattr(batch, "indptr"):
        return tf.SparseTensorSpec((n_rows, batch.shape[1]), batch.dtype)
    here, there = np.shape(batch)[1:], np.shape(wider)[1:]
    shape = (n if n == other else None for n, other in zip(here, there, strict=True))
    return tf.TensorSpec((n_rows, *shape), np.asarray(batch).dtype)


def _as_sparse(matrix: Any) -> Any:
    places: NDArray[np.int64] = np.empty((len(matrix.data), 2), np.int64)
    places[:, 0] = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    places[:, 1] = matrix.indices
    return tf.sparse.reorder(tf.SparseTensor(places, matrix.data, matrix.shape))
