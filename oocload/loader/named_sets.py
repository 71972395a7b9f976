"""Sets of rows that a store names itself: training, validation, test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError
from oocload.loader.columns import read_classes
from oocload.stores.base import Store

FIELD = "split"


def rows_of_sets(store: Store, names: str | Sequence[str], n_rows: int) -> NDArray[np.bool_]:
    """Return which rows are in one of some sets.

    The field ``split`` says so: numbers with a vocabulary, or text.

    Raises
    ------
    InvalidArgumentError
        If there is no such field, no such set, or nothing is in it.

    """
    given = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Sequence) else ()
    if not given or not all(isinstance(name, str) for name in given):
        raise InvalidArgumentError(f"split must be the name of a set of rows, or a list of names, got {names!r}")
    if FIELD not in store.fields:
        raise InvalidArgumentError(
            f"split must be left out for {store.address}, which has no field {FIELD!r} that says which rows are "
            f"{given[0]!r}; use loader.split(0.9, 0.1)"
        )
    vocabulary = store.field(FIELD).meaning.vocabulary
    found = read_classes(store, FIELD, n_rows, "split")
    labels = [_name_of(label, vocabulary) for label in found.labels]
    known = vocabulary or tuple(label for label in labels if label is not None)
    for name in given:
        if name not in known:
            shown = ", ".join(map(repr, known)) or "numbers without names"
            raise InvalidArgumentError(f"split must be one of the sets of {store.address}, {shown}, got {name!r}")
    rows = np.isin(found.codes, [i for i, label in enumerate(labels) if label in given])
    if not rows.any():
        raise InvalidArgumentError(f"split must name sets that have rows, and {', '.join(map(repr, given))} has none")
    return rows


def _name_of(label: Any, vocabulary: Sequence[str]) -> str | None:
    """Return the name of a set by its number, or by itself where it is text; None of rows that are in no set."""
    if isinstance(label, str):
        return label
    return vocabulary[int(label)] if 0 <= label < len(vocabulary) else None
