"""scripts/convert_rechunk.py, on its own example."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

SCRIPT = Path(__file__).parents[1] / "scripts" / "convert_rechunk.py"


def run(*arguments: object, returncode: int = 0) -> str:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == returncode, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_example(tmp_path: Path) -> None:
    shown = run("--example", tmp_path, "--shuffle", "--seed", 3, "--chunk-rows", 64, "--codec", "lzf", "--replace")
    assert "in an order drawn by seed 3" in shown
    assert "it has exactly its rows, in some order" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["sorted.h5"]
    with h5py.File(tmp_path / "sorted.h5") as file:
        assert file["x"].chunks == (64, 16, 16, 3)
        assert file["x"].compression == "lzf"
        labels = file["y"][:]
    assert not np.array_equal(labels, np.sort(labels))
    assert np.bincount(labels).tolist() == [200] * 10
