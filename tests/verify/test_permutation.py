"""`oocload.verify(..., permutation_of=)`: stores that hold the rows of their source, and stores that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import oocload
from oocload.cli import main
from oocload.convert.sources.store import StoreField
from oocload.errors import InvalidArgumentError
from oocload.verify import permutation
from tests.convert.sources.kinds import KINDS, Kind


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_kinds(tmp_path: Path, kind: Kind) -> None:
    source, _ = kind(tmp_path)
    path = tmp_path / "shuffled.zarr"
    oocload.convert(source, path, shuffle=True, seed=0)
    report = oocload.verify(path, permutation_of=source)
    assert report.ok
    assert "it has exactly its rows, in some order" in str(report)


def write(path: Path, rows: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in rows.items():
            file[name] = array
    return path


X = np.arange(60).reshape(20, 3)


def lost(x: np.ndarray) -> np.ndarray:
    return x[:-1]


def twice(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x[1:], x[1:2]])


def changed(x: np.ndarray) -> np.ndarray:
    return np.where(x == 31, 32, x)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lost, "it has 19 rows, and the source has 20"),
        (twice, "its 20 rows are not those of the source"),
        (changed, "its 20 rows are not those of the source"),
    ],
)
def test_differences(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], difference: str) -> None:
    """Of stores of other writers too, which have no checksums."""
    path = write(tmp_path / "a.h5", {"x": change(X)})
    report = oocload.verify(path, permutation_of={"x": X})
    assert not report.ok
    assert report.difference == difference
    assert f"bad: {difference}" in str(report)
    batches = iter([{"x": X[:7]}, {"x": X[7:]}])
    assert oocload.verify(path, permutation_of=batches).difference == difference
    assert oocload.verify(write(tmp_path / "b.h5", {"x": X[::-1]}), permutation_of=X).ok


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"y": X}, r"permutation_of must have the fields of the store, \['x'\], got \['y'\]; choose those to compare"),
        ({"x": X.astype("i4")}, r"field 'x' has \(3,\) int64 in the store, got \(3,\) int32"),
        ({"x": X[:, :2]}, r"field 'x' has \(3,\) int64 in the store, got \(2,\) int64"),
    ],
)
def test_other_fields(tmp_path: Path, rows: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.h5", {"x": X})
    for source in (rows, iter([rows])):
        with pytest.raises(InvalidArgumentError, match=message):
            oocload.verify(path, permutation_of=source)


def test_some_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"x": X, "y": X + 1})
    other = write(tmp_path / "b.h5", {"x": X, "y": X + 2})
    assert oocload.verify(path, permutation_of=other, fields=["x"]).ok
    assert not oocload.verify(path, permutation_of=other).ok


def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    oocload.convert({"x": X}, tmp_path / "a.h5")
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n nothing more")
    report = oocload.verify(tmp_path / "a.h5", permutation_of={"x": X})
    assert report.difference == "it cannot be opened, so its rows were not compared"


def test_command_line(tmp_path: Path) -> None:
    source = write(tmp_path / "a.h5", {"x": X})
    run = CliRunner().invoke(main, ["convert", str(source), str(tmp_path / "b.zarr"), "--shuffle", "--seed", "3"])
    assert run.exit_code == 0
    assert "in an order drawn by seed 3" in run.output
    run = CliRunner().invoke(main, ["verify", str(tmp_path / "b.zarr"), "--permutation-of", str(source)])
    assert run.exit_code == 0
    assert f"as a permutation of {source}: it has exactly its rows, in some order" in run.output
    other = write(tmp_path / "c.h5", {"x": changed(X)})
    run = CliRunner().invoke(main, ["verify", str(tmp_path / "b.zarr"), "--permutation-of", str(other)])
    assert run.exit_code == 1
    assert "bad: its 20 rows are not those of the source" in run.output


def test_pieces_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutation, "_PIECE_NBYTES", 100)
    path = write(tmp_path / "a.h5", {"x": X})
    read: list[int] = []
    real = StoreField.read
    monkeypatch.setattr(StoreField, "read", lambda self, a, b, s: (read.append(b - a), real(self, a, b, s))[1])
    assert oocload.verify(path, permutation_of=X).ok
    assert len(read) == 5
