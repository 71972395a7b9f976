"""Conversions on the workers of a cluster: real processes, one of which is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from oocload.convert import cluster
from oocload.convert.arrays import NewArray
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError, StoreNotFoundError
from tests.convert.test_resume import check_same, content_of

distributed = pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")

pytestmark = [
    pytest.mark.framework,  # dask keeps threads of its own
    pytest.mark.filterwarnings("default"),
]

N_ROWS = 4000


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_TASK_NBYTES", 2**17)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=None
        ) as workers,
        distributed.Client(workers) as connected,
    ):
        yield connected


def rows() -> dict[str, np.ndarray]:
    numbers = np.arange(N_ROWS)
    x = (numbers[:, None] * np.arange(1, 1201) * 2654435761 >> 7) % 251
    return {"x": x.astype("u1").reshape(-1, 30, 40), "y": numbers}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "rows.h5"
    oocload.convert(rows(), path, chunk_rows=64)
    return path


OPTIONS: dict[str, dict[str, Any]] = {
    "t.zarr": {"chunk_rows": 50},
    "sharded.zarr": {"chunk_rows": 50, "chunks_per_shard": 3},
    "v2.zarr": {"chunk_rows": 50, "zarr_format": 2},
    "parts/p-*.h5": {"chunk_rows": 50, "part_bytes": "1 MiB"},
    "zarrs/p-*.zarr": {"chunk_rows": 50, "part_bytes": "1 MiB"},
}


def check_equal(got: Path, wanted: Path) -> None:
    """Compare stores, or each of several files."""
    if "*" not in got.name:
        check_same(got, wanted)
        return
    names = sorted(os.listdir(got.parent))
    assert names == sorted(os.listdir(wanted.parent))
    for name in names:
        check_same(got.parent / name, wanted.parent / name)


@pytest.mark.parametrize("target", OPTIONS)
def test_the_result_is_that_of_one_process(tmp_path: Path, source: Path, client: Any, target: str) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    seen: list[oocload.Progress] = []
    here = oocload.convert(source, tmp_path / "here" / target, **OPTIONS[target])
    there = oocload.convert(
        source, tmp_path / "there" / target, scheduler=client, progress=seen.append, **OPTIONS[target]
    )
    check_equal(tmp_path / "there" / target, tmp_path / "here" / target)
    assert (there.n_rows, there.nbytes, there.fields) == (here.n_rows, here.nbytes, here.fields)
    assert seen[-1].n_rows == N_ROWS
    assert len(os.listdir(tmp_path / "there")) == 1


def test_an_address_is_enough(tmp_path: Path, source: Path, client: Any) -> None:
    report = oocload.convert(source, tmp_path / "t.zarr", fields=["y"], scheduler=client.scheduler.address)
    assert report.n_rows == N_ROWS
    assert np.array_equal(content_of(tmp_path / "t.zarr")["y"], np.arange(N_ROWS))


@pytest.mark.parametrize("target", ["t.zarr", "sharded.zarr", "parts/p-*.h5"])
def test_dask_arrays(tmp_path: Path, client: Any, target: str) -> None:
    expected = rows()
    x = da.from_array(expected["x"], chunks=(70, 30, 20)) + 1  # blocks that end where no chunk does
    y = da.from_array(expected["y"], chunks=333)
    oocload.convert({"x": x, "y": y}, tmp_path / target, scheduler=client, **OPTIONS[target])
    with oocload.Loader(tmp_path / target, 100, shuffle=False, x="x", y="y") as loader:
        batches = list(loader)
    assert np.array_equal(np.concatenate([b[0] for b in batches]), expected["x"] + 1)
    assert np.array_equal(np.concatenate([b[1] for b in batches]), expected["y"])
    assert oocload.verify(tmp_path / target).ok


def slow(block: np.ndarray) -> np.ndarray:
    time.sleep(0.02)
    return block


@pytest.mark.parametrize("target", ["sharded.zarr", "parts/p-*.h5"])
def test_a_worker_that_is_killed(tmp_path: Path, client: Any, target: str) -> None:
    expected = rows()
    client.wait_for_workers(2)
    victims = list(client.run(os.getpid).values())

    def kill(progress: oocload.Progress) -> None:
        if victims and progress.n_rows > 500:
            os.kill(victims.pop(), signal.SIGKILL)
            victims.clear()

    x = da.from_array(expected["x"], chunks=(100, 30, 40)).map_blocks(slow, dtype="u1")
    oocload.convert({"x": x, "y": expected["y"]}, tmp_path / target, scheduler=client, progress=kill, **OPTIONS[target])
    assert not victims
    client.wait_for_workers(2)
    (tmp_path / "here").mkdir()
    oocload.convert(expected, tmp_path / "here" / target, **OPTIONS[target])
    check_equal(tmp_path / target, tmp_path / "here" / target)
    assert sorted(os.listdir(tmp_path)) == sorted(["here", target.partition("/")[0]])


@pytest.mark.parametrize("target", ["sharded.zarr", "parts/p-*.h5"])
def test_what_fails_is_resumed(tmp_path: Path, source: Path, client: Any, target: str) -> None:
    """Here, or on the cluster."""

    def stop(progress: oocload.Progress) -> None:
        if progress.n_rows >= 1000:
            raise KeyboardInterrupt

    path, options = tmp_path / target, OPTIONS[target]
    with pytest.raises(KeyboardInterrupt):
        oocload.convert(source, path, scheduler=client, progress=stop, **options)
    with pytest.raises(KeyboardInterrupt):
        oocload.convert(source, path, resume=True, memory="2 MiB", progress=stop, **options)
    seen: list[oocload.Progress] = []
    oocload.convert(source, path, scheduler=client, resume=True, progress=seen.append, **options)
    assert seen[0].n_rows > 1000
    (tmp_path / "here").mkdir()
    oocload.convert(source, tmp_path / "here" / target, **options)
    check_equal(path, tmp_path / "here" / target)


def test_tasks_write_whole_files() -> None:
    def array(row_nbytes: int, height: int, per_shard: int) -> NewArray:
        return NewArray(FieldSpec((row_nbytes,), np.dtype("u1")), height, per_shard)

    images, labels, weights = array(12_288, 42, 64), array(1, 32_256, 64), array(8, 32_256, 64)
    tasks = cluster.alike({"x": images, "y": labels, "w": weights})
    assert tasks[images.shard_height] == ["x"]
    (step,) = (step for step, names in tasks.items() if names == ["y", "w"])
    assert step % labels.shard_height == 0


def fail(block: np.ndarray) -> np.ndarray:
    raise ValueError("this block is bad")


def test_a_task_that_fails(tmp_path: Path, client: Any) -> None:
    x = da.ones((1000, 10), chunks=(100, 10)).map_blocks(fail, dtype="f8")
    with pytest.raises(ValueError, match="this block is bad"):
        oocload.convert(x, tmp_path / "t.zarr", scheduler=client)
    assert not (tmp_path / "t.zarr").exists()


def test_bad_calls(tmp_path: Path, source: Path, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_TIMEOUT_S", 1)
    address = "tcp://127.0.0.1:9"
    with pytest.raises(
        InvalidArgumentError,
        match=rf"scheduler must be the address of a running dask scheduler, got '{address}', where none answers",
    ):
        oocload.convert(source, tmp_path / "t.zarr", scheduler=address)
    with pytest.raises(InvalidArgumentError, match=r"scheduler must be the address .*, or a .*Client, got 3"):
        oocload.convert(source, tmp_path / "t.zarr", scheduler=3)
    with pytest.raises(
        InvalidArgumentError, match=r"target must be a \.zarr store, or several files .*, got '.*t\.h5'"
    ):
        oocload.convert(source, tmp_path / "t.h5", scheduler=client)
    with pytest.raises(InvalidArgumentError, match="source must be files, arrays or dask arrays where scheduler="):
        oocload.convert((np.ones((2, 2)) for _ in range(3)), tmp_path / "t.zarr", scheduler=client)
    with pytest.raises(InvalidArgumentError, match="fields must have rows of one shape where scheduler= is given"):
        oocload.convert({"r": [[1], [2, 3]]}, tmp_path / "t.zarr", scheduler=client)
    with pytest.raises(StoreNotFoundError, match="source must exist"):
        oocload.convert(tmp_path / "nothing.npy", tmp_path / "t.zarr", scheduler=client)
    assert os.listdir(tmp_path) == []
