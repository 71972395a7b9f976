"""One ``.npy`` file per sample: oocload beside the loop that people write, for `convert.py`.

The loop is the classic recipe's, made to write chunks: `np.load` of each ID, a stack of as many as make a chunk, one
assignment to the dataset. All write the same chunks by the same codec, labels too; sources are in the page cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from conversions import GZIP_LEVEL, ZSTD_LEVEL, Case
from datasets import DATASETS
from zarr.codecs import ZstdCodec

import oocload

SOURCE = "samples"
N_FILES, QUICK_FILES = 8000, 300
_CHUNK_NBYTES = 2**19
_DATASET = DATASETS["images"]


def write_source(folder: Path, n_files: int) -> np.ndarray:
    """Write samples and their labels, and return the rows in the order of their ids."""
    rows = _DATASET.make(n_files)
    samples = folder / SOURCE
    samples.mkdir()
    for number, row in enumerate(rows):
        np.save(samples / f"id-{number}.npy", row)
    (samples / "labels.json").write_text(json.dumps({f"id-{n}": n % 10 for n in range(n_files)}))
    return rows


def by_h5py(source: Path, target: Path) -> None:
    ids, labels = _recipe(source)
    with h5py.File(target, "w") as file:
        shape, dtype, chunks = _described(source, ids)
        options: dict[str, Any] = {"compression": "gzip", "compression_opts": GZIP_LEVEL}
        x = file.create_dataset("x", shape, dtype, chunks=chunks, **options)
        for start, rows in _stacks(source, ids, chunks[0]):
            x[start : start + len(rows)] = rows
        file["y"] = np.array([labels[name] for name in ids])


def by_zarr(source: Path, target: Path) -> None:
    ids, labels = _recipe(source)
    shape, dtype, chunks = _described(source, ids)
    group = zarr.open_group(target, mode="w")
    zstd = ZstdCodec(level=ZSTD_LEVEL)
    x = group.create_array("x", shape=shape, dtype=dtype, chunks=chunks, compressors=zstd)
    for start, rows in _stacks(source, ids, chunks[0]):
        x[start : start + len(rows)] = rows
    group.create_array("y", data=np.array([labels[name] for name in ids]))


def by_oocload(source: Path, target: Path) -> None:
    zipped = target.suffix == ".h5"
    options: dict[str, Any] = {} if zipped else {"chunks_per_shard": 1}
    oocload.convert(
        source,
        target,
        codec="gzip" if zipped else "zstd",
        level=GZIP_LEVEL if zipped else ZSTD_LEVEL,
        chunk_rows=_chunk_rows(_DATASET.row_nbytes),
        progress=False,
        **options,
    )


def cases() -> dict[str, Case]:
    """Return question → its case."""
    return {
        "npy folder to HDF5 gzip": Case(SOURCE, "out.h5", {"oocload": by_oocload, "np.load and h5py": by_h5py}),
        "npy folder to Zarr zstd": Case(SOURCE, "out.zarr", {"oocload": by_oocload, "np.load and zarr": by_zarr}),
    }


def _recipe(source: Path) -> tuple[list[str], dict[str, int]]:
    """Return the ids, in the order of the labels, and the labels."""
    labels = json.loads((source / "labels.json").read_text())
    return list(labels), labels


def _described(source: Path, ids: list[str]) -> tuple[tuple[int, ...], np.dtype[Any], tuple[int, ...]]:
    first = np.load(source / f"{ids[0]}.npy")
    return (len(ids), *first.shape), first.dtype, (_chunk_rows(first.nbytes), *first.shape)


def _stacks(source: Path, ids: list[str], height: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(ids), height):
        yield start, np.stack([np.load(source / f"{name}.npy") for name in ids[start : start + height]])


def _chunk_rows(row_nbytes: int) -> int:
    return max(1, _CHUNK_NBYTES // row_nbytes)
