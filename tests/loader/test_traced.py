"""What is really allocated, as `tracemalloc` sees it, against what is counted."""

import gc
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oocload
from oocload.loader.columns import rows_of_ids

MIB = 2**20
N_ROWS = 600_000
# What Python itself takes for a loader, its threads and a plan, and pieces of some ten thousand rows.
SMALL = 3 * MIB
PIECES = 10 * MIB


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traced") / "s.h5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        options = {"chunks": (4096,), "compression": "lzf"}
        file.create_dataset("wide", data=rng.integers(0, 4, (N_ROWS, 50), "u1"), chunks=(4096, 50), compression="lzf")
        file.create_dataset("raw", data=rng.integers(0, 4, (N_ROWS, 50), "u1"))
        file.create_dataset("narrow", data=rng.integers(0, 4, N_ROWS, "u2"), **options)
        file.create_dataset("label", data=rng.integers(0, 10, N_ROWS), **options)
        file.create_dataset("weight", data=rng.random(N_ROWS), **options)
        file.create_dataset("number", data=rng.permutation(N_ROWS), **options)
        names = np.char.mod("sample-%08d", rng.permutation(N_ROWS)).astype("S")
        file.create_dataset("name", data=names, **options)
    return path


def traced_peak(run: Callable[[], Any]) -> int:
    """Return the most bytes that NumPy and Python had allocated at once; slabs are mapped, and not among them."""
    gc.collect()
    tracemalloc.start()
    try:
        result = run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if isinstance(result, oocload.Loader):
        result.close()
    return peak


LOADERS: dict[str, dict[str, Any]] = {
    "wide": {"x": "wide"},
    "raw": {"x": "raw"},
    "narrow": {"x": "narrow"},
    "in order": {"x": "wide", "shuffle": False},
    "streams": {"x": "wide", "shuffle": oocload.Shuffle(streams=4)},
    "weights": {"x": "wide", "weights": "weight"},
    "balanced": {"x": "wide", "balanced": "label", "batch_size": 500},
    "narrow and weights": {"x": "narrow", "weights": "weight"},
}


@pytest.mark.filterwarnings("ignore::oocload.errors.ShuffleQualityWarning")
@pytest.mark.parametrize("memory", [14 * MIB, 40 * MIB])
@pytest.mark.parametrize("kind", LOADERS)
def test_all_that_is_allocated_is_below_the_ceiling(store: Path, kind: str, memory: int) -> None:
    mapped = []

    def run() -> None:
        with oocload.Loader(store, **{"batch_size": 512, "seed": 0, "memory": memory, **LOADERS[kind]}) as loader:
            n_rows = sum(map(len, loader))
            assert n_rows >= loader.epoch_rows
            loader[3]
            parts = loader.stats.memory.parts()
            mapped.append(sum(parts[part][1] for part in ("slabs", "copies") if part in parts))
            assert loader.stats.memory.peak <= memory

    assert traced_peak(run) + mapped[0] <= memory + SMALL


@pytest.mark.parametrize("part", ["mask", "rows", "blocks"])
def test_loaders_of_a_part_stay_below_the_ceiling(store: Path, part: str) -> None:
    memory, mapped = 30 * MIB, []
    some = np.random.default_rng(1).random(N_ROWS) < 0.3

    def run() -> None:
        with oocload.Loader(store, 512, x="wide", seed=0, memory=memory) as loader:
            child = loader.select(some) if part == "mask" else loader.split(0.5, by=part)[0]
            assert sum(map(len, child)) == child.n_rows
            mapped.append(child.stats.memory.parts()["slabs"][1])
            child.close()

    assert traced_peak(run) + mapped[0] <= memory + SMALL + PIECES


@pytest.mark.parametrize(
    ("make", "per_row"),
    [
        (lambda path: oocload.Loader(path, 500, x="wide", memory="40 MiB"), 0),
        (lambda path: oocload.Loader(path, 500, x="wide", y="label", memory="40 MiB"), 8),  # labels are held
        (lambda path: oocload.Loader(path, 500, x="wide", weights="weight", memory="40 MiB"), 8),
        (lambda path: oocload.Loader(path, 500, x="wide", balanced="label", memory="40 MiB"), 1),
    ],
    ids=["plain", "labels", "weights", "balanced"],
)
def test_making_a_loader_takes_little_more_than_it_holds(
    store: Path, make: Callable[[Path], oocload.Loader], per_row: int
) -> None:
    assert traced_peak(lambda: make(store)) <= per_row * N_ROWS + PIECES


@pytest.mark.parametrize("n_parts", [2, 40])
def test_looking_up_identifiers_takes_what_they_take(store: Path, n_parts: int) -> None:
    numbers = np.arange(N_ROWS)
    names = np.char.mod("sample-%08d", numbers).astype("S")
    with oocload.open(store) as opened:
        for field, ids in (("number", numbers), ("name", names)):
            parts = dict(enumerate(np.array_split(ids, n_parts)))
            peak = traced_peak(lambda: deque(rows_of_ids(opened, parts, field, N_ROWS), maxlen=0))  # noqa: B023
            assert peak <= ids.nbytes + 5 * N_ROWS + PIECES


def test_selecting_rows_takes_what_their_numbers_take(store: Path) -> None:
    rows = np.random.default_rng(2).permutation(N_ROWS)
    with oocload.Loader(store, 500, x="wide", memory="40 MiB") as loader:
        assert traced_peak(lambda: loader.select(rows[: N_ROWS // 2])) <= 8 * N_ROWS // 2 + PIECES
        assert traced_peak(lambda: loader.split(0.5, 0.5, by="rows")) <= PIECES


def test_a_chunk_index_is_never_held_twice(tmp_path: Path) -> None:
    n_chunks = 100_000
    with h5py.File(tmp_path / "many.h5", "w", libver="latest") as file:
        dataset = file.create_dataset("x", (n_chunks, 2, 2, 2), "u1", chunks=(1, 2, 2, 2), compression="lzf")
        for chunk in range(n_chunks):
            dataset.id.write_direct_chunk((chunk, 0, 0, 0), b"a" * 8)
    with oocload.open(tmp_path / "many.h5") as opened:
        table = []
        assert traced_peak(lambda: table.append(opened.locate("x"))) <= 40 * n_chunks + SMALL
        assert table[0].nbytes == 16 * n_chunks
        assert table[0].find(n_chunks - 1) is not None
