"""A run that is killed again and again ends with the weights of one that is not, bit for bit, on each backend."""

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.adapters.frameworks import CHEAP, write

pytest.importorskip("keras")
pytestmark = pytest.mark.framework

ROOT = Path(__file__).parents[2]


def train(backend: str, path: Path, directory: Path, out: Path, kill: int, way: str) -> int:
    command = [sys.executable, "-m", "tests.adapters.train_until_killed"]
    arguments = [str(path), str(directory), str(out), str(kill), way]
    environment = {**os.environ, **CHEAP, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command + arguments, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    if done.returncode not in (0, -9):
        pytest.fail(done.stderr[-3000:])
    return done.returncode


@pytest.mark.parametrize(
    ("backend", "way"),
    [("tensorflow", "to_keras"), ("tensorflow", "to_tf"), ("jax", "to_keras"), ("torch", "to_keras")],
)
def test_killed_at_random_batches(tmp_path: Path, backend: str, way: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    path = write(tmp_path / "k.h5")
    assert train(backend, path, tmp_path / "whole", tmp_path / "whole.npz", 0, way) == 0
    kills = random.Random(f"{backend} {way}")
    for _ in range(2 if (backend, way) == ("tensorflow", "to_keras") else 1):
        assert train(backend, path, tmp_path / "killed", tmp_path / "killed.npz", kills.randint(14, 62), way) == -9
    assert not (tmp_path / "killed.npz").exists()
    assert train(backend, path, tmp_path / "killed", tmp_path / "killed.npz", 0, way) == 0
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "killed.npz") as killed:
        assert len(whole.files) > 20
        assert all(whole[name].tobytes() == killed[name].tobytes() for name in whole.files)
