"""A source as tasks in other processes, on other machines, read it: each is sent what it needs for its own rows.

::

    here         describe(source) ─► Description.part(start, stop)     paths, and rows of arrays and dask arrays
    there        open_part(part)  ─► a RowSource of those rows         files are opened anew, and seen to be the same

Dask arrays in a part are to be computed on the way, as `dask.delayed` does with its arguments.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import h5py
import numpy as np
from numpy.typing import DTypeLike

from oocload.convert.fields import Spec
from oocload.convert.ragged import RaggedSpec, is_sparse, ragged_spec_of
from oocload.convert.sources.ahead import ReadAhead
from oocload.convert.sources.base import FieldSource, RowSource, Track
from oocload.convert.sources.batches import cut_rows
from oocload.convert.sources.cast import Cast
from oocload.convert.sources.dask import is_dask
from oocload.convert.sources.identity import Identity
from oocload.convert.sources.objects import file_of, reads_a_folder
from oocload.convert.sources.records import RecordSource
from oocload.convert.sources.resolve import fields_of, is_paths, known_of, named_values
from oocload.convert.sources.side_by_side import SideBySide
from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError
from oocload.stores.base import Store

_MOST_SAME = 1000
_same: dict[tuple[str, str], None] = {}  # what was found to be the same in this process: token and field


@dataclass(frozen=True)
class Description:
    """A source whose rows can be sent, or read elsewhere.

    Attributes
    ----------
    rows
        The source as this process reads it.
    source, fields
        What is opened there, whole: a path, several, or an open store, and the fields that were chosen; or a mapping
        field → what is opened there, or sent row by row.
    dtypes
        What the rows are cast to, or None.
    identities
        Field → identity, of what is opened there.
    token
        Tells this description from any other.

    """

    rows: RowSource
    source: Any
    fields: Sequence[str] | None
    dtypes: Any
    identities: Mapping[str, Identity | None]
    token: str

    def only(self, names: Sequence[str]) -> Description:
        """Return the description of some fields."""
        source, fields, dtypes = self.source, self.fields, self.dtypes
        if isinstance(source, Mapping):
            source = {name: source[name] for name in names}
        else:
            fields = list(names)
        if isinstance(dtypes, Mapping):
            dtypes = {name: dtype for name, dtype in dtypes.items() if name in names} or None
        known = {name: identity for name, identity in self.identities.items() if name in names}
        return replace(self, source=source, fields=fields, dtypes=dtypes, identities=known)

    def part(self, start: int, stop: int) -> dict[str, Any]:
        """Return what a task needs for some rows: a dict that can be pickled when dask arrays in it are computed."""
        part = {"start": start, "stop": stop, "fields": self.fields, "dtypes": self.dtypes}
        return {**part, "source": self._rows(start, stop), "identities": dict(self.identities), "token": self.token}

    def _rows(self, start: int, stop: int) -> Any:
        if not isinstance(self.source, Mapping):
            return self.source
        specs = _specs(self.rows)
        return {
            name: value if _is_opened_there(value) else _cut(name, value, specs[name], start, stop)
            for name, value in self.source.items()
        }


def describe(
    source: Any,
    fields: Sequence[str] | None = None,
    dtypes: Mapping[str, DTypeLike] | DTypeLike | None = None,
) -> Description:
    """Return how tasks elsewhere read a source.

    Parameters
    ----------
    source, fields
        As for `resolve`.
    dtypes
        As for `Cast`; None casts nothing.

    Raises
    ------
    InvalidArgumentError
        If its rows can be read here alone: an iterable, or an object that cannot be sent.

    """
    if isinstance(records := known_of(source), RecordSource):
        raise InvalidArgumentError(
            f"source must be stores, arrays or dask arrays where scheduler= is given, got {records.label}, whose "
            "records one process reads; convert it without scheduler="
        )
    sent = source
    if not _is_opened_there(source) and not is_paths(source):
        named = named_values(source)
        if named is None:
            raise InvalidArgumentError(
                f"source must be files, arrays or dask arrays where scheduler= is given, got {type(source).__name__}, "
                "which only this process can go through; convert it without scheduler="
            )
        sent = {name: _sent(name, value) for name, value in named.items()}
    else:
        sent = _absolute(source)
    found = fields_of(sent, fields)
    assert found is not None
    rows: RowSource = SideBySide(found)
    there = sent if isinstance(sent, Mapping) else dict.fromkeys(found, "")
    identities = {name: found[name].identity() for name, value in there.items() if _is_opened_there(value)}
    return Description(rows if dtypes is None else Cast(rows, dtypes), sent, fields, dtypes, identities, uuid4().hex)


def open_part(part: Mapping[str, Any]) -> RowSource:
    """Return the rows of a part, numbered from 0, where it has arrived.

    Raises
    ------
    StoreNotFoundError
        If a file is not there.
    StoreFormatError
        If it is not the one that was described.

    """
    start, stop = part["start"], part["stop"]
    try:
        found = fields_of(part["source"], part["fields"])
    except StoreNotFoundError as exc:
        raise StoreNotFoundError(
            f"{exc}, on {socket.gethostname()}; put it where every worker finds it under the same path"
        ) from exc
    assert found is not None
    for name, identity in part["identities"].items():
        if not _is_same(found[name], identity, (part["token"], name)):
            raise StoreFormatError(
                f"field {name!r} ({found[name].label}) must be the same on every machine, and is another on "
                f"{socket.gethostname()}; it has changed, or another file has this path there"
            )
        found[name] = _Window(found[name], start, stop)
    rows = SideBySide(found)
    return rows if part["dtypes"] is None else Cast(rows, part["dtypes"])


def _is_same(source: FieldSource, identity: Identity | None, known_as: tuple[str, str]) -> bool:
    """Whether a field is the one described; of a folder of many files, looked at once in this process."""
    if source.identity_walks and known_as in _same:
        return True
    if source.identity() != identity:
        return False
    while len(_same) >= _MOST_SAME:
        _same.popitem()
    _same[known_as] = None
    return True


def rows_of(part: Mapping[str, Any], piece_nbytes: int, n_ahead: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a part, in batches."""
    return open_part(part).batches(piece_nbytes, n_ahead=n_ahead)


class _Window(FieldSource):
    """Some rows of a field."""

    def __init__(self, source: FieldSource, start: int, stop: int) -> None:
        self._source, self._start = source, start
        self.label = source.label
        self.n_rows = max(0, min(stop, source.n_rows) - start)
        self.meaning = source.meaning
        self.owned, self.can_jump = source.owned, source.can_jump

    @property
    def spec(self) -> Spec:
        """What the rows are."""
        return self._source.spec

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row, on average, about."""
        return self._source.row_nbytes

    @property
    def least_nbytes(self) -> int:
        """The smallest piece that can be read."""
        return self._source.least_nbytes

    @property
    def wanted_nbytes(self) -> int:
        """The smallest piece with which no chunk is decoded twice."""
        return self._source.wanted_nbytes

    @property
    def scratch_nbytes(self) -> int:
        """What a thread that reads takes beside the rows."""
        return self._source.scratch_nbytes

    def held_nbytes(self) -> int:
        """Return what the source itself holds while it is read."""
        return self._source.held_nbytes()

    def track(self, start: int, stop: int, piece_nbytes: int, ahead: ReadAhead) -> Track:
        """Return rows on their way."""
        return self._source.track(start + self._start, stop + self._start, piece_nbytes, ahead)

    def close(self) -> None:
        """Close what is open."""
        self._source.close()


def _specs(rows: RowSource) -> Mapping[str, Spec]:
    """Return the specs of rows before they are cast."""
    specs = rows.source.specs if isinstance(rows, Cast) else rows.specs
    assert specs is not None
    return specs


def _cut(name: str, value: Any, spec: Spec, start: int, stop: int) -> Any:
    """Return some rows in a form that tells by itself what they are, however few they are."""
    rows = cut_rows(value, start, stop)
    if isinstance(spec, RaggedSpec):
        checked = spec.check(name, rows)
        return checked.values, checked.offsets
    return rows if is_dask(rows) or is_sparse(rows) else np.asarray(rows)


def _sent(name: str, value: Any) -> Any:
    """Return what is sent of a field: a path where it is one, or reads from one."""
    if isinstance(value, str | os.PathLike):
        return _absolute(value)
    if isinstance(value, h5py.Dataset):
        path = file_of(value)
        if path is None:
            raise InvalidArgumentError(
                f"field {name!r} must be a dataset of a file that is open for reading alone where scheduler= is "
                "given; pass its path, as 'file.h5::name'"
            )
        return path
    if isinstance(value, list) and ragged_spec_of(name, value) is None:
        return np.asarray(value)  # whole: of some rows alone, another dtype may come out
    return value


def _is_opened_there(value: Any) -> bool:
    """Whether a value says where rows lie, and does not hold them."""
    return isinstance(value, str | os.PathLike | Store) or reads_a_folder(value)


def _absolute(source: Any) -> Any:
    """Return paths from the root, so that another process finds them."""
    if isinstance(source, Store):
        return source
    if isinstance(source, str | os.PathLike):
        path, mark, inner = os.fspath(source).partition("::")
        return f"{os.path.abspath(path)}{mark}{inner}"
    return [_absolute(path) for path in source]
