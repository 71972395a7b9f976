"""The tests of Keras, once more on its other backends, each of which is a process."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras")
pytestmark = pytest.mark.framework

HERE = Path(__file__).parent


# Those that do not look at what a backend does are run once.
FILES = {
    "test_keras.py": "not (bad_options or installed or pickles or index or parts_of)",
    "test_keras_callbacks.py": "not (refused or bad_options or damaged or kept or counted or without_a_seed)",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on(backend: str, name: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "-k", FILES[name]]
    command.append(str(HERE / name))
    environment = {**os.environ, "KERAS_BACKEND": backend}
    for variable in [v for v in environment if v.startswith("PYTEST_")]:
        del environment[variable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
