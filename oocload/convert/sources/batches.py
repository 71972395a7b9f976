"""Batches from a Python iterable: dicts of arrays, tuples ``(x, y)``, or arrays alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from oocload.convert.fields import Spec
from oocload.convert.ragged import RaggedRows, is_sparse
from oocload.convert.sources.identity import Identity
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning

_PLACES = ("x", "y", "sample_weight")


class BatchSource:
    """An iterable of batches; the first tells fields and dtypes. Iterated by the thread that converts."""

    specs: Mapping[str, Spec] | None = None
    meanings: Mapping[str, Meaning] = MappingProxyType({})
    n_rows: int | None = None
    owned = False  # a generator may fill the same arrays again
    can_jump = False
    identity_is_proof = False
    least_piece_nbytes = 0
    least_piece_reason = ""
    wanted_piece_nbytes = 0

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = batches

    def held_nbytes(self, piece_nbytes: int, n_ahead: int = 0, n_threads: int | None = None) -> int:
        """Batches belong to whoever makes them."""
        return 0

    def identity(self) -> Identity | None:
        """Only the rows can tell."""
        return None

    def batches(
        self,
        piece_nbytes: int,
        start: int = 0,
        stop: int | None = None,
        n_ahead: int = 0,
        n_threads: int | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the batches as they come, as dicts, without the rows before ``start`` and from ``stop`` on."""
        at = 0
        for number, given in enumerate(self._batches):
            batch = _as_dict(given, number)
            if start == 0 and stop is None:
                yield batch
                continue
            n_rows = min((count_rows(rows) for rows in batch.values()), default=0)
            low, high = max(start - at, 0), n_rows if stop is None else min(stop - at, n_rows)
            if low < high:
                yield batch if low == 0 and high == n_rows else {k: cut_rows(v, low, high) for k, v in batch.items()}
            at += n_rows
            if stop is not None and at >= stop:
                return


def count_rows(rows: Any) -> int:
    """Return how many rows there are in what a batch may hold for a field."""
    if _is_pair(rows):
        return len(rows[1]) - 1
    return int(rows.shape[0]) if hasattr(rows, "shape") and rows.shape else len(rows)


def cut_rows(rows: Any, start: int, stop: int) -> Any:
    """Return some of the rows."""
    if isinstance(rows, RaggedRows):
        first, last = int(rows.offsets[start]), int(rows.offsets[stop])
        columns = None if rows.columns is None else rows.columns[first:last]
        return RaggedRows(rows.values[first:last], rows.offsets[start : stop + 1] - first, columns)
    if _is_pair(rows):
        offsets = np.asarray(rows[1])[start : stop + 1]
        return rows[0][int(offsets[0]) : int(offsets[-1])], offsets - offsets[0]
    return rows[start:stop]


def _is_pair(rows: Any) -> bool:
    """Whether rows are items and where each row begins."""
    return isinstance(rows, tuple) and len(rows) == 2 and not is_sparse(rows)


def _as_dict(batch: Any, number: int) -> Mapping[str, Any]:
    if isinstance(batch, Mapping):
        return batch
    if isinstance(batch, tuple) and 0 < len(batch) <= len(_PLACES):
        return dict(zip(_PLACES, batch, strict=False))
    if hasattr(batch, "shape") and hasattr(batch, "dtype"):
        return {"x": batch}
    raise InvalidArgumentError(
        f"each batch must be a dict of arrays, a tuple (x, y) or an array, got {type(batch).__name__} as batch "
        f"{number}; rows in a list become an array by np.asarray, rows that come one by one are "
        "oocload.sources.RowsSource(rows)"
    )
