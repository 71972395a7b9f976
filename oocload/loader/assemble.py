"""Arrays of batches from ragged rows that lie in slabs as references, or come as Python objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.items import numbers_of, pad_rows, truncated
from oocload.chunks.ragged import REFERENCE
from oocload.chunks.ragged_rows import mask_of
from oocload.errors import InvalidArgumentError
from oocload.loader.arena import Arena, Arenas, RaggedArray
from oocload.loader.batch import Batch, BatchForm
from oocload.loader.padding import Pad, Ragged, Rule
from oocload.loader.tally import Tally
from oocload.optional import require


@dataclass(frozen=True)
class Assemble:
    """Makes arrays of the ragged rows of a batch; the first thing that happens to it.

    Parameters
    ----------
    form
        Of the batch.
    rules
        Field → how.
    tally
        Counts padding.
    wider
        How much longer than the longest row others are padded; to see which shapes that changes.

    """

    form: BatchForm
    rules: Mapping[str, Rule | Literal["sparse"]]
    tally: Tally
    wider: int = 0

    def __call__(self, batch: Batch) -> Batch:
        """Return a batch as it is delivered."""
        parts = []
        for part, value in zip(self.form.parts, (batch,) if self.form.alone else batch, strict=True):
            if isinstance(part, str):
                made = self._made(part, value)
                parts.append(made if len(made) > 1 else made[part])
            else:
                parts.append({key: array for name in part for key, array in self._made(name, value[name]).items()})
        return parts[0] if self.form.alone else tuple(parts)

    def _made(self, name: str, rows: Any) -> dict[str, Any]:
        """Return a field's array, and what stands beside it."""
        rule = self.rules.get(name)
        if rule is None:
            return {name: rows}
        ragged = rows if isinstance(rows, RaggedArray) else _of_objects(name, rows)
        if isinstance(rule, Pad):
            return self._padded(name, ragged, rule)
        return {name: _as_sparse(ragged) if rule == "sparse" else _values(ragged)}

    def _padded(self, name: str, rows: RaggedArray, pad: Pad) -> dict[str, Any]:
        starts, lengths = truncated(rows.starts, rows.lengths, pad.maxlen, pad.keeps_end)
        width = max(1, int(lengths.max(initial=0))) + self.wider
        if pad.static and pad.maxlen is not None:
            width = pad.maxlen
        out = np.empty((len(rows), width, *rows.items.shape[1:]), rows.items.dtype)
        pad_rows(rows.items, starts, lengths, out, pad.pre, pad.value)
        n_items = int(lengths.sum())
        if not self.wider:
            self.tally.add(n_items, out.shape[0] * width - n_items)
        made: dict[str, Any] = {name: out}
        if pad.beside == "lengths":
            made[f"{name}_lengths"] = lengths
        if pad.beside == "mask":
            made[f"{name}_mask"] = mask_of(lengths, width, pad.pre)
        return made


def _values(rows: RaggedArray) -> Ragged:
    """Return the items of rows one after the other, and where each begins and ends."""
    lengths = rows.lengths
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if len(rows) and (np.diff(rows.starts) == lengths[:-1]).all():
        first = int(rows.starts[0])
        return Ragged(rows.items[first : first + int(offsets[-1])], offsets)
    return Ragged(_gathered(rows.items, rows.starts, lengths), offsets)


def _gathered(items: NDArray[Any], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[Any]:
    """Return the items of some rows, one row after the other."""
    return items.take(numbers_of(starts, lengths), axis=0)


def _as_sparse(rows: RaggedArray) -> Any:
    sparse = require("scipy.sparse", "sparse", "sparse=True")
    assert rows.columns is not None
    starts, lengths = rows.starts, rows.lengths
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values, columns = (_gathered(items, starts, lengths) for items in (rows.items, rows.columns))
    return sparse.csr_array((values, columns, offsets), shape=(len(rows), rows.n_columns))


def _of_objects(name: str, rows: NDArray[Any]) -> RaggedArray:
    """Return rows that are arrays each as rows over one array."""
    arrays = [np.asarray(row) for row in rows.ravel().tolist()] if rows.dtype.hasobject else [*rows]
    if rows.ndim > 1 or any(a.dtype.hasobject or a.dtype.kind in "SU" or not a.ndim for a in arrays):
        raise InvalidArgumentError(
            f"ragged must be given for fields whose rows are arrays of numbers, and {name!r} has others"
        )
    references = np.empty(len(arrays), REFERENCE)
    references["length"] = [len(a) for a in arrays]
    references["start"] = np.cumsum(references["length"]) - references["length"]
    return RaggedArray(references, np.concatenate(arrays))


def batch_nbytes(arenas: Arenas, rules: Mapping[str, Any], n_rows: int) -> int:
    """Return the bytes of the arrays of a batch at most, of those fields that lie in slabs as references."""
    return sum(_nbytes(arena, rules[name], n_rows) for name, arena in arenas.of.items())


def _nbytes(arena: Arena, rule: Rule | Literal["sparse"], n_rows: int) -> int:
    ragged = arena.field.ragged
    assert ragged is not None
    if not isinstance(rule, Pad):
        return arena.nbytes(arena.of_rows(n_rows)) + 8 * n_rows
    width = arena.of_rows(1) if rule.maxlen is None else min(arena.of_rows(1), rule.maxlen)
    return n_rows * width * ragged.values.row_nbytes
