"""Recipe 1."""

from pathlib import Path

import numpy as np
import pytest

from tests.recipes.running import error_of_recipe, run_recipe


def test_same_losses_in_less_memory(tmp_path: Path) -> None:
    shown, figures = run_recipe("batch_generator", tmp_path, "--rows", 20_000, "--memory", "16 MiB")
    old, new = figures["ways"]["batch generator"], figures["ways"]["oocload"]
    assert old["rows"] == new["rows"] == 40_000
    assert figures["difference"] == 0
    assert old["result"][1] < old["result"][0] < 2.3
    assert old["peak_nbytes"] > 0.95 * figures["data_nbytes"]  # the kernel counts roughly
    assert figures["data_nbytes"] > 1.5 * new["peak_nbytes"]
    assert "losses of both: the same" in shown
    assert "waited for data" in shown


def test_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.zeros((10, 4), np.uint8))
    np.save(tmp_path / "y.npy", np.zeros(9, np.int64))

    def error(x: str) -> str:
        return error_of_recipe("batch_generator", monkeypatch, "--x", tmp_path / x, "--y", tmp_path / "y.npy")

    assert error("none.npy").startswith(f"StoreNotFoundError: source must exist, got '{tmp_path}/none.npy'")
    assert "fields must have the same number of rows: 'x' has 10, 'y' has 9" in error("x.npy")
    for wrong in (("--x", "x.npy"), ("--rows", "0"), ("--rounds", "-1")):
        assert error_of_recipe("batch_generator", monkeypatch, *wrong) == "2"
    assert "FileExistsError: " in error_of_recipe("batch_generator", monkeypatch, "--dir", tmp_path / "y.npy")
