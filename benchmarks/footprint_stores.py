"""Stores of any size for the footprint: images that are made and compressed once, and written again and again."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np
import zarr
from datasets import IMAGE_SHAPE, make_images
from zarr.codecs import ZstdCodec

CHUNK_ROWS = 256
_N_CHUNKS = 16  # that differ
_ROW_NBYTES = 64 * 64 * 3


def rows_of(nbytes: int) -> int:
    """Return how many images a store of about so many bytes has: whole chunks."""
    return max(1, nbytes // (CHUNK_ROWS * _ROW_NBYTES)) * CHUNK_ROWS


def write_stores(folder: Path, n_rows: int, names: Collection[str]) -> None:
    """Write those that are named of `STORES`, each with the same images as ``x``."""
    n_chunks = n_rows // CHUNK_ROWS
    images = make_images(min(_N_CHUNKS, n_chunks) * CHUNK_ROWS)
    chunks = images.reshape(-1, CHUNK_ROWS, *IMAGE_SHAPE)
    for name in names:
        STORES[name](folder / name, chunks, n_chunks)


def _write_npy(path: Path, chunks: np.ndarray, n_chunks: int) -> None:
    shape = (n_chunks * CHUNK_ROWS, *IMAGE_SHAPE)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for number in range(n_chunks):
            file.write(chunks[number % len(chunks)])


def _write_hdf5(path: Path, chunks: np.ndarray, n_chunks: int) -> None:
    shape = (CHUNK_ROWS, *IMAGE_SHAPE)
    with h5py.File(path, "w") as file:
        few = file.create_dataset("few", data=np.concatenate(chunks), chunks=shape, compression="gzip")
        stored = [few.id.read_direct_chunk((n * CHUNK_ROWS, 0, 0, 0))[1] for n in range(len(chunks))]
        del file["few"]
        x = file.create_dataset("x", (n_chunks * CHUNK_ROWS, *IMAGE_SHAPE), "u1", chunks=shape, compression="gzip")
        for number in range(n_chunks):
            x.id.write_direct_chunk((number * CHUNK_ROWS, 0, 0, 0), stored[number % len(chunks)])


def _write_zarr(path: Path, chunks: np.ndarray, n_chunks: int) -> None:
    group = zarr.open_group(path, mode="w")
    shape = (n_chunks * CHUNK_ROWS, *IMAGE_SHAPE)
    x = group.create_array(
        "x", shape=shape, dtype="u1", chunks=(CHUNK_ROWS, *IMAGE_SHAPE), compressors=ZstdCodec(level=1)
    )
    x[: len(chunks) * CHUNK_ROWS] = np.concatenate(chunks)
    for number in range(len(chunks), n_chunks):
        file = path / "x" / "c" / str(number) / "0" / "0" / "0"
        file.parent.mkdir(parents=True)
        shutil.copyfile(path / "x" / "c" / str(number % len(chunks)) / "0" / "0" / "0", file)


# gzip in HDF5, zstd in Zarr
STORES = {"images.npy": _write_npy, "images.h5": _write_hdf5, "images.zarr": _write_zarr}
