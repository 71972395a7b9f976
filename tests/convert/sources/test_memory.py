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
import os, sys, numpy as np
from oocload.convert.sources.resolve import resolve

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

def measure(source, nbytes):
    rows = resolve(eval(source), None)
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew: proc(5)
    before = peak()
    total = 0
    for batch in rows.batches(nbytes, n_ahead=2, n_threads=2):
        total += int(batch["x"][:, 0, 0].sum())
        del batch
    print(total, peak() - before, rows.held_nbytes(nbytes, 2, 2), sep="\t", flush=True)

for source in sys.argv[2:]:
    child = os.fork()  # each of them from the same state, with everything imported
    if not child:
        measure(source, int(sys.argv[1]))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, source
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


SOURCES = (
    "'x.npy'",
    "'f.npy'",
    "'f.npz'",
    "'x.h5'",
    "np.load('x.npy', mmap_mode='r')",
    "np.load('f.npy', mmap_mode='r')",
    "np.load('x.npy', mmap_mode='r+')[:, ::-1]",
)


@pytest.fixture(scope="module")
def measured(folder: Path) -> dict[str, list[int]]:
    """Source → sum, bytes taken, bytes that were said to be."""
    run = subprocess.run(
        [sys.executable, "-c", CODE, str(2 * MIB), *SOURCES],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return {source: list(map(int, line.split())) for source, line in zip(SOURCES, run.stdout.splitlines(), strict=True)}


@pytest.mark.parametrize("source", SOURCES)
def test_peak(measured: dict[str, list[int]], source: str) -> None:
    total, taken, held = measured[source]
    assert total == int((np.arange(N_ROWS) % 251).sum() if "::-1" not in source else 0)
    assert taken <= held + 6 * MIB, f"took {taken / MIB:.1f} MiB, and said {held / MIB:.1f} MiB"
    assert held < 24 * MIB
