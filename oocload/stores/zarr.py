"""Zarr v2 and v3, directories and zip files: one group's arrays, from zarr's metadata."""

from __future__ import annotations

import os
import threading
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from oocload.errors import ChunkError, StoreFormatError, StoreNotFoundError, UnknownFieldError
from oocload.forks import renew_in_child
from oocload.layout import ChunkLocations, FieldLayout, FileStamp
from oocload.stores.base import Store, check_stamp
from oocload.stores.ragged import Encoding, gather
from oocload.stores.zarr_chunks import ChunkObjects, DirectoryObjects, Objects, Shards, ZipObjects, zip_unsuited
from oocload.stores.zarr_fields import config_of, describe, reason_for_unusual_shards
from oocload.stores.zarr_members import Member, attributes_of, members, members_one_by_one, one_line, paths_of_metadata


class ZarrStore(Store):
    """The arrays below one group of a Zarr hierarchy, or one array alone (its field is named ``x``).

    Parameters
    ----------
    path
        The directory (or a zip file, which zarr reads).
    group
        Group inside it whose arrays are the fields; default the root.

    Raises
    ------
    StoreNotFoundError
        If nothing lies at the path.
    StoreFormatError
        If it is not a Zarr hierarchy.
    UnknownFieldError
        If there is no such group.

    """

    def __init__(self, path: str | os.PathLike[str], group: str = "") -> None:
        self._group = group.strip("/")
        self.address = f"{os.fspath(path)}::{self._group}" if self._group else os.fspath(path)
        if not Path(path).exists():
            raise StoreNotFoundError(f"store must exist, got {os.fspath(path)!r}; nothing lies at that path")
        self._path = os.path.abspath(path)  # so that a change of folder, or another process, finds it
        self._lock = threading.RLock()
        renew_in_child(self)
        self._pid = os.getpid()
        self._is_directory = Path(self._path).is_dir()
        self._trouble = ""
        found, groups = self._list()
        self._members: dict[str, Member] | None = found
        versions = sorted({str(m.array.metadata.zarr_format) for m in found.values() if m.array is not None})
        self.format = f"Zarr v{' and v'.join(versions)}" if versions else "Zarr"
        unsuited = "" if self._is_directory else zip_unsuited(self._path)
        self.fields, self.members = gather({name: describe(name, m, unsuited) for name, m in found.items()}, groups)
        self._stamps = self._take_stamps()

    def locate(self, name: str) -> ChunkLocations:
        """Return where the chunks of a field lie; shard indexes are read when they are first needed."""
        field = self.array(name)
        member = self.member(name)
        objects: Objects
        if self._is_directory:
            objects = DirectoryObjects(os.path.join(self._path, member.path))
        elif packed := zip_unsuited(self._path):
            raise StoreFormatError(f"{self.address}, field {name!r}: its chunks cannot be found in a {packed}")
        else:
            objects = ZipObjects(self._path, member.path)
        return self.locate_among(objects, field)

    def locate_among(self, objects: Objects, field: FieldLayout) -> ChunkLocations:
        """Return where the chunks of a field lie among objects that are named as those of the store."""
        member = self.member(field.name)
        assert member.array is not None
        metadata: Any = member.array.metadata
        if field.shards is None:
            return ChunkObjects(objects, metadata.encode_chunk_key, field)
        chain = [config_of(codec) for codec in metadata.to_dict()["codecs"]]
        if unusual := reason_for_unusual_shards(chain):
            raise StoreFormatError(f"{self.address}, field {field.name!r}: its chunks cannot be found in {unusual}")
        sharding = chain[0]["configuration"]
        return Shards(f"{self.address}, field {field.name!r}", objects, metadata.encode_chunk_key, sharding, field)

    def member(self, name: str) -> Member:
        """Return an array as zarr opened it."""
        return self._opened()[name]

    def read_rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Read rows with zarr."""
        field = self.array(name)
        try:
            self.check_unchanged()
            member = self._opened()[name]
            assert member.array is not None
            rows: Any = member.array[start:stop]
            if member.dtype is not None:
                rows = rows.view(member.dtype)
        except Exception as exc:  # zarr's codecs raise errors of many unrelated types
            raise ChunkError(f"{self.address}, field {name!r}, rows {start} to {stop}: {exc}") from exc
        return np.asarray(rows, dtype=field.dtype)

    def notes(self, name: str, prefix: str) -> dict[str, bytes]:
        """Return files of an array's folder, or members of the zip file."""
        member = self._opened().get(name)
        if member is None:  # a group that is one field
            return {}
        folder = member.path
        if self._is_directory:
            files = Path(self._path, folder).glob(f"{prefix}*")
            return {file.name: file.read_bytes() for file in files}
        begin = f"{folder}/{prefix}" if folder else prefix
        with zipfile.ZipFile(self._path) as archive:
            return {n[len(begin) - len(prefix) :]: archive.read(n) for n in archive.namelist() if n.startswith(begin)}

    def trouble(self) -> str:
        """Return why zarr cannot list the members of the group, though it opens each array; else empty."""
        return self._trouble

    def root_attribute(self, name: str) -> tuple[str, str] | None:
        """Return an attribute of the root, which may lie above the directory that was opened, and the path from it."""
        if not self._is_directory:
            found = _open_node(self._path, "", self.address).attrs.get(name)
            return None if found is None else (str(found), self._group)
        here = Path(self._path, self._group)
        for folder in (here, *here.parents):
            if folder != here and not is_zarr_directory(folder):
                break
            found = attributes_of(folder).get(name)
            if found is not None:
                below = here.relative_to(folder).as_posix()
                return str(found), "" if below == "." else below
        return None

    def check_unchanged(self) -> None:
        """Raise where metadata, or the zip file, is not what was opened; chunks have no stamps of their own."""
        for path, stamp in self._stamps.items():
            check_stamp(path, stamp)

    def stamps(self) -> tuple[FileStamp, ...]:
        """Return the stamps of the files of metadata, or of the zip file."""
        return tuple(stamp for _, stamp in sorted(self._stamps.items()))

    def close(self) -> None:
        """Drop the arrays; a later read opens them again."""
        with self._lock:
            for member in (self._members or {}).values():
                if member.array is not None:
                    member.array.store.close()
            self._members = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path, self._group)

    def _take_stamps(self) -> dict[str, FileStamp]:
        """Return the stamps of the files that say what the arrays are."""
        if not self._is_directory:
            return {self._path: FileStamp.of(os.stat(self._path))}
        files = paths_of_metadata(self._path, self._members or {})
        return {file: FileStamp.of(os.stat(file)) for file in files}

    def _opened(self) -> dict[str, Member]:
        with self._lock:
            if self._members is None or self._pid != os.getpid():  # an open zip file must not cross a fork
                self._members, self._pid = self._list()[0], os.getpid()
            return self._members

    def _list(self) -> tuple[dict[str, Member], dict[str, Encoding]]:
        """Return name → array, and → encoding of the groups that are one field."""
        node = None
        try:
            node = _open_node(self._path, self._group, self.address)
            return members(node)
        except (StoreNotFoundError, UnknownFieldError):
            raise
        except Exception as exc:  # damaged or unknown metadata of a member, in as many ways as zarr has
            found, groups = members_one_by_one(self._path, self._group) if self._is_directory else ({}, {})
            if any(m.array is not None for m in found.values()):
                if all(m.array is not None and m.dtype is None for m in found.values()):
                    self._trouble = f"zarr cannot list it: {one_line(exc)}"
                return found, groups
            if node is None:
                raise
            problem = exc if isinstance(exc, StoreFormatError) else f"zarr cannot read its metadata: {one_line(exc)}"
            raise StoreFormatError(f"{self.address} must be a Zarr store: {problem}") from exc


def _open_node(path: str, group: str, shown: str) -> Any:
    try:
        root = zarr.open(path if Path(path).is_dir() else ZipStore(path, mode="r"), mode="r")
    except Exception as exc:  # zarr raises FileNotFoundError, KeyError, ValueError and its own, by what is missing
        if group:  # a hierarchy may begin in a folder that has no metadata above it
            with suppress(Exception):
                return zarr.open(path if Path(path).is_dir() else ZipStore(path, mode="r"), mode="r", path=group)
        is_bare = Path(path).is_dir() and not is_zarr_directory(Path(path))
        problem = "the folder has none of its metadata; name a file in it, or run oocload convert" if is_bare else ""
        raise StoreFormatError(
            f"{shown} must be a Zarr store, and zarr cannot open it: {problem or one_line(exc)}"
        ) from exc
    if not group:
        return root
    try:
        return root[group]  # type: ignore[index]
    except KeyError as exc:
        raise UnknownFieldError(f"group {group!r} must be in {shown}, and is not") from exc


def is_zarr_directory(path: Path) -> bool:
    """Whether a directory holds the metadata of a Zarr group or array."""
    return any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))
