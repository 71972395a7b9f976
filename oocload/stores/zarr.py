"""Zarr v2 and v3 directories: fields and codecs from zarr's metadata; chunks are files, or parts of shards."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from oocload.errors import ChunkError, StoreFormatError, StoreNotFoundError, UnknownFieldError
from oocload.forks import renew_in_child
from oocload.layout import ByteRange, ChunkGrid, ChunkLocations, Codec, FieldLayout, ReadPath
from oocload.stores.base import Store, native, unreadable

_DIRECT_V3 = {"gzip", "zstd", "blosc", "crc32c"}
_DIRECT_V2 = {"zlib", "gzip", "zstd", "blosc"}
_SHARD_INDEXES_KEPT = 64


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
        node = _open_node(self._path, self._group, self.address)
        self._arrays: dict[str, zarr.Array[Any]] | None = self._list(node)
        self.format = f"Zarr v{node.metadata.zarr_format}"
        on_disk = Path(self._path).is_dir()
        self.fields = {name: _describe_safely(name, a, on_disk) for name, a in sorted(self._arrays.items())}

    def locate(self, name: str) -> ChunkLocations:
        """Return where the chunks of a field lie; shard indexes are read when they are first needed."""
        field = self.field(name)
        array = self._opened()[name]
        root = os.path.join(self._path, array.path)
        if field.shards is None:
            return ChunkFiles(root, array.metadata, field)
        return Shards(f"{self.address}, field {name!r}", root, array.metadata, field)

    def read_rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Read rows with zarr."""
        try:
            rows = self._opened()[name][start:stop]
        except Exception as exc:  # zarr's codecs raise errors of many unrelated types
            raise ChunkError(f"{self.address}, field {name!r}, rows {start} to {stop}: {exc}") from exc
        return np.asarray(rows, dtype=self.fields[name].dtype)

    def close(self) -> None:
        """Drop the arrays; a later read opens them again."""
        with self._lock:
            for array in (self._arrays or {}).values():
                array.store.close()
            self._arrays = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path, self._group)

    def _opened(self) -> dict[str, zarr.Array[Any]]:
        with self._lock:
            if self._arrays is None:
                self._arrays = self._list(_open_node(self._path, self._group, self.address))
            return self._arrays

    def _list(self, node: Any) -> dict[str, zarr.Array[Any]]:
        try:
            return dict(_members(node))
        except Exception as exc:  # damaged metadata of a member, in as many ways as zarr has
            raise StoreFormatError(f"{self.address} has metadata that zarr cannot read: {_one_line(exc)}") from exc


def _open_node(path: str, group: str, shown: str) -> Any:
    try:
        root = zarr.open(path if Path(path).is_dir() else ZipStore(path, mode="r"), mode="r")
    except Exception as exc:  # zarr raises FileNotFoundError, KeyError, ValueError and its own, by what is missing
        raise StoreFormatError(f"{shown} must be a Zarr store, and zarr cannot open it: {_one_line(exc)}") from exc
    if not group:
        return root
    try:
        return root[group]  # type: ignore[index]
    except KeyError as exc:
        raise UnknownFieldError(f"group {group!r} must be in {shown}, and is not") from exc


def _one_line(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {' '.join(str(exc).split())}"


def _members(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, zarr.Array):
        yield "x", node
        return
    for name, member in node.members(max_depth=None):
        if isinstance(member, zarr.Array):
            yield name, member


def _describe_safely(name: str, array: zarr.Array[Any], on_disk: bool) -> FieldLayout:
    """Return one array's layout; what cannot be described is listed as unreadable, and stops nobody else."""
    try:
        return _describe(name, array, on_disk)
    except Exception as exc:  # data types that have no NumPy form, codecs that are not installed
        return unreadable(name, array.shape, "zarr", _one_line(exc))


def _describe(name: str, array: zarr.Array[Any], on_disk: bool) -> FieldLayout:
    """Return one array's layout and the path on which its rows will be read."""
    meta: Mapping[str, Any] = array.metadata.to_dict()
    describe = _describe_v2 if meta["zarr_format"] == 2 else _describe_v3
    stored, codecs, reason = describe(meta, np.dtype(array.dtype))
    if not on_disk:
        reason = "zip store"
    elif stored.kind not in "biuf":
        reason = f"dtype {stored.name}"
    elif not array.shape:
        reason = "not an array of rows"
    path: ReadPath = "zarr" if reason else "direct"
    fill = array.fill_value
    return FieldLayout(
        name=name,
        shape=array.shape,
        dtype=native(stored),
        stored_dtype=stored,
        chunks=array.chunks if array.shape else None,
        codecs=codecs,
        read_path=path,
        reason=reason,
        fill=np.asarray(0 if fill is None else fill).astype(stored).tobytes() if path == "direct" else b"",
        shards=array.shards,
    )


def _describe_v2(meta: Mapping[str, Any], dtype: np.dtype[Any]) -> tuple[np.dtype[Any], tuple[Codec, ...], str]:
    compressor = _config(meta["compressor"])
    filters = [_config(f) for f in meta["filters"] or ()]
    used = [*filters, compressor] if compressor else filters
    codecs = tuple(Codec(c["id"], c.get("level", c.get("clevel"))) for c in used)
    if filters:
        return dtype, codecs, f"filter {filters[0]['id']}"
    if meta["order"] != "C" and len(meta["shape"]) > 1:
        return dtype, codecs, "Fortran order"
    if compressor and compressor["id"] not in _DIRECT_V2:
        return dtype, codecs, f"codec {compressor['id']}"
    return dtype, codecs, ""


def _describe_v3(meta: Mapping[str, Any], dtype: np.dtype[Any]) -> tuple[np.dtype[Any], tuple[Codec, ...], str]:
    chain = [_config(c) for c in meta["codecs"]]
    reason = ""
    if chain[0]["name"] == "sharding_indexed":
        config = chain[0]["configuration"]
        reason = _reason_for_unusual_shards(chain, config)
        chain = [_config(c) for c in config["codecs"]]
    stored = dtype
    codecs = []
    for config in chain:
        name, options = config["name"], config.get("configuration", {})
        if name == "bytes":
            stored = dtype.newbyteorder(">" if options.get("endian") == "big" else "<")
            continue
        codecs.append(Codec(name, options.get("level", options.get("clevel"))))
        if name not in _DIRECT_V3:
            reason = reason or f"codec {name}"
    return stored, tuple(codecs), reason


def _reason_for_unusual_shards(chain: list[Any], config: Mapping[str, Any]) -> str:
    index = [_config(c)["name"] for c in config["index_codecs"]]
    inner = [_config(c)["name"] for c in config["codecs"]]
    if len(chain) > 1 or index not in (["bytes", "crc32c"], ["bytes"]):
        return "shards encoded in an unusual way"
    return "shards within shards" if "sharding_indexed" in inner else ""


def _config(codec: Any) -> Any:
    """Return a codec's metadata as a plain dict, whatever zarr holds it as."""
    if codec is None or isinstance(codec, Mapping):
        return codec
    if hasattr(codec, "get_config"):
        return codec.get_config()
    return codec.to_dict()


class ChunkFiles:
    """One file per chunk, named by the array's key encoding."""

    def __init__(self, root: str, metadata: Any, field: FieldLayout) -> None:
        assert field.chunks is not None
        self._root = root
        self._encode_key = metadata.encode_chunk_key
        self._grid = ChunkGrid(field.shape, field.chunks)

    nbytes = 0
    max_stored_nbytes = None

    def find(self, chunk: int) -> ByteRange | None:
        """Return the whole file of a chunk, or None where there is none."""
        path = os.path.join(self._root, self._encode_key(self._grid.corner(chunk)))
        try:
            return ByteRange(path, 0, os.stat(path).st_size)
        except FileNotFoundError:
            return None


class Shards:
    """Chunks inside shard files, each with an index of (offset, length) at its end or start.

    Format: Zarr v3 specification, codec "sharding_indexed", version 1.0.
    """

    max_stored_nbytes = None

    def __init__(self, where: str, root: str, metadata: Any, field: FieldLayout) -> None:
        assert field.chunks is not None
        assert field.shards is not None
        self._where = where
        self._root = root
        self._encode_key = metadata.encode_chunk_key
        self._grid = ChunkGrid(field.shape, field.chunks)
        self._per_shard = tuple(s // c for s, c in zip(field.shards, field.chunks, strict=True))
        config = _config(metadata.to_dict()["codecs"][0])["configuration"]
        self._at_start = str(config["index_location"]) in ("start", "ShardingCodecIndexLocation.start")
        index_codecs = [_config(c) for c in config["index_codecs"]]
        self._checksummed = len(index_codecs) == 2
        big = index_codecs[0].get("configuration", {}).get("endian") == "big"
        self._entry = np.dtype(">u8" if big else "<u8")
        self._indexes: OrderedDict[str, NDArray[np.uint64] | None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that the kept shard indexes can come to."""
        n_shards = -(-self._grid.n_chunks // int(np.prod(self._per_shard)))
        return min(_SHARD_INDEXES_KEPT, n_shards) * self._index_nbytes

    def find(self, chunk: int) -> ByteRange | None:
        """Return a chunk's range inside its shard, or None where it or the shard was never written."""
        corner = self._grid.corner(chunk)
        key = self._encode_key(tuple(i // n for i, n in zip(corner, self._per_shard, strict=True)))
        path = os.path.join(self._root, key)
        index = self._index(path)
        if index is None:
            return None
        within = tuple(i % n for i, n in zip(corner, self._per_shard, strict=True))
        offset, nbytes = (int(v) for v in index[within])
        return None if offset == 2**64 - 1 and nbytes == 2**64 - 1 else ByteRange(path, offset, nbytes)

    @property
    def _index_nbytes(self) -> int:
        return 16 * int(np.prod(self._per_shard)) + (4 if self._checksummed else 0)

    def _index(self, path: str) -> NDArray[np.uint64] | None:
        with self._lock:
            if path in self._indexes:
                self._indexes.move_to_end(path)
                return self._indexes[path]
        index = self._read_index(path)
        with self._lock:
            self._indexes[path] = index
            while len(self._indexes) > _SHARD_INDEXES_KEPT:
                self._indexes.popitem(last=False)
        return index

    def _read_index(self, path: str) -> NDArray[np.uint64] | None:
        try:
            with open(path, "rb", buffering=0) as shard:
                file_nbytes = os.fstat(shard.fileno()).st_size
                shard.seek(0 if self._at_start else max(0, file_nbytes - self._index_nbytes))
                raw = shard.read(self._index_nbytes)
        except FileNotFoundError:
            return None
        if len(raw) < self._index_nbytes:
            raise ChunkError(
                f"{self._where}: shard {path} has {file_nbytes} bytes, fewer than its index; it is truncated"
            )
        body = raw[: 16 * int(np.prod(self._per_shard))]
        if self._checksummed and crc32c(body) != int.from_bytes(raw[-4:], "little"):
            raise ChunkError(f"{self._where}: the index of shard {path} fails its checksum; the file is damaged")
        entries = np.frombuffer(body, self._entry).astype(np.uint64).reshape(*self._per_shard, 2)
        self._check_ranges(entries, path, file_nbytes)
        return entries

    def _check_ranges(self, entries: NDArray[np.uint64], path: str, file_nbytes: int) -> None:
        """Raise where an entry points behind the end of the shard."""
        offsets, sizes = entries[..., 0], entries[..., 1]
        written = ~((offsets == 2**64 - 1) & (sizes == 2**64 - 1))
        limit = np.uint64(file_nbytes)
        if bool((written & ((offsets > limit) | (sizes > limit) | (offsets + sizes > limit))).any()):
            raise ChunkError(f"{self._where}: the index of shard {path} points past its end; the file is damaged")


def crc32c(data: Any) -> int:
    """Return the CRC-32C (Castagnoli, RFC 3720) of some bytes."""
    return int(google_crc32c.value(bytes(data)))


def is_zarr_directory(path: Path) -> bool:
    """Whether a directory holds the metadata of a Zarr group or array."""
    return any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))
