"""Which rows a loader has, from what the user says: fractions, row numbers, masks, identifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError
from oocload.loader.columns import as_array, read_classes, rows_of_ids, shared_row
from oocload.plan.blocks import BlockGrid
from oocload.plan.select import Selection
from oocload.plan.split import part_sizes, select_marked, select_rows, split_by_blocks, split_by_rows
from oocload.stores.base import Store
from oocload.units import whole_number

SplitBy = Literal["blocks", "rows"]
_LEAST_BLOCKS = 4  # a part of fewer blocks is no fair sample of a store in order


def split(
    store: Store,
    grid: BlockGrid,
    selection: Selection,
    parts: Sequence[Any],
    by: SplitBy | None,
    stratify: str | None,
    ids: str | None,
    seed: Any,
) -> tuple[list[Any] | None, list[Selection]]:
    """Return the names of parts, where they have names, and the parts of a selection.

    Raises
    ------
    InvalidArgumentError, UnknownFieldError
        If an argument breaks its rule, or does not go with the others.

    """
    named = len(parts) == 1 and isinstance(parts[0], Mapping)
    names = list(parts[0]) if named else None
    given = list(parts[0].values()) if named else list(parts)
    if not given:
        raise InvalidArgumentError("split must name at least one part, got none")
    if all(isinstance(part, int | float | np.number) for part in given):
        if ids is not None:
            raise InvalidArgumentError(f"ids must go with lists of identifiers, got ids={ids!r} with fractions")
        seed = whole_number("seed", seed, 0, 2**64 - 1)
        return names, split_fractions(store, grid, selection, given, by, stratify, seed)
    if any(isinstance(part, int | float | str | bytes | Mapping | np.number) for part in given):
        raise InvalidArgumentError(f"parts must be fractions, or lists of rows, or one dict of those, got {parts!r}")
    for name, value in (("by", by), ("stratify", stratify)):
        if value is not None:
            raise InvalidArgumentError(f"{name} must go with fractions, got {name}={value!r} with lists of rows")
    labels = list(range(len(given))) if names is None else names
    return names, split_ids(store, grid, selection, dict(zip(labels, given, strict=True)), ids)


def split_fractions(
    store: Store,
    grid: BlockGrid,
    selection: Selection,
    fractions: Sequence[float],
    by: SplitBy | None,
    stratify: str | None,
    seed: int,
) -> list[Selection]:
    """Return parts of a selection by fractions; where nobody says, by blocks if each part has some.

    Raises
    ------
    InvalidArgumentError, UnknownFieldError
        If an argument breaks its rule, or a class has fewer rows than there are parts.

    """
    if stratify is not None and by == "blocks":
        raise InvalidArgumentError("by must not be 'blocks' where stratify is given: classes are split by rows")
    if by is None:
        fair = min(fractions) * selection.n_rows >= _LEAST_BLOCKS * selection.block_rows
        by = "blocks" if fair else "rows"
    if by not in get_args(SplitBy):
        raise InvalidArgumentError(f"by must be 'blocks' or 'rows', got {by!r}")
    if stratify is None:
        if by == "blocks":
            return split_by_blocks(selection, fractions, seed)
        return split_by_rows(grid, selection, fractions, seed)
    classes = read_classes(store, stratify, grid.n_rows, "stratify")
    counts = np.zeros(len(classes.labels), np.int64)
    for _, rows in selection.row_pieces():
        counts += np.bincount(classes.codes[rows], minlength=len(counts))
    few = np.flatnonzero((counts > 0) & (part_sizes(fractions, counts) == 0).any(axis=0))
    if len(few):
        raise InvalidArgumentError(
            f"stratify must name a field of which every class has a row for each of the {len(fractions)} parts, and "
            f"class {classes.labels[few[0]]!r} of {stratify!r} has {counts[few[0]]}, too few for these fractions"
        )
    return split_by_rows(grid, selection, fractions, seed, classes.codes)


def split_ids(
    store: Store, grid: BlockGrid, selection: Selection, parts: Mapping[Any, Any], ids: str | None
) -> list[Selection]:
    """Return parts of a selection by lists of row numbers, or of identifiers that a field lists.

    Raises
    ------
    InvalidArgumentError, UnknownFieldError
        If an identifier is unknown, or comes twice, in one part or in two.

    """
    if ids is not None:
        marked = rows_of_ids(store, parts, ids, grid.n_rows)
        return [_named(name, select_marked, grid, selection, mask) for name, mask in marked]
    found = {}
    for name, part in parts.items():
        found[name] = _named(name, select_rows, grid, selection, _numbers(as_array(part, name), f"part {name!r}"))
    for (one, some), (other, others) in combinations(found.items(), 2):
        for _, rows in some.row_pieces():
            shared = rows[others.holds(rows)]
            if len(shared):
                raise shared_row(int(shared[0]), one, other)
    return list(found.values())


def select(grid: BlockGrid, selection: Selection, rows_or_mask: Any) -> Selection:
    """Return the rows of a selection that are listed, or marked.

    Raises
    ------
    InvalidArgumentError
        If what is given is neither, or leaves nothing.

    """
    given = np.asarray(rows_or_mask)
    if given.dtype == bool:
        if given.shape != (grid.n_rows,):
            raise InvalidArgumentError(
                f"a mask must have one flag for each of the {grid.n_rows} rows of the store, got shape {given.shape}"
            )
        found = Selection.of_mask(grid, given, selection)
        if not found.n_groups:
            raise InvalidArgumentError("a mask must mark at least one row of this loader, and marks none")
        return found
    return select_rows(grid, selection, _numbers(given, "rows"))


def _named(name: Any, check: Any, *args: Any) -> Selection:
    """Name the part in an error about its rows."""
    try:
        found: Selection = check(*args)
    except InvalidArgumentError as exc:
        raise InvalidArgumentError(f"part {name!r}: {exc}") from exc
    return found


def _numbers(given: NDArray[Any], what: str) -> NDArray[np.int64]:
    if given.ndim != 1 or (given.dtype.kind not in "iu" and len(given)):
        text = "; name the field that lists them with ids=" if given.dtype.kind in "USO" else ""
        text = "; give fractions one by one, as in split(0.8, 0.2)" if given.dtype.kind == "f" else text
        raise InvalidArgumentError(
            f"{what} must be a list of row numbers, got {given.dtype} of shape {given.shape}{text}"
        )
    return given.astype(np.int64, copy=False)
