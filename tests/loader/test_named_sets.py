"""Rows that a store itself says are for training, validation or testing."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oocload

N_ROWS = 500
SETS = ("train", "validation", "test")
CODES = np.random.default_rng(0).choice([-1, 0, 0, 0, 1], N_ROWS).astype("int8")  # nothing is for testing


@pytest.fixture(params=["t.h5", "t.zarr"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    fields = {"x": ((3,), "int64"), "y": "int64", "split": "int8", "id": (None, "uint8")}
    with oocload.create(path, fields, vocabulary={"split": SETS}, chunk_rows=7) as writer:
        ids = [np.frombuffer(f"sample {i}".encode(), "uint8") for i in range(N_ROWS)]
        writer.append(x=np.arange(3 * N_ROWS).reshape(-1, 3), y=np.arange(N_ROWS), split=CODES, id=ids)
    return path


def rows_of(loader: oocload.Loader) -> list[int]:
    with loader:
        return sorted(int(n) for _, y in loader for n in y)


@pytest.mark.parametrize("names", ["train", "validation", ["train", "validation"], ("validation",)])
def test_exactly_the_rows_of_the_sets(store: Path, names: Any) -> None:
    wanted = [SETS.index(n) for n in ([names] if isinstance(names, str) else names)]
    for shuffle in (True, False):
        got = rows_of(oocload.Loader(store, batch_size=16, seed=0, shuffle=shuffle, split=names))
        assert got == np.flatnonzero(np.isin(CODES, wanted)).tolist()


def test_a_state_belongs_to_its_set(store: Path) -> None:
    with oocload.Loader(store, batch_size=16, seed=0, split="train") as train:
        batches = iter(train)
        next(batches)
        state = train.state_dict()
        rest = [y.copy() for _, y in batches]
    with oocload.Loader(store, batch_size=16, seed=0, split="train") as again:
        again.load_state_dict(state)
        assert np.array_equal(np.concatenate([y for _, y in again]), np.concatenate(rest))
    with oocload.Loader(store, batch_size=16, seed=0, split="validation") as other:
        with pytest.raises(oocload.StateError):
            other.load_state_dict(state)


def test_it_is_what_select_gives_and_divides_further(store: Path) -> None:
    with oocload.Loader(store, batch_size=16, seed=0) as whole, whole.select(CODES == 0) as chosen:
        with oocload.Loader(store, batch_size=16, seed=0, split="train") as train:
            pairs = zip(chosen, train, strict=True)
            assert all(np.array_equal(a, b) for (_, a), (_, b) in pairs)
            some, others = train.split(0.5, 0.5, by="rows")
            assert rows_of(some) + rows_of(others) != []
            assert some.n_rows + others.n_rows == (CODES == 0).sum()


def test_names_as_text(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["x"], file["y"] = np.zeros((4, 2)), np.arange(4)
        file["split"] = ["train", "Öl", "train", "test"]
    assert rows_of(oocload.Loader(tmp_path / "t.h5", batch_size=1, split="train")) == [0, 2]
    assert rows_of(oocload.Loader(tmp_path / "t.h5", batch_size=1, split="Öl")) == [1]
    with pytest.raises(oocload.InvalidArgumentError, match=r"one of the sets of .*'test', 'train', 'Öl', got 'trian'"):
        oocload.Loader(tmp_path / "t.h5", batch_size=1, split="trian")


def test_ids_that_are_text_of_any_length(store: Path) -> None:
    oocload.convert(store, store.with_name("again.h5"))
    path = store.with_name("text.h5")
    with h5py.File(path, "w") as file, h5py.File(store.with_name("again.h5")) as plain:
        for name in plain:
            plain.copy(name, file)
        file["id"].attrs["oocload_content"] = "text"
    with oocload.Loader(path, batch_size=2, x="x", y="y", shuffle=False) as loader:
        some, others = loader.split(["sample 3", "sample 499"], ["sample 0", "sample 10"], ids="id")
        assert rows_of(some) == [3, 499]
        assert rows_of(others) == [0, 10]
        with pytest.raises(
            oocload.InvalidArgumentError, match="1 of 1 ids are not in field 'id', such as 'sample 500'"
        ):
            loader.split(["sample 500"], ids="id")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tran", r"must be one of the sets of .*, 'train', 'validation', 'test', got 'tran'"),
        ("test", "must name sets that have rows, and 'test' has none"),
        (3, "must be the name of a set of rows, or a list of names, got 3"),
        ([], "must be the name of a set of rows"),
    ],
)
def test_bad_names(store: Path, split: Any, message: str) -> None:
    with pytest.raises(oocload.InvalidArgumentError, match=f"split {message}"):
        oocload.Loader(store, batch_size=16, split=split)


def test_a_store_without_sets(tmp_path: Path) -> None:
    oocload.convert({"x": np.zeros((10, 2))}, tmp_path / "t.h5")
    with pytest.raises(oocload.InvalidArgumentError, match=r"has no field 'split' .* use loader.split\(0.9, 0.1\)"):
        oocload.Loader(tmp_path / "t.h5", batch_size=2, split="train")


def test_batches_larger_than_the_set(store: Path) -> None:
    with oocload.Loader(store, batch_size=400, split="validation", seed=0) as loader:
        assert len(loader) == 1
        assert loader.n_rows == loader.epoch_rows < 400
    with pytest.raises(oocload.InvalidArgumentError, match="batch_size must be at most the rows of the selection"):
        oocload.Loader(store, batch_size=400, split="validation", drop_last=True)
