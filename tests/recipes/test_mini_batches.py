"""Recipe 5."""

from pathlib import Path

import numpy as np
import pytest

from tests.recipes.running import error_of_recipe, run_recipe

NAMES = ("create_mini_batches", "SimpleDataset, DataLoader", "oocload")


@pytest.mark.parametrize("drop_last", [False, True])
def test_same_loss_at_every_step(tmp_path: Path, drop_last: bool) -> None:
    rows, flags = (3000, ["--drop-last"]) if drop_last else (10_000, [])
    shown, figures = run_recipe("mini_batches", tmp_path, "--rows", rows, "--memory", "8 MiB", *flags)
    stack, dataset, loader = (figures["ways"][name] for name in NAMES)
    steps = rows // 256 + (not drop_last)
    for way in (stack, dataset, loader):
        assert way["rows"] == 2 * (rows // 256 * 256 if drop_last else rows)
        assert way["shown"]["steps"] == str(2 * steps)
        assert way["result"] == pytest.approx(loader["result"], abs=1e-4)
    assert len(loader["result"]) == 2 * steps
    assert np.mean(loader["result"][steps:]) < np.mean(loader["result"][:steps])
    if not drop_last:
        held = [way["peak_nbytes"] / figures["data_nbytes"] for way in (loader, dataset, stack)]
        assert held[0] < 0.95 < held[1] < 1.95 < held[2]  # the kernel counts roughly
    assert "losses of all: the same" in shown


def test_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.zeros((10, 4), np.uint8))
    np.save(tmp_path / "short.npy", np.zeros(9, np.int64))
    np.save(tmp_path / "column.npy", np.zeros((10, 1), np.int64))
    np.save(tmp_path / "gaps.npy", np.arange(10) * 2)

    def error(x: str, y: str) -> str:
        return error_of_recipe("mini_batches", monkeypatch, "--x", tmp_path / x, "--y", tmp_path / y)

    assert error("none.npy", "short.npy").startswith("StoreNotFoundError: source must exist, got ")
    assert "fields must have the same number of rows: 'x' has 10, 'y' has 9" in error("x.npy", "short.npy")
    assert "must have one class for each row, all of 0, 1, 2 … up to the last" in error("x.npy", "column.npy")
    assert "with labels [0, 2, 4, 6, 8]" in error("x.npy", "gaps.npy")
