import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.convert import pipeline
from oocload.errors import ClosedError, ConversionError, InvalidArgumentError, TargetExistsError
from tests.conftest import check_rows, numbered, read_back


@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=12),
    height=st.integers(1, 50),
    target=st.sampled_from(["w.h5", "w.zarr"]),
)
def test_appends_of_any_size(tmp_path: Path, sizes: list[int], height: int, target: str) -> None:
    rows = numbered(sum(sizes))
    with oocload.create(
        tmp_path / target, {"x": ((7, 5), "u1"), "y": "i8"}, chunk_rows=height, overwrite=True
    ) as writer:
        start = 0
        for n in sizes:
            writer.append(x=rows["x"][start : start + n], y=rows["y"][start : start + n])
            start += n
        assert writer.n_rows == start
    got = read_back(tmp_path / target)
    check_rows(got["x"], got["y"])
    assert np.array_equal(got["y"], rows["y"])


@pytest.mark.parametrize(
    "spec",
    [((2, 3), "float32"), [(2, 3), np.float32], ("float32", (2, 3)), {"shape": (2, 3), "dtype": "f4"}],
)
def test_ways_to_write_a_field(tmp_path: Path, spec: Any) -> None:
    with oocload.create(tmp_path / "w.h5", {"x": spec, "y": "int64", "z": ((), "u1"), "w": (4, "u1")}) as writer:
        writer.append(x=np.ones((5, 2, 3), "f4"), y=range(5), z=np.zeros(5, "u1"), w=np.zeros((5, 4), "u1"))
    fields = oocload.open(tmp_path / "w.h5").fields
    assert (fields["x"].shape, fields["x"].dtype) == ((5, 2, 3), np.float32)
    assert (fields["y"].shape, fields["z"].shape, fields["w"].shape) == ((5,), (5,), (5, 4))


def test_fields_from_the_first_rows(tmp_path: Path) -> None:
    with oocload.create(tmp_path / "w.zarr") as writer:
        writer.append(x=np.ones((5, 2), "f4"))
        writer.append(x=np.ones((5, 2), "f2"))  # fits without loss
    assert read_back(tmp_path / "w.zarr")["x"].shape == (10, 2)


def test_the_store_appears_when_it_is_whole(tmp_path: Path) -> None:
    with oocload.create(tmp_path / "w.h5", {"x": "u1"}) as writer:
        writer.append(x=np.zeros(10, "u1"))
        assert not (tmp_path / "w.h5").exists()
    assert (tmp_path / "w.h5").exists()


@pytest.mark.parametrize("target", ["w.h5", "w.zarr"])
def test_an_exception_in_the_block_leaves_nothing(tmp_path: Path, target: str) -> None:
    with pytest.raises(RuntimeError, match="stop"), oocload.create(tmp_path / target, {"x": "u1"}) as writer:
        writer.append(x=np.zeros(10, "u1"))
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_closed_writer(tmp_path: Path) -> None:
    writer = oocload.create(tmp_path / "w.h5", {"x": "u1"})
    writer.append(x=np.zeros(3, "u1"))
    writer.close()
    writer.close()
    with pytest.raises(ClosedError, match="writer must be open"):
        writer.append(x=np.zeros(3, "u1"))


def test_no_rows(tmp_path: Path) -> None:
    with (
        pytest.raises(ConversionError, match="a store must have at least one row"),
        oocload.create(tmp_path / "w.h5", {"x": "u1"}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_target_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    writer = oocload.create(tmp_path / "w.h5", {"x": "u1"})
    writer.append(x=np.zeros(3, "u1"))
    (tmp_path / "w.h5").write_text("mine")
    with pytest.raises(TargetExistsError, match="target must not exist"):
        writer.close()
    assert (tmp_path / "w.h5").read_text() == "mine"
    with oocload.create(tmp_path / "w.h5", resume=True, overwrite=True) as writer:  # what was done is kept
        assert writer.n_rows == 3
    assert read_back(tmp_path / "w.h5")["x"].tolist() == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"fields must map at least one name to \(row_shape, dtype\), got \{\}"),
        ({"x": "nonsense"}, r"field 'x' must be given as \(row_shape, dtype\), such as"),
        ({"x": ((3, 0), "u1")}, r"row shape of field 'x' must have sizes of at least 1, got \(3, 0\)"),
        ({"x": "O"}, "field 'x' must have a fixed-size dtype, got object"),
        ({"": "u1"}, "field name must be text such as 'x' or 'group/images', got ''"),
        ({3: "u1"}, "field name must be text"),
        ({"a//b": "u1"}, "field name must be text"),
        ({"a/../b": "u1"}, "field name must be text"),
        ({"a/./b": "u1"}, "field name must be text"),
        ({"a\0b": "u1"}, "field name must be text"),
    ],
)
def test_bad_fields(tmp_path: Path, fields: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        oocload.create(tmp_path / "w.h5", fields)
    assert list(tmp_path.iterdir()) == []


def test_values_that_may_not_fit_are_refused(tmp_path: Path) -> None:
    writer = oocload.create(tmp_path / "w.h5", {"x": "u1"})
    with pytest.raises(
        InvalidArgumentError,
        match=r"must have dtype uint8, got int64, which may not fit; .*astype\('uint8'\)",
    ):
        writer.append(x=[1, 2, 3])
    with pytest.raises(
        InvalidArgumentError, match=r"shape \(\), got an array of shape \(\); .*, write one row as \[row\]"
    ):
        writer.append(x=np.uint8(3))
    writer.append(x=np.array([1, 2, 3], "u1"))  # a refused append loses nothing
    writer.close()
    assert read_back(tmp_path / "w.h5")["x"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("target", ["w.h5", "w.zarr"])
@pytest.mark.parametrize("n_rows", [1, 8, 9, 15])
def test_short_last_chunks_are_stored_as_they_were_encoded(tmp_path: Path, target: str, n_rows: int) -> None:
    """HDF5 encodes a chunk anew when a dataset is cut within it, with zlib, and fewer or more bytes."""
    rng = np.random.default_rng(0)
    with oocload.create(tmp_path / target, {"x": ((64, 64), "u1")}, chunk_rows=8) as writer:
        writer.append(x=rng.integers(0, 255, (n_rows, 64, 64), "u1"))
    report = oocload.verify(tmp_path / target)
    assert report.ok, report.bad


def test_rows_without_items(tmp_path: Path) -> None:
    """Zarr holds them, HDF5 does not."""
    rows = {"e": np.zeros((50, 0, 2), "f4"), "y": np.arange(50)}
    oocload.convert(rows, tmp_path / "t.zarr", chunk_rows=13)
    assert oocload.open(tmp_path / "t.zarr").fields["e"].shape == (50, 0, 2)
    assert oocload.verify(tmp_path / "t.zarr").ok
    with pytest.raises(InvalidArgumentError, match="field 'e' must have values for HDF5, which has no chunks without"):
        oocload.convert(rows, tmp_path / "t.h5")
    assert os.listdir(tmp_path) == ["t.zarr"]
    oocload.convert({"e": rows["e"]}, tmp_path / "t.zarr", overwrite=True)
    with oocload.Loader(tmp_path / "t.zarr", 20, x="e", seed=0) as loader:
        assert [x.shape for x in loader] == [(20, 0, 2), (20, 0, 2), (10, 0, 2)]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:The data type")
def test_what_zarr_writes_and_cannot_read(tmp_path: Path, zarr_format: int) -> None:
    """It is refused when the store is begun, not when all rows are written."""
    fields_of_kinds: list[Any] = [{"a\\b": "u1"}]
    nested = np.dtype([("p", [("q", "i4"), ("r", "f4")]), ("s", "u1")])
    if zarr_format == 2 and tuple(map(int, zarr.__version__.split(".")[:2])) < (3, 2):  # newer ones read it
        fields_of_kinds.append({"x": nested})
    for fields in fields_of_kinds:
        with pytest.raises(InvalidArgumentError, match=r"fields must be such as \.zarr can hold"):
            oocload.create(tmp_path / "t.zarr", fields, zarr_format=zarr_format)
    assert os.listdir(tmp_path) == []


def test_fixed_length_text_of_an_hdf5_file(tmp_path: Path) -> None:
    """h5py notes in the dtype how it is encoded, which is no part of what the journal says."""
    rows = np.array([b"one", b"three"])
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("x", data=rows)
    oocload.convert(tmp_path / "s.h5", tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5") as file:
        assert file["x"][:].tolist() == rows.tolist()


def test_labels_that_wait_for_their_chunk_are_a_small_share_of_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_COMMIT_SECONDS_LEAST", "_COMMIT_SECONDS_MOST"):  # as on a slow disk
        monkeypatch.setattr(pipeline, name, 0.0)
    fields = {"x": ((2048,), "u1")} | {f"y{n}": "i8" for n in range(8)}
    x = np.random.default_rng(0).integers(0, 256, (64, 2048), np.uint8)
    with oocload.create(tmp_path / "t.h5", fields, chunk_rows=64) as writer:
        for n in range(150):
            y = np.arange(64 * n, 64 * (n + 1))
            writer.append_batch({name: x if name == "x" else y for name in fields})
        assert (tmp_path / ".t.h5.oocload" / "journal").stat().st_size < 3 * 2**20
