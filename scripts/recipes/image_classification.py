"""Recipe 7: a convolutional network on images read whole, and on the same ones from a store.

python scripts/recipes/image_classification.py --rows 200000
python scripts/recipes/image_classification.py --mnist FOLDER
"""

from __future__ import annotations

import gzip
import os
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import keras
import numpy as np
from parts import side_by_side
from parts.keras_runs import validated
from parts.labelled_store import labelled_store
from parts.side_by_side import Outcome

import oocload
from oocload import ops

BATCH_SIZE = 128
EPOCHS = 2
HELD_OUT = 0.2  # the last fifth of the rows


def cnn(image_shape: tuple[int, ...], n_classes: int) -> keras.Model:
    keras.utils.set_random_seed(0)  # both ways begin with the same weights
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Reshape((*image_shape, 1)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(n_classes, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def read(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    with gzip.open(path) as file:  # IDX: the fourth byte is the number of axes, whose lengths follow
        n_axes = file.read(4)[3]
        shape = np.frombuffer(file.read(4 * n_axes), ">i4")
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def with_arrays(x: Path, y: Path, n_classes: int, shuffle: bool) -> Outcome:
    images = read(x).astype("float32") / 255  # four times the file, and that twice for a moment
    labels = read(y)
    model = cnn(images.shape[1:], n_classes)
    history = model.fit(
        images,
        labels,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        validation_split=HELD_OUT,
        shuffle=shuffle,
        verbose=0,
    ).history
    return validated(history, EPOCHS * len(images))


def with_oocload(store: Path, n_classes: int, shuffle: bool, memory: str) -> Outcome:
    as_floats = [ops.scale(1 / 255, dtype="float64"), ops.cast("float32")]  # to the bit what dividing by 255 gives
    with oocload.Loader(store, BATCH_SIZE, shuffle=shuffle, seed=0, memory=memory, ops={"x": as_floats}) as loader:
        n_train = int(loader.n_rows * (1 - HELD_OUT))
        train, held_out = loader.split(range(n_train), range(n_train, loader.n_rows))
        model = cnn(loader.fields["x"].shape[1:], n_classes)
        history = model.fit(
            train.to_tf(),
            epochs=EPOCHS,
            validation_data=held_out.to_tf(),
            shuffle=False,  # it is the loader that shuffles
            verbose=0,
        ).history
        return validated(history, EPOCHS * loader.n_rows)


def main() -> None:
    parser = side_by_side.arguments(__doc__, rows=20_000)
    parser.add_argument("--mnist", type=Path, help="folder of t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz")
    parser.add_argument("--shuffle", action="store_true", help="each way in an order of its own: other losses")
    args = parser.parse_args()
    with side_by_side.folder_of(args) as folder:
        if args.mnist:
            x, y = (args.mnist / f"t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
        else:
            from parts.made_digits import make_digits  # needs scikit-learn

            x, y = make_digits(folder, args.rows, n_train=int(args.rows * (1 - HELD_OUT)))
        store = folder / "images.h5"
        oocload.convert({"x": x, "y": y}, store, overwrite=True)
        with oocload.Loader(store, BATCH_SIZE, memory=args.memory) as loader:  # which may have something to say
            field = loader.fields["x"]
        if len(field.shape) != 3 or min(field.shape[1:]) < 7 or field.dtype != np.uint8:
            raise oocload.InvalidArgumentError(
                f"images must be of height × width, each at least 7, and of bytes, got {field.shape[1:]} and "
                f"{field.dtype} in {x}"
            )
        n_classes = labelled_store(store).n_classes
        old = partial(with_arrays, x, y, n_classes, args.shuffle)
        new = partial(with_oocload, store, n_classes, args.shuffle, args.memory)
        same = "" if args.shuffle else "losses"
        side_by_side.compare({"arrays in memory": old}, {"oocload": new}, args, data_nbytes=field.nbytes, same=same)


if __name__ == "__main__":
    side_by_side.run(main)
