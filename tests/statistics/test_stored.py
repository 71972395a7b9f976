import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import oocload
from oocload.statistics.stored import load_statistics, stats_path
from tests.statistics.test_stats import same


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 5)).astype("f4")
    x[3, 1], x[4, 2], x[:, 3] = np.nan, -np.inf, np.nan
    return {
        "x": x,
        "half": rng.normal(size=(100, 2)).astype("f2"),
        "large": 2**64 - 1 - np.arange(100, dtype="u8"),
        "name": np.array([b"one", b"two"] * 50),
        "true": rng.integers(0, 2, 100).astype(bool),
        "y": np.sort(rng.integers(-3, 3, 100)),
    }


@pytest.fixture
def path(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    with h5py.File(tmp_path / "train.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = file[f"left/half/{name}"] = array
    return tmp_path / "train.h5"


def test_what_is_saved_is_loaded(path: Path) -> None:
    found = oocload.stats(path, save=True)
    assert sorted(p.name for p in path.parent.iterdir()) == ["train.h5", "train.h5.stats.json"]
    with oocload.open(path) as store:
        for name, field in found.items():
            same(load_statistics(store, name), field)


def test_the_file_is_json_that_any_program_reads(path: Path) -> None:
    found = oocload.stats(path, ["x", "name"], save=True)
    text = Path(f"{path}.stats.json").read_text()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (content["version"], content["store"], list(content["fields"])) == (1, "train.h5", ["name", "x"])
    x = content["fields"]["x"]
    assert (x["shape"], x["dtype"], x["n_rows"], x["channel_axis"]) == ([100, 5], "<f4", 100, 0)
    assert x["mean"] == [found["x"].mean[0], found["x"].mean[1], "-inf", "nan", found["x"].mean[4]]
    assert (x["n_nan"], x["count"]) == ([0, 1, 0, 100, 0], [100, 99, 100, 0, 100])
    assert content["fields"]["name"]["histogram"] == [["one", 50], ["two", 50]]
    assert content["fields"]["name"]["longest_run"] == {"label": "one", "length": 1, "first_row": 0}


def test_other_fields_stay_while_the_store_is_unchanged(path: Path) -> None:
    oocload.stats(path, "x", save=True)
    oocload.stats(path, "y", save=True)
    with oocload.open(path) as store:
        assert load_statistics(store, "x").n_channels == load_statistics(store, "y").n_channels + 4
    with h5py.File(path, "a") as file:
        file["y"][:] = 7
    os.utime(path, ns=(1, 1))
    oocload.stats(path, "y", save=True)
    with oocload.open(path) as store:
        assert load_statistics(store, "y").longest_run == (7, 100, 0)
        with pytest.raises(
            oocload.InvalidArgumentError, match=r"must include field 'x', and do not; run oocload.stats"
        ):
            load_statistics(store, "x")


def test_a_store_that_has_changed_is_told_from_the_one_that_was(path: Path) -> None:
    oocload.stats(path, save=True)
    os.utime(path, ns=(1, 1))
    with (
        oocload.open(path) as store,
        pytest.raises(
            oocload.InvalidArgumentError,
            match=r"statistics in .*train.h5.stats.json must be of .* and it has changed since; run oocload.stats\(",
        ),
    ):
        load_statistics(store, "x")


def test_a_zarr_directory_and_its_statistics_may_move(tmp_path: Path) -> None:
    oocload.convert({"x": np.arange(30.0)}, tmp_path / "a.zarr")
    oocload.stats(tmp_path / "a.zarr", save=True)
    (tmp_path / "new").mkdir()
    for file in ("a.zarr", "a.zarr.stats.json"):
        shutil.move(tmp_path / file, tmp_path / "new" / file)
    with oocload.open(tmp_path / "new" / "a.zarr") as store:
        assert load_statistics(store, "x").mean.tolist() == [14.5]
        metadata = next((tmp_path / "new" / "a.zarr").rglob("x/zarr.json"))
    os.utime(metadata, ns=(1, 1))
    with oocload.open(f"{tmp_path}/new/a.zarr/") as store, pytest.raises(oocload.InvalidArgumentError, match="changed"):
        load_statistics(store, "x")


def test_groups_of_a_file_have_files_of_their_own(path: Path) -> None:
    oocload.stats(f"{path}::left/half", "y", save=True)
    assert (path.parent / "train.h5.left.half.stats.json").exists()
    with oocload.open(f"{path}::left/half") as store:
        assert load_statistics(store, "y").n_rows == 100
    with oocload.open(path) as store, pytest.raises(oocload.InvalidArgumentError, match="must have been saved in"):
        load_statistics(store, "y")


def test_joined_files_need_a_path(path: Path) -> None:
    shutil.copy(path, path.with_name("train-2.h5"))
    with pytest.raises(oocload.InvalidArgumentError, match="save must be a path where several files are joined"):
        oocload.stats(f"{path.parent}/*.h5", "y", save=True)
    oocload.stats(f"{path.parent}/*.h5", "y", save=path.parent / "both.json")
    with oocload.open(f"{path.parent}/*.h5") as store:
        with pytest.raises(oocload.InvalidArgumentError, match="several files are joined"):
            stats_path(store)
        assert load_statistics(store, "y", path.parent / "both.json").n_rows == 200
    with oocload.open(path) as store, pytest.raises(oocload.InvalidArgumentError, match="has changed since"):
        load_statistics(store, "y", path.parent / "both.json")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"version": 1}', '{"version": 2, "store": "", "fields": {}, "fingerprint": ""}']
)
def test_a_damaged_file_is_said(make_store: Callable[..., Path], content: str) -> None:
    path = make_store()
    Path(f"{path}.stats.json").write_text(content)
    with oocload.open(path) as store, pytest.raises(oocload.StoreFormatError, match=r"stats.json must .*oocload.stats"):
        load_statistics(store, "x")


def test_damaged_fields_are_said(make_store: Callable[..., Path]) -> None:
    path = make_store()
    oocload.stats(path, save=True)
    file = Path(f"{path}.stats.json")
    whole = json.loads(file.read_text())
    with oocload.open(path) as store:
        for key, value in (
            ("mean", ["much"]),
            ("shape", [3]),
            ("dtype", "?!"),
            ("histogram", [1]),
            ("longest_run", {}),
        ):
            broken = json.loads(json.dumps(whole))
            broken["fields"]["y"][key] = value
            file.write_text(json.dumps(broken))
            with pytest.raises(oocload.StoreFormatError, match="must hold the statistics of a store, and does not"):
                load_statistics(store, "y")


def test_where_nothing_can_be_written(path: Path) -> None:
    with pytest.raises(oocload.InvalidArgumentError, match=r"save must be a path that can be written, got .*nowhere"):
        oocload.stats(path, "y", save=path.parent / "nowhere" / "a.json")
    with oocload.open(path) as store, pytest.raises(oocload.UnknownFieldError, match="'z' must be one of"):
        load_statistics(store, "z")
