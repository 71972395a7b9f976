"""A run that is killed again and again ends with the weights of one that is not, bit for bit, on each backend."""

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest

from tests.adapters.frameworks import cheap, write
from tests.convert.kills import runner

pytest.importorskip("keras")
pytestmark = pytest.mark.framework

TRAIN = "tests.adapters.train_until_killed.train"


@pytest.mark.parametrize(
    ("backend", "way"),
    [("tensorflow", "to_keras"), ("tensorflow", "to_tf"), ("jax", "to_keras"), ("torch", "to_keras")],
)
def test_killed_at_random_batches(tmp_path: Path, backend: str, way: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    path = write(tmp_path / "k.h5")
    kills = random.Random(f"{backend} {way}")
    with runner(**cheap(tmp_path), KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="3") as processes:

        def train(name: str, kill: int) -> str:
            files = {"directory": str(tmp_path / name), "out": str(tmp_path / f"{name}.npz")}
            return processes.run(TRAIN, store=str(path), kill=kill, way=way, **files)

        assert train("whole", 0) == "done"
        for _ in range(2 if (backend, way) == ("tensorflow", "to_keras") else 1):
            assert train("killed", kills.randint(14, 62)) == "killed"
        assert not (tmp_path / "killed.npz").exists()
        assert train("killed", 0) == "done"
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "killed.npz") as killed:
        assert len(whole.files) > 20
        assert all(whole[name].tobytes() == killed[name].tobytes() for name in whole.files)
