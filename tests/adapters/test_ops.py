"""Every framework gets what operations make, over the slab's own memory where it can."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from oocload import ops
from tests.adapters.frameworks import BATCH, WINDOW, write

pytestmark = pytest.mark.framework

MEAN, STD = np.arange(12) * 10_000.0, 500.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "t.h5", np.arange(2003) % 10)


def loader_of(path: Path, **options: Any) -> oocload.Loader:
    makes = {"x": [ops.normalize(MEAN, STD, dtype="float16")], "y": ops.one_hot(10)}
    return oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, x="x", y="y", ops=makes, **options)


def check(batches: list[tuple[Any, Any]], path: Path) -> None:
    with loader_of(path) as plain:
        for (x, y), (got_x, got_y) in zip(plain, batches, strict=True):
            assert (got_x.dtype, got_y.dtype) == (np.float16, np.float32)
            np.testing.assert_array_equal(got_x, x)
            np.testing.assert_array_equal(got_y, y)


def test_iterator(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, x="x", y="y") as plain, loader_of(path) as loader:
        for (x, y), (made_x, made_y) in zip(plain, loader, strict=True):
            np.testing.assert_allclose(made_x, (x - MEAN) / STD, rtol=1e-3, atol=1e-3)
            np.testing.assert_array_equal(made_y, np.eye(10)[y])


def test_tf(path: Path) -> None:
    pytest.importorskip("tensorflow")
    with loader_of(path) as loader:
        dataset = loader.to_tf()
        x, y = dataset.element_spec
        assert (x.shape.as_list(), x.dtype.name, y.shape.as_list()) == ([None, 12], "float16", [None, 10])
        check([(x.numpy(), y.numpy()) for x, y in dataset], path)


def test_torch_lies_over_the_slab(path: Path) -> None:
    pytest.importorskip("torch")
    with loader_of(path) as loader:
        check([(x.numpy().copy(), y.numpy().copy()) for x, y in loader.to_torch()], path)
        roots = {x.untyped_storage().data_ptr() // 2**21 for x, _ in loader.to_torch()}
        assert len(roots) <= 2 * (loader.spare_slabs + 3)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_workers_of_a_data_loader(path: Path, n_workers: int) -> None:
    torch = pytest.importorskip("torch")
    with loader_of(path) as loader:
        batches = torch.utils.data.DataLoader(loader.to_torch(), batch_size=None, num_workers=n_workers)
        check([(x.numpy().copy(), y.numpy().copy()) for x, y in batches], path)


def test_jax(path: Path) -> None:
    pytest.importorskip("jax")
    with loader_of(path) as loader:
        check([(np.array(x), np.array(y)) for x, y in loader.to_jax()], path)


def test_keras(path: Path) -> None:
    pytest.importorskip("keras")
    with loader_of(path) as loader:
        dataset = loader.to_keras()
        check([tuple(np.array(part) for part in dataset[i]) for i in range(len(dataset))], path)
