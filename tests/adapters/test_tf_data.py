"""The same batches in tf.data, by the real TensorFlow."""

import gc
import time
from pathlib import Path

import numpy as np
import pytest

import oocload
from oocload.errors import InvalidArgumentError, OocloadError
from tests.adapters.frameworks import (
    BATCH,
    N_ROWS,
    WINDOW,
    assert_same,
    damage,
    every_row,
    fit,
    small_model,
    stream,
    write,
)
from tests.conftest import our_threads

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.framework


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "t.h5")


def batches(dataset: "tf.data.Dataset") -> list[tuple[np.ndarray, np.ndarray]]:
    return [(x.numpy(), y.numpy()) for x, y in dataset]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("shuffle", [WINDOW, False])
def test_stream_is_that_of_the_iterator(path: Path, threads: int, shuffle: object) -> None:
    with (
        oocload.Loader(path, BATCH, seed=1, shuffle=shuffle) as plain,
        oocload.Loader(path, BATCH, seed=1, shuffle=shuffle, threads=threads) as loader,
    ):
        dataset = loader.to_tf()
        got = [batch for _ in range(3) for batch in batches(dataset)]
        assert_same(stream(plain, 3), got)
        assert loader.epoch == 3


def test_spec_and_cardinality_are_exact(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1) as loader, oocload.Loader(path, BATCH, drop_last=True) as even:
        x, y = loader.to_tf().element_spec
        assert (x.shape.as_list(), x.dtype) == ([None, 12], tf.float32)
        assert (y.shape.as_list(), y.dtype) == ([None], tf.int64)
        assert loader.to_tf().cardinality().numpy() == len(loader) == 63
        x, _ = even.to_tf().element_spec
        assert x.shape.as_list() == [BATCH, 12]
        assert even.to_tf().cardinality().numpy() == 62
        assert all(len(x) == BATCH for x, _ in even.to_tf())


def test_slabs_are_not_copied(path: Path) -> None:
    """Row 0 of a batch lies inside the slab: what is written there shows in the tensor."""
    from oocload.adapters.tf_data import _as_tensor
    from oocload.chunks.scratch import aligned_empty

    slab = aligned_empty(6400).view("float32").reshape(100, 16)
    tensor = _as_tensor(slab)
    slab[3, 5] = 123.0
    assert tensor.numpy()[3, 5] == 123.0


def test_dicts_and_tuples_keep_their_form(path: Path) -> None:
    with oocload.Loader(path, BATCH, x=["x", "w"], y="y", sample_weight="w", shuffle=False) as loader:
        inputs, _, weight = next(iter(loader.to_tf()))
        assert sorted(inputs) == ["w", "x"]
        assert weight.shape == (BATCH,)
    with oocload.Loader(path, BATCH, x="y", shuffle=False) as loader:
        assert next(iter(loader.to_tf())).numpy().tolist() == list(range(BATCH))


@pytest.mark.filterwarnings("ignore::oocload.KeptBatchesWarning")  # two iterators hold a slab each
def test_take_repeat_prefetch_and_two_iterators(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        assert len(list(loader.to_tf().take(5))) == 5
        rows = [y for _, y in batches(loader.to_tf().repeat(2).prefetch(2))]
        for epoch in (rows[:63], rows[63:]):
            assert np.array_equal(np.sort(np.concatenate(epoch)), np.arange(N_ROWS))
    with oocload.Loader(path, BATCH, seed=1, memory="64 MiB") as loader:
        pairs = list(zip(loader.to_tf(), loader.to_tf(), strict=True))
        for side in (0, 1):
            assert np.array_equal(np.sort(np.concatenate([p[side][1] for p in pairs])), np.arange(N_ROWS))


def test_an_iterator_dropped_in_mid_epoch_leaves_nothing(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        dataset = loader.to_tf()
        for _ in range(20):
            iterator = iter(dataset)
            next(iterator)
            del iterator
            gc.collect()
        assert len(our_threads()) <= loader._runtime.fit.n_threads


def test_resume_in_mid_epoch(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
        whole = stream(plain, 2)
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        for _ in zip(range(17), loader, strict=False):
            pass
        state = loader.state_dict()
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        early = loader.to_tf()
        loader.load_state_dict(state)
        assert_same(whole[17:], [b for _ in range(2) for b in batches(loader.to_tf())])
        loader.load_state_dict(state)
        with pytest.raises(tf.errors.OpError, match=r"state must be loaded before to_tf\(\)"):
            list(early)


def test_resumed_ranks_know_how_many_batches_later_epochs_have(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, rank=1, world_size=2) as loader:
        loader.load_state_dict(loader.state_dict(epoch=0, batch=5))
        assert int(loader.to_tf().cardinality()) == len(loader) == 32


def test_transform(path: Path) -> None:
    with oocload.Loader(path, BATCH, shuffle=False, transform=lambda b: (b[0] / 2, b[1])) as loader:
        dataset = loader.to_tf()
        assert dataset.cardinality().numpy() == 63
        got = batches(dataset)
        assert got[0][0][3, 0] == 1.5
        assert sum(len(y) for _, y in got) == N_ROWS


def test_memory_stays_below_the_ceiling(tmp_path: Path) -> None:
    rows = np.arange(400_000, dtype="int64")
    oocload.convert({"x": np.repeat(rows[:, None], 16, 1), "y": rows}, tmp_path / "m.h5", chunk_bytes="64 KiB")
    with oocload.Loader(tmp_path / "m.h5", 256, seed=0, memory="12 MiB") as loader:
        for _ in range(2):
            total = sum(int(tf.reduce_sum(y)) for _, y in loader.to_tf())
            assert total == int(rows.sum())
        assert loader.stats.memory.peak <= 12 * 2**20
        assert loader.stats.rows == 2 * len(rows)


def test_a_slow_consumer_does_not_have_slabs_taken_ahead(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (4096, 1024), dtype="uint8")
    oocload.convert({"x": x}, tmp_path / "slow.h5", chunk_rows=64)
    with oocload.Loader(tmp_path / "slow.h5", BATCH, shuffle=False, memory="1 MiB") as loader:
        for number, _ in enumerate(loader.to_tf()):
            if number == 60:  # time enough to take slabs ahead, and to tire of waiting for one
                time.sleep(0.6)
        assert loader.stats.memory.peak <= loader.memory


def test_dtype_that_tensorflow_lacks(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["x"] = np.array([b"ab", b"cd"])
    with (
        oocload.Loader(tmp_path / "s.h5", 1, x="x") as loader,
        pytest.raises(InvalidArgumentError, match=r"field 'x' must have a dtype that TensorFlow has, got \|S2"),
    ):
        loader.to_tf()


def test_damaged_chunk_is_named(path: Path) -> None:
    damage(path, 40)
    with (
        oocload.Loader(path, BATCH, shuffle=False) as loader,
        pytest.raises((tf.errors.OpError, OocloadError), match=r"field 'x', chunk \(40, 0\): deflate cannot decode"),
    ):
        list(loader.to_tf())


# Under what TensorFlow and Keras do with a dataset


def test_shard_take_and_skip(path: Path) -> None:
    with oocload.Loader(path, BATCH, shuffle=False) as loader:
        dataset = loader.to_tf()
        rows = [y for _, y in batches(dataset.shard(3, 1))]
        assert np.array_equal(np.concatenate(rows[:2]), [*range(32, 64), *range(128, 160)])
        assert dataset.shard(3, 1).cardinality().numpy() == len(rows) == 21
        assert [y[0] for _, y in batches(dataset.skip(60))] == [1920, 1952, 1984]
        assert dataset.repeat(3).cardinality().numpy() == 189


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("drop_last", [False, True])
def test_dicts_rows_of_odd_sizes_and_resumes_give_the_stream(tmp_path: Path, threads: int, drop_last: bool) -> None:
    """Rows of 7 bytes and of 3 × 5 items lie nowhere aligned; a batch of 17 of them neither."""
    rng = np.random.default_rng(0)
    fields = {
        "a": rng.integers(0, 255, (500, 7)).astype("uint8"),
        "b": rng.normal(size=(500, 3, 5)).astype("float64"),
        "c": rng.integers(0, 2, 500).astype(bool),
        "d": np.arange(500, dtype=">i4"),
        "e": rng.normal(size=(500, 0, 2)).astype("float32"),
    }
    oocload.convert(fields, tmp_path / "d.zarr", chunk_rows=13)
    options = {"seed": 3, "shuffle": oocload.Shuffle(window_rows=60), "drop_last": drop_last}
    with oocload.Loader(tmp_path / "d.zarr", 17, **options) as plain:
        whole = [{k: v.copy() for k, v in batch.items()} for _ in range(2) for batch in plain]
        n_batches = len(plain)
    for stop in (0, 1, 9, n_batches - 1):
        with oocload.Loader(tmp_path / "d.zarr", 17, threads=threads, **options) as loader:
            loader.load_state_dict(loader.state_dict(epoch=0, batch=stop))
            dataset = loader.to_tf()
            got = [{k: v.numpy().copy() for k, v in batch.items()} for _ in range(2) for batch in dataset]
            assert len(got) == len(whole) - stop
            for a, b in zip(whole[stop:], got, strict=True):
                for name, array in a.items():
                    assert array.astype(array.dtype.newbyteorder("=")).tobytes() == b[name].tobytes()
                    assert array.shape == b[name].shape


def test_an_epoch_has_its_batches_while_an_iterator_lives_on(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        iterator = iter(loader.to_tf())
        assert sum(1 for _ in iterator) == 63
        assert loader.epoch == 1
        assert not our_threads()
        del iterator


@pytest.mark.parametrize("transform", [None, lambda batch: (batch[0] * 2, batch[1])])
def test_static_shapes_with_weight_0_for_what_fills_up(path: Path, transform: object) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, transform=transform) as loader:
        dataset = loader.to_tf(pad_last=True)
        assert [spec.shape.as_list() for spec in dataset.element_spec] == [[32, 12], [32], [32]]
        got = [tuple(part.numpy().copy() for part in batch) for batch in dataset]
        assert len(got) == 63
    weights = np.concatenate([w for _, _, w in got])
    rows = np.concatenate([y for _, y, _ in got])
    assert weights.dtype == np.float32
    assert np.array_equal(np.sort(rows[weights == 1]), np.arange(N_ROWS))
    assert weights[:-13].all()
    assert not weights[-13:].any()
    assert set(rows[-13:]) == {rows[-14]}


def test_static_shapes_with_the_loaders_own_weights(path: Path) -> None:
    with oocload.Loader(path, BATCH, x="x", y="y", sample_weight="w", shuffle=False) as loader:
        *_, (x, y, w) = loader.to_tf(pad_last=True)
        assert w.numpy().tolist() == [1.0] * 19 + [0.0] * 13
        assert y.numpy()[18:].tolist() == [2002] * 14
        assert np.isfinite(x.numpy()).all()


def test_static_shapes_train_to_the_same_loss(path: Path) -> None:
    """A last batch of weights 0 but for its rows; Keras divides by all rows of a batch, so one of them is looked at."""
    pytest.importorskip("keras")
    model = small_model(metrics=False)
    with oocload.Loader(path, BATCH, shuffle=False) as loader:
        *_, (x, y, w) = loader.to_tf(pad_last=True)
        *_, (part, labels) = loader.to_tf()
    padded = model.evaluate(x, y, sample_weight=w, batch_size=32, verbose=0) * 32 / 19
    assert padded == pytest.approx(model.evaluate(part, labels, batch_size=32, verbose=0), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"x": "x"}, True, "pad_last must come with targets"),
        ({}, 1, "pad_last must be True or False, got 1"),
        ({"transform": lambda batch: batch[0]}, True, "pad_last must come with a transform that returns"),
    ],
)
def test_static_shapes_without_a_place_for_weights(
    path: Path, options: dict[str, object], given: object, message: str
) -> None:
    with oocload.Loader(path, BATCH, **options) as loader, pytest.raises(InvalidArgumentError, match=message):
        loader.to_tf(pad_last=given)


def test_a_transform_that_changes_the_rows_is_named(path: Path) -> None:
    def transform(batch: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return (batch[0][1:], batch[1][1:]) if 100 in batch[1] else batch

    with oocload.Loader(path, BATCH, shuffle=False, transform=transform) as loader:
        taken = []
        with pytest.raises(
            tf.errors.OpError, match="transform .* must keep the rows .* made 31 of 32 at batch 3 of epoch 0"
        ):
            for _, y in loader.to_tf():
                taken.append(y)
        assert len(taken) == 3
    assert not our_threads()


@pytest.mark.parametrize("dtype", ["longdouble", "M8[s]", "S3"])
def test_other_dtypes_that_tensorflow_lacks(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "o.npy", np.zeros(8, dtype))
    with oocload.Loader(tmp_path / "o.npy", 2) as loader:
        with pytest.raises(InvalidArgumentError, match="must have a dtype that TensorFlow has, got"):
            loader.to_tf()


def test_one_rank_is_not_shared_out_again(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=0, rank=1, world_size=2) as loader, oocload.Loader(path, BATCH) as whole:
        policy = tf.data.experimental.AutoShardPolicy
        assert loader.to_tf().options().experimental_distribute.auto_shard_policy == policy.OFF
        assert whole.to_tf().options().experimental_distribute.auto_shard_policy != policy.OFF


def test_many_iterators_leave_nothing(path: Path) -> None:
    import psutil

    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        dataset = loader.to_tf()
        process = psutil.Process()
        for turn in range(60):
            if turn == 20:
                before = process.memory_info().rss, process.num_fds(), process.num_threads()
            for _ in dataset.take(turn % 5 + 1):
                pass
        after = process.memory_info().rss, process.num_fds(), process.num_threads()
        assert after[0] - before[0] < 32 * 2**20
        assert after[1] <= before[1] + 1
        assert after[2] <= before[2] + 2
        assert loader.stats.memory.held <= loader.memory


def fit_quietly(dataset: "tf.data.Dataset", **options: object) -> dict[str, list[float]]:
    pytest.importorskip("keras")
    return fit(small_model(), dataset, **options)


@pytest.mark.parametrize("steps", [21, 63, 80])
def test_fit_sees_every_row_once_a_pass(path: Path, steps: int) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        history = fit_quietly(loader.to_tf(), epochs=6, steps_per_epoch=steps)
    n_passes = 2 if steps == 21 else 6
    assert {name: sum(history[name]) for name in every_row()} == {k: n_passes * v for k, v in every_row().items()}


def test_fit_with_validation_and_class_weights(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        train, val = loader.split(0.7, 0.3)
        with train, val:
            history = fit_quietly(
                train.to_tf(), validation_data=val.to_tf(), epochs=2, class_weight=dict.fromkeys(range(N_ROWS), 1.0)
            )
            assert history["rows"] == [train.n_rows] * 2
            assert history["val_rows"] == [val.n_rows] * 2
            assert history["total"][1] + history["val_total"][1] == every_row()["total"]


def test_fit_after_a_state_in_mid_epoch(path: Path) -> None:
    """Its first epoch is the rest of one; Keras must not take that for the length of all."""
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        loader.load_state_dict(loader.state_dict(epoch=0, batch=17))
        history = fit_quietly(loader.to_tf(), epochs=3)
    assert history["rows"] == [N_ROWS - 17 * 32, N_ROWS, N_ROWS]


def test_a_mix_of_batches_of_unlike_sizes(path: Path) -> None:
    """A short batch in the middle stays one: nothing is cut anew."""
    loaders = [oocload.Loader(path, size, seed=1, shuffle=WINDOW) for size in (32, 50)]
    with oocload.mix(loaders, by="batches") as mixed, oocload.mix(loaders, by="batches") as again:
        expected = [y.copy() for _, y in mixed]
        assert len({len(y) for y in expected}) > 2
        got = [y.numpy().copy() for _, y in again.to_tf()]
    assert [y.tolist() for y in expected] == [y.tolist() for y in got]


def test_batches_are_views_of_slabs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the loader to the consumer: all that is aligned lies where it was decoded to."""
    from oocload.adapters import tf_data

    spans: list[tuple[int, int]] = []
    as_tensor = tf_data._as_tensor

    def note(array: np.ndarray) -> object:
        spans.append((array.ctypes.data, array.ctypes.data + array.nbytes))
        return as_tensor(array)

    monkeypatch.setattr(tf_data, "_as_tensor", note)
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, drop_last=True) as loader:
        for batch in loader.to_tf():
            for part in batch:
                address = np.from_dlpack(part).ctypes.data
                assert any(start <= address < stop for start, stop in spans)
