"""Where the chunks of a Zarr array lie: files of a directory or members of a zip file, or parts of shards in them."""

from __future__ import annotations

import os
import struct
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple, Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from oocload.errors import ChunkError, StoreFormatError
from oocload.layout import ByteRange, ChunkGrid, FieldLayout, FileStamp
from oocload.stores.zarr_fields import config_of

_SHARD_INDEXES_NBYTES = 4 * 2**20  # kept of one array, or of 64 shards if that is more
_LEAST_SHARD_INDEXES = 64
_INDEX_OVERHEAD = 512  # of Python's objects around one
_PLACES_KEPT = 4096  # of chunks with objects of their own: looking for one costs 10 µs, which a small chunk feels
_MEMBER_NBYTES = 192  # a name, two numbers and their places in a dict
_PLACE_NBYTES = 512  # a path, three numbers and their places in a dict
_LOCAL_HEADER = struct.Struct("<4s22x2H")  # signature; lengths of name and extra field (APPNOTE.TXT, 4.3.7)
_MISSING = 2**64 - 1


class Objects(Protocol):
    """The objects of a Zarr hierarchy, by key."""

    @property
    def path(self) -> str | None:
        """The one file that holds all objects, or None where they have files of their own."""
        ...

    @property
    def stamp(self) -> FileStamp | None:
        """The stamp of that file, where there is one."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the places of objects take."""
        ...

    def find(self, key: str) -> ByteRange | None:
        """Return where an object's bytes lie, or None where there is none."""
        ...


class DirectoryObjects:
    """Objects that are files below a directory."""

    path = None
    stamp = None
    nbytes = 0

    def __init__(self, root: str) -> None:
        self._root = root

    def find(self, key: str) -> ByteRange | None:
        """Return the whole file of a key."""
        path = os.path.join(self._root, key)
        try:
            return ByteRange(path, 0, os.stat(path).st_size)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise ChunkError(f"cannot look for the chunk in {path}: {exc}") from exc


class ZipObjects:
    """Objects that are members of a zip file, stored as they are.

    Raises
    ------
    StoreFormatError
        If a member lies where none can.

    """

    def __init__(self, path: str, prefix: str) -> None:
        self.stamp = FileStamp.of(os.stat(path))
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        skip = f"{prefix}/" if prefix else ""
        with open(path, "rb", buffering=0) as file, zipfile.ZipFile(path) as archive:
            for member in archive.infolist():  # of two members of one name, the later counts
                if member.filename.startswith(skip):
                    self._places[member.filename[len(skip) :]] = self._place(file.fileno(), member)

    @property
    def nbytes(self) -> int:
        """Bytes of the table of members."""
        return _MEMBER_NBYTES * len(self._places)

    def find(self, key: str) -> ByteRange | None:
        """Return a member's range in the zip file."""
        place = self._places.get(key)
        return None if place is None else ByteRange(self.path, *place)

    def _place(self, descriptor: int, member: zipfile.ZipInfo) -> tuple[int, int]:
        header = os.pread(descriptor, _LOCAL_HEADER.size, member.header_offset)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
            raise StoreFormatError(f"{self.path} is damaged: no member begins at byte {member.header_offset}")
        _, name_nbytes, extra_nbytes = _LOCAL_HEADER.unpack(header)
        start = member.header_offset + _LOCAL_HEADER.size + name_nbytes + extra_nbytes
        if start + member.file_size > self.stamp.nbytes:
            raise StoreFormatError(f"{self.path} is damaged: member {member.filename} ends behind the end of the file")
        return start, member.file_size


def zip_unsuited(path: str) -> str:
    """Return why the members of a zip file cannot be read in place, or empty."""
    with zipfile.ZipFile(path) as archive:
        packed = any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in archive.infolist())
    return "zip file with compressed members" if packed else ""


class ChunkObjects:
    """One object per chunk, named by the array's key encoding; each is looked for once."""

    max_stored_nbytes = None

    def __init__(self, objects: Objects, encode_key: Callable[[tuple[int, ...]], str], field: FieldLayout) -> None:
        assert field.chunks is not None
        self._objects = objects
        self._encode_key = encode_key
        self._grid = ChunkGrid(field.shape, field.chunks)
        self.path, self.stamp = objects.path, objects.stamp
        self._found: dict[int, ByteRange | None] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that the places found so far can come to, and the members of a zip file."""
        return self._objects.nbytes + _PLACE_NBYTES * min(_PLACES_KEPT, self._grid.n_chunks)

    def find(self, chunk: int) -> ByteRange | None:
        """Return the object of a chunk, or None where there is none."""
        try:
            return self._found[chunk]
        except KeyError:
            place = self._objects.find(self._encode_key(self._grid.corner(chunk)))
        if len(self._found) < _PLACES_KEPT:
            self._found[chunk] = place
        return place


class _Index(NamedTuple):
    """A shard's place and the index in it: (offset, length) of each of its chunks."""

    shard: ByteRange
    entries: NDArray[np.uint64]


class Shards:
    """Chunks inside shards, each with an index of (offset, length) at its end or start.

    Format: Zarr v3 specification, codec "sharding_indexed", version 1.0.
    """

    max_stored_nbytes = None

    def __init__(
        self,
        where: str,
        objects: Objects,
        encode_key: Callable[[tuple[int, ...]], str],
        sharding: dict[str, Any],
        field: FieldLayout,
    ) -> None:
        assert field.chunks is not None
        assert field.shards is not None
        self._where = where
        self._objects = objects
        self._encode_key = encode_key
        self._grid = ChunkGrid(field.shape, field.chunks)
        self.path, self.stamp = objects.path, objects.stamp
        self._per_shard = tuple(s // c for s, c in zip(field.shards, field.chunks, strict=True))
        self._n_per_shard = prod(self._per_shard)
        self._at_start = str(sharding["index_location"]).endswith("start")
        index_codecs = [config_of(c) for c in sharding["index_codecs"]]
        self._checksummed = len(index_codecs) == 2
        big = str(index_codecs[0].get("configuration", {}).get("endian")).endswith("big")
        self._entry = np.dtype(">u8" if big else "<u8")
        self._n_kept = max(_LEAST_SHARD_INDEXES, _SHARD_INDEXES_NBYTES // (self._index_nbytes + _INDEX_OVERHEAD))
        self._indexes: OrderedDict[str, _Index | None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that the kept shard indexes can come to."""
        n_shards = -(-self._grid.n_chunks // self._n_per_shard)
        return self._objects.nbytes + min(self._n_kept, n_shards) * (self._index_nbytes + _INDEX_OVERHEAD)

    def find(self, chunk: int) -> ByteRange | None:
        """Return a chunk's range inside its shard, or None where it or the shard was never written."""
        corner = self._grid.corner(chunk)
        index = self._index(self._encode_key(tuple(i // n for i, n in zip(corner, self._per_shard, strict=True))))
        if index is None:
            return None
        within = tuple(i % n for i, n in zip(corner, self._per_shard, strict=True))
        offset, nbytes = (int(v) for v in index.entries[within])
        if offset == _MISSING and nbytes == _MISSING:
            return None
        return ByteRange(index.shard.path, index.shard.offset + offset, nbytes)

    @property
    def _index_nbytes(self) -> int:
        return 16 * self._n_per_shard + (4 if self._checksummed else 0)

    def _index(self, key: str) -> _Index | None:
        with self._lock:
            if key in self._indexes:
                self._indexes.move_to_end(key)
                return self._indexes[key]
        index = self._read_index(key)
        with self._lock:
            self._indexes[key] = index
            while len(self._indexes) > self._n_kept:
                self._indexes.popitem(last=False)
        return index

    def _read_index(self, key: str) -> _Index | None:
        shard = self._objects.find(key)
        if shard is None:
            return None
        if shard.nbytes < self._index_nbytes:
            raise ChunkError(
                f"{self._where}: shard {shard.path} has {shard.nbytes} bytes, fewer than its index; it is truncated"
            )
        start = shard.offset if self._at_start else shard.offset + shard.nbytes - self._index_nbytes
        try:
            with open(shard.path, "rb", buffering=0) as file:
                raw = os.pread(file.fileno(), self._index_nbytes, start)
        except OSError as exc:
            raise ChunkError(f"{self._where}: cannot read shard {shard.path}: {exc}") from exc
        body = raw[: 16 * self._n_per_shard]
        if self._checksummed and crc32c(body) != int.from_bytes(raw[-4:], "little"):
            raise ChunkError(f"{self._where}: the index of shard {shard.path} fails its checksum; the file is damaged")
        entries = np.frombuffer(body, self._entry).astype(np.uint64).reshape(*self._per_shard, 2)
        self._check_ranges(entries, shard)
        return _Index(shard, entries)

    def _check_ranges(self, entries: NDArray[np.uint64], shard: ByteRange) -> None:
        """Raise where an entry points behind the end of the shard."""
        offsets, sizes = entries[..., 0], entries[..., 1]
        written = ~((offsets == _MISSING) & (sizes == _MISSING))
        limit = np.uint64(shard.nbytes)
        if bool((written & ((offsets > limit) | (sizes > limit) | (offsets + sizes > limit))).any()):
            raise ChunkError(f"{self._where}: the index of shard {shard.path} points past its end; the file is damaged")


def crc32c(data: Any) -> int:
    """Return the CRC-32C (Castagnoli, RFC 3720) of some bytes."""
    return int(google_crc32c.value(bytes(data)))
