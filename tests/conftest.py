"""Fixtures that every test uses: no leaked threads, descriptors or files; where the shared real data lies."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, settings

import oocload
from oocload.stores.base import direct_path_enabled

settings.register_profile(
    "oocload",
    deadline=None,  # a test never times anything
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("oocload")

SHARED = Path(os.environ.get("OOCLOAD_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what looks at the direct path itself where that is switched off (OOCLOAD_DIRECT_PATH=off)."""
    if not direct_path_enabled():
        for item in items:
            if item.get_closest_marker("direct"):
                item.add_marker(pytest.mark.skip(reason="the direct path is switched off"))


def pytest_collection_finish() -> None:
    """Leave what was imported out of what the collector looks at: with four frameworks that takes a second a time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail where a test leaves a thread of ours, or more descriptors than it found."""
    if request.node.get_closest_marker("framework"):
        yield  # frameworks keep threads and descriptors of their own; their tests look at ours
        return
    gc.collect()
    gc.freeze()  # and what frameworks import when they are used
    before = open_descriptors()
    yield
    gc.collect()
    deadline = time.monotonic() + 5
    while (left := our_threads()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"threads left: {left}"
    assert open_descriptors() <= before, "descriptors left open"


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("oocload")]


def open_descriptors() -> set[str]:
    """Return what the open descriptors of data files point to."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.endswith((".h5", ".hdf5", ".npy", ".npz", ".gz")) or ".zarr" in target:
            found.add(target)
    return found


@pytest.fixture
def mnist() -> Path:
    """The folder of the real MNIST test images."""
    folder = SHARED / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip(f"needs the MNIST files in {folder}")
    return folder


@pytest.fixture
def corpus() -> list[Path]:
    """HDF5 files by other writers."""
    folder = SHARED / "corpus" / "hdf5"
    if not folder.is_dir():
        pytest.skip(f"needs the HDF5 files in {folder}")
    return sorted(folder.glob("*.hdf5"))


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a store of numbered rows with h5py itself."""

    def make(n_rows: int = 1003, chunk_rows: int | None = 13, name: str = "store.h5", **options: object) -> Path:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for field, rows in numbered(n_rows).items():
                chunks = None if chunk_rows is None else (min(chunk_rows, n_rows), *rows.shape[1:])
                file.create_dataset(field, data=rows, chunks=chunks, **options)
        return path

    return make


def numbered(n_rows: int) -> dict[str, np.ndarray]:
    """Return rows from whose content their number can be told: ``x`` derived from it, ``y`` the number."""
    y = np.arange(n_rows)
    return {"x": ((y[:, None, None] * 31 + np.arange(35).reshape(7, 5)) % 251).astype("uint8"), "y": y}


def check_rows(x: np.ndarray, y: np.ndarray) -> None:
    """Fail unless each row of ``x`` is the one that ``y`` numbers."""
    expected = (np.asarray(y)[:, None, None] * 31 + np.arange(35).reshape(7, 5)) % 251
    np.testing.assert_array_equal(np.asarray(x), expected.astype("uint8"))


def read_back(path: Path) -> dict[str, np.ndarray]:
    """Read a whole store with h5py or zarr themselves."""
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path) as file:
            return {name: file[name][()] for name in oocload.open(path).fields}
    group = zarr.open_group(path, mode="r")
    return {name: np.asarray(array[...]) for name, array in group.members(max_depth=None) if hasattr(array, "shape")}
