"""Sources of files are told from others, and from what they were; the rest cannot be."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from oocload.convert.sources.resolve import resolve
from tests.convert.sources.kinds import FILES, KINDS, Kind, X, glob, hdf5, in_memory, npy, zarr_store


def identity(source: Any) -> Any:
    found = resolve(source, None).identity()
    assert json.loads(json.dumps(found)) == found
    return found


@pytest.mark.parametrize("kind", FILES, ids=lambda kind: kind.__name__)
class TestFiles:
    def test_the_same_is_the_same(self, tmp_path: Path, kind: Kind) -> None:
        source, _ = kind(tmp_path)
        assert identity(source) == identity(source) is not None
        assert str(tmp_path) not in json.dumps(identity(source))

    def test_any_file_that_changes(self, tmp_path: Path, kind: Kind) -> None:
        """Not only its size or what says what it holds: its time alone is enough."""
        source, _ = kind(tmp_path)
        before = identity(source)
        for path in tmp_path.rglob("*"):
            if path.is_file() and not path.name.startswith("zarr.json"):
                status = path.stat()
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
                assert identity(kind_of_path(source)) != before, path
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert identity(kind_of_path(source)) == before


def kind_of_path(source: Any) -> Any:
    """Return the path of a store that is open, as it knows what it opened."""
    return getattr(source, "address", source)


def test_a_chunk_that_is_gone(tmp_path: Path) -> None:
    path, _ = zarr_store(tmp_path)
    before = identity(path)
    (path / "big" / "c" / "3" / "0" / "1").unlink()
    assert identity(path) != before


def test_a_place_of_its_own(tmp_path: Path) -> None:
    """A folder that is moved, with its times, is the same."""
    (tmp_path / "a").mkdir()
    glob(tmp_path / "a")
    zarr_store(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert identity(f"{tmp_path}/a/part-*.h5") == identity(f"{tmp_path}/b/part-*.h5")
    assert identity(tmp_path / "a/s.zarr") == identity(tmp_path / "b/s.zarr")
    assert identity(f"{tmp_path}/a/part-[0-8].h5") != identity(f"{tmp_path}/a/part-*.h5")


def test_other_fields_are_another_source(tmp_path: Path) -> None:
    path, _ = hdf5(tmp_path)
    assert resolve(path, ["x"]).identity() != resolve(path, ["big"]).identity() != resolve(path, None).identity()
    assert identity({"x": f"{path}::x"}) != identity({"z": f"{path}::x"})


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in FILES and k.__name__ != "zarr_array"])
def test_nobody_knows(tmp_path: Path, kind: Kind) -> None:
    assert resolve(kind(tmp_path)[0], None).identity() is None


def test_one_that_nobody_knows(tmp_path: Path) -> None:
    source, _ = npy(tmp_path)
    assert identity({**source, "y": X}) is None


def mapped(path: Path) -> Any:
    return np.memmap(path, "i4", "r", offset=12, shape=(100, 3))[5:, 1:]


def loaded(path: Path) -> Any:
    if not path.with_suffix(".npy").exists():
        np.save(path.with_suffix(".npy"), X)
    return np.load(path.with_suffix(".npy"), mmap_mode="r")


class TestObjects:
    @pytest.mark.parametrize("make", [mapped, loaded])
    def test_maps(self, tmp_path: Path, make: Callable[[Path], Any]) -> None:
        path = tmp_path / "m.bin"
        np.arange(400, dtype="i4").tofile(path)
        array = make(path)
        before = identity(array)
        assert before == identity(make(path)) is not None
        assert identity(array[1:]) != before
        file = Path(array.filename)
        file.rename(tmp_path / "other")
        shutil.copy(tmp_path / "other", file)
        assert identity(array) is None  # another file has taken its name

    def test_of_h5py(self, tmp_path: Path) -> None:
        path, _ = hdf5(tmp_path)
        with h5py.File(path) as file:
            before = identity({"x": file["x"]})
            assert before == identity({"x": file["x"]}) is not None
            assert identity({"x": file["big"]}) != before
        with h5py.File(path, "r+") as file:
            assert identity({"x": file["x"]}) is None

    def test_of_zarr(self, tmp_path: Path) -> None:
        path, _ = zarr_store(tmp_path)
        array = zarr.open_group(path, mode="r+")["x"]
        before = identity({"x": array})
        assert before is not None
        array[3] = 1
        assert identity({"x": array}) != before
        assert identity({"x": zarr.array(X)}) is None


def test_what_can_begin_anywhere(tmp_path: Path) -> None:
    can = {kind.__name__: resolve(kind(new(tmp_path, kind))[0], None).can_jump for kind in KINDS}
    from_the_first = ["npz", "idx_gzip", "tfrecord_files", "webdataset", "csv_files", "batches", "rows_one_by_one"]
    assert [name for name, jumps in can.items() if not jumps] == from_the_first


def test_whose_arrays_may_be_kept(tmp_path: Path) -> None:
    owned = {kind.__name__: resolve(kind(new(tmp_path, kind))[0], None).owned for kind in KINDS}
    assert [name for name, is_owned in owned.items() if not is_owned] == ["batches"]
    assert resolve(in_memory(new(tmp_path, npy))[0], None).owned


def new(folder: Path, kind: Kind) -> Path:
    made = folder / kind.__name__
    made.mkdir(exist_ok=True)
    return made
