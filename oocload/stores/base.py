"""What every store offers: facts about its fields, where chunks lie, and the library's own reading.

A store moves array data in one place only, `read_rows`: the fallback through h5py or zarr.
"""

from __future__ import annotations

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError, StoreFormatError, UnknownFieldError
from oocload.layout import ChunkLocations, FieldLayout, FileStamp
from oocload.units import format_bytes


class Part(NamedTuple):
    """Rows of a field that another store holds: ``start`` to ``stop`` are those of ``field`` from ``source_start``."""

    start: int
    stop: int
    source_start: int
    store: Store
    field: FieldLayout


class Store(ABC):
    """An open HDF5 or Zarr store: its fields and their layouts; no array data is read on opening.

    Use it as a context manager, or call `close`. It pickles as its address and reopens by itself.

    Attributes
    ----------
    address
        What `oocload.open` was given: a path, with ``::group`` where a group was named.
    format
        ``"HDF5"``, ``"Zarr v2"`` or ``"Zarr v3"``.
    fields
        Field name → `FieldLayout`, sorted by name.
    members
        Name → layout of the arrays that a ragged or sparse field is made of; they are no fields of their own.

    """

    address: str
    format: str
    fields: Mapping[str, FieldLayout]
    members: Mapping[str, FieldLayout] = MappingProxyType({})
    _lock: Any  # an RLock; reading through a library and opening are done under it

    def renew_locks(self) -> None:
        """Replace the lock, in a forked child."""
        self._lock = threading.RLock()

    @abstractmethod
    def locate(self, name: str) -> ChunkLocations:
        """Return where the chunks of a field, or of a member of one, lie (direct only).

        Raises
        ------
        StoreFormatError
            If the file is shorter than its own index says.

        """

    @abstractmethod
    def read_rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Read rows of a field, or of a member of one, through the format's own library, in native byte order.

        Thread-safe. Ragged and sparse fields are read by their members.
        """

    @abstractmethod
    def close(self) -> None:
        """Close what is open; a second call does nothing."""

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise where the file is not the one that was opened.

        Raises
        ------
        StoreFormatError
            If it was written to, replaced or removed.

        """

    @abstractmethod
    def stamps(self) -> tuple[FileStamp, ...]:
        """Return the stamps of the files when they were opened; of a Zarr directory, of those of its metadata."""

    def parts(self, name: str) -> tuple[Part, ...]:
        """Return where the rows of a field lie that is made of fields of other stores; empty for any other."""
        return ()

    def notes(self, name: str, prefix: str) -> dict[str, bytes]:
        """Return what was put beside an array under names that begin so: its checksums (`stores.checksums`)."""
        return {}

    def trouble(self) -> str:
        """Return why the format's own library cannot list the store, where no one array is to blame; else empty."""
        return ""

    def not_found(self, name: str, locations: ChunkLocations) -> Iterator[int]:
        """Yield chunks of an array that lie where `locate` says, and that the format's own library does not find."""
        return iter(())

    def root_attribute(self, name: str) -> tuple[str, str] | None:
        """Return an attribute of the root of the whole store, and the path of these fields' group below that root."""
        return None

    def field(self, name: str) -> FieldLayout:
        """Return the layout of one field, or of a member of one.

        Raises
        ------
        UnknownFieldError
            If there is no such field; the message lists those there are.

        """
        found = self.fields.get(name) or self.members.get(name)
        if found is None:
            known = ", ".join(map(repr, self.fields)) or "none at all"
            raise UnknownFieldError(f"field {name!r} must be one of those in {self.address}, which has {known}")
        return found

    def array(self, name: str) -> FieldLayout:
        """Return the layout of what is one array of the store.

        Raises
        ------
        UnknownFieldError
            If there is nothing of that name.
        InvalidArgumentError
            If it is a ragged or sparse field.

        """
        field = self.field(name)
        if field.ragged is not None:
            raise InvalidArgumentError(
                f"field {name!r} of {self.address} must be one array, and is ragged; read {field.ragged.values.name!r} "
                f"and {field.ragged.offsets.name!r}"
            )
        return field

    def fingerprint(self, names: tuple[str, ...]) -> str:
        """Return a short hash of the layout of some fields; equal for equal layouts, whatever the path."""
        text = repr([_told_apart_by(self.field(name), name) for name in names])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return "\n".join([f"{self.format} store {self.address}", *describe_fields(self.fields)])


def describe_fields(fields: Mapping[str, FieldLayout]) -> list[str]:
    """Return one aligned line of text per field: shape, dtype, size, chunks, codecs, read path."""
    if not fields:
        return ["  (no fields)"]
    rows = [("field", "shape", "dtype", "size", "chunks", "codecs", "read path")]
    for f in fields.values():
        chunks = _shape(f.chunks) if f.chunks else f"{len(f.pieces)} parts" if f.pieces else "contiguous"
        if f.shards is not None:
            chunks += f" in shards {_shape(f.shards)}"
        if f.ragged is not None and f.chunks:
            chunks += " items"
        path = f.read_path if f.read_path == "direct" else f"{f.read_path}: {f.reason}"
        size = format_bytes(f.nbytes if f.shape else f.dtype.itemsize)
        rows.append((f.name, _describe_shape(f), _describe_dtype(f), size, chunks, f.decoder, path))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def _describe_dtype(field: FieldLayout) -> str:
    meaning = field.meaning
    stands_for = meaning.content or (f"{len(meaning.vocabulary)} words" if meaning.vocabulary else "")
    return f"{field.dtype.name} ({stands_for})" if stands_for else field.dtype.name


def _describe_shape(field: FieldLayout) -> str:
    if field.ragged is None:
        return _shape(field.shape)
    mean = f"{field.ragged.values.n_rows / max(1, field.n_rows):.1f} a row"
    if field.ragged.columns is not None:
        return f"{_shape(field.shape)} sparse, {mean}"
    return " × ".join(map(str, (field.n_rows, "ragged", *field.ragged.values.row_shape))) + f", {mean}"


def _told_apart_by(field: FieldLayout, name: str) -> tuple[Any, ...]:
    facts = (name, field.shape, field.dtype.str)
    return facts if field.ragged is None else (*facts, field.ragged.values.shape)


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def unreadable(name: str, shape: tuple[int, ...], why: str) -> FieldLayout:
    """Return the layout of a field that cannot be read: it is shown, and refused when it is chosen."""
    objects = np.dtype(object)
    return FieldLayout(name, shape, objects, objects, None, read_path="none", reason=why)


def check_stamp(path: str, stamp: FileStamp) -> None:
    """Raise where a file is not what it was when its stamp was taken."""
    try:
        now = FileStamp.of(os.stat(path))
    except OSError as exc:
        raise StoreFormatError(f"{path} is gone since it was opened: {exc}; open it anew") from exc
    if now != stamp:
        raise StoreFormatError(f"{path} has changed since it was opened; open it anew")


def direct_path_enabled() -> bool:
    """Whether fields may be read by our own code: an internal switch, for tests of the other paths."""
    return os.environ.get("OOCLOAD_DIRECT_PATH") != "off"


def native(dtype: np.dtype[Any]) -> np.dtype[np.generic]:
    """Return a dtype in this machine's byte order."""
    return dtype.newbyteorder("=")
