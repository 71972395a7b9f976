"""Real images stored sorted by label train as well through the shuffled loader as shuffled in memory."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import oocload

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytestmark = pytest.mark.framework

N_TRAIN, EPOCHS, BATCH, SEEDS = 8000, 6, 64, (0, 1, 2)


class Data:
    """8,000 images to train on, sorted by label in a store, and 2,000 to test with."""

    def __init__(self, folder: Path, mnist: Path) -> None:
        oocload.convert(
            {"x": mnist / "t10k-images-idx3-ubyte.gz", "y": mnist / "t10k-labels-idx1-ubyte.gz"}, folder / "all.h5"
        )
        with h5py.File(folder / "all.h5") as file:
            x, y = file["x"][...], file["y"][...]
        order = np.random.default_rng(0).permutation(len(x))
        train, test = order[:N_TRAIN], order[N_TRAIN:]
        self.x_test, self.y_test = x[test], y[test]
        train = train[np.argsort(y[train], kind="stable")]
        self.x, self.y = x[train], y[train]
        self.path = folder / "sorted.h5"
        oocload.convert((self.x, self.y), self.path, chunk_rows=64)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    from tests.conftest import SHARED

    folder = SHARED / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip(f"needs the MNIST files in {folder}")
    return Data(tmp_path_factory.mktemp("mnist"), folder)


def accuracy(data: Data, seed: int, source: object, **options: object) -> float:
    """Train a small network and return its accuracy on the test images."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], steps_per_execution=25)
    model.fit(source, epochs=EPOCHS, verbose=0, **options)
    return float(model.evaluate(data.x_test, data.y_test, verbose=0)[1])


def mean_through_loader(data: Data, way: str, shuffle: bool) -> float:
    accuracies = []
    for seed in SEEDS:
        with oocload.Loader(data.path, BATCH, seed=seed, shuffle=shuffle, memory="8 MiB") as loader:
            accuracies.append(accuracy(data, seed, getattr(loader, way)(), shuffle=way == "to_keras" and shuffle))
    return float(np.mean(accuracies))


@pytest.fixture(scope="module")
def in_memory(data: Data) -> float:
    """The accuracy to reach: the same network on the array, fully shuffled in memory."""
    return float(np.mean([accuracy(data, s, data.x, y=data.y, batch_size=BATCH, shuffle=True) for s in SEEDS]))


@pytest.mark.parametrize("way", ["to_tf", "to_keras"])
def test_sorted_store_trains_as_well_as_shuffled_memory(data: Data, in_memory: float, way: str) -> None:
    assert in_memory > 0.93
    assert mean_through_loader(data, way, shuffle=True) > in_memory - 0.005


def test_without_shuffling_it_does_not(data: Data, in_memory: float) -> None:
    assert mean_through_loader(data, "to_tf", shuffle=False) < in_memory - 0.1
