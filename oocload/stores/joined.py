"""Several stores as one: their fields joined along axis 0."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.errors import StoreFormatError
from oocload.layout import ChunkLocations, Codec, FieldLayout, FileStamp, Segment
from oocload.stores.base import Part, Store, unreadable
from oocload.stores.meaning import problem_of_meaning
from oocload.stores.ragged import join_ragged, problem_of_following

_DIGITS = re.compile(r"\d+", re.ASCII)


def natural_key(path: str | os.PathLike[str]) -> str:
    """Return a sorting key under which ``part-2`` comes before ``part-10``, and numbers before text."""
    return _DIGITS.sub(_sortable, os.fspath(path))


def _sortable(number: re.Match[str]) -> str:
    """Return text that sorts as the number does: shorter ones first, and all before any character of a path."""
    digits = number[0].lstrip("0")
    return f"\0{chr(len(digits))}{digits}"


def join_parts(name: str, shape: tuple[int, ...], parts: Sequence[Part]) -> FieldLayout:
    """Return the layout of a field made of rows of others."""
    first = parts[0].field
    fields = [p.field for p in parts]
    other = next((p for p in parts if p.field.read_path != "direct"), None)
    reason = "" if other is None else f"{other.field.reason}, in {other.store.address}"
    ragged = join_ragged([f.ragged for f in fields if f.ragged is not None])
    return FieldLayout(
        name=name,
        shape=shape,
        dtype=first.dtype,
        stored_dtype=first.dtype,
        chunks=None,
        codecs=first.codecs if all(f.codecs == first.codecs for f in fields) else (Codec("several"),),
        read_path="direct" if other is None else other.field.read_path,
        reason=reason,
        pieces=tuple(Segment(p.start, p.stop, 0, p.start) for p in parts) if ragged else tuple(_pieces(parts)),
        ragged=ragged,
        meaning=first.meaning,
    )


def _pieces(parts: Sequence[Part]) -> Iterator[Segment]:
    """Yield the parts' own segments, by the rows of the whole."""
    for part in parts:
        shift = part.start - part.source_start
        for s in part.field.segments:
            start, stop = max(part.start, s.start + shift), min(part.stop, s.stop + shift)
            if start < stop:
                yield Segment(start, stop, s.height, s.origin + shift)


class JoinedStore(Store):
    """The fields that several stores have in common, their rows one after the other.

    Parameters
    ----------
    stores
        In the order of their rows.
    shown
        What stands for them in messages.

    Raises
    ------
    StoreFormatError
        If they have no field in common.

    """

    def __init__(self, stores: Sequence[Store], shown: str) -> None:
        self._stores = tuple(stores)
        self._lock = threading.RLock()
        self.address = shown
        formats = sorted({s.format for s in stores})
        self.format = f"{' and '.join(formats)}, {len(stores)} files,"
        self._parts: dict[str, tuple[Part, ...]] = {}
        names = sorted({name for s in stores for name in s.fields})
        self.fields = {name: self._join(name) for name in names}
        if not self._parts:
            problems = "; ".join(f"{n!r}: {f.reason}" for n, f in self.fields.items())
            raise StoreFormatError(
                f"{shown} must have a field in common, and has none ({problems or 'no fields'}): several files are "
                "joined row after row; for fields side by side, convert them to one store as x=PATH y=PATH"
            )

    def locate(self, name: str) -> ChunkLocations:
        """Joined fields have no chunks of their own; their parts do."""
        raise AssertionError(f"{name} is located part by part")

    def read_rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Read rows through the libraries of the parts."""
        self.array(name)
        rows = [
            p.store.read_rows(p.field.name, max(start, p.start) - p.start, min(stop, p.stop) - p.start)
            for p in self._parts[name]
            if p.start < stop and start < p.stop
        ]
        return np.concatenate(rows) if rows else self._parts[name][0].store.read_rows(name, 0, 0)

    def parts(self, name: str) -> tuple[Part, ...]:
        """Return the parts of a field, in the order of their rows."""
        return self._parts.get(name, ())

    def check_unchanged(self) -> None:
        """Raise where a file is not the one that was opened."""
        for store in self._stores:
            store.check_unchanged()

    def stamps(self) -> tuple[FileStamp, ...]:
        """Return the stamps of all files."""
        return tuple(stamp for store in self._stores for stamp in store.stamps())

    def close(self) -> None:
        """Close every part."""
        for store in self._stores:
            store.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._stores, self.address)

    def _join(self, name: str) -> FieldLayout:
        """Return the layout of a joined field; one that the parts do not agree on is listed as unreadable."""
        start = 0
        parts: list[Part] = []
        for store in self._stores:
            field = store.fields.get(name)
            problem = _problem(field, parts[0].field if parts else field)
            if problem or field is None:
                return unreadable(name, (), f"in {store.address} {problem}")
            if parts and (other := problem_of_meaning(parts[0].field.meaning, field.meaning)):
                return unreadable(name, field.shape, f"in {store.address} {other}")  # nobody is to miss it unawares
            parts.append(Part(start, start + field.n_rows, 0, store, field))
            start += field.n_rows
        self._parts[name] = tuple(p for p in parts if p.stop > p.start) or tuple(parts[:1])
        return join_parts(name, (start, *parts[0].field.row_shape), self._parts[name])


def _problem(field: FieldLayout | None, first: FieldLayout | None) -> str:
    """Return why a field cannot follow the first of its name; empty when it can."""
    if field is None or first is None:
        return "there is no such field"
    if field.read_path == "none":
        return f"it cannot be read: {field.reason}"
    if not field.shape:
        return "it is a scalar"
    if field.row_shape != first.row_shape:
        return f"its rows have shape {field.row_shape}, in the first {first.row_shape}"
    if field.dtype != first.dtype:
        return f"its dtype is {field.dtype}, in the first {first.dtype}"
    return problem_of_following(field.ragged, first.ragged)
