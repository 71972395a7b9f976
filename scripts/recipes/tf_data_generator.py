"""Recipe 8: `tf.data` from a generator over an HDF5 file, with shuffle, batch and prefetch, and `to_tf()` in its place.

python scripts/recipes/tf_data_generator.py --rows 100000
python scripts/recipes/tf_data_generator.py --file train.h5
"""

from __future__ import annotations

import os

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")  # or TensorFlow tells of itself

import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf
from parts import side_by_side
from parts.keras_runs import start_keras
from parts.labelled_store import labelled_store
from parts.made_images import by_class, make_h5
from parts.side_by_side import Outcome

import oocload

BATCH_SIZE = 128
READ_ROWS = 128


def rows_of(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for images, labels in slices_of(path):
        yield from zip(images, labels, strict=True)


def slices_of(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    with h5py.File(path) as file:
        for start in range(0, len(file["y"]), READ_ROWS):
            rows = slice(start, start + READ_ROWS)
            yield file["x"][rows], file["y"][rows]


def signature(path: Path, *lead: None) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    with h5py.File(path) as file:
        x, y = file["x"], file["y"]
        return tf.TensorSpec((*lead, *x.shape[1:]), x.dtype), tf.TensorSpec(lead, y.dtype)


def with_rows(path: Path, n_classes: int, buffer_rows: int) -> Outcome:
    rows = tf.data.Dataset.from_generator(partial(rows_of, path), output_signature=signature(path))
    losses = train(rows.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE), n_classes)
    shuffled = rows.shuffle(buffer_rows, seed=0).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
    return outcome(losses, shuffled, n_classes)


def with_slices(path: Path, n_classes: int, buffer_rows: int) -> Outcome:
    slices = tf.data.Dataset.from_generator(partial(slices_of, path), output_signature=signature(path, None))
    rows = slices.unbatch()  # Python is called once for READ_ROWS rows
    losses = train(rows.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE), n_classes)
    shuffled = rows.shuffle(buffer_rows, seed=0).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
    return outcome(losses, shuffled, n_classes)


def with_to_tf(path: Path, n_classes: int, memory: str) -> Outcome:
    with oocload.Loader(path, batch_size=BATCH_SIZE, x="x", y="y", shuffle=False, memory=memory) as in_order:
        losses = train(in_order.to_tf(), n_classes)
    with oocload.Loader(path, batch_size=BATCH_SIZE, x="x", y="y", seed=0, memory=memory) as loader:
        print(f"{loader.shuffle_quality()}\n")
        return outcome(losses, loader.to_tf(), n_classes)


def train(in_order: tf.data.Dataset, n_classes: int) -> list[float]:
    """Return the loss of an epoch in the order of the file, to be compared."""
    return model_of(in_order, n_classes).fit(in_order, shuffle=False, verbose=0).history["loss"]


def outcome(losses: list[float], shuffled: tf.data.Dataset, n_classes: int) -> Outcome:
    """Time a shuffled pass without training, and look at its labels; then train shuffled."""
    start = time.perf_counter()
    labels = [y.numpy() for _, y in shuffled]
    seconds = time.perf_counter() - start
    model = model_of(shuffled, n_classes)
    model.fit(shuffled, shuffle=False, verbose=0)
    shown = {
        "classes in a batch": f"{np.mean([len(np.unique(of_batch)) for of_batch in labels]):.1f}",
        "accuracy after an epoch": f"{model.evaluate(shuffled, verbose=0)[1]:.2f}",
    }
    return Outcome(sum(map(len, labels)), losses, seconds, shown)


def model_of(dataset: tf.data.Dataset, n_classes: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(n_classes, "softmax")]
    model = keras.Sequential([keras.Input(dataset.element_spec[0].shape[1:]), *layers])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    warnings.filterwarnings("ignore", message="Your input ran out of data")  # Keras, where nobody says how many batches
    parser = side_by_side.arguments(__doc__, rows=4_000, memory="24 MiB")
    parser.add_argument("--file", type=Path, help='an HDF5 file of your own: rows "x", and "y", labels from 0')
    parser.add_argument(
        "--buffer", type=side_by_side.positive, default=1024, help="rows in the shuffle buffer (default 1,024)"
    )
    args = parser.parse_args()
    with side_by_side.folder_of(args) as folder:
        path = args.file or make_h5(folder, by_class(args.rows))
        with oocload.Loader(path, batch_size=BATCH_SIZE, x="x", y="y", seed=0, memory=args.memory) as loader:
            n_classes = labelled_store(path).n_classes
            data_nbytes = loader.fields["x"].nbytes
        old = {"from_generator, rows": partial(with_rows, path, n_classes, args.buffer)}
        old["from_generator, slices"] = partial(with_slices, path, n_classes, args.buffer)
        new = {"to_tf()": partial(with_to_tf, path, n_classes, args.memory)}
        side_by_side.compare(old, new, args, data_nbytes=data_nbytes, same="losses", prepare=start_keras)


if __name__ == "__main__":
    side_by_side.run(main)
