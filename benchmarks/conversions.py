"""The contenders of `convert.py`: each writes the array of a source as the array ``x`` of a new store."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import zarr
from datasets import Dataset
from zarr.codecs import ZstdCodec

import oocload

hdf5_target, journal, pipeline = (import_module(f"oocload.convert.{n}") for n in ("hdf5_target", "journal", "pipeline"))

GZIP_LEVEL, ZSTD_LEVEL = 4, 3
_CHUNK_NBYTES = 2**19
_TASK_CHUNKS = 16  # of dask's larger blocks

Convert = Callable[[Path, Path], object]  # (source, destination) →


@dataclass(frozen=True)
class Case:
    """A source, a target, and who converts the one to the other."""

    source: str
    target: str
    contenders: Mapping[str, Convert]


def cases(dataset: Dataset) -> dict[str, Case]:
    """Return question → its case; contenders whose package is missing are left out."""
    chunks = (chunk_rows(dataset), *dataset.row_shape)
    shuffle = dataset.dtype.itemsize > 1

    def by_h5py(source: Path, target: Path) -> None:
        rows = np.load(source, mmap_mode="r")
        with h5py.File(target, "w") as file:
            options = {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": shuffle}
            x = file.create_dataset("x", rows.shape, rows.dtype, chunks=chunks, **options)
            for start in range(0, len(rows), chunks[0]):
                x[start : start + chunks[0]] = rows[start : start + chunks[0]]

    def by_zarr(source: Path, target: Path, step: int | None = chunks[0]) -> None:
        rows = np.load(source, mmap_mode="r")
        group = zarr.open_group(target, mode="w")
        zstd = ZstdCodec(level=ZSTD_LEVEL)
        x = group.create_array("x", shape=rows.shape, dtype=rows.dtype, chunks=chunks, compressors=zstd)
        for start in range(0, len(rows), step or len(rows)):
            x[start : start + (step or len(rows))] = rows[start : start + (step or len(rows))]

    def by_dask(source: Path, target: Path, n_chunks: int = 1) -> None:
        import dask.array

        with opened(source) as rows:
            blocks = dask.array.from_array(rows, chunks=(n_chunks * chunks[0], *chunks[1:]), name=False)
            zstd = ZstdCodec(level=ZSTD_LEVEL)
            dask.array.to_zarr(blocks, str(target), component="x", chunks=chunks, compressors=zstd)

    def by_oocload(source: Path, target: Path) -> None:
        zipped = target.suffix == ".h5"
        options: dict[str, Any] = {} if zipped else {"chunks_per_shard": 1}
        oocload.convert(
            source,
            target,
            codec="gzip" if zipped else "zstd",
            level=GZIP_LEVEL if zipped else ZSTD_LEVEL,
            chunk_rows=chunks[0],
            progress=False,
            **options,
        )

    dask_ones: dict[str, Convert] = {
        "dask": by_dask,
        f"dask, {_TASK_CHUNKS} chunks a task": lambda source, target: by_dask(source, target, _TASK_CHUNKS),
    }
    if find_spec("dask") is None:
        print("left out, as its package is not installed: dask", flush=True)
        dask_ones = {}
    zarr_ones: dict[str, Convert] = {
        "zarr, chunk by chunk": by_zarr,
        "zarr, whole": lambda source, target: by_zarr(source, target, None),
    }
    proof: dict[str, Convert] = {"without": lambda s, t: without_proof(by_oocload, s, t), "with": by_oocload}
    return {
        "npy to HDF5 gzip": Case("rows.npy", "out.h5", {"oocload": by_oocload, "h5py": by_h5py}),
        "npy to Zarr zstd": Case("rows.npy", "out.zarr", {"oocload": by_oocload, **dask_ones, **zarr_ones}),
        "HDF5 gzip to Zarr zstd": Case("rows.h5", "out.zarr", {"oocload": by_oocload, **dask_ones}),
        "proof, HDF5 gzip": Case("rows.npy", "out.h5", proof),
        "proof, Zarr zstd": Case("rows.npy", "out.zarr", proof),
    }


def chunk_rows(dataset: Dataset) -> int:
    """Return the rows of a chunk of 512 KiB, oocload's default."""
    return max(1, _CHUNK_NBYTES // dataset.row_nbytes)


class _PlainFile(io.FileIO):
    """What h5py writes to where nothing is kept for a crash."""

    def __init__(self, path: Path, log: Path) -> None:
        super().__init__(path, "w+b")

    def check(self) -> None:
        """Raise nothing."""

    def commit(self, note: bytes) -> None:
        """Keep nothing."""

    def abandon(self) -> None:
        """Close as it is."""


def _no_checksum(data: object, skipped: int = 0) -> int:
    return 0


def _note_nothing(journal: object, *record: object) -> None:
    pass


def without_proof(convert: Convert, source: Path, target: Path) -> None:
    """Convert without commits, journal lines and checksums, and with nothing held back for a crash."""
    with (
        mock.patch.object(hdf5_target, "CrashSafeFile", _PlainFile),
        mock.patch.object(pipeline, "stored_crc32c", _no_checksum),
        mock.patch.multiple(pipeline, _COMMIT_SECONDS_LEAST=inf, _COMMIT_SECONDS_MOST=inf),
        mock.patch.object(journal.Journal, "add", _note_nothing),
    ):
        convert(source, target)


@contextmanager
def opened(source: Path) -> Iterator[Any]:
    """Open the array of a source."""
    if source.suffix == ".npy":
        yield np.load(source, mmap_mode="r")
        return
    with h5py.File(source) as file:
        yield file["x"]


def write_sources(folder: Path, dataset: Dataset, rows: np.ndarray) -> None:
    """Write the sources of all cases: a ``.npy`` file, and HDF5 as h5py writes it."""
    np.save(folder / "rows.npy", rows)
    chunks = (chunk_rows(dataset), *dataset.row_shape)
    options = {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": rows.itemsize > 1}
    with h5py.File(folder / "rows.h5", "w") as file:
        file.create_dataset("x", data=rows, chunks=chunks, **options)


def read_back(target: Path) -> np.ndarray:
    """Read what was written with h5py or zarr."""
    if target.suffix == ".h5":
        with h5py.File(target) as file:
            return np.asarray(file["x"][()])
    return np.asarray(zarr.open_array(target / "x", mode="r")[...])


def remove(target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def stored_nbytes(target: Path) -> int:
    files = [target] if target.is_file() else [file for file in target.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
