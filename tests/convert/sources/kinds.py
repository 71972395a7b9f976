"""One small source of every kind, and the rows that it has."""

from __future__ import annotations

import csv
import gzip
import io
import struct
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import scipy.sparse
import zarr

import oocload
from oocload.convert.ragged import RaggedRows
from oocload.sources import RowsSource, TFRecordSource
from tests.convert.sources import tfrecords

N_ROWS = 101
X = np.random.default_rng(0).integers(0, 200, (N_ROWS, 5, 3)).astype("int32")
Y = np.arange(N_ROWS, dtype="int64")
LENGTHS = np.random.default_rng(1).integers(0, 9, N_ROWS)
LENGTHS[[7, 50]] = 0, 90
ROWS = [np.arange(n, dtype="int32") + i for i, n in enumerate(LENGTHS)]
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
MATRIX = scipy.sparse.random(N_ROWS, 40, 0.1, "csr", np.float32, np.random.default_rng(2))
ENCODING = {"oocload_encoding": "ragged", "oocload_encoding_version": 1}

Expected = dict[str, list[np.ndarray]]


def idx(path: Path, array: np.ndarray, zipped: bool) -> Path:
    code = {"u1": 8, "i2": 11, "i4": 12}[array.dtype.str[1:]]
    data = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    data += array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(data) if zipped else data)
    return path


def npy(folder: Path) -> tuple[Any, Expected]:
    np.save(folder / "x.npy", X)
    np.save(folder / "f.npy", np.asfortranarray(X.astype(">i4")))
    return {"x": folder / "x.npy", "f": folder / "f.npy"}, {"x": [*X], "f": [*X]}


def npz(folder: Path) -> tuple[Any, Expected]:
    np.savez_compressed(folder / "a.npz", x=X, f=np.asfortranarray(X), y=Y)
    return folder / "a.npz", {"x": [*X], "f": [*X], "y": [*Y]}


def idx_plain(folder: Path) -> tuple[Any, Expected]:
    return idx(folder / "x-idx", X, zipped=False), {"x": [*X]}


def idx_gzip(folder: Path) -> tuple[Any, Expected]:
    source = {"x": idx(folder / "x.gz", X, True), "y": idx(folder / "y.gz", Y.astype("i2"), True)}
    return source, {"x": [*X], "y": [*Y]}


def hdf5(folder: Path, name: str = "s.h5", part: slice = slice(None)) -> tuple[Any, Expected]:
    n = len(X[part])
    with h5py.File(folder / name, "w") as file:
        file.create_dataset("x", data=X[part], chunks=(min(13, n), 2, 3), compression="gzip", shuffle=True)
        file.create_dataset("big", data=X[part].astype(">i4"), chunks=(min(9, n), 5, 3), compression="gzip")
        file.create_dataset("y", data=Y[part])
        group = file.create_group("t")
        group.attrs.update(ENCODING)
        offsets = np.concatenate([[0], np.cumsum(LENGTHS[part])])
        group.create_dataset("values", data=np.concatenate(ROWS[part]), maxshape=(None,), chunks=(17,))
        group.create_dataset("offsets", data=offsets, maxshape=(None,), chunks=(10,), compression="gzip")
    return folder / name, expected(part)


def zarr_store(folder: Path, name: str = "s.zarr", part: slice = slice(None)) -> tuple[Any, Expected]:
    root = zarr.open_group(folder / name, mode="w")
    root.create_array("x", data=X[part], chunks=(7, 5, 3), shards=(21, 5, 3))
    root.create_array("big", data=X[part], chunks=(4, 5, 1))
    root.create_array("y", data=Y[part], chunks=(50,))
    group = root.create_group("t", attributes=ENCODING)
    group.create_array("values", data=np.concatenate(ROWS[part]), chunks=(23,))
    group.create_array("offsets", data=np.concatenate([[0], np.cumsum(LENGTHS[part])]), chunks=(64,))
    return folder / name, expected(part)


def joined(folder: Path) -> tuple[Any, Expected]:
    parts = [slice(0, 30), slice(30, 31), slice(31, 80), slice(80, N_ROWS)]
    makers = [hdf5, zarr_store, hdf5, zarr_store]
    ends = ["h5", "zarr", "h5", "zarr"]
    paths = [make(folder, f"{i}.{e}", p)[0] for i, (make, e, p) in enumerate(zip(makers, ends, parts, strict=True))]
    return paths, expected()


def glob(folder: Path) -> tuple[Any, Expected]:
    for i in range(11):
        hdf5(folder, f"part-{i}.h5", slice(i * 10, min(N_ROWS, i * 10 + 10)))
    return f"{folder}/part-*.h5", expected()


def opened(folder: Path) -> tuple[Any, Expected]:
    path, rows = hdf5(folder)
    return oocload.open(path), rows


def vlen(folder: Path) -> tuple[Any, Expected]:
    with h5py.File(folder / "v.h5", "w") as file:
        held = file.create_dataset("t", (N_ROWS,), h5py.vlen_dtype("i4"), chunks=(8,), compression="gzip")
        for i, row in enumerate(ROWS):
            if len(row):
                held[i] = row
        file["y"] = Y
    return folder / "v.h5", {"t": ROWS, "y": [*Y]}


def text(folder: Path) -> tuple[Any, Expected]:
    words = [f"{'Ö' * (i % 3)} {i}" if i % 7 else "" for i in range(N_ROWS)]
    with h5py.File(folder / "w.h5", "w") as file:
        file.create_dataset("t", data=words, chunks=(8,), compression="gzip")
        file["y"] = Y
    return folder / "w.h5", {"t": [np.frombuffer(word.encode(), "u1") for word in words], "y": [*Y]}


def csr(folder: Path) -> tuple[Any, Expected]:
    with h5py.File(folder / "a.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": MATRIX.shape})
        group.create_dataset("data", data=MATRIX.data, chunks=(11,), compression="gzip")
        group.create_dataset("indices", data=MATRIX.indices, chunks=(32,), compression="gzip")
        group.create_dataset("indptr", data=MATRIX.indptr, chunks=True, compression="gzip")
    return f"{folder}/a.h5ad::X", {"X": [*MATRIX.toarray()]}


def in_memory(folder: Path) -> tuple[Any, Expected]:
    mapped = np.memmap(folder / "m.bin", X.dtype, "w+", shape=X.shape)
    mapped[:] = X
    fortran = np.memmap(folder / "f.bin", X.dtype, "w+", shape=X.shape, order="F")
    fortran[:] = X
    source = {"x": X, "y": Y.tolist(), "mapped": mapped, "half": mapped[:, ::2], "t": ROWS, "s": MATRIX}
    source |= {"pair": (np.concatenate(ROWS), OFFSETS), "f": fortran}
    rows = {"x": [*X], "y": [*Y], "mapped": [*X], "half": [*X[:, ::2]], "t": ROWS, "pair": ROWS, "f": [*X]}
    return source, {**rows, "s": [*MATRIX.toarray()]}


def zarr_array(folder: Path) -> tuple[Any, Expected]:
    path, _ = zarr_store(folder)
    return {"x": zarr.open_group(path, mode="r")["x"], "y": Y}, {"x": [*X], "y": [*Y]}


class Batches:
    """Batches of uneven lengths, of every kind of rows."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for i in range(0, N_ROWS, 9):
            part = slice(i, i + 9)
            values, lengths = np.concatenate(ROWS[part]), LENGTHS[part]
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            pair = (values, offsets) if i % 2 else RaggedRows(values, offsets)
            yield {"x": X[part], "y": Y[part].tolist(), "t": ROWS[part], "pair": pair, "s": MATRIX[part]}


def batches(folder: Path) -> tuple[Any, Expected]:
    rows: Expected = {"x": [*X], "y": [*Y], "t": ROWS, "pair": ROWS, "s": [*MATRIX.toarray()]}
    return Batches(), rows


def utf8(words: list[str]) -> list[np.ndarray]:
    return [np.frombuffer(word.encode(), np.uint8) for word in words]


def npy_folder(folder: Path) -> tuple[Any, Expected]:
    ids = [f"id-{i}" for i in range(N_ROWS)]
    (folder / "npys").mkdir()
    for i, name in enumerate(ids):
        np.save(folder / f"npys/{name}.npy", X[i])
    source = oocload.sources.NpyFolderSource(
        folder / "npys", labels=dict(zip(ids, Y.tolist(), strict=True)), partition={"a": ids[50:], "b": ids[:20]}
    )
    split = np.repeat(np.array([1, -1, 0], "int8"), [20, 30, N_ROWS - 50])
    return source, {"x": [*X], "y": [*Y], "id": utf8(ids), "split": [*split]}


def npy_folder_ragged(folder: Path) -> tuple[Any, Expected]:
    (folder / "rows").mkdir()
    for i, row in enumerate(ROWS):
        np.save(folder / f"rows/{i}.npy", row)
    ids = [str(i) for i in range(N_ROWS)]
    return oocload.sources.NpyFolderSource(folder / "rows", ragged=True), {"x": ROWS, "id": utf8(ids)}


def images(folder: Path) -> tuple[Any, Expected]:
    pixels = X.astype("u1")
    for i, rows in enumerate(pixels):
        path = folder / "images" / f"{i % 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(imagecodecs.png_encode(rows))
    order = [i for y in range(3) for i in range(y, N_ROWS, 3)]
    ids = utf8([f"{i % 3}/{i}.png" for i in order])
    rows = {"x": [*pixels[order]], "y": [np.int64(i % 3) for i in order], "id": ids}
    return oocload.sources.ImageFolderSource(folder / "images"), rows


def rows_one_by_one(folder: Path) -> tuple[Any, Expected]:
    rows = [{"x": x, "y": int(y), "t": t} for x, y, t in zip(X, Y, ROWS, strict=True)]
    return RowsSource(rows, ragged=["t"]), {"x": [*X], "y": [*Y], "t": ROWS}


def expected(part: slice = slice(None)) -> Expected:
    return {"x": [*X[part]], "big": [*X[part]], "y": [*Y[part]], "t": ROWS[part]}


def tfrecord_files(folder: Path) -> tuple[Any, Expected]:
    records = [{"x": x.tobytes(), "y": y, "t": t} for x, y, t in zip(X, Y, ROWS, strict=True)]
    paths = [
        tfrecords.write(folder / f"{i}.tfrecord", records[i * 40 : i * 40 + 40], c)
        for i, c in enumerate(("", "GZIP", ""))
    ]
    features = {"x": ((5, 3), "int32"), "y": "int64", "t": (None, "int32")}
    return TFRecordSource(paths, features=features), {"x": [*X], "y": [*Y], "t": ROWS}


def webdataset(folder: Path) -> tuple[Any, Expected]:
    for part in range(0, N_ROWS, 40):
        with tarfile.open(folder / f"{part:03d}.tar", "w") as tar:
            for i in range(part, min(N_ROWS, part + 40)):
                npy = io.BytesIO()
                np.save(npy, X[i])
                for ending, data in (("npy", npy.getvalue()), ("cls", str(Y[i]).encode())):
                    info = tarfile.TarInfo(f"{i}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    ids = [np.frombuffer(str(i).encode(), np.uint8) for i in range(N_ROWS)]
    return f"{folder}/*.tar", {"id": ids, "y": [*Y], "x": [*X]}


def csv_files(folder: Path) -> tuple[Any, Expected]:
    words = [f"word {i}, and more\n" for i in range(N_ROWS)]
    for part in range(3):
        with open(folder / f"{part}.csv", "w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["a", "b", "s"])
            lines.writerows(zip(X[part::3, 0, 0], X[part::3, 0, 1], words[part::3], strict=True))
    order = [i for part in range(3) for i in range(part, N_ROWS, 3)]
    source = oocload.sources.CsvSource(f"{folder}/*.csv", features=["a", "b"])
    return source, {"x": [*X[order, 0, :2].astype("f4")], "s": utf8([words[i] for i in order])}


def parquet(folder: Path) -> tuple[Any, Expected]:
    import pyarrow
    from pyarrow import parquet

    tensors = pyarrow.FixedShapeTensorArray.from_numpy_ndarray(X)
    table = pyarrow.table({"x": tensors, "y": Y, "t": [row.tolist() for row in ROWS]})
    table = table.set_column(2, "t", table["t"].cast(pyarrow.list_(pyarrow.int32())))
    parquet.write_table(table, folder / "a.parquet", row_group_size=40)
    return folder / "a.parquet", {"x": [*X], "y": [*Y], "t": ROWS}


Kind = Callable[[Path], tuple[Any, Expected]]
FILES: list[Kind] = [npy, npz, idx_plain, idx_gzip, hdf5, zarr_store, joined, glob, opened, vlen, text, csr]
RECORDS: list[Kind] = [npy_folder, npy_folder_ragged, tfrecord_files, webdataset, images, csv_files, parquet]
FILES += RECORDS
KINDS: list[Kind] = [*FILES, in_memory, zarr_array, batches, rows_one_by_one]


def rows_of(batch: Mapping[str, Any]) -> Expected:
    """Return field → rows of a batch, one by one."""
    return {name: list(_each(rows)) for name, rows in batch.items()}


def _each(rows: Any) -> Iterator[np.ndarray]:
    if isinstance(rows, RaggedRows):
        for first, last in zip(rows.offsets[:-1], rows.offsets[1:], strict=True):
            if rows.columns is None:
                yield rows.values[first:last]
                continue
            dense = np.zeros(MATRIX.shape[1], rows.values.dtype)
            dense[rows.columns[first:last]] = rows.values[first:last]
            yield dense
    elif isinstance(rows, tuple):
        yield from _each(RaggedRows(rows[0], rows[1]))
    elif scipy.sparse.issparse(rows):
        yield from rows.toarray()
    else:
        yield from rows


def gather(all_batches: Iterator[Mapping[str, Any]]) -> Expected:
    """Return field → all rows."""
    found: Expected = {}
    for batch in all_batches:
        each = rows_of(batch)
        assert len({len(rows) for rows in each.values()}) == 1
        for name, rows in each.items():
            found.setdefault(name, []).extend(np.array(row) for row in rows)
    return found


def assert_rows(got: Expected, wanted: Expected) -> None:
    assert got.keys() == wanted.keys()
    for name, rows in wanted.items():
        assert len(got[name]) == len(rows), name
        assert all(np.array_equal(a, b) for a, b in zip(got[name], rows, strict=True)), name
