"""Several files as one store, and virtual datasets."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

import oocload
from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError
from oocload.stores.base import direct_path_enabled
from oocload.stores.joined import natural_key
from tests.conftest import check_rows, numbered

N_ROWS = 1000


def write_part(path: Path, start: int, stop: int, **options: Any) -> None:
    rows = numbered(N_ROWS)
    if path.suffix == ".zarr":
        group = zarr.open_group(path, mode="w")
        group.create_array("x", data=rows["x"][start:stop], chunks=(31, 7, 5))
        group.create_array("y", data=rows["y"][start:stop], chunks=(17,))
        return
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=rows["x"][start:stop], **options)
        file["y"] = rows["y"][start:stop]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Parts whose names sort otherwise by text, with unlike chunks and codecs."""
    write_part(tmp_path / "part-1.h5", 0, 303, chunks=(40, 7, 5), compression="gzip")
    write_part(tmp_path / "part-2.h5", 303, 304, chunks=(1, 7, 5), compression="lzf")
    write_part(tmp_path / "part-3.zarr", 304, 700)
    write_part(tmp_path / "part-10.h5", 700, N_ROWS)
    return tmp_path


def epoch(store: Any, **options: Any) -> tuple[np.ndarray, np.ndarray, oocload.Loader]:
    with oocload.Loader(store, 64, **options) as loader:
        batches = [(x.copy(), y.copy()) for x, y in loader]
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches]), loader


def test_natural_order() -> None:
    names = ["part-10", "part-2", "part-1b", "part-1", "a/20/x", "a/3/x"]
    assert sorted(names, key=natural_key) == ["a/3/x", "a/20/x", "part-1", "part-1b", "part-2", "part-10"]
    assert sorted(["m²", "m10", "m007", "m", "ma"], key=natural_key) == ["m", "m007", "m10", "ma", "m²"]


def test_a_glob_joins_in_natural_order(parts: Path) -> None:
    x, y, _ = epoch(parts / "part-*", shuffle=False)
    assert y.tolist() == list(range(N_ROWS))
    check_rows(x, y)


def test_a_list_joins_as_it_stands(parts: Path) -> None:
    _, y, _ = epoch([parts / "part-10.h5", parts / "part-1.h5"], shuffle=False)
    assert y.tolist() == [*range(700, N_ROWS), *range(303)]


@pytest.mark.direct
def test_shuffled_reads_every_chunk_once(parts: Path) -> None:
    x, y, loader = epoch(f"{parts}/part-*", seed=3)
    check_rows(x, y)
    assert sorted(y.tolist()) == list(range(N_ROWS))
    assert y.tolist() != list(range(N_ROWS))
    assert loader.stats.paths["x"] == "direct"
    whole_chunks = (8 * 40 + 1 + 13 * 31 + 300) * 35  # of x, edge chunks decoded whole
    assert loader.stats.decoded_bytes <= whole_chunks + N_ROWS * 8 * 2


def test_batches_alone_and_resume(parts: Path) -> None:
    store = f"{parts}/part-*"
    _, whole, _ = epoch(store, seed=3)
    with oocload.Loader(store, 64, seed=3) as loader:
        assert np.array_equal(np.concatenate([loader[i][1] for i in range(len(loader))]), whole)
        iterator = iter(loader)
        for _ in range(5):
            next(iterator)
        state = loader.state_dict()
        iterator.close()
    with oocload.Loader(store, 64) as loader:
        loader.load_state_dict(state)
        assert np.array_equal(np.concatenate([y.copy() for _, y in loader]), whole[5 * 64 :])
    with oocload.Loader([parts / "part-10.h5", parts / "part-1.h5"], 64) as loader:
        with pytest.raises(InvalidArgumentError, match="state must belong to this store"):
            loader.load_state_dict(state)


def test_groups_npy_and_fallback_parts(tmp_path: Path) -> None:
    rows = np.arange(60.0).reshape(20, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("g/x", data=rows[:7], chunks=(3, 3), scaleoffset=3)
    np.save(tmp_path / "b.npy", rows[7:12])
    np.save(tmp_path / "c.npy", np.asfortranarray(rows[12:]))
    paths = [f"{tmp_path}/a.h5::g", tmp_path / "b.npy", tmp_path / "c.npy"]
    with oocload.Loader(paths, 4, x="x", seed=0) as loader:
        got = np.concatenate([x.copy() for x in loader])
        assert np.allclose(got[np.argsort(got[:, 0])], rows)
        if direct_path_enabled():
            assert loader.stats.paths["x"] == f"h5py (codec scaleoffset, in {tmp_path}/a.h5::g)"


def test_pickles(parts: Path) -> None:
    with oocload.open(f"{parts}/part-*") as store, pickle.loads(pickle.dumps(store)) as again:
        assert again.fields == store.fields
        assert "HDF5 and Zarr v3, 4 files, store" in repr(store)
        assert "4 parts" in repr(store)


def test_more_files_than_are_kept_open(tmp_path: Path) -> None:
    for i in range(100):
        np.save(tmp_path / f"{i}.npy", np.arange(10 * i, 10 * i + 10))
    with oocload.Loader(f"{tmp_path}/*.npy", 100, x="x", shuffle=False) as loader:
        assert np.array_equal(np.concatenate([x.copy() for x in loader]), np.arange(1000))


def test_bad_lists(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match=r"store must exist, got '.*/nope-\*.h5'; no path matches it"):
        oocload.open(f"{tmp_path}/nope-*.h5")
    with pytest.raises(InvalidArgumentError, match="a list of at least one path, got an empty list"):
        oocload.open([])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros((5, 7, 4), "u1")
        file["y"] = np.zeros(5, "f4")
        file["z"] = np.zeros(5)
    with pytest.raises(
        StoreFormatError, match=r"must have a field in common.*'x': in .*other.h5 its rows have shape \(7, "
    ):
        oocload.open([parts / "part-1.h5", tmp_path / "other.h5"])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros((5, 7, 5), "u1")
    with pytest.raises(StoreFormatError, match=r"field 'y' of .* cannot be read: in .*other.h5 there is no such field"):
        oocload.Loader([parts / "part-1.h5", tmp_path / "other.h5"], 5)


class TestVirtual:
    @pytest.fixture
    def sources(self, tmp_path: Path) -> np.ndarray:
        rows = np.arange(300, dtype="f4").reshape(100, 3)
        for i, start in enumerate((0, 30, 61)):
            with h5py.File(tmp_path / f"s{i}.h5", "w") as file:
                part = rows[start : start + (30, 31, 39)[i]]
                file.create_dataset("d", data=part, chunks=(4 + i, 3), compression="gzip")
        return rows

    def layout(self, tmp_path: Path, shape: tuple[int, int], maps: list[tuple[slice, int, slice]]) -> Path:
        layout = h5py.VirtualLayout(shape, "f4")
        for place, number, rows in maps:
            with h5py.File(tmp_path / f"s{number}.h5") as file:
                held = file["d"].shape
            layout[place] = h5py.VirtualSource(f"s{number}.h5", "d", held)[rows]
        with h5py.File(tmp_path / "v.h5", "w", libver="latest") as file:
            file.create_virtual_dataset("x", layout, fillvalue=-1)
        return tmp_path / "v.h5"

    def check(self, path: Path, direct: bool) -> oocload.Loader:
        with h5py.File(path) as file:
            expected = file["x"][...]
        for options in ({"shuffle": False}, {"seed": 5}):
            with oocload.Loader(path, 8, x="x", **options) as loader:
                rows = [(loader.batch_rows(i), x.copy()) for i, x in enumerate(loader)]
            for numbers, x in rows:
                assert np.array_equal(x, expected[numbers])
            assert sum(len(x) for _, x in rows) == len(expected)
        if direct_path_enabled():
            assert (loader.fields["x"].read_path == "direct") == direct, loader.fields["x"]
        return loader

    def test_rows_one_after_the_other(self, tmp_path: Path, sources: np.ndarray) -> None:
        everything = slice(None)
        maps = [(slice(0, 30), 0, everything), (slice(30, 61), 1, everything), (slice(61, 100), 2, everything)]
        loader = self.check(self.layout(tmp_path, (100, 3), maps), direct=True)
        if direct_path_enabled():
            assert loader.stats.amplification < 1.2

    def test_parts_of_sources(self, tmp_path: Path, sources: np.ndarray) -> None:
        maps = [(slice(0, 10), 0, slice(3, 13)), (slice(10, 30), 1, slice(11, 31))]
        self.check(self.layout(tmp_path, (30, 3), maps), direct=True)

    @pytest.mark.parametrize(
        ("shape", "maps"),
        [
            ((60, 3), [(slice(0, 60, 2), 0, slice(None))]),  # every other row
            ((40, 3), [(slice(5, 35), 0, slice(None))]),  # rows without a source
            ((30, 3), [(slice(0, 30), 0, slice(None)), (slice(10, 20), 0, slice(0, 10))]),  # two sources for a row
        ],
    )
    def test_anything_else_is_read_by_h5py(
        self, tmp_path: Path, sources: np.ndarray, shape: tuple[int, int], maps: list[Any]
    ) -> None:
        self.check(self.layout(tmp_path, shape, maps), direct=False)

    def test_missing_source(self, tmp_path: Path, sources: np.ndarray) -> None:
        path = self.layout(tmp_path, (61, 3), [(slice(0, 30), 0, slice(None)), (slice(30, 61), 1, slice(None))])
        (tmp_path / "s1.h5").unlink()
        loader = self.check(path, direct=False)
        if direct_path_enabled():
            assert "where HDF5 finds no source its rows are the fill value" in loader.fields["x"].reason

    def test_source_in_the_same_file(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "v.h5", "w", libver="latest") as file:
            file["d"] = np.arange(20, dtype="f4").reshape(10, 2)
            layout = h5py.VirtualLayout((20, 2), "f4")
            layout[:10] = layout[10:] = h5py.VirtualSource(file["d"])
            file.create_virtual_dataset("x", layout)
        self.check(tmp_path / "v.h5", direct=True)

    @pytest.mark.direct
    def test_a_source_that_changes_is_noticed(self, tmp_path: Path, sources: np.ndarray) -> None:
        path = self.layout(tmp_path, (30, 3), [(slice(0, 30), 0, slice(None))])
        with oocload.Loader(path, 8, x="x") as loader:
            with h5py.File(tmp_path / "s0.h5", "a") as file:
                file["more"] = 1
            with pytest.raises(oocload.OocloadError, match=r"s0.h5.* has changed since it was opened|cannot read .*s0"):
                list(loader)
