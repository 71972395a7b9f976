"""The tests of Keras, once more on its other backends, each of which is a process."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.frameworks import cheap

pytest.importorskip("keras")
pytestmark = pytest.mark.framework

HERE = Path(__file__).parent


# Those that do not look at what a backend does are run once.
ONCE = (
    "(bad_options or installed or pickles or index or parts_of) and test_keras.py",
    "(refused or bad_options or damaged or kept or counted or without_a_seed) and test_keras_callbacks.py",
)
FILES = ("test_keras.py", "test_keras_callbacks.py")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on(tmp_path: Path, backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    chosen = " and ".join(f"not ({some})" for some in ONCE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "-k", chosen]
    command += [str(HERE / name) for name in FILES]
    environment = {**os.environ, **cheap(tmp_path), "KERAS_BACKEND": backend}
    for variable in [v for v in environment if v.startswith("PYTEST_")]:
        del environment[variable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
