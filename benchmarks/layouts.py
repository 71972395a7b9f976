"""The ways to store an array, each written by h5py, zarr or NumPy itself; oocload writes none of them.

Layouts that need hdf5plugin are left out where it is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import zarr
from datasets import Dataset
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

try:
    import hdf5plugin
except ImportError:
    hdf5plugin = None

_Write = Callable[[Path, np.ndarray, Dataset, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Layout:
    """A way to store an array; its name begins with its format."""

    name: str
    suffix: str
    write_to: _Write
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def raw(self) -> bool:
        return "raw" in self.name or self.name == "HDF5 contiguous"

    @property
    def zarr_format(self) -> int | None:
        return int(self.name[6]) if self.name.startswith("Zarr v") else None

    def write(self, folder: Path, array: np.ndarray, dataset: Dataset) -> Path:
        """Write the array as field ``x`` and return where it lies."""
        path = folder / f"{dataset.name}{self.suffix}"
        self.write_to(path, array, dataset, self.options)
        return path


def _contiguous(path: Path, array: np.ndarray, dataset: Dataset, options: Mapping[str, Any]) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=array, **options)


def _chunked(path: Path, array: np.ndarray, dataset: Dataset, options: Mapping[str, Any]) -> None:
    chunks = (min(dataset.chunk_rows, len(array)), *dataset.row_shape)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=array, chunks=chunks, **options)


def _zarr(version: int, sharded: bool = False) -> _Write:
    def write(path: Path, array: np.ndarray, dataset: Dataset, options: Mapping[str, Any]) -> None:
        group = zarr.open_group(path, mode="w", zarr_format=version)
        shards = {"shards": dataset.shards} if sharded else {}
        stored = group.create_array(
            "x", shape=array.shape, dtype=array.dtype, chunks=dataset.chunks, **shards, **options
        )
        step = dataset.shards[0]
        for start in range(0, len(array), step):
            stored[start : start + step] = array[start : start + step]

    return write


def _npy(path: Path, array: np.ndarray, dataset: Dataset, options: Mapping[str, Any]) -> None:
    np.save(path, array)


def _hdf5_layouts() -> list[Layout]:
    chunked = {
        "raw chunks": {},
        "gzip-4": {"compression": "gzip"},
        "shuffle+gzip-4": {"compression": "gzip", "shuffle": True},
        "lzf": {"compression": "lzf"},
    }
    if hdf5plugin is not None:
        chunked["blosc-lz4"] = hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.BITSHUFFLE)
        chunked["zstd"] = hdf5plugin.Zstd(clevel=1)
        chunked["bitshuffle-lz4"] = hdf5plugin.Bitshuffle(cname="lz4")
    contiguous = Layout("HDF5 contiguous", ".h5", _contiguous)
    return [contiguous, *(Layout(f"HDF5 {codec}", ".h5", _chunked, options) for codec, options in chunked.items())]


def _zarr_layouts() -> list[Layout]:
    v2 = {
        "raw": None,
        "gzip-4": numcodecs.GZip(4),
        "blosc-lz4": numcodecs.Blosc("lz4", shuffle=numcodecs.Blosc.BITSHUFFLE),
        "zstd": numcodecs.Zstd(1),
    }
    v3 = {
        "raw": None,
        "gzip-4": GzipCodec(level=4),
        "blosc-lz4": BloscCodec(cname="lz4", shuffle="bitshuffle"),
        "zstd": ZstdCodec(level=1),
    }
    kinds = [("Zarr v2", _zarr(2), v2), ("Zarr v3", _zarr(3), v3), ("Zarr v3 sharded", _zarr(3, sharded=True), v3)]
    return [
        Layout(f"{kind} {name}", ".zarr", write, {"compressors": codec})
        for kind, write, codecs in kinds
        for name, codec in codecs.items()
    ]


LAYOUTS = [*_hdf5_layouts(), *_zarr_layouts(), Layout("npy raw", ".npy", _npy)]


def map_rows(path: Path) -> np.memmap | None:
    """Return the rows of a file mapped into memory, or None where they do not lie in it in one piece."""
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r")
    if path.suffix != ".h5":
        return None
    with h5py.File(path) as file:
        rows = file["x"]
        if rows.chunks is not None:
            return None
        offset, shape, dtype = rows.id.get_offset(), rows.shape, rows.dtype
    return np.memmap(path, dtype, "r", offset, shape)


def files_of(path: Path) -> list[Path]:
    """Return the file itself, or all files of a directory."""
    return [p for p in sorted(path.rglob("*")) if p.is_file()] if path.is_dir() else [path]
