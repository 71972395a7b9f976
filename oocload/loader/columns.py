"""Fields of one value per row that say which rows are taken: labels, weights, identifiers; read some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.read import open_reader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Places
from oocload.errors import InvalidArgumentError
from oocload.layout import RaggedLayout
from oocload.loader.options import Balance
from oocload.plan.select import PIECE_ROWS
from oocload.stores.base import Store

_SHOWN = 3
_NOBODY = 0  # whose a row is that no part has


def _pieces(store: Store, name: str, n_rows: int, argument: str) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, values of some rows) of a field of one value per row.

    Raises
    ------
    InvalidArgumentError, UnknownFieldError
        If there is no such field, or it has another shape.

    """
    field = store.field(name)
    if field.ragged is not None and field.meaning.content == "text" and field.shape == (n_rows,):
        yield from _texts(store, field.ragged, n_rows)
        return
    if field.shape not in ((n_rows,), (n_rows, 1)):
        raise InvalidArgumentError(
            f"{argument} must be a field of one value for each of the {n_rows} rows, and {name!r} has shape "
            f"{field.shape}"
        )
    step = max(1, PIECE_ROWS // max(1, field.chunk_rows)) * max(1, field.chunk_rows) if field.chunks else PIECE_ROWS
    scratch = Scratch()
    with closing(open_reader(store, field)) as reader:
        for start in range(0, n_rows, step):
            rows = np.empty((min(step, n_rows - start), *field.row_shape), field.dtype)
            reader.read([(start, start + len(rows))], Places(rows), scratch)
            values = rows.reshape(-1)
            for first in range(0, len(values), PIECE_ROWS):  # chunks may be higher
                yield start + first, values[first : first + PIECE_ROWS]


def _texts(store: Store, ragged: RaggedLayout, n_rows: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, bytes of some rows) of rows that are text."""
    scratch = Scratch()
    with closing(open_reader(store, ragged.offsets)) as offsets, closing(open_reader(store, ragged.values)) as values:
        for start in range(0, n_rows, PIECE_ROWS):
            bounds = np.empty(min(PIECE_ROWS, n_rows - start) + 1, ragged.offsets.dtype)
            offsets.read([(start, start + len(bounds))], Places(bounds), scratch)
            first, last = int(bounds[0]), int(bounds[-1])
            text = np.empty(max(0, last - first), ragged.values.dtype)
            if len(text):
                values.read([(first, last)], Places(text), scratch)
            whole, ends = text.tobytes(), (bounds - first).tolist()
            yield start, np.array([whole[a:b] for a, b in pairwise(ends)], object)


def read_weights(store: Store, weights: Any, n_rows: int) -> NDArray[Any]:
    """Return a weight for each row of the store, from a field's name or an array, of which a copy is taken.

    Raises
    ------
    InvalidArgumentError, UnknownFieldError
        If there is not one real number for each row.

    """
    if isinstance(weights, str):
        found = np.empty(n_rows, store.field(weights).dtype)
        for start, values in _pieces(store, weights, n_rows, "weights"):
            found[start : start + len(values)] = values
    else:
        found = np.array(weights)
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
    codes: NDArray[Any] = np.empty(n_rows, np.uint8)
    for start, values in _pieces(store, field, n_rows, argument):
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise InvalidArgumentError(
                f"{argument} must name a field of labels, and {field!r} has NaN among its values"
            )
        found, inverse = np.unique(_as_text(values), return_inverse=True)
        known = np.array([numbers.setdefault(label, len(numbers)) for label in found.tolist()])
        if len(numbers) > np.iinfo(codes.dtype).max:
            codes = codes.astype(np.min_scalar_type(len(numbers)))
        codes[start : start + len(values)] = known[inverse]
    labels = sorted(numbers)
    ranks = np.empty(len(labels), codes.dtype)
    ranks[[numbers[label] for label in labels]] = np.arange(len(labels))
    for start in range(0, n_rows, PIECE_ROWS):
        piece = codes[start : start + PIECE_ROWS]
        piece[...] = ranks[piece]
    return Balance(field, codes, labels)


def rows_of_ids(
    store: Store, parts: Mapping[Any, Any], ids: str, n_rows: int
) -> Iterator[tuple[Any, NDArray[np.bool_]]]:
    """Yield each part, and which rows of the store its identifiers name.

    The field is read once, some rows at a time: a sorted copy of the identifiers asked for is held meanwhile, and a
    byte or two for each row of the store.

    Raises
    ------
    InvalidArgumentError, UnknownFieldError
        If an identifier is unknown, or comes twice, in one part, in two or in the field.

    """
    field = store.field(ids)
    dtype = np.dtype(object) if field.meaning.content == "text" else field.dtype
    text = dtype.kind in "SO"
    sought = [_Sought(name, part, ids, dtype) for name, part in parts.items()]
    owner = np.full(n_rows, _NOBODY, np.min_scalar_type(len(sought)))
    for start, values in _pieces(store, ids, n_rows, "ids"):
        listed = _as_bytes(values) if text else values
        piece = owner[start : start + len(values)]
        for number, one in enumerate(sought, 1):
            found = one.find(listed)
            if (taken := found & (piece != _NOBODY)).any():
                row = int(np.argmax(taken))
                raise shared_row(start + row, sought[int(piece[row]) - 1].name, one.name)
            piece[found] = number
    for one in sought:
        one.check()
    for number, one in enumerate(sought, 1):
        yield one.name, owner == number


def shared_row(row: int, *names: Any) -> InvalidArgumentError:
    """Return the error that two parts have the same row."""
    return InvalidArgumentError(f"parts must share no row, and row {row} is in {' and '.join(map(repr, names))}")


def as_array(part: Any, name: Any) -> NDArray[Any]:
    """Return a list of rows or identifiers that somebody gave as an array; of a range, without a Python int for each.

    Raises
    ------
    InvalidArgumentError
        If it is no list.

    """
    if isinstance(part, np.ndarray):
        return part
    if isinstance(part, range):
        return np.arange(part.start, part.stop, part.step)
    try:
        return np.asarray(list(part))
    except (TypeError, ValueError) as exc:  # not iterable; lists of several lengths
        raise InvalidArgumentError(
            f"part {name!r} must be a list of row numbers or identifiers, got {part!r:.80}; give parts one by one, as "
            "in split(range(0, 80), range(80, 100))"
        ) from exc


class _Sought:
    """The identifiers of one part, and how often each was found."""

    def __init__(self, name: Any, part: Any, ids: str, listed: np.dtype[Any]) -> None:
        text = listed.kind in "SO"
        self.name, self._ids, self._text = name, ids, text
        given = as_array(part, name)
        if len(given) and (given.dtype.kind in "SUO") != text:
            what = "text" if text else listed
            raise InvalidArgumentError(f"part {name!r}: field {ids!r} lists {what}, got {given.dtype}")
        if given.dtype.kind in "iu" and listed.kind in "iu":
            given = self._as_listed(given, listed)
        self._values = np.sort(_as_bytes(given) if text and len(given) else given)
        self._n_found = np.zeros(len(given), np.uint8)
        twice = self._values[1:][self._values[1:] == self._values[:-1]]
        if len(twice):
            raise InvalidArgumentError(
                f"part {name!r}: ids must differ, and {self._shown(twice[0])} comes more than once"
            )

    def find(self, listed: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which of some values are among these, and count them."""
        if not len(self._values):
            return np.zeros(len(listed), bool)
        place = np.minimum(np.searchsorted(self._values, listed), len(self._values) - 1)
        found: NDArray[np.bool_] = self._values[place] == listed
        places, n_times = np.unique(place[found], return_counts=True)
        n_times += self._n_found[places]
        if (n_times > 1).any():
            value = self._values[places[np.argmax(n_times)]]
            raise InvalidArgumentError(
                f"part {self.name!r}: id {self._shown(value)} is listed at more than one row of field {self._ids!r}"
            )
        self._n_found[places] = 1
        return found

    def check(self) -> None:
        """Refuse what was never found."""
        self._refuse(self._values[self._n_found == 0], len(self._values))

    def _as_listed(self, given: NDArray[Any], listed: np.dtype[Any]) -> NDArray[Any]:
        """Return whole numbers in the field's dtype: unsigned and signed ones of 64 bits compare as floats."""
        limits = np.iinfo(listed)
        self._refuse(given[(given < int(limits.min)) | (given > int(limits.max))], len(given))
        return given.astype(listed)

    def _refuse(self, unknown: NDArray[Any], n_given: int) -> None:
        if len(unknown):
            shown = ", ".join(map(self._shown, unknown[:_SHOWN]))
            raise InvalidArgumentError(
                f"part {self.name!r}: {len(unknown)} of {n_given} ids are not in field {self._ids!r}, such as {shown}"
            )

    def _shown(self, value: Any) -> str:
        return repr(value.decode("utf-8", "surrogateescape") if self._text else value.item())


def _as_text(values: NDArray[Any]) -> NDArray[Any]:
    """Return bytes and Python strings as NumPy text, which sorts and compares; numbers as they are."""
    if values.dtype.kind not in "SO":
        return values
    return np.array([v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else str(v) for v in values.tolist()])


def _as_bytes(values: NDArray[Any]) -> NDArray[Any]:
    """Return text of any kind as NumPy bytes, which take a quarter of NumPy's text."""
    if values.dtype.kind == "S":
        return values
    return np.array(
        [v if isinstance(v, bytes) else str(v).encode("utf-8", "surrogateescape") for v in values.tolist()], "S"
    )
