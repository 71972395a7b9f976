"""Rows appended to a store that is there, each call as one step that happens whole or not at all."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self

from oocload import stores
from oocload.convert.append_hdf5 import Hdf5Growth
from oocload.convert.append_zarr import ZarrGrowth
from oocload.convert.buffers import Rows
from oocload.convert.growth import Growth, additions_of, arrays_of, grown, spec_of_layout
from oocload.errors import ClosedError, ConversionError, InvalidArgumentError, OocloadError, StoreNotFoundError
from oocload.layout import FieldLayout
from oocload.stores.base import Store, describe_fields
from oocload.stores.hdf5 import Hdf5Store
from oocload.stores.recovery import discard, is_unfinished, lock, recover_store
from oocload.stores.zarr import ZarrStore


class Appender:
    """Appends rows to a store; made by ``oocload.open(path, "a")``.

    Use it as a context manager. What `append` was given is in the store when it returns; if the process dies before,
    or anything goes wrong, the store is what it was, or has all of those rows: never some, never more in one field
    than in another. Loaders that are open on the store have to be made anew to see the rows. Not thread-safe.

    Attributes
    ----------
    path
        What was opened.

    """

    def __init__(self, path: stores.Paths) -> None:
        self.path = _check_path(path)
        file, _, self._group = self.path.partition("::")
        self._file = os.path.abspath(file)  # the program may change its directory
        self._lock = _lock(self._file, file)
        self._unlock = weakref.finalize(self, os.close, self._lock)
        self._closed = False
        self._growth: Growth | None = None
        self._fields: dict[str, FieldLayout] | None = None
        try:
            self._loaded()
        except BaseException:
            self.close()
            raise

    @property
    def fields(self) -> Mapping[str, FieldLayout]:
        """Field name → `FieldLayout`, with the rows appended so far."""
        return MappingProxyType(self._loaded())

    @property
    def n_rows(self) -> int:
        """Rows of the store; fields of fewer rows, such as tables of names, do not count."""
        return max((f.n_rows for f in self._loaded().values()), default=0)

    def append(self, **rows: Any) -> None:
        """Append rows: one array per field, all of the same length; they are in the store when this returns.

        Each call rewrites the last chunk of each field, and writes some metadata: many rows at a time are best.
        Rows may be given in any form that `Writer.append` takes.

        Raises
        ------
        InvalidArgumentError
            If a field is missing or unknown or cannot grow, or rows have another shape, length or dtype.
        ConversionError
            If the disk is full or cannot be written; the store is what it was.

        """
        self.append_batch(rows)

    def append_batch(self, rows: Mapping[str, Any]) -> None:
        """Append rows as `append` does, given as a mapping; for field names that are no Python names."""
        fields = self._loaded()
        checked = _rows_for(rows, fields, self.path)
        n_new = len(next(iter(checked.values())))
        if n_new:
            self._grow({name: fields[name] for name in checked}, checked, n_new)

    def close(self) -> None:
        """Close the store; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._let_go()
        self._unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._closed:
            return f"closed appender to {self.path}"
        return "\n".join([f"appender to {self.path}", *describe_fields(self.fields)])

    def _loaded(self) -> dict[str, FieldLayout]:
        """Return the fields; after a failure they are read again, as it may have come after the rows were in."""
        if self._closed:
            raise ClosedError("appender must be open, and it was closed; open the store again")
        if not _is_at(self._lock, self._file):
            raise ConversionError(f"{self.path} was removed or replaced since it was opened; open the store again")
        if self._fields is None:
            recover_store(self._file)
            discard(self._file)
            with stores.open(f"{self._file}::{self._group}" if self._group else self._file) as store:
                self._growth = _growth_of(store, self._file, self._group)
                self._fields = dict(store.fields)
            self._growth.check([a for f in growing(self._fields, self.n_rows) for a in arrays_of(f)])
        return self._fields

    def _grow(self, fields: dict[str, FieldLayout], rows: dict[str, Rows], n_new: int) -> None:
        assert self._growth is not None
        assert self._fields is not None
        try:
            additions = [a for name, f in fields.items() for a in additions_of(f, rows[name], self._growth.last_offset)]
            self._growth.check([a.layout for a in additions])
            sparse = {n: f.n_rows + n_new for n, f in fields.items() if f.ragged is not None and f.ragged.columns}
            self._growth.grow(additions, sparse)
        except BaseException as exc:
            self._let_go()
            if isinstance(exc, OocloadError) or not isinstance(exc, OSError | RuntimeError):
                raise
            raise ConversionError(_what_failed(exc, self.path, is_unfinished(self._file))) from exc
        lengths = {a.layout.name: a.n_rows for a in additions}
        self._fields |= {name: grown(f, n_new, lengths) for name, f in fields.items()}

    def _let_go(self) -> None:
        self._fields = None
        growth, self._growth = self._growth, None
        if growth is not None:
            growth.close()


def _check_path(path: stores.Paths) -> str:
    if not isinstance(path, str | os.PathLike) or stores.is_glob(path):
        raise InvalidArgumentError(f"store must be one path to append to it, got {path!r}; append to one of its files")
    return os.fspath(path)


def _lock(path: str, file: str) -> int:
    if not os.path.exists(path):
        raise StoreNotFoundError(f"store must exist, got {file!r}; nothing lies at that path, oocload.create makes one")
    try:
        return lock(path)
    except BlockingIOError:
        raise ConversionError(
            f"{file} is open elsewhere, to be read with h5py or to be written; close it there, then append"
        ) from None
    except OSError as exc:
        raise ConversionError(f"{file} must be writable to append to it: {exc}") from exc


def _is_at(descriptor: int, path: str) -> bool:
    """Whether what is open still lies at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _growth_of(store: Store, file: str, group: str) -> Growth:
    if isinstance(store, Hdf5Store):
        return Hdf5Growth(file, group)
    if isinstance(store, ZarrStore) and os.path.isdir(file):
        return ZarrGrowth(file, group)
    raise InvalidArgumentError(
        f"store must be an HDF5 file or a Zarr directory to append to it, got {file!r}; run oocload convert first"
    )


def _rows_for(rows: Mapping[str, Any], fields: Mapping[str, FieldLayout], path: str) -> dict[str, Rows]:
    """Return rows as their fields have checked them: of all fields of one length."""
    if unknown := sorted(rows.keys() - fields.keys()):
        raise InvalidArgumentError(f"rows must be given for fields {sorted(fields)}, got {unknown}")
    if not rows:
        raise InvalidArgumentError(f"rows must be given for fields {sorted(fields)}, got none")
    lengths = {name: fields[name].n_rows for name in rows}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name!r} has {n}" for name, n in lengths.items())
        raise InvalidArgumentError(f"fields that grow together must have one length in {path}: {shown}")
    beside = growing(fields, next(iter(lengths.values())))
    if missing := sorted({f.name for f in beside} - rows.keys()):
        raise InvalidArgumentError(
            f"rows must be given for all fields of the same length, and are missing for {missing} of {path}; "
            "fields would end at different rows"
        )
    checked: dict[str, Rows] = {name: spec_of_layout(fields[name]).check(name, given) for name, given in rows.items()}
    given = {name: len(each) for name, each in checked.items()}
    if len(set(given.values())) > 1:
        shown = ", ".join(f"{name!r} has {n}" for name, n in given.items())
        raise InvalidArgumentError(f"fields must be appended in equal numbers of rows: {shown}")
    return checked


def growing(fields: Mapping[str, FieldLayout], n_rows: int) -> list[FieldLayout]:
    """Return the fields of one number of rows, which grow together."""
    return [f for f in fields.values() if f.shape and f.n_rows == n_rows]


def _what_failed(exc: BaseException, path: str, is_in: bool) -> str:
    full = getattr(exc, "errno", None) == errno.ENOSPC
    cause = "the disk is full; free some space" if full else " ".join(str(exc).split())
    left = "the rows are in its redo log, and the next opening finishes them" if is_in else "the store is what it was"
    return f"appending to {path} failed: {cause}; {left}"
