"""Ranks under `torch.distributed`, found by the loader itself, in two processes with the real packages."""

import itertools
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from tests.adapters.frameworks import N_ROWS, write

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.framework

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stores: of 2,003 rows and of 2,000."""
    folder = tmp_path_factory.mktemp("ranks")
    write(folder / "odd.h5")
    numbers = np.arange(2000)
    oocload.convert({"x": numbers.astype("float32"), "y": numbers}, folder / "even.zarr")
    return folder


@pytest.fixture(scope="module")
def loops(folder: Path) -> list[Any]:
    return both("loops", folder, folder / "meet")


def both(name: str, folder: Path, meet: object) -> list[Any]:
    """Return what each of two ranks tells."""
    launchers = ("RANK", "WORLD_SIZE", "TF_CONFIG", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
    environment = {k: v for k, v in os.environ.items() if k not in launchers}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.adapters.ranks", name, str(folder), str(meet)]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([*command, str(rank)], stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=environment)
        for rank in range(2)
    ]
    try:
        told = []
        for process in processes:
            out, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors[-3000:]
            told.append(json.loads(next(line for line in out.splitlines() if line.startswith("told"))[4:]))
        return told
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


def counted(*epochs: list[list[int]]) -> Counter[int]:
    return Counter(itertools.chain(*itertools.chain(*epochs)))


@pytest.mark.parametrize(
    ("store", "uneven", "n_rows", "n_given"),
    [
        ("even.zarr", "pad", 2000, 2000),
        ("even.zarr", "drop", 2000, 2000),
        ("odd.h5", "pad", N_ROWS, N_ROWS + 1),  # one row is there twice
        ("odd.h5", "drop", N_ROWS - 1, N_ROWS - 1),
    ],
)
def test_ranks_share_the_rows(
    folder: Path, loops: list[Any], store: str, uneven: str, n_rows: int, n_given: int
) -> None:
    """Each rank has what a loader that is told its rank has; the second epoch comes through a DataLoader."""
    for epoch, ranks in enumerate(zip(*(told["rows"][f"{store} {uneven}"] for told in loops), strict=True)):
        sizes = [[len(batch) for batch in batches] for batches in ranks]
        assert sizes[0] == sizes[1]
        counts = counted(*ranks)
        assert (len(counts), sum(counts.values())) == (n_rows, n_given)
        for rank, batches in enumerate(ranks):
            with oocload.Loader(folder / store, 32, seed=0, rank=rank, world_size=2, uneven=uneven) as loader:
                loader.load_state_dict(loader.state_dict(epoch=epoch, batch=0))
                assert [y.tolist() for _, y in loader] == batches


def test_data_parallel_training(loops: list[Any]) -> None:
    a, b = (told["parallel"] for told in loops)
    assert a == b
    assert a["steps"] == 2 * 32


def test_trainers_on_two_ranks(folder: Path) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("transformers")
    a, b = both("trainer", folder, free_port())
    assert a["weights"] == b["weights"]
    for epoch in range(2):
        halves = [one["rows"][epoch * 32 :][:32] for one in (a, b)]
        assert [len(batch) for batch in halves[0]] == [len(batch) for batch in halves[1]]
        assert sorted(counted(*halves)) == list(range(N_ROWS))
        assert sum(counted(*halves).values()) == N_ROWS + 1
    for one in (a, b):
        assert one["refused"].startswith("accelerate must not be given this dataset's DataLoader to prepare")
        assert "one of 2 ranks" in one["refused"]
