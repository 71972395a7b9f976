"""The same batches inside Keras, by the real Keras; `test_backends.py` runs these on its other backends."""

import multiprocessing
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oocload
from oocload.errors import InvalidArgumentError, MissingPackageError
from tests.adapters.frameworks import (
    BATCH,
    N_BATCHES,
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

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.framework


class Recorder:
    """A transform that writes down which rows pass through."""

    def __init__(self) -> None:
        self.batches: list[np.ndarray] = []

    def __call__(self, batch: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        self.batches.append(batch[1].copy())
        return batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "k.h5")


@pytest.fixture
def loader(path: Path) -> Iterator[oocload.Loader]:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        yield loader


def reads(loader: oocload.Loader) -> float:
    """Return how often each block was read."""
    return loader.stats.blocks / loader._runtime.n_blocks


def history_of(history: dict[str, list[float]], epoch: int) -> dict[str, float]:
    return {name: history[name][epoch] for name in ("rows", "total", "hashed")}


# Under fit. Threads, and the workers that Keras' data loading starts, are the same on each backend.


FIRST = keras.backend.backend() == "tensorflow"
WORKERS: list[dict[str, Any]] = [{"workers": 4, "max_queue_size": 3}, {}, {"workers": 2, "use_multiprocessing": True}]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("workers", WORKERS if FIRST else WORKERS[:1])
def test_fit_sees_every_row_once_an_epoch_and_reads_each_block_once(
    loader: oocload.Loader, shuffle: bool, workers: dict[str, Any]
) -> None:
    history = fit(small_model(), loader.to_keras(**workers), epochs=4, shuffle=shuffle)
    assert all(history_of(history, epoch) == every_row() for epoch in range(4))
    assert reads(loader) == 4
    assert loader.epoch == 4


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_are_not_started_whatever_the_start_method(
    loader: oocload.Loader, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing, "Pool", None)
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        dataset = loader.to_keras(workers=3, use_multiprocessing=True)
        dataset.workers, dataset.use_multiprocessing = 4, True  # as old code sets them
        assert history_of(fit(small_model(), dataset), 0) == every_row()
    finally:
        multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize("shuffle", [True, False])
def test_order_is_that_of_the_iterator_whatever_keras_asks_for(path: Path, shuffle: bool) -> None:
    recorder = Recorder()
    with (
        oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, transform=recorder, transform_workers=0) as loader,
        oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain,
    ):
        fit(small_model(), loader.to_keras(), epochs=3, shuffle=shuffle)
        expected = stream(plain, 3)
        assert len(recorder.batches) == len(expected)
        assert all(np.array_equal(y, rows) for (_, y), rows in zip(expected, recorder.batches, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 4] if FIRST else [2])
def test_weights_are_those_of_the_numpy_loop(path: Path, threads: int) -> None:
    with (
        oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, threads=threads) as loader,
        oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain,
    ):
        model, by_hand = small_model(metrics=False), small_model(metrics=False)
        fit(model, loader.to_keras(), epochs=2)
        for x, y in stream(plain, 2):
            by_hand.train_on_batch(x, y)
        for a, b in zip(model.get_weights(), by_hand.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 3, 21])
def test_steps_below_the_batches_go_on_with_the_pass(loader: oocload.Loader, steps: int) -> None:
    n_epochs = 63 // steps
    history = fit(small_model(), loader.to_keras(), epochs=n_epochs, steps_per_epoch=steps)
    sums = {name: sum(values) for name, values in history.items() if name != "loss"}
    assert sums == every_row()
    assert len(history["loss"]) == n_epochs


@pytest.mark.parametrize("steps", [N_BATCHES, N_BATCHES + 5])
def test_steps_at_and_above_the_batches(loader: oocload.Loader, steps: int) -> None:
    history = fit(small_model(), loader.to_keras(), epochs=3, steps_per_epoch=steps)
    assert all(history_of(history, epoch) == every_row() for epoch in range(3))


def test_fit_again_and_again_goes_on_with_the_next_epoch(path: Path) -> None:
    recorder = Recorder()
    with (
        oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, transform=recorder, transform_workers=0) as loader,
        oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain,
    ):
        dataset, model = loader.to_keras(), small_model()
        whole = [y for _, y in stream(plain, 4)]
        fit(model, dataset)
        fit(model, dataset, steps_per_epoch=2)
        recorder.batches.clear()
        fit(model, dataset)
        for expected, rows in zip(whole[2 * N_BATCHES : 3 * N_BATCHES], recorder.batches, strict=True):
            assert np.array_equal(expected, rows)


def test_a_dataset_that_is_validated_on_as_well(loader: oocload.Loader) -> None:
    dataset = loader.to_keras()
    history = fit(small_model(), dataset, validation_data=dataset, epochs=3)
    for epoch in range(3):
        assert history_of(history, epoch) == every_row()
        assert {name: history[f"val_{name}"][epoch] for name in every_row()} == every_row()


def test_validation_data_of_a_split(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        train, val = loader.split(0.7, 0.3)
        with train, val:
            history = fit(small_model(), train.to_keras(), validation_data=val.to_keras(), epochs=2)
            assert history["rows"] == [train.n_rows] * 2
            assert history["val_rows"] == [val.n_rows] * 2
            assert history["total"][0] + history["val_total"][0] == every_row()["total"]
            assert reads(val) == pytest.approx(2, abs=0.1)


def test_stopped_in_mid_epoch(loader: oocload.Loader) -> None:
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = batch == 3

    dataset = loader.to_keras()
    fit(small_model(), dataset, callbacks=[Stop()])
    assert history_of(fit(small_model(), dataset), 0) == every_row()


def test_a_sorted_store_trains_as_well_as_the_numpy_loop(tmp_path: Path) -> None:
    """Rows of one class lie together, as in keras#5307, where each batch was of one class."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, 4, 4096))
    rows = rng.normal(size=(4096, 8)) + np.eye(4, 8)[labels] * 2.5
    store = oocload.convert({"x": rows.astype("float32"), "y": labels}, tmp_path / "s.h5", chunk_rows=32)
    del store

    def model() -> Any:
        keras.utils.set_random_seed(2)
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.5, momentum=0.9), loss, metrics=["accuracy"])
        return model

    with (
        oocload.Loader(tmp_path / "s.h5", 64, seed=1) as loader,
        oocload.Loader(tmp_path / "s.h5", 64, seed=1) as plain,
    ):
        by_fit, by_hand = model(), model()
        fit(by_fit, loader.to_keras(workers=4), epochs=3, shuffle=True)
        for _ in range(3):
            for x, y in plain:
                by_hand.train_on_batch(x, y)
        x = rows.astype("float32")
        accuracies = [m.evaluate(x, labels, verbose=0)[1] for m in (by_fit, by_hand)]
    assert accuracies[0] > 0.8
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1e-3)


# What a batch is


def test_evaluate_and_predict_keep_the_order(path: Path) -> None:
    with h5py.File(path) as file:
        x, y = file["x"][...], file["y"][...]
    model = small_model(metrics=False)
    with (
        oocload.Loader(path, BATCH, shuffle=False) as loader,
        oocload.Loader(path, BATCH, x="x", shuffle=False) as inputs,
    ):
        expected = model.evaluate(x, y, batch_size=BATCH, verbose=0)
        assert model.evaluate(loader.to_keras(workers=4), verbose=0) == pytest.approx(expected, rel=1e-5)
        dataset = inputs.to_keras(workers=4)
        for _ in range(2):
            np.testing.assert_allclose(model.predict(dataset, verbose=0), model.predict(x, verbose=0), rtol=1e-5)
        np.testing.assert_allclose(
            model.predict(dataset, steps=3, verbose=0), model.predict(x[:96], verbose=0), rtol=1e-5
        )
        np.testing.assert_allclose(model.predict(dataset, verbose=0), model.predict(x, verbose=0), rtol=1e-5)


def test_several_inputs_and_outputs_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fields = {"a": rng.normal(size=(200, 3)), "b": rng.normal(size=(200, 2)), "p": rng.normal(size=200)}
    oocload.convert({k: v.astype("float32") for k, v in {**fields, "q": fields["p"] * 2}.items()}, tmp_path / "n.h5")
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    joined = keras.layers.Concatenate()([a, b])
    outputs = {"p": keras.layers.Dense(1, name="p")(joined), "q": keras.layers.Dense(1, name="q")(joined)}
    model = keras.Model({"a": a, "b": b}, outputs)
    model.compile("sgd", {"p": "mse", "q": "mae"})
    with oocload.Loader(tmp_path / "n.h5", 32, x=["a", "b"], y=["p", "q"], seed=0) as loader:
        history = fit(model, loader.to_keras(), epochs=2)
    assert {"p_loss", "q_loss"} <= history.keys()


@pytest.mark.parametrize("weighted", ["class_weight", "sample_weight"])
def test_weights_reach_the_loss(path: Path, weighted: str) -> None:
    """All weights 2 double the loss."""
    with h5py.File(path, "r+") as file:
        file["c"] = np.arange(N_ROWS) % 2
        file["w"][...] = 2.0
    extra = {"sample_weight": "w"} if weighted == "sample_weight" else {}
    options = {"class_weight": {0: 2.0, 1: 2.0}} if weighted == "class_weight" else {}
    losses = []
    for with_weights in (False, True):
        model = small_model(metrics=False)
        model.optimizer.learning_rate = 0.0
        given = extra if with_weights else {}
        with oocload.Loader(path, BATCH, x="x", y="c", shuffle=False, **given) as loader:
            losses += fit(model, loader.to_keras(), **(options if with_weights else {}))["loss"]
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-4)


def test_forever_with_steps_per_epoch(loader: oocload.Loader) -> None:
    batches = loader.forever()
    history = fit(small_model(), batches, epochs=3, steps_per_epoch=len(loader))
    batches.close()
    assert [history_of(history, epoch) for epoch in range(3)] == [every_row()] * 3


# By index, as a Sequence


def test_direct_indexing_gives_the_stream(path: Path, loader: oocload.Loader) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
        dataset = loader.to_keras()
        assert isinstance(dataset, keras.utils.Sequence)
        assert isinstance(dataset, keras.utils.PyDataset)
        assert len(dataset) == dataset.num_batches == N_BATCHES
        got = [tuple(map(np.copy, dataset[i])) for _ in range(2) for i in range(N_BATCHES)]
        dataset.on_epoch_end()
        got += [tuple(map(np.copy, batch)) for batch in dataset]
        dataset.on_epoch_end()
        got += [tuple(map(np.copy, dataset[i])) for i in range(N_BATCHES)]
        assert_same(stream(plain, 4), got)
        assert reads(loader) == 4


def test_an_index_is_the_same_batch_whatever_was_asked_before(path: Path, loader: oocload.Loader) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
        whole = stream(plain, 2)
    dataset = loader.to_keras()
    order = [0, 1, 0, 40, 2, 3, 62, 4, 4, 0]
    assert_same([whole[i] for i in order], [tuple(map(np.copy, dataset[i])) for i in order])
    dataset.on_epoch_end()
    assert_same([whole[N_BATCHES + i] for i in (7, 0)], [tuple(map(np.copy, dataset[i])) for i in (7, 0)])
    with pytest.raises(IndexError, match="index must be from -63 to 62, got 63"):
        dataset[63]


def test_it_pickles_with_its_position(path: Path, loader: oocload.Loader) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
        whole = stream(plain, 2)
    dataset = loader.to_keras()
    dataset[0], dataset.on_epoch_end()
    again = pickle.loads(pickle.dumps(dataset))
    assert_same([whole[N_BATCHES + 5]], [again[5]])
    again.loader.close()


class Wrapped(keras.utils.PyDataset):
    """A user's own dataset around ours."""

    def __init__(self, inner: Any, **options: Any) -> None:
        super().__init__(**options)
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        x, y = self.inner[index]
        return x, y

    def on_epoch_end(self) -> None:
        self.inner.on_epoch_end()


@pytest.mark.parametrize("workers", [1, 3])
def test_inside_a_dataset_of_the_users_own(loader: oocload.Loader, workers: int) -> None:
    model = small_model()
    # With workers Keras delivers the batches that it looked at to build the model once more (its ready_queue).
    fit(model, np.zeros((1, 12), "float32"), np.zeros(1, "int64"))
    history = fit(model, Wrapped(loader.to_keras(), workers=workers), epochs=2, shuffle=workers == 1)
    assert [history_of(history, epoch) for epoch in range(2)] == [every_row()] * 2
    if workers == 1:
        assert reads(loader) == 2


class Part(keras.utils.PyDataset):
    """Some of the batches of ours, by their numbers."""

    def __init__(self, inner: Any, numbers: range) -> None:
        super().__init__()
        self.inner, self.numbers = inner, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Any:
        return self.inner[self.numbers[index]]


def test_parts_of_a_dataset_are_what_they_say(path: Path) -> None:
    with oocload.Loader(path, BATCH, shuffle=False) as loader:
        history = fit(small_model(), Part(loader.to_keras(), range(50, 63)), epochs=2)
    assert history["total"] == [float(np.arange(50 * 32, N_ROWS).sum())] * 2


def test_loops_and_fits_take_turns(path: Path, loader: oocload.Loader) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
        whole = stream(plain, 3)
    dataset = loader.to_keras()
    first = [tuple(map(np.copy, batch)) for batch in dataset]
    fit(small_model(), dataset)
    third = [tuple(map(np.copy, batch)) for batch in dataset]
    assert_same(whole[:N_BATCHES] + whole[2 * N_BATCHES :], first + third)


# What goes wrong


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_transform_that_raises_does_so_at_its_batch(path: Path, shuffle: bool) -> None:
    def transform(batch: Any) -> Any:
        if 1500 in batch[1]:
            raise RuntimeError("no such thing as row 1500")
        return batch

    trained: list[int] = []
    with oocload.Loader(path, BATCH, shuffle=False, transform=transform) as loader:
        count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: trained.append(batch))
        with pytest.raises(
            Exception, match="(?s)no such thing as row 1500.*raised by transform .* at batch 46 of epoch 0"
        ):
            fit(small_model(), loader.to_keras(), shuffle=shuffle, callbacks=[count])
        assert trained == list(range(46))
    assert not our_threads()


def test_a_transform_that_changes_the_rows_is_named(path: Path) -> None:
    with oocload.Loader(path, BATCH, shuffle=False, transform=lambda batch: (batch[0][1:], batch[1])) as loader:
        message = "transform .* must keep the rows of a batch, and made 31 of 32 at batch 0 of epoch 0"
        with pytest.raises(Exception, match=message):
            fit(small_model(), loader.to_keras())


def test_a_damaged_chunk_is_named(path: Path) -> None:
    damage(path, 40)
    with oocload.Loader(path, BATCH, shuffle=False) as loader:
        with pytest.raises(Exception, match=r"k.h5, field 'x', chunk \(40, 0\): deflate cannot"):
            fit(small_model(), loader.to_keras())
    assert not our_threads()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": -1}, "workers must be"),
        ({"use_multiprocessing": 1}, "use_multiprocessing must be True or False, got 1"),
        ({"max_queue_size": 0}, "max_queue_size must be"),
    ],
)
def test_bad_options(loader: oocload.Loader, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        loader.to_keras(**options)


def test_text_is_refused_by_name(tmp_path: Path) -> None:
    oocload.convert({"x": np.zeros((9, 2)), "y": np.array([b"a", b"bc", b"d"] * 3)}, tmp_path / "text.h5")
    with oocload.Loader(tmp_path / "text.h5", 3) as loader:
        with pytest.raises(InvalidArgumentError, match=r"field 'y' must have a dtype that Keras has, got \|S2; choose"):
            loader.to_keras()
        numbers = loader.map(lambda batch: (batch[0], batch[1] == b"a"))
        assert len(numbers.to_keras()) == 3


@pytest.mark.parametrize(
    ("way", "module", "package"), [("to_keras", "keras", "keras"), ("to_tf", "tf_data", "tensorflow")]
)
def test_framework_not_installed(
    path: Path, monkeypatch: pytest.MonkeyPatch, way: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"oocload.adapters.{module}", raising=False)
    with oocload.Loader(path, BATCH) as loader:
        message = rf"{way}\(\) needs the package '{package}', which is not installed; run: pip install {package} "
        with pytest.raises(MissingPackageError, match=message):
            getattr(loader, way)()


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_backend_not_installed(path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    def no_backend(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {backend!r}", name=backend)

    monkeypatch.setattr("oocload.optional.importlib.import_module", no_backend)
    monkeypatch.delitem(sys.modules, "oocload.adapters.keras", raising=False)
    with oocload.Loader(path, BATCH) as loader:
        with pytest.raises(MissingPackageError, match=rf"KERAS_BACKEND.* pip install {backend} \(or"):
            loader.to_keras()


def test_it_leaves_no_threads(loader: oocload.Loader) -> None:
    before = threading.active_count()
    dataset, model = loader.to_keras(), small_model()
    for _ in range(8):
        fit(model, dataset)
        model.evaluate(dataset, verbose=0)
    assert not our_threads()
    assert threading.active_count() <= before + 6  # TensorFlow's own, once
