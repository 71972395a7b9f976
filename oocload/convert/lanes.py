"""Rows as arrays of bytes, lane by lane, that can be put in any order and lie in a file as they are.

A dense field is one lane with an element for each row. A ragged one has a lane of lengths, and one of items; a sparse
one has its columns beside the items. The keys of the rows are a lane of their own, the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.convert.buckets import ranges_of
from oocload.convert.buffers import Rows
from oocload.convert.fields import Spec
from oocload.convert.ragged import CsrSpec, RaggedRows
from oocload.convert.sources.fresh import fresh_rows
from oocload.convert.spec import FieldSpec

Elements = NDArray[np.uint8]
"""Shape (elements, bytes of each)."""

KEYS = ""
_LENGTH_NBYTES = 8
_LONG_ROW_NBYTES = 256  # such rows are copied one by one: an index of their items costs more


class Lane(NamedTuple):
    """One array of bytes.

    Attributes
    ----------
    field
        Whose.
    nbytes
        Of an element.
    is_items
        Whether elements are the items of ragged rows; else there is one for each row.

    """

    field: str
    nbytes: int
    is_items: bool


def lanes_of(specs: Mapping[str, Spec]) -> list[Lane]:
    """Return the lanes of some fields, with the keys first; of a ragged field, the lengths first."""
    lanes = [Lane(KEYS, 8, False)]
    for name, spec in specs.items():
        if isinstance(spec, FieldSpec):
            lanes.append(Lane(name, spec.row_nbytes, False))
        else:
            *items, _ = spec.parts.values()
            lanes += [Lane(name, _LENGTH_NBYTES, False), *(Lane(name, part.row_nbytes, True) for part in items)]
    return lanes


def ragged_fields(lanes: Sequence[Lane]) -> list[str]:
    """Return the fields that have items."""
    return list(dict.fromkeys(lane.field for lane in lanes if lane.is_items))


def elements(array: NDArray[Any]) -> Elements:
    """Return rows as bytes; a view where they are contiguous."""
    if not array.nbytes:
        return np.empty((len(array), array.itemsize * prod(array.shape[1:])), np.uint8)
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)


def split(rows: Mapping[str, Rows]) -> list[Elements]:
    """Return checked rows lane by lane, in the order of `lanes_of` but for the keys."""
    found: list[Elements] = []
    for given in rows.values():
        if not isinstance(given, RaggedRows):
            found.append(elements(given))
            continue
        found += [elements(np.diff(given.offsets)), elements(given.values)]
        if given.columns is not None:
            found.append(elements(given.columns))
    return found


def lengths_of(lengths: Elements) -> NDArray[np.int64]:
    """Return the lengths of ragged rows from their lane."""
    return lengths.view(np.int64).reshape(-1)


def take(source: Elements, order: NDArray[np.int64], out: Elements | None = None) -> Elements:
    """Return elements in another order."""
    if not source.shape[1]:
        return np.empty((len(order), 0), np.uint8)
    found: Elements = np.take(source, order, axis=0, out=out, mode="clip")  # "raise" would copy the result
    return found


def take_items(source: Elements, starts: NDArray[np.int64], lengths: NDArray[np.int64], out: Elements) -> None:
    """Put rows of items, each from where it begins, one after the other."""
    if not out.size:
        return
    if out.nbytes >= _LONG_ROW_NBYTES * len(lengths):
        at = 0
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            out[at : at + length] = source[start : start + length]
            at += length
        return
    index = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    index += np.arange(len(out))
    np.take(source, index, axis=0, out=out, mode="clip")


def join(
    specs: Mapping[str, Spec], lanes: Sequence[Elements], order: NDArray[np.int64], most_items: int
) -> dict[str, Rows]:
    """Return rows in an order, from their lanes without the keys."""
    left = list(lanes)
    found: dict[str, Rows] = {}
    for name, spec in specs.items():
        source = left.pop(0)
        if isinstance(spec, FieldSpec):
            rows = fresh_rows((len(order), *spec.row_shape), spec.dtype)
            take(source, order, elements(rows))
            found[name] = rows
            continue
        lengths = lengths_of(source)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        starts, ordered = offsets[:-1].take(order), lengths.take(order)
        after = np.concatenate([np.zeros(1, np.int64), np.cumsum(ordered)])
        arrays = []
        for part in list(spec.parts.values())[:-1]:
            items = left.pop(0)
            values = fresh_rows((len(items), *part.row_shape), part.dtype)
            out = elements(values)
            for first, stop in ranges_of(ordered, most_items):
                take_items(items, starts[first:stop], ordered[first:stop], out[after[first] : after[stop]])
            arrays.append(values)
        found[name] = RaggedRows(arrays[0], after, arrays[1] if isinstance(spec, CsrSpec) else None)
    return found
