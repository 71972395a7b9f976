"""Items of every kind come out as h5py, zarr and NumPy give them, through whole loaders."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

import oocload
from oocload.stores.base import direct_path_enabled


def epoch(path: Path, **options: Any) -> np.ndarray:
    """Return the field ``x`` of a store, read in shuffled batches and put back in order."""
    with oocload.Loader(path, 7, x="x", **options) as loader:
        numbers = np.concatenate([loader.batch_rows(i) for i in range(len(loader))])
        rows = [x.copy() for x in loader]
    return np.concatenate(rows)[np.argsort(numbers)]


def read_path(path: Path) -> str:
    with oocload.open(path) as store:
        return store.fields["x"].read_path


@pytest.mark.parametrize("chunks", [None, (4,)])
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (h5py.string_dtype(), "text of any length ⚑"),
        (h5py.string_dtype("ascii"), "text"),
        (h5py.vlen_dtype("<i4"), np.arange(5, dtype="i4")),
    ],
)
def test_variable_length_items(tmp_path: Path, dtype: Any, value: Any, chunks: Any) -> None:
    with h5py.File(tmp_path / "v.h5", "w") as file:
        d = file.create_dataset("x", (20,), dtype, chunks=chunks)
        for i in range(0, 20, 2):
            d[i] = value[: i % 6] if i % 3 else value
        expected = d[...]
    got = epoch(tmp_path / "v.h5", seed=1)
    assert got.dtype == object
    for a, b in zip(got, expected, strict=True):
        assert type(a) is type(b)
        assert np.array_equal(a, b)
    assert read_path(tmp_path / "v.h5") == "h5py"


def test_variable_length_text_in_zarr(tmp_path: Path) -> None:
    texts = np.array([f"line {i}" * (i % 4) for i in range(30)], dtype=object)
    for version in (2, 3):
        group = zarr.open_group(tmp_path / "t.zarr", mode="w", zarr_format=version)
        group.create_array("x", shape=(30,), chunks=(8,), dtype=str)[:] = texts
        assert epoch(tmp_path / "t.zarr", seed=1).tolist() == texts.tolist()


def test_text_beside_arrays_counts_against_the_ceiling(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("x", data=np.arange(40_000).reshape(20_000, 2), chunks=(100, 2), compression="gzip")
        file["text"] = np.array(["x" * 1000] * 20_000, dtype=h5py.string_dtype())
    with oocload.Loader(tmp_path / "v.h5", 100, x=["x", "text"], memory="8 MiB", seed=0) as loader:
        batch = next(iter(loader))
        assert batch["text"].shape == (100,)
        assert batch["text"][0] == b"x" * 1000
        assert loader.window_rows * 1000 < 4 * 2**20
        del batch
        assert sum(len(b["text"]) for b in loader) == 20_000


def test_items_that_are_arrays(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        d = file.create_dataset("x", (20,), np.dtype(("<i4", (3, 2))), chunks=(6,))
        d[...] = np.arange(120).reshape(20, 3, 2)
    assert np.array_equal(epoch(tmp_path / "a.h5"), np.arange(120).reshape(20, 3, 2))


def test_fixed_text_padded_in_other_ways(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        for padding in (h5py.h5t.STR_SPACEPAD, h5py.h5t.STR_NULLTERM):
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(6)
            kind.set_strpad(padding)
            h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((10,)))
            file["x"][...] = np.array([b"a", b"bc ", b"def  "] * 3 + [b""])
            expected = file["x"][...]
            file.flush()
            assert epoch(tmp_path / "s.h5").tolist() == expected.tolist()
            del file["x"]


def test_datetimes_and_enums(tmp_path: Path) -> None:
    times = np.array(["2020-01-01", "NaT", "1969-12-31"] * 5, "M8[ms]")
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["x"] = times.astype(h5py.opaque_dtype(times.dtype))
    got = epoch(tmp_path / "t.h5")
    assert got.dtype == times.dtype
    assert np.array_equal(got, times, equal_nan=True)
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file.create_dataset("x", data=np.arange(15) % 3, dtype=h5py.enum_dtype({"a": 0, "b": 1, "c": 2}, ">i2"))
    got = epoch(tmp_path / "e.h5")
    assert got.dtype == np.dtype("i2")
    assert got.tolist() == (np.arange(15) % 3).tolist()
    if direct_path_enabled():
        assert read_path(tmp_path / "t.h5") == read_path(tmp_path / "e.h5") == "direct"


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("fill", [1.5, "0x3fc0"])
def test_bfloat16_as_tensorstore_writes_it(tmp_path: Path, endian: str, fill: Any) -> None:
    """zarr-python has no such type; the other arrays of the group are read all the same."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rows = np.arange(24).reshape(8, 3).astype(ml_dtypes.bfloat16)
    metadata: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [10, 3],
        "data_type": "bfloat16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 3]}},
        "chunk_key_encoding": {"name": "default"},
        "codecs": [{"name": "bytes", "configuration": {"endian": endian}}],
        "fill_value": fill,
    }
    group = zarr.open_group(tmp_path / "b.zarr", mode="w")
    group.create_array("y", data=np.arange(10))
    (tmp_path / "b.zarr" / "x" / "c").mkdir(parents=True)
    (tmp_path / "b.zarr" / "x" / "zarr.json").write_text(json.dumps(metadata))
    for i in range(2):
        (tmp_path / "b.zarr" / "x" / "c" / str(i)).mkdir()
        bits = rows[4 * i : 4 * i + 4].view("<u2").astype("<u2" if endian == "little" else ">u2")
        (tmp_path / "b.zarr" / "x" / "c" / str(i) / "0").write_bytes(bits.tobytes())
    got = epoch(tmp_path / "b.zarr")
    assert got.dtype == ml_dtypes.bfloat16
    assert np.array_equal(got[:8], rows)
    assert (got[8:] == 1.5).all()
    with oocload.Loader(tmp_path / "b.zarr", 10) as loader:
        x, y = next(iter(loader))
        assert np.array_equal(y[np.argsort(y)], np.arange(10))
    if direct_path_enabled():
        assert read_path(tmp_path / "b.zarr") == ("direct" if endian == "little" else "zarr")
