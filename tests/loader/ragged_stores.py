"""Stores of random ragged and sparse rows, written by h5py and zarr themselves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray


@dataclass
class RaggedRows:
    """Rows of several lengths, as values and offsets."""

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, lengths: Any, dtype: Any = "int32", item_shape: tuple[int, ...] = (), seed: int = 0) -> "RaggedRows":
        """Return rows of random items that are not zero."""
        offsets = np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))]).astype(np.int64)
        items = np.random.default_rng(seed).integers(1, 120, (int(offsets[-1]), *item_shape))
        return cls(items.astype(dtype), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, number: int) -> NDArray[Any]:
        """Return one row."""
        return self.values[self.offsets[number] : self.offsets[number + 1]]

    def rows(self, numbers: Any) -> list[NDArray[Any]]:
        """Return some rows."""
        return [self.row(int(n)) for n in numbers]


def write_ragged(
    path: Path, fields: dict[str, Any], chunk: int = 1000, offsets_chunk: int = 100, gzip: bool = True
) -> Path:
    """Write fields, ragged ones as groups of values and offsets, to a new HDF5 file or Zarr store."""
    root: Any = h5py.File(path, "w") if path.suffix == ".h5" else zarr.open_group(path, mode="w")
    for name, rows in fields.items():
        if not isinstance(rows, RaggedRows):
            _write(root, name, np.asarray(rows), None, False)
            continue
        group = root.create_group(name)
        group.attrs["oocload_encoding"] = "ragged"
        group.attrs["oocload_encoding_version"] = 1
        _write(group, "values", rows.values, chunk, gzip)
        _write(group, "offsets", rows.offsets, offsets_chunk, gzip)
    if isinstance(root, h5py.File):
        root.close()
    return path


def write_csr(path: Path, matrix: Any, name: str = "X", chunk: int = 1000, **more: Any) -> Path:
    """Write a sparse matrix as anndata does (its "On-disk format"), with other fields beside it."""
    root: Any = h5py.File(path, "w") if path.suffix in (".h5", ".h5ad") else zarr.open_group(path, mode="w")
    group = root.create_group(name)
    group.attrs["encoding-type"] = "csr_matrix"
    group.attrs["encoding-version"] = "0.1.0"
    group.attrs["shape"] = [int(n) for n in matrix.shape]
    for part in ("data", "indices", "indptr"):
        _write(group, part, getattr(matrix, part), chunk, True)
    for field, rows in more.items():
        _write(root, field, np.asarray(rows), None, False)
    if isinstance(root, h5py.File):
        root.close()
    return path


def _write(group: Any, name: str, array: NDArray[Any], chunk: int | None, gzip: bool) -> None:
    chunks = None if chunk is None or not len(array) else (max(1, min(chunk, len(array))), *array.shape[1:])
    if isinstance(group, h5py.Group):
        codec = {"compression": "gzip", "shuffle": True} if gzip and chunks else {}
        group.create_dataset(name, data=array, chunks=chunks, **codec)
        return
    made = group.create_array(
        name, shape=array.shape, dtype=array.dtype, chunks=chunks or tuple(max(1, n) for n in array.shape),
        compressors="auto" if gzip else None,
    )  # fmt: skip
    made[...] = array


def padded(
    rows: list[NDArray[Any]], width: int, pad: Any, dtype: Any, item_shape: tuple[int, ...] = ()
) -> NDArray[Any]:
    """Pad rows one by one, as `pad` says."""
    out = np.full((len(rows), width, *item_shape), pad.value, dtype)
    for place, row in zip(out, rows, strict=True):
        if pad.maxlen is not None and len(row) > pad.maxlen:
            row = row[-pad.maxlen :] if pad.truncating == "pre" else row[: pad.maxlen]
        if len(row):
            place[slice(width - len(row), width) if pad.padding == "pre" else slice(0, len(row))] = row
    return out
