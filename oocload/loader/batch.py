"""The form of a batch: which fields it has and whether it is an array, a dict or a tuple of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError, StoreFormatError
from oocload.layout import FieldLayout
from oocload.stores.base import Store

_ROWS_WEIGHED = 64
_OBJECT_NBYTES = 64  # what Python adds to the bytes of a string or an array's items

Part = str | tuple[str, ...]
"""One place of a batch: a field's name (an array), or several (a dict of arrays)."""

Batch = Any
"""An array, a dict of arrays, or a tuple of those."""

Cut = Callable[[Mapping[str, NDArray[Any]], int], Iterator[Batch]]
"""Given field → rows and the rows of a batch, yields batches; holds none that it has yielded when it is dropped."""


@dataclass(frozen=True, slots=True)
class BatchForm:
    """What a batch is made of.

    Attributes
    ----------
    parts
        One `Part` per place of the tuple.
    alone
        Whether the batch is the one part itself rather than a tuple.

    """

    parts: tuple[Part, ...]
    alone: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Every field used, each once, in order."""
        flat = [n for part in self.parts for n in ((part,) if isinstance(part, str) else part)]
        return tuple(dict.fromkeys(flat))

    def with_beside(self, beside: Mapping[str, tuple[str, ...]]) -> BatchForm:
        """Return a form in which some fields have others beside them: their places are then dicts."""

        def extended(part: Part) -> Part:
            if isinstance(part, str):
                names = beside.get(part, (part,))
                return part if len(names) == 1 else names
            return tuple(dict.fromkeys(n for name in part for n in beside.get(name, (name,))))

        return replace(self, parts=tuple(map(extended, self.parts)))

    def build(self, get: Callable[[str], Any]) -> Batch:
        """Return a batch, given how to get a field's array."""
        built = tuple(get(p) if isinstance(p, str) else {n: get(n) for n in p} for p in self.parts)
        return built[0] if self.alone else built

    def cut(self, arrays: Mapping[str, NDArray[Any]], batch_rows: int) -> Iterator[Batch]:
        """Yield the batches that lie one after the other in some arrays; views."""
        n_rows = len(next(iter(arrays.values())))
        for start in range(0, n_rows, batch_rows):
            yield self.slice(arrays, start, start + batch_rows)

    def items(self, batch: Batch) -> Iterator[tuple[str, Any]]:
        """Yield (field, array) of a batch that was built so; a field that is used twice comes twice."""
        for part, value in zip(self.parts, (batch,) if self.alone else batch, strict=True):
            yield from ((part, value),) if isinstance(part, str) else value.items()

    def slice(self, arrays: Mapping[str, NDArray[Any]], start: int, stop: int) -> Batch:
        """Return the batch that lies at rows ``start`` to ``stop`` of a slab; arrays are views."""
        return self.build(lambda name: arrays[name][start:stop])


def choose_form(
    store: Store,
    x: str | Sequence[str] | None,
    y: str | Sequence[str] | None,
    sample_weight: str | None,
) -> BatchForm:
    """Return the form of a batch from the arguments of `Loader`.

    Raises
    ------
    InvalidArgumentError, UnknownFieldError
        If the arguments do not name fields of the store.

    """
    if x is None and (y is not None or sample_weight is not None):
        if "x" not in store.fields:
            raise InvalidArgumentError("x must name the input fields where y or sample_weight is given, got None")
        x = "x"
    if x is None and {"x", "y"} <= store.fields.keys():
        x, y = "x", "y"
    if x is None:
        every = tuple(name for name, f in store.fields.items() if f.shape and f.read_path != "none")
        if not every:
            raise StoreFormatError(f"store must hold at least one array, and {store.address} has none")
        return BatchForm((every,), alone=True)
    if sample_weight is not None and y is None:
        if "y" not in store.fields:
            raise InvalidArgumentError("y must name the target fields where sample_weight is given, got None")
        y = "y"
    given = [("x", x), ("y", y), ("sample_weight", sample_weight)]
    parts = tuple(_part(name, value, store) for name, value in given if value is not None)
    return BatchForm(parts, alone=len(parts) == 1)


def _part(argument: str, value: str | Sequence[str], store: Store) -> Part:
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else ()
    if not names or not all(isinstance(n, str) for n in names):
        raise InvalidArgumentError(f"{argument} must be a field's name or a list of names, got {value!r}")
    for name in names:
        store.field(name)
    return value if isinstance(value, str) else names


def check_fields(store: Store, names: Sequence[str]) -> dict[str, FieldLayout]:
    """Return the layouts of the chosen fields, which must be arrays of the same number of rows.

    Raises
    ------
    InvalidArgumentError
        If they differ in length.
    StoreFormatError
        If one cannot be read or is no array, or there are no rows.

    """
    fields = {name: store.field(name) for name in names}
    for name, f in fields.items():
        if f.read_path == "none":
            raise StoreFormatError(
                f"field {name!r} of {store.address} cannot be read: {f.reason}; choose other fields with x= and y="
            )
        if not f.shape:
            raise StoreFormatError(f"field {name!r} of {store.address} must be an array of rows, and is a scalar")
    lengths = {name: f.n_rows for name, f in fields.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name!r} has {n}" for name, n in lengths.items())
        group = next((name.rpartition("/")[0] for name in fields if "/" in name), "")
        inner = "/" if "::" in store.address else "::"
        remedy = f", or name a group, such as {store.address}{inner}{group}" if group else ""
        raise InvalidArgumentError(
            f"chosen fields must have the same number of rows: {shown}; choose with x= and y={remedy}"
        )
    if not next(iter(lengths.values())):
        raise StoreFormatError(f"store must hold at least one row, and {store.address} has none")
    return {name: _weighed(store, f) if f.dtype.hasobject else f for name, f in fields.items()}


def _weighed(store: Store, field: FieldLayout) -> FieldLayout:
    """Return the layout of a field of Python objects with what they weigh, by the first rows."""
    items = store.read_rows(field.name, 0, min(field.n_rows, _ROWS_WEIGHED)).ravel()
    total = sum(map(_weight, items))
    return replace(field, payload_nbytes=_OBJECT_NBYTES + total // max(1, len(items)))


def _weight(item: Any) -> int:
    """Return the bytes behind one item: an array, text, or what has no length (a reference)."""
    return item.nbytes if isinstance(item, np.ndarray) else len(item) if hasattr(item, "__len__") else 0
