"""Checksums for stores that have none yet, of the stored bytes as h5py and zarr find them."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import h5py
import numpy as np
import zarr

import oocload
from oocload.layout import ChunkGrid
from oocload.stores.checksums import (
    ArrayChecksums,
    ChecksumBuilder,
    stored_crc32c,
    write_checksums_hdf5,
    write_checksums_zarr,
    write_list,
)


def add_checksums(path: Path, *, only: str | None = None) -> list[str]:
    """Add a manifest to a store; return the arrays that have one."""
    found = checksums_of(path, only=only)
    with oocload.open(path) as store:
        ragged = {n: f.ragged.n_columns for n, f in store.fields.items() if f.ragged is not None}
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            for name, checksums in found.items():
                write_checksums_hdf5(file[name], checksums)
            write_list(file.attrs, found, ragged)
    else:
        for name, checksums in found.items():
            write_checksums_zarr(path / name, checksums)
        write_list(zarr.open_group(path, mode="a").attrs, found, ragged)
    return sorted(found)


def checksums_of(path: Path, *, only: str | None = None) -> dict[str, ArrayChecksums]:
    """Return array → checksums of the stored bytes that are there."""
    with oocload.open(path) as store:
        arrays = {n: f for n, f in {**store.fields, **store.members}.items() if f.ragged is None and f.chunks}
        facts = {n: ArrayChecksums.describing(f) for n, f in arrays.items() if only in (None, n)}
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return {name: _of_hdf5(file[name], fact) for name, fact in facts.items()}
    group = zarr.open_group(path, mode="r")
    return {name: _of_zarr(group[name], path / name, fact) for name, fact in facts.items()}


def _of_hdf5(dataset: h5py.Dataset, facts: ArrayChecksums) -> ArrayChecksums:
    builder = ChecksumBuilder(facts)
    counts = ChunkGrid(facts.shape, facts.chunks).counts
    for index in range(dataset.id.get_num_chunks()):
        info = dataset.id.get_chunk_info(index)
        mask, stored = dataset.id.read_direct_chunk(info.chunk_offset)
        corner = tuple(c // n for c, n in zip(info.chunk_offset, facts.chunks, strict=True))
        builder.add(int(np.ravel_multi_index(corner, counts)), len(stored), stored_crc32c(bytes(stored), mask))
    return builder.build(facts.shape)


def _of_zarr(array: zarr.Array, folder: Path, facts: ArrayChecksums) -> ArrayChecksums:
    builder = ChecksumBuilder(facts)
    grid = ChunkGrid(facts.shape, facts.chunks)
    for chunk in range(grid.n_chunks):
        stored = stored_by_zarr(array, folder, grid.corner(chunk))
        if stored is not None:
            builder.add(chunk, len(stored[2]), google_crc32c.value(stored[2]))
    return builder.build(facts.shape)


def stored_by_zarr(array: zarr.Array, folder: Path, corner: tuple[int, ...]) -> tuple[Path, int, bytes] | None:
    """Return file, offset and stored bytes of a chunk, by the specification of shards."""
    if array.shards is None:
        file = folder / array.metadata.encode_chunk_key(corner)
        return (file, 0, file.read_bytes()) if file.exists() else None
    per = [s // c for s, c in zip(array.shards, array.chunks, strict=True)]
    file = folder / array.metadata.encode_chunk_key(tuple(i // n for i, n in zip(corner, per, strict=True)))
    if not file.exists():
        return None
    data = file.read_bytes()
    n_within = int(np.prod(per))
    index = np.frombuffer(data[-16 * n_within - 4 : -4], "<u8").reshape(*per, 2)
    offset, nbytes = (int(n) for n in index[tuple(i % n for i, n in zip(corner, per, strict=True))])
    return None if nbytes == 2**64 - 1 else (file, offset, data[offset : offset + nbytes])
