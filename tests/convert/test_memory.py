"""The ceiling of a conversion, measured from outside: the peak RSS of a process above its imports."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import oocload
from oocload.errors import MemoryCeilingError

MIB = 2**20

CODE = """
import json, sys, h5py, imagecodecs, numcodecs, zarr, oocload

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

before = status("VmRSS")
oocload.convert(sys.argv[1], sys.argv[2], memory=int(sys.argv[3]))
print(json.dumps(status("VmHWM") - before))
"""


@pytest.mark.parametrize(
    ("target", "ceiling"), [("t.h5", 12 * MIB), ("t.zarr", 12 * MIB), ("parts/p-*.h5", 12 * MIB), ("t.h5", 48 * MIB)]
)
def test_peak(tmp_path: Path, target: str, ceiling: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 8192), dtype="u1")
    n_rows = 10_240 if ceiling > 16 * MIB else 5120  # more than may be held
    rows = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "u1", (n_rows, 8192))
    for start in range(0, len(rows), len(noise)):
        rows[start : start + len(noise)] = noise
    del rows
    if "*" in target:
        code = CODE.replace("memory=int(sys.argv[3])", 'memory=int(sys.argv[3]), part_bytes="12 MiB"')
    else:
        code = CODE
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "x.npy", tmp_path / target, str(ceiling)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) <= ceiling * 1.1 + 16 * MIB < (tmp_path / "x.npy").stat().st_size


def test_a_chunk_of_the_target_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(
        MemoryCeilingError, match=r"memory must be at least 52\.5 MiB for chunks of 7\.5 MiB read .*; raise it, or make"
    ):
        oocload.convert(np.zeros((1000, 8192), "u1"), tmp_path / "t.h5", memory="16 MiB", chunk_rows=960)
    assert not list(tmp_path.iterdir())


def test_a_chunk_of_the_source_that_does_not_fit(tmp_path: Path) -> None:
    oocload.convert(np.zeros((1000, 8192), "u1"), tmp_path / "s.h5", chunk_rows=960)
    with pytest.raises(
        MemoryCeilingError, match=r"read in pieces of 7\.5 MiB, got .*; field 'x' .*s\.h5.* has pieces of"
    ):
        oocload.convert(tmp_path / "s.h5", tmp_path / "t.h5", memory="16 MiB")
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]
