"""The same batches inside Keras, by the real Keras."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import oocload
from oocload.errors import MissingPackageError
from tests.adapters.frameworks import BATCH, N_ROWS, WINDOW, assert_same, stream, write

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
def model() -> "keras.Model":
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12,)), keras.layers.Rescaling(1e-5), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def fit(model: "keras.Model", *args: object, **options: object) -> "keras.callbacks.History":
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`shuffle=True` was passed", UserWarning)
        return model.fit(*args, verbose=0, **options)


@pytest.mark.parametrize("shuffle", [True, False])
def test_fit_sees_every_row_once_an_epoch(path: Path, model: "keras.Model", shuffle: bool) -> None:
    recorder = Recorder()
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, transform=recorder) as loader:
        fit(model, loader.to_keras(), epochs=3, shuffle=shuffle)
        n = len(loader)
        epochs = recorder.batches[-3 * n :]
        for start in range(0, 3 * n, n):
            rows = np.concatenate(epochs[start : start + n])
            assert np.array_equal(np.sort(rows), np.arange(N_ROWS))
        probes = recorder.batches[: -3 * n]
        assert len(probes) <= 4


def test_order_is_that_of_the_iterator_whatever_keras_asks_for(path: Path, model: "keras.Model") -> None:
    recorder = Recorder()
    with (
        oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, transform=recorder) as loader,
        oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain,
    ):
        fit(model, loader.to_keras(), epochs=3, shuffle=True)
        expected = stream(plain, 3)
        got = recorder.batches[-len(expected) :]
        assert all(np.array_equal(y, rows) for (_, y), rows in zip(expected, got, strict=True))


def test_blocks_are_decoded_about_once(path: Path, model: "keras.Model") -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        fit(model, loader.to_keras(), epochs=10, shuffle=True)
        per_epoch = loader.stats.decoded_bytes / 10 / (2025 * (12 * 4 + 8))
        assert per_epoch <= 1.1 + 3 / 10  # three windows of four are read again when Keras has learned the shapes


def test_direct_indexing_gives_the_stream(path: Path) -> None:
    with (
        oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader,
        oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain,
    ):
        dataset = loader.to_keras()
        assert isinstance(dataset, keras.utils.PyDataset)
        assert len(dataset) == dataset.num_batches == 63
        got = [tuple(map(np.copy, dataset[i])) for _ in range(2) for i in range(63)]
        assert_same(stream(plain, 2), got)


def test_to_tf_under_fit(path: Path, model: "keras.Model") -> None:
    pytest.importorskip("tensorflow")
    with (
        oocload.Loader(path, BATCH, seed=1) as loader,
        oocload.Loader(path, BATCH, shuffle=False) as validation,
    ):
        history = fit(model, loader.to_tf(), epochs=2, validation_data=validation.to_tf())
        assert len(history.history["val_loss"]) == 2
        assert loader.stats.rows == 2 * N_ROWS


def test_both_ways_train_to_the_same_weights(path: Path) -> None:
    weights = []
    for way in ("to_tf", "to_keras"):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((12,)), keras.layers.Rescaling(1e-5), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
            fit(model, getattr(loader, way)(), epochs=2)
        weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    assert np.array_equal(weights[0], weights[1])


def test_evaluate_and_predict(path: Path, model: "keras.Model") -> None:
    import h5py

    with h5py.File(path) as file:
        x, y = file["x"][...], file["y"][...]
    with (
        oocload.Loader(path, BATCH, shuffle=False) as loader,
        oocload.Loader(path, BATCH, x="x", shuffle=False) as inputs,
    ):
        expected = model.evaluate(x, y, batch_size=BATCH, verbose=0)
        assert model.evaluate(loader.to_keras(), verbose=0) == pytest.approx(expected, rel=1e-5)
        assert model.evaluate(loader.to_tf(), verbose=0) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(model.predict(inputs.to_keras(), verbose=0), model.predict(x, verbose=0), rtol=1e-5)


def test_steps_per_epoch_below_the_number_of_batches(path: Path, model: "keras.Model") -> None:
    recorder = Recorder()
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, transform=recorder) as loader:
        fit(model, loader.to_keras(), epochs=3, steps_per_epoch=21)
        rows = np.concatenate(recorder.batches[-63:])
        assert np.array_equal(np.sort(rows), np.arange(N_ROWS))


def test_forever_with_steps_per_epoch(path: Path, model: "keras.Model") -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        stream_ = loader.forever()
        history = fit(model, stream_, epochs=3, steps_per_epoch=len(loader))
        stream_.close()
        assert len(history.history["loss"]) == 3


@pytest.mark.parametrize(
    ("way", "module", "package"), [("to_keras", "keras", "keras"), ("to_tf", "tf_data", "tensorflow")]
)
def test_framework_not_installed(
    path: Path, monkeypatch: pytest.MonkeyPatch, way: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"oocload.adapters.{module}", raising=False)
    with oocload.Loader(path, BATCH) as loader:
        message = rf"{way}\(\) needs the package '{package}', .* pip install \"oocload\[tensorflow\]\""
        with pytest.raises(MissingPackageError, match=message):
            getattr(loader, way)()
