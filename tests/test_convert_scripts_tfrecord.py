"""scripts/convert_tfrecord.py, on its own example."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import zarr

SCRIPT = Path(__file__).parents[1] / "scripts" / "convert_tfrecord.py"


def run(*arguments: object, returncode: int = 0) -> str:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == returncode, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_example(tmp_path: Path) -> None:
    assert "1,000 rows of image, label, tokens" in run("--example", tmp_path)
    group = zarr.open_group(tmp_path / "train.zarr", mode="r")
    assert group["image"].shape == (1000, 28, 28)
    assert set(np.unique(group["label"][:])) == set(range(10))
    assert group["tokens/offsets"][:][-1] == group["tokens/values"].shape[0]
    damaged = tmp_path / "train-00001-of-00004.tfrecord"
    data = bytearray(damaged.read_bytes())
    data[100] ^= 1
    damaged.write_bytes(data)
    found = ("-f", "label=int32", "-f", "image=28,28:uint8", "--on-error", "skip")
    shown = run(f"{tmp_path}/train-*.tfrecord", tmp_path / "again.zarr", *found)
    assert "999 rows of label, image" in shown
    assert f"skipped {damaged}, record 0 at byte 0: its data is damaged" in shown
