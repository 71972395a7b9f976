"""HDF5: fields, filters, and the address of every chunk, all from h5py's metadata calls."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from oocload.errors import (
    ChunkError,
    InvalidArgumentError,
    OocloadError,
    StoreFormatError,
    StoreNotFoundError,
    UnknownFieldError,
)
from oocload.forks import renew_in_child
from oocload.layout import ChunkGrid, ChunkLocations, FieldLayout, FileStamp
from oocload.stores.base import Part, Store, check_stamp
from oocload.stores.chunk_table import ChunkTable, cache_file
from oocload.stores.hdf5_fields import Found, describe, walk
from oocload.stores.hdf5_lookup import chunks_not_found
from oocload.stores.joined import join_parts
from oocload.stores.ragged import Encoding, gather
from oocload.stores.virtual import RowMapping, row_mappings


class Hdf5Store(Store):
    """The datasets below one group of an HDF5 file.

    Parameters
    ----------
    path
        The file.
    group
        Group inside the file whose datasets are the fields; default the root.
    index_cache
        Folder in which the addresses of chunks are kept between openings; None keeps none.
    resolve
        Whether virtual datasets are resolved to their sources; those of sources are not.

    Raises
    ------
    StoreNotFoundError
        If there is no such file.
    StoreFormatError
        If the file is not HDF5 or is truncated.
    UnknownFieldError
        If there is no such group.

    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        group: str = "",
        index_cache: str | os.PathLike[str] | None = None,
        resolve: bool = True,
    ) -> None:
        self._group = group.strip("/")
        self.address = f"{os.fspath(path)}::{self._group}" if self._group else os.fspath(path)
        _check_file(os.fspath(path))
        self._path = os.path.abspath(path)  # so that a change of folder, or another process, finds it
        self._index_cache = None if index_cache is None else Path(index_cache).absolute()
        self.format = "HDF5"
        self._lock = threading.RLock()
        renew_in_child(self)
        self._file: h5py.File | None = None
        self._pid = os.getpid()
        self._parts: dict[str, tuple[Part, ...]] = {}
        self._stamp = FileStamp.of(os.stat(self._path))
        virtual: dict[str, list[RowMapping]] = {}
        with self._metadata() as root:
            fields = []
            groups: dict[str, Encoding] = {}
            for found in walk(root):
                if found.encoding is not None:
                    groups[found.name] = found.encoding
                    continue
                fields.append(describe(found))
                if resolve and self._is_virtual_here(found, fields[-1]):
                    mappings = row_mappings(found.dataset)
                    virtual |= {found.name: mappings} if mappings else {}
        self.fields = {f.name: f for f in sorted(fields, key=lambda f: f.name)}
        sources: dict[str, Hdf5Store] = {} if self._group else {self._path: self}
        for name, mappings in virtual.items():
            self._resolve(name, mappings, sources)
        self.fields, self.members = gather(self.fields, groups)

    def locate(self, name: str) -> ChunkLocations:
        """Return the address of every chunk, from one pass over the chunk index or from the cache of an earlier one."""
        field = self.array(name)
        with self._metadata() as root:
            dataset = root[name]
            path = os.path.abspath(dataset.file.filename)
            stamp = self._stamp if path == self._path else FileStamp.of(os.stat(path))
            if field.chunks is not None and ChunkGrid(field.shape, field.chunks).n_chunks >= 2**62:
                raise StoreFormatError(
                    f"{self.address}, field {name!r} has the impossible shape {field.shape} in chunks {field.chunks}; "
                    "the file is damaged"
                )
            file = None
            if field.chunks is None:
                table = ChunkTable.contiguous(path, stamp, dataset.id.get_offset(), field.nbytes)
            else:
                grid = ChunkGrid(field.shape, field.chunks)
                if self._index_cache is not None:
                    file = cache_file(self._index_cache, path, stamp, dataset.name)
                known = None if file is None else ChunkTable.load(file, path, stamp, grid.n_chunks)
                table = known or ChunkTable.chunked(path, stamp, dataset, grid)
                file = None if known else file
        if file is not None:
            _keep(table, file)
        table.check_against_file(f"{self.address}, field {name!r}")
        return table

    def read_rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Read rows with h5py."""
        field = self.array(name)
        with self._lock:
            try:
                rows = self._root()[name][start:stop]
            except StoreFormatError as exc:
                raise ChunkError(f"{self.address}, field {name!r}, rows {start} to {stop}: {exc}") from exc
            except (OSError, RuntimeError, ValueError, KeyError) as exc:
                raise ChunkError(f"{self.address}, field {name!r}, rows {start} to {stop}: {exc}") from exc
        return np.asarray(rows, dtype=field.dtype)

    def notes(self, name: str, prefix: str) -> dict[str, bytes]:
        """Return attributes of a dataset that are bytes."""
        with self._metadata() as root:
            item = root.get(name)
            attributes: Any = item.attrs if isinstance(item, h5py.Dataset) else {}
            return {key: _as_bytes(attributes, key) for key in attributes if key.startswith(prefix)}

    def trouble(self) -> str:
        """Return why HDF5 cannot go through the file, though it opens each dataset by its name; else empty."""
        with self._lock, _open_file(self._path, self.address) as file:
            try:
                file.visit(lambda name: None)
            except (RuntimeError, OSError, ValueError) as exc:
                return f"HDF5 cannot list it: {exc}"
        return ""

    def not_found(self, name: str, locations: ChunkLocations) -> Iterator[int]:
        """Yield chunks that HDF5 does not find by their keys in its index."""
        field = self.array(name)
        if field.chunks is not None and isinstance(locations, ChunkTable):
            with self._metadata() as root:
                yield from chunks_not_found(root[name], ChunkGrid(field.shape, field.chunks), locations)

    def root_attribute(self, name: str) -> tuple[str, str] | None:
        """Return an attribute of the file's root group, and the path of this group."""
        with self._metadata() as root:
            found = root.file.attrs.get(name)
            return None if found is None else (str(found), self._group)

    def parts(self, name: str) -> tuple[Part, ...]:
        """Return the sources of a virtual dataset that puts their rows one after the other."""
        return self._parts.get(name, ())

    def check_unchanged(self) -> None:
        """Raise where the file, or a source of a virtual dataset, is not the one that was opened."""
        check_stamp(self._path, self._stamp)
        for source in self._sources():
            source.check_unchanged()

    def stamps(self) -> tuple[FileStamp, ...]:
        """Return the stamps of the file, and of the sources of virtual datasets."""
        return (self._stamp, *(stamp for source in self._sources() for stamp in source.stamps()))

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        with self._lock:
            if self._file is not None and self._pid == os.getpid():
                self._file.close()
            self._file = None
        for source in self._sources():
            source.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path, self._group, self._index_cache)

    def _sources(self) -> list[Store]:
        """Return the other files that virtual datasets take rows from, in the order in which they come."""
        stores = (part.store for parts in self._parts.values() for part in parts)
        return [store for store in dict.fromkeys(stores) if store is not self]

    def _is_virtual_here(self, found: Found, field: FieldLayout) -> bool:
        """Whether a dataset is virtual and lies in this very file: HDF5 looks for its sources beside that file."""
        if found.dataset is None or field.reason != "virtual dataset":
            return False
        return bool(os.path.abspath(found.dataset.file.filename) == self._path)

    def _resolve(self, name: str, mappings: list[RowMapping], sources: dict[str, Hdf5Store]) -> None:
        """Make a virtual dataset a field of parts, where its sources hold just the rows that it shows."""
        field = self.fields[name]
        if os.environ.get("HDF5_VDS_PREFIX"):  # sources are then looked for in other places first
            return
        parts = []
        for m in mappings:
            try:
                source = _open_source(self._path, m.source_file, sources)
                held = source.field(m.source_name.strip("/"))
            except (OocloadError, OSError) as exc:
                reason = f"virtual dataset, and where HDF5 finds no source its rows are the fill value: {exc}"
                self.fields = {**self.fields, name: replace(field, reason=reason)}
                return
            n_rows = held.n_rows if m.source_rows is None else m.source_rows
            same = (held.row_shape, held.stored_dtype) == (field.row_shape, field.stored_dtype)
            is_plain = source.field(held.name).reason != "virtual dataset" and not held.pieces
            if not same or not is_plain or n_rows != m.stop - m.start or m.source_start + n_rows > held.n_rows:
                return
            parts.append(Part(m.start, m.stop, m.source_start, source, held))
        self._parts[name] = tuple(parts)
        self.fields = {**self.fields, name: join_parts(name, field.shape, self._parts[name])}

    @contextmanager
    def _metadata(self) -> Iterator[h5py.Group]:
        """Open the file for a moment: while HDF5 holds it, nobody in this process may open it in another way."""
        with self._lock, _open_file(self._path, self.address) as file:
            check_stamp(self._path, self._stamp)
            try:
                yield self._group_of(file)
            except OocloadError:
                raise
            except (RuntimeError, OSError, ValueError, KeyError, TypeError, OverflowError) as exc:
                raise StoreFormatError(f"{self.address} is damaged: h5py cannot read its metadata: {exc}") from exc

    def _root(self) -> h5py.Group:
        """Return the group, open until `close`; a handle that crossed a fork is never used."""
        check_stamp(self._path, self._stamp)
        if self._file is None or self._pid != os.getpid():
            self._file = _open_file(self._path, self.address)
            self._pid = os.getpid()
        return self._group_of(self._file)

    def _group_of(self, file: h5py.File) -> h5py.Group:
        group = file.get(self._group) if self._group else file
        if not isinstance(group, h5py.Group):
            found = "nothing has that name" if group is None else "it is an array; name it as a field"
            raise UnknownFieldError(f"group {self._group!r} must be a group of {os.fspath(self._path)}, and {found}")
        return group


def _as_bytes(attributes: h5py.AttributeManager, name: str) -> bytes:
    """Return an attribute's bytes; none where it is damaged, which who decodes them reports."""
    try:
        return np.asarray(attributes[name], np.uint8).tobytes()
    except (OSError, RuntimeError, ValueError, TypeError, KeyError):
        return b""


def _keep(table: ChunkTable, file: Path) -> None:
    try:
        table.save(file)
    except OSError as exc:
        raise InvalidArgumentError(
            f"index_cache must be a folder that can be written, got {file.parent}: {exc}"
        ) from exc


def _open_source(path: str, name: str, sources: dict[str, Hdf5Store]) -> Hdf5Store:
    """Return the store of a virtual dataset's source: beside the file that names it, or where the name leads from here.

    Rules: HDF5 reference manual, H5Pset_virtual_prefix.
    """
    beside = path if name == "." else os.path.join(os.path.dirname(path), name)
    file = beside if os.path.exists(beside) else os.path.abspath(name)
    if os.path.exists(file) and os.path.samefile(file, path):
        file = path
    if file not in sources:
        sources[file] = Hdf5Store(file, resolve=False)
    return sources[file]


def _check_file(path: str) -> None:
    if not Path(path).exists():
        raise StoreNotFoundError(f"store must exist, got {path!r}; nothing lies at that path")
    if Path(path).is_dir():
        raise StoreFormatError(f"{path} must be an HDF5 file, and is a directory; is it a Zarr store (.zarr)?")


def _open_file(path: str, shown: str) -> h5py.File:
    try:
        try:
            return h5py.File(path, "r")
        except OSError as exc:
            if not re.search(r"lock file|file lock", str(exc)):
                raise
            return h5py.File(path, "r", locking=False)  # no locks on this file system, or open here without them
    except OSError as exc:
        if "truncated" in str(exc):
            raise StoreFormatError(
                f"{shown} is truncated: it ends before the length that its header gives; copy or write it again"
            ) from exc
        raise StoreFormatError(f"{shown} must be an HDF5 file, and h5py cannot open it: {exc}") from exc
