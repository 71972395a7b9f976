"""Datasets and loaders of PyTorch, read back with h5py."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oocload
from oocload.convert.fields import parse_fields
from oocload.convert.sources.resolve import resolve
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning
from oocload.sources import TorchSource
from tests.convert.sources.kinds import assert_rows, gather

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset  # noqa: E402

pytestmark = pytest.mark.framework
N = 101
X, Y = torch.arange(N * 6, dtype=torch.float32).reshape(N, 2, 3), torch.arange(N)
NAMES = [f"row {i}" for i in range(N)]


class Rows(Dataset):  # type: ignore[type-arg]
    def __init__(self) -> None:
        self.read: list[int] = []
        self.threads: set[int] = set()

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> dict[str, Any]:
        self.read.append(i)
        self.threads.add(threading.get_ident())
        return {"x": X[i].requires_grad_(False), "y": i, "name": NAMES[i], "t": Y[: i % 4]}


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        return ((X[i], i) for i in range(N))


class Without(Dataset):  # type: ignore[type-arg]
    """Without text and ragged rows, that a loader cannot join."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": X[i], "y": i, "name": NAMES[i]}


def both() -> dict[str, list[np.ndarray]]:
    return {"x": [*X.numpy()], "y": [*Y.numpy()]}


@pytest.mark.parametrize("n_ahead", [0, 2])
@pytest.mark.parametrize(("start", "stop"), [(0, None), (17, 60), (100, None)])
def test_map_style(start: int, stop: int | None, n_ahead: int) -> None:
    """Rows are asked for one by one, only those that are wanted, and by the thread that converts."""
    dataset = Rows()
    source = TorchSource(dataset, fields={**FIELDS, "t": (None, "int64")})
    got = gather(source.batches(600, start, stop, n_ahead, 2))
    assert dataset.read[-len(got["y"]) :] == list(range(start, stop or N))
    assert dataset.threads == {threading.get_ident()}
    np.testing.assert_array_equal(got["x"], X[start:stop])
    assert [bytes(name).decode() for name in got["name"]] == NAMES[start:stop]
    assert [t.tolist() for t in got["t"]] == [list(range(i % 4)) for i in range(start, stop or N)]
    assert source.n_rows == N


FIELDS: dict[str, Any] = {"x": ((2, 3), "float32"), "y": "int64", "name": (None, "uint8")}


@pytest.mark.parametrize("start", [0, 37])
@pytest.mark.parametrize("make", [lambda: TensorDataset(X, Y), Stream, lambda: Subset(TensorDataset(X, Y), range(N))])
def test_datasets(make: Any, start: int) -> None:
    source = resolve(make(), None)
    assert source.specs == parse_fields({"x": ((2, 3), "float32"), "y": "int64"})
    assert_rows(gather(source.batches(500, start)), {name: rows[start:] for name, rows in both().items()})


@pytest.mark.parametrize("n_workers", [0, 1])
def test_loader(tmp_path: Path, n_workers: int) -> None:
    loader = DataLoader(Without(), batch_size=8, num_workers=n_workers)
    oocload.convert(loader, tmp_path / "a.h5", progress=False)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["x"], X)
        np.testing.assert_array_equal(file["y"], Y)
        assert file["name/values"][:].tobytes().decode() == "".join(NAMES)


def test_loaders_of_tuples_tensors_and_rows() -> None:
    pairs = DataLoader(TensorDataset(X, Y), batch_size=8)
    assert_rows(gather(resolve(pairs, None).batches(100)), both())
    alone = DataLoader(X, batch_size=8)  # type: ignore[arg-type]
    np.testing.assert_array_equal(gather(resolve(alone, None).batches(100))["x"], X)
    unbatched = DataLoader(TensorDataset(X, Y), batch_size=None)
    assert_rows(gather(resolve(unbatched, None).batches(100)), both())
    lists = DataLoader(Stream(), batch_size=8, collate_fn=lambda rows: [[x.flatten()[: y % 3] for x, y in rows]])
    got = resolve(lists, None)
    assert [len(x) for x in gather(got.batches(100))["x"]] == [i % 3 for i in range(N)]


def test_batches_are_not_copied() -> None:
    (batch,) = resolve(DataLoader(TensorDataset(X), batch_size=N, collate_fn=lambda rows: X), None).batches(100)
    assert np.shares_memory(batch["x"], X.numpy())


def test_text_is_known_as_text() -> None:
    source = TorchSource(DataLoader(Without(), batch_size=8))
    gather(source.batches(100))
    assert source.meanings == {"name": Meaning(content="text")}
    assert TorchSource(Rows(), fields={**FIELDS, "t": (None, "int64")}).meanings == source.meanings


class Uneven(Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 9

    def __getitem__(self, i: int) -> Any:
        return torch.zeros(3 if i < 7 else 4)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"one shape, \(3,\), got \(4,\) in row 7; .*ragged=\['x'\]"):
        oocload.convert(Uneven(), tmp_path / "a.h5", progress=False)
    assert len(gather(TorchSource(Uneven(), ragged=["x"]).batches(10))["x"]) == 9
    with pytest.raises(InvalidArgumentError, match="fields and ragged must be left out of a DataLoader"):
        TorchSource(DataLoader(Uneven()), ragged=["x"])
    with pytest.raises(InvalidArgumentError, match="must have a length, got Dataset, which has no __len__"):
        TorchSource(Dataset())
    for made in (None, {"x": ["a", 3]}, {"x": {"y": 1}}):
        with pytest.raises(InvalidArgumentError, match="field 'x' must .*(tensors, or lists|numbers or text)"):
            gather(TorchSource(DataLoader(Uneven(), collate_fn=lambda rows, made=made: made)).batches(100))
    with pytest.raises(InvalidArgumentError, match="dataset must be a torch.utils.data Dataset, .* got list"):
        TorchSource([1, 2])
    with pytest.raises(InvalidArgumentError, match="such as NumPy can hold: .*BFloat16"):
        gather(TorchSource(TensorDataset(X.bfloat16())).batches(100))
