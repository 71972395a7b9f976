"""What recipes measure, and what they say of a way that memory ended."""

import json
import subprocess
import sys
from pathlib import Path

from tests.recipes.running import RECIPES

CODE = """
import os, signal, subprocess, sys, time
import numpy as np
from parts import side_by_side
from parts.measured import Outcome
from parts.side_by_side import compare

def held() -> Outcome:
    print("once")
    return Outcome(1, [float(np.ones(40 << 20, np.uint8)[0])])

def of_a_child() -> Outcome:
    code = "import time; a = b'x' * (30 << 20); time.sleep(0.4)"
    subprocess.run([sys.executable, "-c", code], check=True)
    return Outcome(2, [1.0], seconds=0.5, shown={"column": "shown"})

def too_much() -> Outcome:
    raise MemoryError

def killed() -> Outcome:
    if os.fork() == 0:
        time.sleep(60)  # is not waited for
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)

args = side_by_side.arguments(None, 1).parse_args()
compare({"held": held, "killed": killed}, {"child": of_a_child}, args, data_nbytes=1 << 20, same="values")
args.json = None
compare({"too much": too_much}, {"held": held}, args, data_nbytes=1 << 20, same="values")
"""


def test_ways_apart(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, "--rounds", "2", "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={"PYTHONPATH": f"{RECIPES}:{RECIPES.parents[1]}"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((tmp_path / "figures.json").read_text())
    held, killed, child = (figures["ways"][name] for name in ("held", "killed", "child"))
    assert 39 << 20 <= held["peak_nbytes"] < 50 << 20
    assert 29 << 20 <= child["peak_nbytes"] < 60 << 20
    assert child["rows_per_s"] == 4
    assert killed["rows_per_s"] is None
    assert figures["difference"] == 0
    first, second = done.stdout.split("the data is 1 MiB")[:2]
    assert first.count("once") == 1  # not in the second round
    assert "\nkilled  out of memory" in first
    assert "shown" in first
    assert "values of both: the same" in second
    assert "there was not memory enough for all ways" in second
