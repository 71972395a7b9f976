"""scripts/convert_csv.py, on its own example and on a file with a bad row."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import oocload

SCRIPT = Path(__file__).parents[1] / "scripts" / "convert_csv.py"

pytest.importorskip("pyarrow")


def run(*arguments: object) -> str:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_example(tmp_path: Path) -> None:
    assert "775 rows of x, y, note" in run("--example", tmp_path)
    with h5py.File(tmp_path / "table.h5") as file:
        assert file["x"].shape == (775, 2)
        means = [file["x"][:][file["y"][:] == kind].mean(axis=0) for kind in range(3)]
        assert np.allclose(means, [[5, 3], [6, 2.5], [7, 2]], atol=0.15)
        assert len(file["note/values"]) == 775 * 5
    with oocload.open(tmp_path / "table.h5") as store:
        assert store.field("y").meaning.vocabulary == ("setosa", "versicolor", "virginica")
        assert store.field("note").meaning.vocabulary[:6] == ("", "[UNK]", "a", "by", "chance", "seen")


def test_options(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n;w\n1;x y z\n2\n3;z\n")
    shown = run(tmp_path / "a.csv", tmp_path / "a.h5", "--tokens", "w", "--maxlen", 2, "--on-error", "skip")
    assert "line 3: must have 2 columns, got 1: '2'" in shown
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["w"][:].tolist() == [[3, 4], [2, 0]]
