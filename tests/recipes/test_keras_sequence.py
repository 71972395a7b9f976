"""Recipe 3."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.recipes.running import error_of_recipe, run_recipe, ways_of_recipe

pytestmark = pytest.mark.framework
pytest.importorskip("keras")


def test_same_losses_in_less_memory(tmp_path: Path) -> None:
    shown, figures = run_recipe("keras_sequence", tmp_path, "--rows", 320)
    old, new = figures["ways"]["Sequence"], figures["ways"]["oocload"]
    assert old["rows"] == new["rows"] == 320
    assert figures["difference"] < 1e-6
    (first, last), (first_val, last_val) = new["result"]
    assert last < first
    assert last_val < first_val < 2
    assert new["peak_nbytes"] < old["peak_nbytes"]  # which has six worker processes
    assert "losses of both: " in shown


def test_samples_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "own", {i: ["cat", "dog"][i % 2] for i in range(128)})
    ways = ways_of_recipe("keras_sequence", monkeypatch, "--folder", tmp_path / "own", "--dir", tmp_path)
    folder, partition, labels, orders = ways["Sequence"].args
    assert folder == tmp_path / "own"
    assert partition["validation"] == [f"id-{i}" for i in range(40)]
    assert [sorted(order) for order in orders] == [sorted(f"id-{i}" for i in range(40, 120))] * 2
    assert labels == {f"id-{i}": i % 2 for i in range(128)}


def test_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(folder: str) -> str:
        return error_of_recipe("keras_sequence", monkeypatch, "--folder", tmp_path / folder)

    numbers = {i: i % 3 for i in range(128)}
    assert error("none") == f"StoreNotFoundError: source must exist, got '{tmp_path}/none'; nothing lies at that path"
    write(tmp_path / "shape", numbers)
    np.save(tmp_path / "shape" / "sub.id-9.npy", np.zeros((4, 5), "float32"))
    assert "labels must have one for each file" in error("shape")
    (tmp_path / "shape" / "sub.id-9.npy").rename(tmp_path / "shape" / "id-9.npy")
    assert f"id-9.npy must have the shape of {tmp_path}/shape/id-0.npy, (4, 4), and has (4, 5)" in error("shape")
    write(tmp_path / "unlabelled", {})
    assert error("unlabelled").startswith("UnknownFieldError: field 'y' must be one of those in")
    write(tmp_path / "fractions", {i: i / 2 for i in range(128)})
    assert "of field 'y' must be given one whole number a row, got rows of float64" in error("fractions")
    write(tmp_path / "negative", {i: i % 3 - 1 for i in range(128)})
    assert "must be 0 and up, got -1" in error("negative")
    write(tmp_path / "sets", numbers, second="test")
    assert "split must be one of the sets of" in error("sets")


def write(folder: Path, labels: dict[int, object], second: str = "validation") -> None:
    """Write 128 samples, of which eight are in no set."""
    folder.mkdir()
    for i in range(128):
        np.save(folder / f"id-{i}.npy", np.full((4, 4), i % 2, "float32"))
    if labels:
        (folder / "labels.json").write_text(json.dumps({f"id-{i}": label for i, label in labels.items()}))
    ids = [f"id-{i}" for i in range(120)]
    (folder / "partition.json").write_text(json.dumps({"train": ids[40:], second: ids[:40]}))
