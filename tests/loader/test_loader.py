"""Order, epochs, batches: what a user of the loader sees."""

import itertools
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.errors import ClosedError, InvalidArgumentError, StoreFormatError, UnknownFieldError
from tests.conftest import check_rows, numbered

Make = Callable[..., Path]


def epoch(loader: oocload.Loader) -> list[np.ndarray]:
    """Run one epoch; check every row's content and return the row numbers of each batch."""
    numbers = []
    for x, y in loader:
        check_rows(x, y)
        numbers.append(y.copy())
    return numbers


def flat(numbers: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(numbers)


@given(
    n_rows=st.integers(1, 300),
    chunk_rows=st.one_of(st.none(), st.integers(1, 60)),
    window_rows=st.integers(1, 400),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    data=st.data(),
)
def test_every_row_exactly_once_per_epoch(
    make_store: Make,
    n_rows: int,
    chunk_rows: int | None,
    window_rows: int,
    shuffle: bool,
    drop_last: bool,
    data: st.DataObject,
) -> None:
    compression = data.draw(st.sampled_from([None, "lzf"])) if chunk_rows else None
    path = make_store(n_rows, chunk_rows, compression=compression)
    batch_size = data.draw(st.integers(1, n_rows))
    how = oocload.Shuffle(window_rows=window_rows) if shuffle else False
    with oocload.Loader(path, batch_size, shuffle=how, seed=1, drop_last=drop_last) as loader:
        for _ in range(2):
            numbers = epoch(loader)
            kept = n_rows // batch_size * batch_size if drop_last else n_rows
            assert len(numbers) == len(loader)
            assert len(set(flat(numbers).tolist())) == sum(map(len, numbers)) == kept
            if not shuffle:
                assert flat(numbers).tolist() == list(range(kept))


def test_two_epochs_differ_and_the_same_seed_repeats_them(make_store: Make) -> None:
    path = make_store()
    with oocload.Loader(path, 64, seed=5) as a, oocload.Loader(path, 64, seed=5) as b:
        first, second = flat(epoch(a)), flat(epoch(a))
        assert not np.array_equal(first, second)
        assert np.array_equal(flat(epoch(b)), first)
        assert np.array_equal(flat(epoch(b)), second)
    with oocload.Loader(path, 64, seed=6) as c:
        assert not np.array_equal(flat(epoch(c)), first)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_same_batches_whatever_threads_and_ceiling(make_store: Make, compression: str | None) -> None:
    path = make_store(compression=compression)
    how = oocload.Shuffle(window_rows=200)
    orders = []
    for threads, memory in ((1, None), (2, "1 MiB"), (4, "3 MiB"), (7, "1 GiB")):
        with oocload.Loader(path, 50, shuffle=how, seed=1, threads=threads, memory=memory) as loader:
            orders.append(flat([*epoch(loader), *epoch(loader)]))
    assert all(np.array_equal(orders[0], other) for other in orders[1:])


@pytest.mark.direct
def test_batch_alone_equals_batch_in_sequence(make_store: Make) -> None:
    for shuffle in (oocload.Shuffle(window_rows=100), False):
        with oocload.Loader(make_store(compression="lzf"), 32, shuffle=shuffle, seed=3) as loader:
            next(iter(loader))  # epoch 0 was begun, so the next `for` is epoch 1
            sequence = [(x.copy(), y.copy()) for x, y in loader]
            with oocload.Loader(make_store(compression="lzf"), 32, shuffle=shuffle, seed=3) as other:
                list(map(len, other))
                assert other.epoch == 1
                for i in np.random.default_rng(0).permutation(len(other)).tolist():
                    x, y = other[i]
                    assert np.array_equal(x, sequence[i][0])
                    assert np.array_equal(y, sequence[i][1])
                    assert np.array_equal(y, other.batch_rows(i))
                assert np.array_equal(other[-1][1], sequence[-1][1])


def test_a_batch_taken_by_number_is_a_copy(make_store: Make) -> None:
    def double(batch: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        batch[1].__imul__(2)
        return batch[1]

    with oocload.Loader(make_store(), 32, shuffle=False, transform=double) as loader:
        assert loader[3].tolist() == loader[3].tolist() == list(range(192, 256, 2))


@pytest.mark.direct
@pytest.mark.parametrize("memory", ["200 KiB", "500 KiB", "3 MiB", "50 MiB", None])
def test_the_window_does_not_depend_on_the_threads(make_store: Make, memory: str | None) -> None:
    path = make_store(100_000, 1000, compression="gzip")
    windows = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", oocload.ShuffleQualityWarning)
        for threads in (1, 2, 3, 8, 64):
            with oocload.Loader(path, 100, seed=0, memory=memory, threads=threads) as loader:
                windows.add(loader.window_rows)
                assert loader._runtime.fit.needed <= loader.memory
    assert len(windows) == 1


def test_numpy_integers_are_integers(make_store: Make) -> None:
    with oocload.Loader(make_store(), np.int64(10), seed=np.uint32(3), threads=np.int8(1)) as loader:
        assert len(loader[np.int64(2)][1]) == 10


def test_neighbouring_batches_decode_a_window_once(make_store: Make) -> None:
    with oocload.Loader(make_store(compression="lzf"), 32, shuffle=oocload.Shuffle(window_rows=250), seed=3) as loader:
        for i in range(len(loader)):
            loader[i]
        assert loader.stats.decoded_bytes <= 1.05 * 1014 * 43


def test_epoch_counts_each_for(make_store: Make) -> None:
    with oocload.Loader(make_store(), 100, seed=0) as loader:
        assert loader.epoch == 0
        for _ in loader:
            assert loader.epoch == 0
        assert loader.epoch == 1
        for _ in loader:
            break
        assert loader.epoch == 1
        for _ in loader:
            assert loader.epoch == 2


def test_forever_goes_through_epoch_after_epoch(make_store: Make) -> None:
    path = make_store()
    with oocload.Loader(path, 100, seed=0) as loader, oocload.Loader(path, 100, seed=0) as other:
        stream = loader.forever()
        endless = [y.copy() for _, y in itertools.islice(stream, 3 * len(loader))]
        stream.close()
        assert np.array_equal(flat(endless), flat([*epoch(other), *epoch(other), *epoch(other)]))
        assert loader.epoch == 2


def test_rows_of_a_batch_come_from_many_blocks(make_store: Make) -> None:
    with oocload.Loader(make_store(100_000, 100), 256, x="y", seed=0) as loader:
        for batch in itertools.islice(loader, 20):
            assert len(set((batch // 100).tolist())) > 128


class TestForms:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        with h5py.File(tmp_path / "f.h5", "w") as file:
            for name in ("left", "right", "label", "weight", "deep/field"):
                file[name] = np.arange(20)
            file["other_length"] = np.arange(7)
            file["scalar"] = 3
            file["text"] = ["a"] * 20
        return tmp_path / "f.h5"

    def one(self, path: Path, **options: object) -> object:
        with oocload.Loader(path, 4, shuffle=False, **options) as loader:
            return next(iter(loader))

    def test_x_alone_is_an_array(self, path: Path) -> None:
        assert np.array_equal(self.one(path, x="left"), [0, 1, 2, 3])

    def test_a_list_is_a_dict(self, path: Path) -> None:
        batch = self.one(path, x=["left", "deep/field"], y="label", sample_weight="weight")
        assert isinstance(batch, tuple)
        assert list(batch[0]) == ["left", "deep/field"]
        assert all(np.array_equal(part, [0, 1, 2, 3]) for part in (batch[0]["left"], batch[1], batch[2]))

    def test_one_field_may_be_used_twice(self, path: Path) -> None:
        batch = self.one(path, x="left", y="left")
        assert np.array_equal(batch[0], batch[1])

    def test_without_names_x_and_y_are_a_pair(self, make_store: Make) -> None:
        batch = self.one(make_store())
        assert isinstance(batch, tuple)
        assert len(batch) == 2

    def test_without_names_others_are_a_dict(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "d.h5", "w") as file:
            file["b"], file["a"], file["scalar"] = np.arange(9), np.arange(9), 1
        assert list(self.one(tmp_path / "d.h5")) == ["a", "b"]

    def test_fields_of_unequal_length(self, path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match="same number of rows: 'left' has 20, 'other_length' has 7"):
            self.one(path, x="left", y="other_length")

    def test_unknown_field(self, path: Path) -> None:
        with pytest.raises(
            UnknownFieldError, match="field 'middle' must be one of those in .*, which has 'deep/field'"
        ):
            self.one(path, x="middle")

    def test_scalar(self, path: Path) -> None:
        with pytest.raises(StoreFormatError, match="field 'scalar' of .* must be an array of rows, and is a scalar"):
            self.one(path, x="scalar")

    def test_y_without_x(self, path: Path) -> None:
        with pytest.raises(
            InvalidArgumentError, match="x must name the input fields where y or sample_weight is given"
        ):
            self.one(path, y="label")

    def test_sample_weight_without_y(self, path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match="y must name the target fields where sample_weight is given"):
            self.one(path, x="left", sample_weight="weight")

    @pytest.mark.parametrize("names", [[], [3], 3])
    def test_names_must_be_names(self, path: Path, names: object) -> None:
        with pytest.raises(InvalidArgumentError, match="x must be a field's name or a list of names"):
            self.one(path, x=names)


def test_transform_gets_the_batch_as_delivered(make_store: Make) -> None:
    def scale(batch: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        x, y = batch
        return x / np.float32(255), y

    with oocload.Loader(make_store(), 100, seed=0, transform=scale) as loader:
        x, y = next(iter(loader))
        assert x.dtype == np.float32
        assert np.array_equal(loader[0][0], x)


def test_transform_that_raises_reaches_the_consumer(make_store: Make) -> None:
    with oocload.Loader(make_store(), 100, transform=lambda batch: 1 / 0) as loader:
        with pytest.raises(ZeroDivisionError):
            list(loader)


def test_pickles_with_options_and_position(make_store: Make) -> None:
    with oocload.Loader(make_store(), 64, shuffle=oocload.Shuffle(window_rows=100)) as loader:
        stream = iter(loader)
        for _ in range(5):
            next(stream)
        with pickle.loads(pickle.dumps(loader)) as again:
            state = loader.state_dict()
            assert again.state_dict() == state
            again.load_state_dict(state)
            assert np.array_equal(flat(epoch(again)), flat([y.copy() for _, y in stream]))


@pytest.mark.direct
def test_stats_say_what_happened(make_store: Make) -> None:
    with oocload.Loader(make_store(compression="gzip"), 100, seed=0) as loader:
        epoch(loader)
        stats = loader.stats
        assert (stats.rows, stats.batches) == (1003, 11)
        assert 0 <= stats.wait_share <= 1
        assert stats.amplification == pytest.approx(1014 / 1003, abs=0.01)
        assert stats.rows_per_s > 0
        text = repr(stats)
        for shown in ("1,003 rows in 11 batches", "waited for data", "memory: peak", "field 'x': direct"):
            assert shown in text


@pytest.mark.direct
def test_repr_shows_what_was_settled(make_store: Make) -> None:
    with oocload.Loader(make_store(compression="gzip"), 100, seed=11, memory="50 MiB") as loader:
        text = repr(loader)
    for shown in (
        "1,003 rows in 11 batches of 100",
        "seed 11",
        "window: ",
        "ceiling 50.0 MiB",
        "field 'x': direct",
    ):
        assert shown in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.0}, r"batch_size must be a whole number of at least 1, got 2\.0"),
        (
            {"batch_size": 1004, "drop_last": True},
            "batch_size must be at most the rows of the store, 1003, where drop_last .* got 1004; lower batch_size, or",
        ),
        ({"shuffle": 1000}, r"got 1000; for so many rows pass oocload.Shuffle\(window_rows=1000\)"),
        ({"shuffle": "yes"}, "shuffle must be True, False or an oocload.Shuffle, got 'yes'"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 2\*\*64 - 1, got -1"),
        ({"drop_last": 1}, "drop_last must be True or False, got 1"),
        ({"transform": 3}, "transform must be a function of one batch, got 3"),
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"memory": "lots"}, "memory must be a size above zero, got 'lots'"),
        ({"memory": 0}, "memory must be a size above zero, got 0"),
        ({"memory": -5}, "memory must be a size above zero, got -5"),
        ({"memory": "1 parsec"}, "memory must be a size above zero, got '1 parsec'"),
    ],
)
def test_bad_options(make_store: Make, options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        oocload.Loader(make_store(), **{"batch_size": 10, **options})


def test_empty_stores(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "none.h5", "w"):
        pass
    with pytest.raises(StoreFormatError, match="store must hold at least one array"):
        oocload.Loader(tmp_path / "none.h5", 1)
    with h5py.File(tmp_path / "zero.h5", "w") as file:
        file.create_dataset("x", (0, 3), "f4")
    with pytest.raises(StoreFormatError, match="store must hold at least one row"):
        oocload.Loader(tmp_path / "zero.h5", 1)


def test_index_out_of_range(make_store: Make) -> None:
    with oocload.Loader(make_store(), 100) as loader:
        for index in (11, -12):
            with pytest.raises(IndexError, match="index must be from -11 to 10, got"):
                loader[index]
        with pytest.raises(InvalidArgumentError, match="slices are not supported"):
            loader[1:3]  # type: ignore[index]


def test_used_after_close(make_store: Make) -> None:
    loader = oocload.Loader(make_store(), 100)
    stream = iter(loader)
    next(stream)
    loader.close()
    loader.close()
    with pytest.raises(ClosedError, match="loader must be open"):
        list(stream)
    with pytest.raises(ClosedError, match="loader must be open"):
        list(loader)
    with pytest.raises(ClosedError, match="loader must be open"):
        loader[0]


def test_an_open_store_stays_open(make_store: Make) -> None:
    with oocload.open(make_store(fletcher32=True)) as store:
        with oocload.Loader(store, 100, seed=0) as loader:
            epoch(loader)
        with oocload.Loader(store, 100, seed=0) as loader:
            assert len(flat(epoch(loader))) == len(numbered(1003)["y"])
