"""What reading a source takes, measured from outside: peak RSS of a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

MIB = 2**20
N_ROWS, ROW = 96 * 1024, (16, 32)  # 48 MiB of bytes

CODE = """
import sys, numpy as np
from oocload.convert.sources.resolve import resolve

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

source = eval(sys.argv[1])
rows = resolve(source, None)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew: proc(5)
before = peak()
total = 0
for batch in rows.batches(int(sys.argv[2]), n_ahead=2, n_threads=2):
    total += int(batch["x"][:, 0, 0].sum())
    del batch
print(total, peak() - before, rows.held_nbytes(int(sys.argv[2]), 2, 2))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    x = np.zeros((N_ROWS, *ROW), np.uint8)
    x[:, 0, 0] = np.arange(N_ROWS) % 251
    np.save(folder / "x.npy", x)
    np.save(folder / "f.npy", np.asfortranarray(x))
    np.savez_compressed(folder / "f.npz", x=np.asfortranarray(x))
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=x, chunks=(2048, 16, 16), compression="gzip", compression_opts=1)
    return folder


@pytest.mark.parametrize(
    "source",
    [
        "'x.npy'",
        "'f.npy'",
        "'f.npz'",
        "'x.h5'",
        "np.load('x.npy', mmap_mode='r')",
        "np.load('f.npy', mmap_mode='r')",
        "np.load('x.npy', mmap_mode='r+')[:, ::-1]",
    ],
)
def test_peak(folder: Path, source: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CODE, source, str(2 * MIB)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    total, taken, held = map(int, run.stdout.split())
    assert total == int((np.arange(N_ROWS) % 251).sum() if "::-1" not in source else 0)
    assert taken <= held + 6 * MIB, f"took {taken / MIB:.1f} MiB, and said {held / MIB:.1f} MiB"
    assert held < 24 * MIB
