"""Rows sent to other processes, or read there, are those of the whole."""

import itertools
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from oocload.convert.sources import identity
from oocload.convert.sources.parted import describe, open_part, rows_of
from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError
from tests.convert.sources.kinds import (
    KINDS,
    N_ROWS,
    RECORDS,
    ROWS,
    Expected,
    Kind,
    X,
    Y,
    assert_rows,
    gather,
    hdf5,
    zarr_store,
)


@pytest.fixture
def made(tmp_path: Path, kind: Kind) -> tuple[Any, Expected]:
    return kind(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [k for k in KINDS if k not in RECORDS and k.__name__ not in ("batches", "rows_one_by_one")],
    ids=lambda kind: kind.__name__,
)
@settings(max_examples=5)
@given(cuts=st.lists(st.integers(0, N_ROWS), max_size=4), n_ahead=st.sampled_from([0, 2]))
def test_parts_are_the_whole(made: tuple[Any, Expected], cuts: list[int], n_ahead: int) -> None:
    source, expected = made
    described = describe(source)
    assert described.rows.n_rows == N_ROWS
    got: Expected = {name: [] for name in expected}
    ends = sorted({0, *cuts, N_ROWS})
    for start, stop in itertools.pairwise(ends):
        part = pickle.loads(pickle.dumps(described.part(start, stop)))
        assert open_part(part).n_rows == stop - start
        for name, rows in gather(rows_of(part, 700, n_ahead)).items():
            got[name] += rows
    assert_rows(got, expected)


def test_few_rows_are_what_they_were_among_many() -> None:
    """Where rows alone would look like something else."""
    rows = [[1, 2], [3, 4], [], [], [5]]
    described = describe({"t": rows, "y": [1, 2, 3, 4, 5.5]})
    for start, stop in ((0, 2), (2, 4)):
        opened = open_part(described.part(start, stop))
        assert opened.specs == described.rows.specs
        assert_rows(
            gather(opened.batches(100)),
            {"t": [np.array(r) for r in rows[start:stop]], "y": [*np.arange(start + 1.0, stop + 1)]},
        )


def test_fields_and_casts(tmp_path: Path) -> None:
    path, _ = hdf5(tmp_path)
    part = describe(path, ["y", "t"], {"y": "uint8"}).part(20, 70)
    got = gather(rows_of(part, 1000))
    assert_rows(got, {"y": [*Y[20:70]], "t": ROWS[20:70]})
    assert got["y"][0].dtype == "u1"


def test_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hdf5(tmp_path)
    monkeypatch.chdir(tmp_path)
    described = [describe(s).part(0, 5) for s in ("s.h5", ["s.h5"], "s.*5", {"y": "s.h5::y"})]
    monkeypatch.chdir("/")
    for part in described:
        assert_rows({"y": gather(rows_of(part, 1000))["y"]}, {"y": [*Y[:5]]})


def test_open_objects_are_opened_there(tmp_path: Path) -> None:
    path, _ = hdf5(tmp_path)
    folder, _ = zarr_store(tmp_path)
    with h5py.File(path) as file:
        part = describe({"x": file["x"], "big": file["big"], "z": zarr.open_group(folder)["x"]}).part(50, 60)
    assert len(pickle.dumps(part)) < 5000
    part = pickle.loads(pickle.dumps(part))
    assert_rows(gather(rows_of(part, 1000)), {key: [*X[50:60]] for key in ("x", "big", "z")})


def test_dask_arrays_are_computed_on_the_way() -> None:
    dask = pytest.importorskip("dask")
    da = pytest.importorskip("dask.array")
    described = describe({"x": da.from_array(X, (10, 2, 3)) + 1, "y": Y})

    def task(part: dict[str, Any]) -> Expected:
        assert isinstance(part["source"]["x"], np.ndarray)
        return gather(rows_of(part, 500))

    parts = [dask.delayed(task)(described.part(i, i + 40)) for i in (0, 40, 80)]
    got = dask.compute(*parts, scheduler="synchronous")
    assert_rows({name: [row for part in got for row in part[name]] for name in "xy"}, {"x": [*X + 1], "y": [*Y]})


def test_folders_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walked = []
    facts = identity.directory_facts
    monkeypatch.setattr(identity, "directory_facts", lambda path: walked.append(path) or facts(path))
    described = describe({"x": f"{zarr_store(tmp_path)[0]}::x"})
    assert len(walked) == 1
    for start in (0, 10, 20):
        open_part(pickle.loads(pickle.dumps(described.part(start, start + 10))))
    assert len(walked) == 2


class TestBadInput:
    def test_another_file_there(self, tmp_path: Path) -> None:
        path, _ = hdf5(tmp_path)
        part = describe(path).part(0, 5)
        os.utime(path)
        with pytest.raises(StoreFormatError, match=r"field '\w+' .*s\.h5.* must be the same on every machine"):
            rows_of(part, 100)

    def test_no_file_there(self, tmp_path: Path) -> None:
        path, _ = hdf5(tmp_path)
        part = describe(path).part(0, 5)
        path.unlink()
        with pytest.raises(StoreNotFoundError, match=r"s\.h5.*put it where every worker finds it under the same path"):
            open_part(part)

    def test_what_only_this_process_has(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match=r"where scheduler= is given, got generator, which only this"):
            describe(batch for batch in [X])
        with h5py.File(tmp_path / "w.h5", "w") as file:
            file["x"] = X
            with pytest.raises(
                InvalidArgumentError, match=r"field 'x' must be a dataset of a file .* 'file\.h5::name'"
            ):
                describe({"x": file["x"]})
