"""HDF5: fields, filters, and the address of every chunk, all from h5py's metadata calls."""

from __future__ import annotations

import os
import re
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from oocload.errors import ChunkError, StoreFormatError, StoreNotFoundError, UnknownFieldError
from oocload.forks import renew_in_child
from oocload.layout import ByteRange, ChunkGrid, ChunkLocations, Codec, FieldLayout, ReadPath
from oocload.stores.base import Store, native, unreadable

# Registered filter numbers: https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
_FILTER_NAMES = {
    1: "deflate",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32015: "zstd",
    32026: "blosc2",
}
_DIRECT_FILTERS = {"deflate", "shuffle", "lzf"}


class Hdf5Store(Store):
    """The datasets below one group of an HDF5 file.

    Parameters
    ----------
    path
        The file.
    group
        Group inside the file whose datasets are the fields; default the root.

    Raises
    ------
    StoreNotFoundError
        If there is no such file.
    StoreFormatError
        If the file is not HDF5 or is truncated.
    UnknownFieldError
        If there is no such group.

    """

    def __init__(self, path: str | os.PathLike[str], group: str = "") -> None:
        self._group = group.strip("/")
        self.address = f"{os.fspath(path)}::{self._group}" if self._group else os.fspath(path)
        _check_file(os.fspath(path))
        self._path = os.path.abspath(path)  # so that a change of folder, or another process, finds it
        self.format = "HDF5"
        self._lock = threading.RLock()
        renew_in_child(self)
        self._file: h5py.File | None = None
        self._pid = os.getpid()
        with self._metadata() as root:
            fields = [_describe_safely(name, dataset) for name, dataset in _walk(root, "", set())]
        self.fields = {f.name: f for f in sorted(fields, key=lambda f: f.name)}

    def locate(self, name: str) -> ChunkLocations:
        """Return the address of every chunk, from one pass over the chunk index."""
        field = self.field(name)
        with self._metadata() as root:
            dataset = root[name]
            path = dataset.file.filename
            if field.chunks is None:
                table = ChunkTable.contiguous(path, dataset.id.get_offset(), field.nbytes)
            else:
                table = ChunkTable.chunked(path, dataset, ChunkGrid(field.shape, field.chunks))
        table.check_against_file(f"{self.address}, field {name!r}")
        return table

    def read_rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Read rows with h5py."""
        field = self.fields[name]
        with self._lock:
            try:
                rows = self._root()[name][start:stop]
            except (OSError, RuntimeError, ValueError) as exc:
                raise ChunkError(f"{self.address}, field {name!r}, rows {start} to {stop}: {exc}") from exc
        return np.asarray(rows, dtype=field.dtype)

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        with self._lock:
            if self._file is not None and self._pid == os.getpid():
                self._file.close()
            self._file = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path, self._group)

    @contextmanager
    def _metadata(self) -> Iterator[h5py.Group]:
        """Open the file for a moment: while HDF5 holds it, nobody in this process may open it in another way."""
        with self._lock, _open_file(self._path, self.address) as file:
            yield self._group_of(file)

    def _root(self) -> h5py.Group:
        """Return the group, open until `close`; a handle that crossed a fork is never used."""
        if self._file is None or self._pid != os.getpid():
            self._file = _open_file(self._path, self.address)
            self._pid = os.getpid()
        return self._group_of(self._file)

    def _group_of(self, file: h5py.File) -> h5py.Group:
        group = file.get(self._group) if self._group else file
        if not isinstance(group, h5py.Group):
            raise UnknownFieldError(f"group {self._group!r} must be a group of {self.address}, and is not one")
        return group


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


def _walk(group: h5py.Group, prefix: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield every dataset below a group, links followed, each group entered once per way down."""
    info = h5py.h5o.get_info(group.id)
    key = (info.fileno, info.addr)
    if key in seen:
        return
    seen = seen | {key}
    for name in group:
        try:
            item = group[name]
        except (KeyError, OSError):
            continue  # a dangling link: there is nothing to read behind it
        if isinstance(item, h5py.Dataset):
            yield prefix + name, item
        elif isinstance(item, h5py.Group):
            yield from _walk(item, f"{prefix}{name}/", seen)


def _describe_safely(name: str, dataset: h5py.Dataset) -> FieldLayout:
    """Return one dataset's layout; a type that has no NumPy form is listed as unreadable, and stops nobody else."""
    try:
        return _describe(name, dataset)
    except (TypeError, ValueError) as exc:
        return unreadable(name, dataset.shape or (), "h5py", f"{type(exc).__name__}: {exc}")


def _describe(name: str, dataset: h5py.Dataset) -> FieldLayout:
    """Return one dataset's layout and the path on which its rows will be read."""
    plist = dataset.id.get_create_plist()
    codecs = tuple(_codec(plist.get_filter(i)) for i in range(plist.get_nfilters()))
    stored = dataset.dtype
    reason = _reason_for_fallback(dataset, plist, codecs)
    path: ReadPath = "h5py" if reason else "direct"
    shape = dataset.shape if dataset.shape is not None else ()
    return FieldLayout(
        name=name,
        shape=shape,
        dtype=native(stored),
        stored_dtype=stored,
        chunks=dataset.chunks if shape else None,
        codecs=codecs,
        read_path=path,
        reason=reason,
        fill=np.asarray(dataset.fillvalue, dtype=stored).tobytes() if path == "direct" else b"",
    )


def _codec(entry: tuple[int, int, tuple[int, ...], bytes]) -> Codec:
    number, _, values, _ = entry
    name = _FILTER_NAMES.get(number, f"filter-{number}")
    if name == "deflate":
        return Codec(name, level=values[0])
    if name == "shuffle":
        return Codec(name, item_bytes=values[0])
    return Codec(name)


def _reason_for_fallback(dataset: h5py.Dataset, plist: Any, codecs: tuple[Codec, ...]) -> str:
    """Return why h5py must read this dataset; empty when its bytes can be read directly."""
    dtype = dataset.dtype
    if dtype.kind not in "biuf":
        return f"dtype {dtype.name}"
    if not dataset.id.get_type().equal(h5py.h5t.py_create(dtype, logical=True)):
        return f"stored type is not {dtype.name} bit for bit"
    if not dataset.shape:
        return "not an array of rows"
    layout = plist.get_layout()
    if layout == h5py.h5d.CONTIGUOUS:
        if plist.get_external_count():
            return "raw data in external files"
        if dataset.id.get_offset() is None:
            return "no storage allocated"
        return ""
    if layout != h5py.h5d.CHUNKED:
        return "virtual dataset" if layout == h5py.h5d.VIRTUAL else "compact layout"
    unknown = [c.name for c in codecs if c.name not in _DIRECT_FILTERS]
    if unknown:
        return f"filter {unknown[0]}"
    sizes_ok = all(c.item_bytes == dtype.itemsize for c in codecs if c.name == "shuffle")
    return "" if sizes_ok else "shuffle filter with another item size"


class ChunkTable:
    """Byte addresses of all chunks of one dataset: three flat arrays, 20 bytes a chunk at most."""

    __slots__ = ("_masks", "_offsets", "_path", "_sizes")

    def __init__(
        self,
        path: str,
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        masks: NDArray[np.uint32] | None = None,
    ) -> None:
        self._path = path
        self._offsets = offsets
        self._sizes = sizes
        self._masks = masks

    @classmethod
    def contiguous(cls, path: str, offset: int, nbytes: int) -> ChunkTable:
        """One range that holds the whole field."""
        return cls(path, np.array([offset], np.int64), np.array([nbytes], np.int64))

    @classmethod
    def chunked(cls, path: str, dataset: h5py.Dataset, grid: ChunkGrid) -> ChunkTable:
        """Read the chunk index once; `get_chunk_info` in a loop would be quadratic (kerchunk#331)."""
        corners, offsets, sizes, masks = array("q"), array("q"), array("q"), array("L")

        def note(info: Any) -> None:
            corners.extend(info.chunk_offset)
            offsets.append(info.byte_offset)
            sizes.append(info.size)
            masks.append(info.filter_mask)

        dataset.id.chunk_iter(note)
        all_offsets = np.full(grid.n_chunks, -1, np.int64)
        all_sizes = np.zeros(grid.n_chunks, np.int64)
        all_masks: NDArray[np.uint32] | None = None
        if offsets:
            index = np.asarray(corners, np.int64).reshape(len(offsets), -1) // np.array(grid.chunks)
            inside = (index < np.array(grid.counts)).all(axis=1)  # a shrunk dataset may keep chunks beyond its shape
            flat = np.ravel_multi_index(tuple(index[inside].T), grid.counts)
            all_offsets[flat] = np.asarray(offsets, np.int64)[inside]
            all_sizes[flat] = np.asarray(sizes, np.int64)[inside]
            if any(masks):
                all_masks = np.zeros(grid.n_chunks, np.uint32)
                all_masks[flat] = np.asarray(masks, np.uint32)[inside]
        return cls(path, all_offsets, all_sizes, all_masks)

    def check_against_file(self, where: str) -> None:
        """Raise where a chunk ends behind the end of the file."""
        file_nbytes = os.stat(self._path).st_size
        ends = np.where(self._offsets >= 0, self._offsets + self._sizes, 0)
        if len(ends) and int(ends.max()) > file_nbytes:
            chunk = int(ends.argmax())
            raise StoreFormatError(
                f"{where}: chunk {chunk} ends at byte {int(ends[chunk])}, but {self._path} has {file_nbytes} bytes; "
                "the file is truncated: copy or write it again"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the index holds."""
        masks = 0 if self._masks is None else self._masks.nbytes
        return self._offsets.nbytes + self._sizes.nbytes + masks

    @property
    def max_stored_nbytes(self) -> int | None:
        """Size of the largest stored chunk."""
        return int(self._sizes.max()) if len(self._sizes) else 0

    def find(self, chunk: int) -> ByteRange | None:
        """Return where a chunk's bytes lie, or None where it was never written."""
        offset = int(self._offsets[chunk])
        if offset < 0:
            return None
        skipped = 0 if self._masks is None else int(self._masks[chunk])
        return ByteRange(self._path, offset, int(self._sizes[chunk]), skipped)
