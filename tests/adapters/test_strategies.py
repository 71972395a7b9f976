"""`to_tf()` under ``tf.distribute``, by the real strategies, in processes of their own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.frameworks import N_ROWS, every_row, write

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.framework

ROOT = Path(__file__).parents[2]


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.adapters.strategies", *map(str, arguments)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TF_CONFIG", None)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=environment)


def told(process: subprocess.Popen[str]) -> Any:
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(next(line for line in out.splitlines() if line.startswith("told")).removeprefix("told"))


def free_ports() -> int:
    """Return a port that is free, with the one after it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("localhost", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("localhost", port + 1))
            except OSError:
                continue
            return port


def test_mirrored(tmp_path: Path) -> None:
    seen = told(start(write(tmp_path / "m.h5"), "mirrored"))
    for way in ("to_tf", "to_keras"):
        assert seen[way] == {name: [value] * 2 for name, value in every_row().items()}
    assert seen["loop"] == list(range(N_ROWS))


def test_two_workers(tmp_path: Path) -> None:
    """Keras' own `fit` fails under this strategy, with NumPy arrays too, so a loop of one's own is what is tested."""
    path, port = write(tmp_path / "w.h5"), free_ports()
    workers = [start(path, "worker", rank, port) for rank in (0, 1)]
    seen = [told(process) for process in workers]
    assert [(w["world_size"], w["rank"]) for w in seen] == [(2, 0), (2, 1)]
    for name in ("by_function", "divided"):
        a, b = (w[name] for w in seen)
        assert sorted({*a["rows"], *b["rows"]}) == list(range(N_ROWS))
        assert len(a["rows"]) == len(b["rows"]) == 1002  # one row is there twice, so that steps are equal
        assert a["sizes"] == b["sizes"]
        assert a["total"] == b["total"] == sum(a["rows"]) + sum(b["rows"])
    assert max(seen[0]["by_function"]["sizes"]) == 32
    assert max(seen[0]["divided"]["sizes"]) == 16
