"""Keras on JAX and PyTorch where there is no TensorFlow: what the model gets goes nowhere else on its way."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.frameworks import N_ROWS, write

pytest.importorskip("keras")
pytestmark = pytest.mark.framework

ROOT = Path(__file__).parents[2]

TRAIN = """
import json, sys
sys.modules["tensorflow"] = None  # an import of it fails
import keras, numpy as np, oocload
from tests.adapters.frameworks import BATCH, WINDOW, seen

backend = keras.backend.backend()
model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(1e-12), "mse", metrics=[seen()])
loader = oocload.Loader(sys.argv[1], BATCH, seed=1, shuffle=WINDOW)
logs = [model.fit(loader.to_keras(), epochs=2, verbose=0).history]
if backend == "torch":
    from torch.utils.data import DataLoader
    for n_workers in (0, 2):
        logs.append(model.fit(DataLoader(loader.to_torch(), batch_size=None, num_workers=n_workers), verbose=0).history)
else:
    logs.append(model.fit((batch for batch in loader.to_jax()), steps_per_epoch=len(loader), verbose=0).history)
print(json.dumps([sum((log[name] for log in logs), []) for name in ("rows", "total")]))
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_every_row_is_seen_once_an_epoch(tmp_path: Path, backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    path = write(tmp_path / "t.h5")
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TRAIN, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    rows, totals = json.loads(done.stdout.splitlines()[-1])
    assert set(rows) == {N_ROWS}
    assert set(totals) == {sum(range(N_ROWS))}
    assert len(rows) == (4 if backend == "torch" else 3)
