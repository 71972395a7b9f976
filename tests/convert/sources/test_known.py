"""Which kind of source a path or an object is, and options by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from oocload.convert.sources.known import OBJECT_KINDS, PATH_KINDS
from oocload.convert.sources.resolve import resolve

TABLE = "size,species\n1,cat\n2,dog\n"


def folder_of_csv(tmp_path: Path) -> Path:
    for i in (1, 2, 10):
        (tmp_path / f"part-{i}.csv").write_text(TABLE.replace("cat", f"cat {i}"))
    return tmp_path


@pytest.mark.parametrize("given", ["part-*.csv", ["part-1.csv", "part-2.csv", "part-10.csv"]])
def test_a_glob_or_a_list_of_one_kind(tmp_path: Path, given: Any) -> None:
    folder = folder_of_csv(tmp_path)
    paths = [folder / p for p in given] if isinstance(given, list) else str(folder / given)
    for source in (paths, oocload.sources.from_path(paths)):
        rows = resolve(source, ["size"])
        assert np.concatenate([batch["size"] for batch in rows.batches(1000)]).tolist() == [1, 2] * 3


def test_kinds_do_not_mix(tmp_path: Path) -> None:
    folder = folder_of_csv(tmp_path)
    np.save(folder / "a.npy", np.zeros(3))
    with pytest.raises(oocload.InvalidArgumentError, match=r"files of one kind, got .*part-1.csv' beside .*a.npy'"):
        oocload.convert([folder / "part-1.csv", folder / "a.npy"], tmp_path / "t.h5")
    with pytest.raises(oocload.StoreNotFoundError, match=r"source must exist, got .*; no path matches it"):
        oocload.convert(str(folder / "pert-*.csv"), tmp_path / "t.h5")
    assert not (tmp_path / "t.h5").exists()


def test_options_by_name(tmp_path: Path) -> None:
    path = folder_of_csv(tmp_path) / "part-1.csv"
    found = oocload.sources.from_path(path, label="species")
    assert isinstance(found, oocload.sources.CsvSource)
    assert found.meanings["y"].vocabulary == ("cat 1", "dog")


@pytest.mark.parametrize(
    ("path", "options", "error", "message"),
    [
        ("part-1.csv", {"labl": "species"}, oocload.InvalidArgumentError, "option of CsvSource must be one of .*label"),
        ("a.npy", {"label": "y"}, oocload.InvalidArgumentError, "left out for .*a.npy, which takes none, got label"),
        ("none.csv", {"label": "y"}, oocload.StoreNotFoundError, "source must exist, got .*none.csv'"),
    ],
)
def test_bad_options(tmp_path: Path, path: str, options: Any, error: Any, message: str) -> None:
    np.save(folder_of_csv(tmp_path) / "a.npy", np.zeros(3))
    with pytest.raises(error, match=message):
        oocload.sources.from_path(tmp_path / path, **options)
    with pytest.raises(oocload.InvalidArgumentError, match="for one source, a path or a glob, got {'x': 'a.npy'}"):
        oocload.sources.from_path({"x": "a.npy"}, label="y")


def test_records_are_no_field_and_an_empty_folder_is_nothing(tmp_path: Path) -> None:
    path = folder_of_csv(tmp_path) / "part-1.csv"
    with pytest.raises(oocload.InvalidArgumentError, match="field 'x' must hold one array, and .*part-1.csv holds rec"):
        oocload.convert({"x": path}, tmp_path / "t.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(oocload.StoreFormatError, match="source must be one of .*, got the folder .*empty', in which"):
        oocload.convert(tmp_path / "empty", tmp_path / "t.h5")


def test_every_kind_is_public() -> None:
    for kind in (*PATH_KINDS, *OBJECT_KINDS):
        assert kind.__name__ in oocload.sources.__all__


def test_public_sources_are_listed_and_sorted() -> None:
    assert oocload.sources.__all__ == sorted(oocload.sources.__all__)
    assert all(hasattr(oocload.sources, name) for name in oocload.sources.__all__)
