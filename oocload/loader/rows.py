"""Which rows a loader has, from what the user says: fractions, row numbers, masks, identifiers, labels, weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.read import open_reader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Places
from oocload.errors import InvalidArgumentError
from oocload.loader.options import Balance, whole_number
from oocload.plan.blocks import BlockGrid
from oocload.plan.select import Selection
from oocload.plan.split import part_sizes, select_rows, split_by_blocks, split_by_rows
from oocload.stores.base import Store

SplitBy = Literal["blocks", "rows"]
_SHOWN = 3
_PIECE_ROWS = 2**18  # of a field that is read whole, at a time
_LEAST_BLOCKS = 4  # a part of fewer blocks is no fair sample of a store in order


def read_column(store: Store, name: str, n_rows: int, argument: str) -> NDArray[Any]:
    """Return a field of one value per row, whole.

    Raises
    ------
    InvalidArgumentError, UnknownFieldError
        If there is no such field, or it has another shape.

    """
    return np.concatenate(list(_column_pieces(store, name, n_rows, argument)))


def _column_pieces(store: Store, name: str, n_rows: int, argument: str) -> Iterator[NDArray[Any]]:
    """Yield a field of one value per row, some rows at a time; text as NumPy text."""
    field = store.field(name)
    if field.shape not in ((n_rows,), (n_rows, 1)):
        raise InvalidArgumentError(
            f"{argument} must be a field of one value for each of the {n_rows} rows, and {name!r} has shape "
            f"{field.shape}"
        )
    step = max(1, _PIECE_ROWS // max(1, field.chunk_rows)) * max(1, field.chunk_rows) if field.chunks else _PIECE_ROWS
    with closing(open_reader(store, field)) as reader:
        for start in range(0, n_rows, step):
            rows = np.empty((min(step, n_rows - start), *field.row_shape), field.dtype)
            reader.read([(start, start + len(rows))], Places(rows), Scratch())
            values = rows.reshape(-1)
            yield _as_text(values) if values.dtype.kind in "SO" else values


def _as_text(values: NDArray[Any]) -> NDArray[Any]:
    """Return bytes and Python strings as NumPy text, which sorts and compares."""
    return np.array([v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else str(v) for v in values.tolist()])


def read_weights(store: Store, weights: Any, n_rows: int) -> NDArray[Any]:
    """Return a weight for each row of the store, from a field's name or an array.

    Raises
    ------
    InvalidArgumentError, UnknownFieldError
        If there is not one real number for each row.

    """
    found = read_column(store, weights, n_rows, "weights") if isinstance(weights, str) else np.array(weights)
    if found.dtype.kind not in "biuf":
        raise InvalidArgumentError(f"weights must be real numbers, got {found.dtype}")
    if found.shape != (n_rows,):
        raise InvalidArgumentError(
            f"weights must be one number for each of the {n_rows} rows of the store, got shape {found.shape}"
        )
    return found


def read_classes(store: Store, field: str, n_rows: int, argument: str) -> Balance:
    """Return the class of each row of the store.

    Raises
    ------
    InvalidArgumentError, UnknownFieldError
        If the field is not one of labels.

    """
    numbers: dict[Any, int] = {}
    codes, at = np.empty(n_rows, np.int32), 0
    for values in _column_pieces(store, field, n_rows, argument):
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise InvalidArgumentError(
                f"{argument} must name a field of labels, and {field!r} has NaN among its values"
            )
        found, inverse = np.unique(values, return_inverse=True)
        known = np.array([numbers.setdefault(label, len(numbers)) for label in found.tolist()], np.int32)
        codes[at : at + len(values)] = known[inverse]
        at += len(values)
    labels = sorted(numbers)
    ranks = np.empty(len(labels), np.min_scalar_type(len(labels)))
    ranks[[numbers[label] for label in labels]] = np.arange(len(labels))
    return Balance(field, ranks[codes], labels)


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
    rows = _rows_of(store, parts, ids, grid.n_rows)
    found = {name: _named(name, select_rows, grid, selection, numbers) for name, numbers in rows.items()}
    everything = np.concatenate(list(rows.values()))
    ordered, counts = np.unique(everything, return_counts=True)
    if (counts > 1).any():
        row = ordered[np.argmax(counts > 1)]
        names = [repr(name) for name, numbers in rows.items() if row in numbers]
        raise InvalidArgumentError(f"parts must share no row, and row {row} is in {' and '.join(names)}")
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
    return given.astype(np.int64)


def _rows_of(store: Store, parts: Mapping[Any, Any], ids: str | None, n_rows: int) -> dict[Any, NDArray[np.int64]]:
    """Return the row numbers of each part."""
    given = {name: np.asarray(list(part) if not isinstance(part, np.ndarray) else part) for name, part in parts.items()}
    if ids is None:
        return {name: _numbers(part, f"part {name!r}") for name, part in given.items()}
    known = read_column(store, ids, n_rows, "ids")
    order = np.argsort(known, kind="stable")
    ordered = known[order]
    return {name: _look_up(part, ordered, order, name, ids) for name, part in given.items()}


def _look_up(
    part: NDArray[Any], ordered: NDArray[Any], order: NDArray[np.int64], name: Any, ids: str
) -> NDArray[np.int64]:
    """Return the rows of some identifiers, given all of them in order and the row of each."""
    wanted = _as_text(part) if part.dtype.kind in "SO" else part
    if not len(wanted):
        return np.empty(0, np.int64)
    if (wanted.dtype.kind == "U") != (ordered.dtype.kind == "U"):
        raise InvalidArgumentError(f"part {name!r}: field {ids!r} lists {ordered.dtype}, got {wanted.dtype}")
    low, high = np.searchsorted(ordered, wanted), np.searchsorted(ordered, wanted, side="right")
    unknown = wanted[low == high]
    if len(unknown):
        shown = ", ".join(repr(u) for u in unknown[:_SHOWN].tolist())
        raise InvalidArgumentError(
            f"part {name!r}: {len(unknown)} of {len(wanted)} ids are not in field {ids!r}, such as {shown}"
        )
    ordered_wanted, n_times = np.unique(wanted, return_counts=True)
    if (n_times > 1).any():
        twice = ordered_wanted[np.argmax(n_times > 1)].item()
        raise InvalidArgumentError(f"part {name!r}: ids must differ, and {twice!r} comes more than once")
    many = np.flatnonzero(high - low > 1)
    if len(many):
        raise InvalidArgumentError(
            f"part {name!r}: id {wanted[many[0]].item()!r} is listed at {(high - low)[many[0]]} rows of field {ids!r}"
        )
    return order[low]
