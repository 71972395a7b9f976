"""The same batches in PyTorch, by the real PyTorch: iterated directly, and by a DataLoader without workers."""

import collections
import gc
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

import oocload
from oocload.errors import ChunkError, InvalidArgumentError, MissingPackageError, UnknownFieldError
from tests.adapters.frameworks import BATCH, N_BATCHES, N_ROWS, WINDOW, assert_same, damage, stream, write
from tests.conftest import our_threads

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402

pytestmark = pytest.mark.framework


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "t.h5")


def batches(dataset: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the batches of a pass, copied."""
    return [(x.clone().numpy(), y.clone().numpy()) for x, y in dataset]


@pytest.mark.parametrize("through", [lambda d: d, lambda d: DataLoader(d, batch_size=None)])
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("shuffle", [WINDOW, False])
def test_stream_is_that_of_the_iterator(path: Path, threads: int, shuffle: object, through: Callable) -> None:
    with (
        oocload.Loader(path, BATCH, seed=1, shuffle=shuffle) as plain,
        oocload.Loader(path, BATCH, seed=1, shuffle=shuffle, threads=threads) as loader,
    ):
        dataset = through(loader.to_torch())
        assert len(dataset) == N_BATCHES
        assert_same(stream(plain, 3), [batch for _ in range(3) for batch in batches(dataset)])
        assert loader.epoch == 3


def test_tensors_lie_over_the_slab(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        first, second = (x for x, _ in itertools.islice(loader.to_torch(), 2))
        assert second.data_ptr() - first.data_ptr() == first.nbytes


def test_a_kept_tensor_stays_as_it_is(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        first = next(iter(loader.to_torch()))[0]
        before = first.clone()
        for _ in range(3):
            for _ in loader.to_torch():
                pass
        assert torch.equal(first, before)


def test_what_is_in_a_batch_keeps_its_form(path: Path) -> None:
    with oocload.Loader(path, BATCH, x=["x", "w"], y="y", sample_weight="w", shuffle=False) as loader:
        inputs, y, weight = next(iter(loader.to_torch()))
        assert sorted(inputs) == ["w", "x"]
        assert (y.dtype, weight.shape) == (torch.int64, (BATCH,))
    with oocload.Loader(path, BATCH, x="y", shuffle=False) as loader:
        assert next(iter(loader.to_torch())).tolist() == list(range(BATCH))


def test_what_a_transform_returns(path: Path) -> None:
    Pair = collections.namedtuple("Pair", "x y")

    def transform(batch: Any) -> Any:
        x, y = batch
        return {"pair": Pair(x[:, ::-1], y.astype(">i4")), "more": [np.float32(2), torch.ones(len(y)), "text"]}

    with oocload.Loader(path, BATCH, shuffle=False, transform=transform) as loader:
        batch = next(iter(loader.to_torch()))
        assert type(batch["pair"]) is Pair
        assert batch["pair"].x[0].tolist() == [float(i * 10_000) for i in reversed(range(12))]
        assert batch["pair"].y.tolist() == list(range(BATCH))
        assert batch["more"][0].item() == 2
        assert batch["more"][2] == "text"
    with oocload.Loader(path, BATCH, transform=lambda batch: batch[1].astype(str)) as loader:
        with pytest.raises(
            InvalidArgumentError, match=r"a transform's array must have a dtype that PyTorch has, got <U"
        ):
            next(iter(loader.to_torch()))


DTYPES = ["bool", *(f"{s}int{n}" for s in ("", "u") for n in (8, 16, 32, 64)), "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", [*DTYPES, "complex64", "complex128", ">i2", ">f4"])
def test_every_dtype_with_tensors(tmp_path: Path, dtype: str) -> None:
    rows = (np.arange(40) % 2 if dtype == "bool" else np.arange(40)).astype(dtype)
    oocload.convert({"a": rows}, tmp_path / "d.zarr")
    with oocload.Loader(tmp_path / "d.zarr", 8, x="a", shuffle=False) as loader:
        tensors = list(loader.to_torch())
        assert tensors[0].dtype == getattr(torch, np.dtype(dtype).name)
        assert np.concatenate([t.numpy() for t in tensors]).tolist() == rows.tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_dtypes_that_numpy_lacks(dtype: str) -> None:
    from oocload.adapters.tensors import as_tensors

    rows = np.arange(8).astype(getattr(ml_dtypes, dtype))
    tensor = as_tensors(rows)
    assert tensor.dtype == getattr(torch, dtype)
    assert tensor.to(torch.float32).tolist() == list(range(8))
    rows[0] = 3
    assert tensor[0].item() == 3


def test_a_dtype_without_tensors_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["x"] = np.arange(5)
        file["name"] = np.array([b"a", b"b", b"c", b"d", b"e"])
    with oocload.Loader(tmp_path / "s.h5", 2) as loader:
        with pytest.raises(
            InvalidArgumentError,
            match=r"field 'name' must have a dtype that PyTorch has, got \|S1; choose other fields",
        ):
            loader.to_torch()


# Floats


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_bytes_become_normalised_floats(tmp_path: Path, dtype: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), np.uint8)
    oocload.convert({"x": images, "y": np.arange(50)}, tmp_path / "i.h5")
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.25, 2.0])
    with oocload.Loader(tmp_path / "i.h5", 16, seed=0) as loader:
        floats = oocload.Floats(dtype, mean=mean, std=std)
        for x, y in loader.to_torch(floats=floats):
            assert x.dtype == getattr(torch, dtype)
            assert y.dtype == torch.int64
            expected = (images[y.numpy()] / 255 - mean) / std
            epsilon = {"float64": 1e-12, "float32": 1e-6}.get(dtype, 2**-7)
            np.testing.assert_allclose(x.to(torch.float64).numpy(), expected, rtol=epsilon, atol=epsilon)


def test_which_fields_become_floats(tmp_path: Path) -> None:
    arrays = {"a": np.arange(40, dtype="uint8"), "b": np.arange(40, dtype="int16"), "c": np.arange(40, dtype="uint8")}
    oocload.convert(arrays, tmp_path / "a.h5")

    def dtypes(floats: Any) -> list[str]:
        with oocload.Loader(tmp_path / "a.h5", 8, x=["a", "b"], y="c") as loader:
            x, y = next(iter(loader.to_torch(floats=floats)))
            return [str(t.dtype).removeprefix("torch.") for t in (*x.values(), y)]

    assert dtypes(None) == ["uint8", "int16", "uint8"]
    assert dtypes(True) == ["float32", "int16", "uint8"]
    assert dtypes(oocload.Floats("float16")) == ["float16", "float16", "uint8"]
    assert dtypes({"c": oocload.Floats()}) == ["uint8", "int16", "float32"]


@pytest.mark.parametrize(
    ("floats", "message"),
    [
        ("yes", "floats must be True, an oocload.Floats or a dict of them, got 'yes'"),
        ({"y": 1}, "floats must be oocload.Floats for each field, got 1 for 'y'"),
        ({"z": oocload.Floats()}, "floats must name fields of a batch, x, y; got 'z'"),
        (True, "floats=True must find a field of uint8 among the inputs: 'x' is float32"),
        (oocload.Floats(mean=[1, 2]), r"mean must broadcast to the rows of 'x', of shape \(12,\), and has \(2,\)"),
    ],
)
def test_floats_that_do_not_fit(path: Path, floats: Any, message: str) -> None:
    with oocload.Loader(path, BATCH) as loader:
        with pytest.raises((InvalidArgumentError, UnknownFieldError), match=message):
            loader.to_torch(floats=floats)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype must be one of float16, bfloat16, float32, float64, got 'int8'"),
        ({"std": [1, 0]}, r"std must not be 0 anywhere, got \[1, 0\]"),
        ({"mean": float("nan")}, "mean must be finite, got nan"),
        ({"scale": [1, 2]}, r"scale must be finite and one number, got \[1, 2\]"),
        ({"mean": "much"}, "mean must be a number or an array of numbers, got 'much'"),
    ],
)
def test_floats_of_no_sense(options: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        oocload.Floats(**options)


def test_floats_beside_a_transform(path: Path) -> None:
    with oocload.Loader(path, BATCH, transform=lambda batch: batch) as loader:
        with pytest.raises(InvalidArgumentError, match="floats must not be given where there is a transform"):
            loader.to_torch(floats=True)


# State


@pytest.mark.parametrize("stop", [1, 30, 62, 63, 64, 100])
def test_resume_in_mid_epoch(path: Path, stop: int) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
        expected = stream(plain, 3)
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        dataset, n_left, got = loader.to_torch(), stop, []
        while n_left:
            for x, y in dataset:
                got.append((x.numpy().copy(), y.numpy().copy()))
                n_left -= 1
                if not n_left:
                    break
        state = dataset.state_dict()
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        dataset = loader.to_torch()
        dataset.load_state_dict(state)
        while len(got) < len(expected):
            got += batches(dataset)
    assert_same(expected, got)


def test_left_early_it_leaves_nothing(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        for _ in range(50):
            for _ in loader.to_torch():
                break
        gc.collect()
        assert not our_threads()
        assert loader.stats.memory.peak <= loader.memory
        assert len(batches(loader.to_torch())) == N_BATCHES


def test_a_mix(path: Path) -> None:
    def mixed() -> oocload.Mix:
        return oocload.mix([oocload.Loader(path, BATCH, seed=s) for s in (1, 2)], weights=[1, 3], seed=0)

    with mixed() as plain, mixed() as loader:
        assert_same(stream(plain, 2), batches(loader.to_torch()) + batches(loader.to_torch()))


# Bad input


def test_without_pytorch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("oocload.adapters.")]:
        monkeypatch.delitem(sys.modules, name)
    with oocload.Loader(path, BATCH) as loader:
        with pytest.raises(
            MissingPackageError, match=r"to_torch\(\) needs .* run: pip install torch \(or .* 'torch'\)"
        ):
            loader.to_torch()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:3", torch.device("cuda", 0)])
def test_without_cuda(path: Path, device: Any) -> None:
    with oocload.Loader(path, BATCH) as loader:
        with pytest.raises(
            InvalidArgumentError,
            match=r"device must be one that PyTorch can use, got 'cuda.*, but torch.cuda.is_available\(\) is False "
            r"\(PyTorch .*\); leave device out",
        ):
            loader.to_torch(device=device)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, r"device must be what torch.device\(\) takes, got 'gpu'"),
        ({"device": 1.5}, r"device must be what torch.device\(\) takes, got 1.5"),
        ({"ahead": -1}, "ahead must be a whole number of at least 0, got -1"),
    ],
)
def test_options_of_no_sense(path: Path, options: Any, message: str) -> None:
    with oocload.Loader(path, BATCH) as loader:
        with pytest.raises(InvalidArgumentError, match=message):
            loader.to_torch(**options)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_dataloader_that_batches_batches(path: Path, batch_size: int) -> None:
    with oocload.Loader(path, BATCH) as loader:
        with pytest.raises(
            InvalidArgumentError,
            match=r"batch_size of the DataLoader must be None: .* of 32 rows, .*DataLoader\(dataset, batch_size=None\)",
        ):
            next(iter(DataLoader(loader.to_torch(), batch_size=batch_size)))


def test_a_device_of_another_kind(path: Path) -> None:
    """Batches that are copied one by one; "meta" keeps shapes alone."""
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        got = list(loader.to_torch(device="meta"))
        assert len(got) == N_BATCHES
        assert {x.device.type for x, _ in got} == {"meta"}
        assert got[-1][0].shape == (N_ROWS % BATCH, 12)


def test_a_damaged_chunk_is_named(path: Path) -> None:
    damage(path, 40)
    with oocload.Loader(path, BATCH, shuffle=False) as loader:
        with pytest.raises(ChunkError, match=r"field 'x'.*chunk"):
            batches(loader.to_torch())
        gc.collect()
        assert not our_threads()
