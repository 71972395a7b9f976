"""Rows drawn by weight, and batches balanced by class."""

import itertools
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import oocload
from oocload.errors import InvalidArgumentError, StateError, UnknownFieldError
from tests.conftest import check_rows, numbered

Make = Callable[..., Path]
N_ROWS = 3000


def labels(ordered: bool = False) -> np.ndarray:
    found = np.random.default_rng(0).choice(4, N_ROWS, p=[0.7, 0.2, 0.09, 0.01])
    return np.sort(found) if ordered else found


@pytest.fixture(params=["chunked", "contiguous", "big-endian"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "store.h5"
    fields = {**numbered(N_ROWS), "label": labels(), "ordered": labels(True), "w": labels() * 2.0 + 0.5}
    with h5py.File(path, "w") as file:
        for name, rows in fields.items():
            rows = rows.astype(">i4") if request.param == "big-endian" and name == "y" else rows
            options = {} if request.param == "contiguous" else {"chunks": (40, *rows.shape[1:]), "compression": "lzf"}
            file.create_dataset(name, data=rows, **options)
    return path


def test_weighted_rows_are_whole_and_in_proportion(store: Path) -> None:
    with oocload.Loader(store, 50, x="x", y="y", weights="w", seed=3) as loader:
        counts = np.zeros(N_ROWS)
        for _ in range(20):
            for x, y in loader:
                check_rows(x, y)
                counts += np.bincount(y, minlength=N_ROWS)
        assert len(loader) == 60
        assert loader.stats.rows == 20 * N_ROWS
    weights = labels() * 2.0 + 0.5
    assert stats.chisquare(counts, weights / weights.sum() * counts.sum()).pvalue > 1e-3


def test_weights_are_copied(store: Path) -> None:
    weights = np.ones(N_ROWS)
    with oocload.Loader(store, 50, x="x", y="y", weights=weights, seed=3) as loader:
        first = [y.tolist() for _, y in loader]
        weights[:] = np.nan
        loader.load_state_dict(loader.state_dict(epoch=0, batch=0))
        assert [y.tolist() for _, y in loader] == first


def test_state_of_other_labels(tmp_path: Path) -> None:
    """Of a field that is not delivered, and so is no part of the store's fingerprint."""
    states = []
    for number, found in enumerate((np.arange(600) % 3, np.arange(600) // 200)):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["x"], file["y"] = np.zeros((600, 2)), found
        with oocload.Loader(tmp_path / f"{number}.h5", 30, x="x", balanced="y", seed=0) as loader:
            states.append(loader.state_dict())
    with oocload.Loader(tmp_path / "0.h5", 30, x="x", balanced="y", seed=0) as loader:
        with pytest.raises(StateError, match="drawn is 'balanced y [0-9a-f]+' there and 'balanced y [0-9a-f]+' here"):
            loader.load_state_dict({**states[0], "drawn": states[1]["drawn"]})


def test_weights_as_an_array(store: Path) -> None:
    weights = np.zeros(N_ROWS, "float32")
    weights[[5, 77, 2999]] = 1
    with oocload.Loader(store, 50, x="x", y="y", weights=weights, seed=3) as loader:
        rows = np.concatenate([y.copy() for _, y in loader])
        counts = {int(row): int(n) for row, n in zip(*np.unique(rows, return_counts=True), strict=True)}
        assert set(counts) == {5, 77, 2999}
        assert all(900 < n < 1100 for n in counts.values())
        with loader.select(np.arange(1000)) as part:
            assert {int(r) for _, y in part for r in y} == {5, 77}


@pytest.mark.parametrize("field", ["label", "ordered"])
def test_balanced_batches_are_exactly_balanced(store: Path, field: str) -> None:
    with oocload.Loader(store, 40, x=["x", "y"], y=field, balanced=field, seed=3) as loader:
        seen = set()
        for number, (x, y) in enumerate(loader):
            check_rows(x["x"], x["y"])
            assert np.bincount(y).tolist() == [10] * 4
            assert x["y"].tolist() == loader.batch_rows(number).tolist()
            seen |= set(x["y"].tolist())
        assert number + 1 == len(loader) == 75
        assert loader.stats.reads_per_block < 3
        assert f"each block was read {loader.stats.reads_per_block:.2f} times an epoch" in repr(loader.stats)
        del x, y
        assert loader[74][1].shape == (40,)


def test_balanced_by_a_field_that_is_not_delivered(store: Path) -> None:
    with oocload.Loader(store, 40, x="x", y="y", balanced="label", seed=3) as loader:
        found = labels()
        assert all((np.bincount(found[y]) == 10).all() for _, y in loader)


@given(stop=st.integers(0, 200), choice=st.sampled_from(["weights", "balanced"]), window_rows=st.integers(1, 2000))
def test_resume(tmp_path_factory: pytest.TempPathFactory, stop: int, choice: str, window_rows: int) -> None:
    path = tmp_path_factory.getbasetemp() / "resume.h5"
    if not path.exists():
        with h5py.File(path, "w") as file:
            for name, rows in {**numbered(N_ROWS), "label": labels()}.items():
                file.create_dataset(name, data=rows, chunks=(40, *rows.shape[1:]), compression="lzf")
    options = {"x": "x", "y": "y", choice: "label", "seed": 3, "shuffle": oocload.Shuffle(window_rows=window_rows)}

    def take(loader: oocload.Loader, first: int, last: int) -> list[list[int]]:
        stream = loader.forever()
        rows = [y.tolist() for _, y in itertools.islice(stream, last - first)]
        stream.close()
        return rows

    with oocload.Loader(path, 40, **options) as loader, oocload.Loader(path, 40, **options) as again:
        whole = take(loader, 0, 230)
        head = take(again, 0, stop)
        state = again.state_dict()
        again.load_state_dict(state)
        assert head + take(again, stop, 230) == whole


@pytest.mark.parametrize("choice", ["weights", "balanced"])
def test_ranks(store: Path, choice: str) -> None:
    batches = []
    for rank in range(3):
        options = {choice: "label", "rank": rank, "world_size": 3, "seed": 1}
        with oocload.Loader(store, 40, x="x", y="y", **options) as loader:
            batches.append([y.tolist() for _, y in loader])
    assert len({len(b) for b in batches}) == 1
    if choice == "balanced":
        assert all((np.bincount(labels()[b]) == 10).all() for rank in batches for b in rank)
        frequent = [{r for b in rank for r in b if labels()[r] == 0} for rank in batches]
        assert len(frequent[0] & frequent[1]) < 0.1 * len(frequent[0])


@pytest.mark.parametrize("choice", ["weights", "balanced"])
def test_parts(store: Path, choice: str) -> None:
    with oocload.Loader(store, 40, x="x", y="y", seed=1, **{choice: "label"}) as loader:
        train, val = loader.split(0.7, 0.3, stratify="label")
        with train, val:
            seen = [{int(r) for _ in range(3) for _, y in part for r in y} for part in (train, val)]
            assert not seen[0] & seen[1]


def test_state_of_other_weights(store: Path) -> None:
    with oocload.Loader(store, 40, x="x", y="y", seed=1, weights="w") as loader:
        for other in ({}, {"weights": np.ones(N_ROWS)}, {"balanced": "label"}):
            with oocload.Loader(store, 40, x="x", y="y", seed=1, **other) as wrong:
                with pytest.raises(StateError, match="drawn is 'weights [0-9a-f]+' there and .* here"):
                    wrong.load_state_dict(loader.state_dict())


@pytest.mark.parametrize("choice", ["weights", "balanced"])
def test_ceiling(tmp_path: Path, choice: str) -> None:
    path = tmp_path / "c.h5"
    n_rows = 40_000
    with h5py.File(path, "w") as file:
        rows = np.random.default_rng(0).integers(0, 9, (n_rows, 512), dtype=np.uint8)
        file.create_dataset("x", data=rows, chunks=(128, 512), compression="lzf")
        file["y"] = np.arange(n_rows) % 10
    with oocload.Loader(path, 100, seed=0, memory="8 MiB", **{choice: "y"}) as loader:
        assert sum(len(y) for _, y in loader) == n_rows
        assert loader.stats.memory.peak <= 8 * 2**20
        assert loader.stats.memory.parts()["selection"][0] >= n_rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "w", "balanced": "label"}, "weights and balanced must not be given together"),
        ({"weights": "w", "shuffle": False}, "shuffle must not be False where weights is given"),
        ({"balanced": "label", "shuffle": False}, "shuffle must not be False where balanced is given"),
        ({"balanced": 3}, "balanced must be the name of a field of labels, got 3"),
        ({"balanced": "x"}, r"balanced must be a field of one value for each of the 3000 rows, and 'x' has shape"),
        (
            {"balanced": "label", "batch_size": 50},
            "batch_size must be a multiple of the 4 classes of 'label', got 50; ",
        ),
        ({"balanced": "label", "batch_size": 3}, "batch_size must be a multiple of the 4 classes .* use 4$"),
        ({"weights": "x"}, "weights must be a field of one value for each of the 3000 rows"),
        ({"weights": np.ones(10)}, r"weights must be one number for each of the 3000 rows of the store, got shape"),
        ({"weights": np.full(N_ROWS, "a")}, "weights must be real numbers, got <U1"),
        ({"weights": np.full(N_ROWS, -1.0)}, r"weights must be finite and not negative, got -1\.0 for row 0"),
        ({"weights": np.full(N_ROWS, np.nan)}, "weights must be finite and not negative, got nan for row 0"),
        ({"weights": np.zeros(N_ROWS)}, "weights must have at least one above 0, got 3000 zeros"),
    ],
)
def test_bad_sampling(store: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        oocload.Loader(store, **{"batch_size": 40, "x": "x", "y": "y", **options})


def test_nan_is_no_label(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "n.h5", "w") as file:
        file["x"], file["y"] = np.zeros(10), np.array([0, 1, np.nan] * 3 + [1])
    with pytest.raises(InvalidArgumentError, match="balanced must name a field of labels, and 'y' has NaN among"):
        oocload.Loader(tmp_path / "n.h5", 2, x="x", balanced="y")


def test_unknown_field(store: Path) -> None:
    for name in ("weights", "balanced"):
        with pytest.raises(UnknownFieldError, match="nope"):
            oocload.Loader(store, 40, x="x", **{name: "nope"})


def test_a_class_without_rows(store: Path) -> None:
    with oocload.Loader(store, 40, x="x", y="y", balanced="ordered", seed=0) as loader:
        with pytest.raises(InvalidArgumentError, match="class 1 of 'ordered' has none among the 500 rows selected"):
            loader.select(np.arange(500))
