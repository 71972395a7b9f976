"""The last batch of an epoch, filled up with rows of weight 0, for what must have static shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import aligned_empty
from oocload.errors import InvalidArgumentError
from oocload.loader.batch import Batch, BatchForm

Arrays = dict[str, NDArray[Any]]

WEIGHTS = "weights of rows, 0 for those that fill up"
"""Name of the weights where there is no field of them."""


class Rows(NamedTuple):
    """What the rows of an array are, as of a `FieldLayout`."""

    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]


WEIGHTS_ROWS = Rows(np.dtype(np.float32), ())


def weighted(form: BatchForm) -> BatchForm:
    """Return the form with weights as its third part.

    Raises
    ------
    InvalidArgumentError
        If batches are no tuple with targets, beside which weights could stand.

    """
    if form.alone:
        raise InvalidArgumentError(
            "pad_last must come with targets, beside which the weights stand, and these batches have none; "
            "give the loader y=, or drop_last=True for static shapes"
        )
    return form if len(form.parts) == 3 else BatchForm((*form.parts, WEIGHTS), alone=False)


def whole(slabs: Iterator[Arrays], form: BatchForm, batch_size: int) -> Iterator[Arrays]:
    """Yield slabs of whole batches: where the last is short, it comes by itself, filled up. Weights are added."""
    weights = form.parts[2]
    assert isinstance(weights, str)
    ones = np.empty(0, np.float32)
    for arrays in slabs:
        n_rows = len(next(iter(arrays.values())))
        n_whole = n_rows - n_rows % batch_size
        last = (
            {name: _repeated(array[n_whole:], batch_size) for name, array in arrays.items()} if n_whole < n_rows else {}
        )
        if weights == WEIGHTS and len(ones) < n_whole:
            ones = aligned_empty(4 * n_whole).view(np.float32)
            ones[:] = 1
        if n_whole:
            whole_batches = {name: array[:n_whole] for name, array in arrays.items()}
            yield whole_batches if weights != WEIGHTS else {**whole_batches, WEIGHTS: ones[:n_whole]}
            del whole_batches
        del arrays
        if last:
            last.setdefault(WEIGHTS, np.ones(batch_size, np.float32))
            last[weights][n_rows - n_whole :] = 0
            yield last


def filled(batch: Batch, batch_size: int) -> Batch:
    """Return a batch ``(x, y)`` or ``(x, y, weights)`` filled up, with weights."""
    if not isinstance(batch, tuple) or len(batch) not in (2, 3):
        raise InvalidArgumentError("pad_last must come with a transform that returns (x, y) or (x, y, sample_weight)")
    n_rows = len(_first(batch[0]))
    weights = np.ones(n_rows, np.float32) if len(batch) == 2 else np.array(batch[2])
    if n_rows < batch_size:
        batch = tuple(_mapped(part, batch_size) for part in batch[:2])
        weights = _repeated(weights, batch_size)
        weights[n_rows:] = 0
    return (*batch[:2], weights)


def _mapped(part: Any, batch_size: int) -> Any:
    if isinstance(part, Mapping):
        return {name: _mapped(array, batch_size) for name, array in part.items()}
    if isinstance(part, tuple | list):
        return type(part)(_mapped(array, batch_size) for array in part)
    return _repeated(np.asarray(part), batch_size)


def _first(part: Any) -> Any:
    while isinstance(part, Mapping | tuple | list):
        part = next(iter(part.values() if isinstance(part, Mapping) else part))
    return part


def _repeated(array: NDArray[Any], batch_size: int) -> NDArray[Any]:
    """Return the rows and the last of them again: real ones, of which no model makes NaNs."""
    return array[np.minimum(np.arange(batch_size), len(array) - 1)]
