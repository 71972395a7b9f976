"""Batches from a Python iterable: dicts of arrays, tuples ``(x, y)``, or arrays alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from oocload.convert.fields import Spec
from oocload.errors import InvalidArgumentError

_PLACES = ("x", "y", "sample_weight")


class BatchSource:
    """An iterable of batches; the first tells fields and dtypes."""

    specs: Mapping[str, Spec] | None = None
    n_rows: int | None = None

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = batches

    def batches(self, piece_nbytes: int) -> Iterator[Mapping[str, Any]]:
        """Yield the batches as they come, as dicts."""
        for number, batch in enumerate(self._batches):
            yield _as_dict(batch, number)


def _as_dict(batch: Any, number: int) -> Mapping[str, Any]:
    if isinstance(batch, Mapping):
        return batch
    if isinstance(batch, tuple) and 0 < len(batch) <= len(_PLACES):
        return dict(zip(_PLACES, batch, strict=False))
    if hasattr(batch, "shape") and hasattr(batch, "dtype"):
        return {"x": batch}
    raise InvalidArgumentError(
        f"each batch must be a dict of arrays, a tuple (x, y) or an array, got {type(batch).__name__} as batch {number}"
    )
