"""The user's function on each batch, and what it may return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from oocload.errors import InvalidArgumentError
from oocload.loader.batch import Batch


def apply(transform: Callable[[Any], Any] | None, batch: Batch, n_rows: int, epoch: int, number: int) -> Batch:
    """Return what the transform makes of batch ``number`` of an epoch, which has ``n_rows`` rows.

    What it raises passes, with a note on which batch it was.

    Raises
    ------
    InvalidArgumentError
        If it returns nothing, or arrays of another number of rows.

    """
    if transform is None:
        return batch
    where = f"batch {number} of epoch {epoch}"
    try:
        made = transform(batch)
    except Exception as exc:
        exc.add_note(f"raised by the transform at {where}")
        raise
    if made is None:
        raise InvalidArgumentError(f"transform must return a batch, got None at {where}")
    for array in _arrays(made):
        shape: tuple[int, ...] = getattr(array, "shape", ())
        if len(shape) and shape[0] != n_rows:
            raise InvalidArgumentError(
                f"transform must keep the rows of a batch, and made {shape[0]} of {n_rows} at {where}"
            )
    return made


def _arrays(batch: Batch) -> Iterator[Any]:
    """Yield the arrays of a batch."""
    if hasattr(batch, "n_rows"):
        yield np.empty(batch.n_rows)
        return
    if isinstance(batch, Mapping):
        batch = tuple(batch.values())
    if isinstance(batch, tuple | list):
        for part in batch:
            yield from _arrays(part)
    else:
        yield batch
