"""Files that are right and unusual: each was once read wrongly, refused, or took the process down."""

import ctypes
import gzip
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numcodecs
import numpy as np
import pytest
import zarr

import oocload
from oocload.errors import InvalidArgumentError

ROWS = np.arange(200, dtype="<i4").reshape(50, 4)


def read(path: Any, name: str = "x", batch_size: int = 7) -> np.ndarray:
    with oocload.Loader(path, batch_size, x=name, seed=1) as loader:
        numbers = np.concatenate([loader.batch_rows(i) for i in range(len(loader))])
        rows = np.concatenate([x.copy() for x in loader])
    return rows[np.argsort(numbers)]


def virtual(file: h5py.Group, name: str, source: str, dataset: str, rows: np.ndarray) -> None:
    layout = h5py.VirtualLayout(rows.shape, rows.dtype)
    layout[:] = h5py.VirtualSource(source, dataset, rows.shape)
    file.create_virtual_dataset(name, layout)


class TestVirtualDatasets:
    def test_of_a_store_opened_at_a_group(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
            file["a"], file["g/a"] = ROWS, ROWS + 1000
            virtual(file["g"], "x", ".", "/a", ROWS)
        assert np.array_equal(read(f"{tmp_path}/f.h5::g"), ROWS)

    def test_behind_an_external_link(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        with h5py.File(tmp_path / "sub" / "o.h5", "w", libver="latest") as file:
            file["a"] = ROWS
            virtual(file, "v", ".", "/a", ROWS)
        with h5py.File(tmp_path / "m.h5", "w") as file:
            file["a"] = ROWS + 1000
            file["x"] = h5py.ExternalLink("sub/o.h5", "/v")
        assert np.array_equal(read(tmp_path / "m.h5"), ROWS)

    def test_of_files_that_refer_to_each_other(self, tmp_path: Path) -> None:
        for here, there in (("a", "b"), ("b", "a")):
            with h5py.File(tmp_path / f"{here}.h5", "w", libver="latest") as file:
                file["d"] = ROWS
                virtual(file, "x", f"{there}.h5", "d", ROWS)
                virtual(file, "own", f"{here}.h5", "d", ROWS)
        for name in ("x", "own"):
            assert np.array_equal(read(tmp_path / "a.h5", name), ROWS)

    def test_without_rows(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "e.h5", "w", libver="latest") as file:
            file.create_virtual_dataset("empty", h5py.VirtualLayout((0, 3), "f4"))
            file["x"] = ROWS
        assert np.array_equal(read(tmp_path / "e.h5"), ROWS)


@pytest.mark.parametrize("chunks", [None, (8, 4)])
def test_fill_value_that_is_never_written(tmp_path: Path, chunks: Any) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_fill_value(np.array(7, "<i4"))
    if chunks:
        plist.set_chunk(chunks)
    with h5py.File(tmp_path / "n.h5", "w") as file:
        space = h5py.h5s.create_simple(ROWS.shape)
        h5py.h5d.create(file.id, b"x", h5py.h5t.STD_I32LE, space, dcpl=plist)
        expected = file["x"][...]
    assert np.array_equal(read(tmp_path / "n.h5"), expected)


@pytest.mark.parametrize("filters", [{"compression": "gzip"}, {"shuffle": True}, {"fletcher32": True}])
def test_edge_chunks_without_filters(tmp_path: Path, filters: dict[str, Any]) -> None:
    with h5py.File(tmp_path / "e.h5", "w", libver="latest") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((16, 4))
        set_options = ctypes.CDLL(h5py.h5p.__file__).H5Pset_chunk_opts
        set_options.argtypes = [ctypes.c_int64, ctypes.c_uint]
        assert set_options(plist.id, 2) >= 0  # H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS
        file.create_dataset("x", data=ROWS, dcpl=plist, **filters)
    assert np.array_equal(read(tmp_path / "e.h5"), ROWS)


def test_structures_with_text_of_any_length(tmp_path: Path) -> None:
    dtype = np.dtype([("n", "<i4"), ("text", h5py.string_dtype())])
    rows = np.array([(i, f"line {i}" * i) for i in range(20)], dtype)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["x"] = rows
        expected = file["x"][...]
    got = read(tmp_path / "s.h5")
    assert got.dtype == expected.dtype
    assert got.tolist() == expected.tolist()


def test_references_stop_nobody_else(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["x"] = ROWS
        file.create_dataset("refs", data=[file["x"].ref] * 50, dtype=h5py.ref_dtype)
    with oocload.Loader(tmp_path / "r.h5", 7) as loader:
        assert set(next(iter(loader))) == {"refs", "x"}


def test_npy_with_names_in_utf8(tmp_path: Path) -> None:
    rows = np.zeros(10, [("日本", "<i4"), ("b", "<f4")])
    rows["日本"] = np.arange(10)
    with pytest.warns(UserWarning, match="format 3.0"):
        np.save(tmp_path / "u.npy", rows)
    assert read(tmp_path / "u.npy").dtype == rows.dtype


@pytest.mark.parametrize("options", [hdf5plugin.Bitshuffle(cname="lz4"), {"shuffle": True, "compression": "gzip"}])
def test_filters_over_wide_items(tmp_path: Path, options: Any) -> None:
    texts = np.array([f"{i}" * 90 for i in range(40)], "S300")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("x", data=texts, chunks=(16,), **options)
    assert read(tmp_path / "w.h5").tolist() == texts.tolist()


def test_a_delta_that_widens(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "d.zarr", mode="w", zarr_format=2)
    rows = np.arange(100_000, dtype="<i2")
    group.create_array("x", data=rows, chunks=(60_000,), filters=[numcodecs.Delta("<i2", "<i8")], compressors=None)
    assert np.array_equal(read(tmp_path / "d.zarr", batch_size=10_000), rows)


def test_gzip_of_several_members(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "g.zarr", mode="w", zarr_format=2)
    group.create_array("x", data=ROWS, chunks=(50, 4), compressors=numcodecs.GZip(1))
    raw = ROWS.tobytes()
    (tmp_path / "g.zarr" / "x" / "0.0").write_bytes(gzip.compress(raw[:100]) + gzip.compress(raw[100:]))
    assert np.array_equal(read(tmp_path / "g.zarr"), ROWS)


def test_a_mesh_of_links_is_listed_quickly(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["level0/x"] = ROWS
        for level in range(1, 40):
            for name in ("left", "right"):
                file[f"level{level}/{name}"] = h5py.SoftLink(f"/level{level - 1}")
    store = oocload.open(tmp_path / "m.h5")
    assert "level0/x" in store.fields
    assert len(store.fields) < 1000


def test_more_chunk_files_than_may_be_open(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "f.zarr", mode="w")
    for i in range(4):
        group.create_array(f"f{i}", data=np.arange(60), chunks=(1,), compressors=None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (90, hard))
    try:
        with oocload.Loader(tmp_path / "f.zarr", 7, shuffle=False) as loader:
            assert sum(len(batch["f3"]) for batch in loader) == 60
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_other_suffixes_and_roots_without_metadata(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.keras", "w") as file:
        file["x"] = ROWS
    assert np.array_equal(read(tmp_path / "model.keras"), ROWS)
    zarr.open_group(tmp_path / "folder" / "inner", mode="w").create_array("x", data=ROWS)
    assert np.array_equal(read(f"{tmp_path}/folder::inner"), ROWS)
    assert np.array_equal(read(tmp_path / "folder", "inner/x"), ROWS)


@pytest.mark.direct
def test_index_cache_that_cannot_be_written(make_store: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with oocload.open(make_store(compression="gzip"), index_cache=tmp_path / "taken") as store:
        with pytest.raises(InvalidArgumentError, match="index_cache must be a folder that can be written, got"):
            oocload.Loader(store, 10)
