"""Recipe 3: a Keras Sequence over one .npy file per sample, with dicts of ids and labels, and a store in its place.

python scripts/recipes/keras_sequence.py --rows 20000
python scripts/recipes/keras_sequence.py --folder samples --labels labels.csv --partition partition.json
"""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import keras
import numpy as np
from parts import side_by_side
from parts.keras_runs import AfterFirstEpoch, start_keras
from parts.side_by_side import Outcome

import oocload
from oocload import ops

SHAPE = (16, 16, 16)
N_CLASSES = 3
BATCH_SIZE = 32
EPOCHS = 2


class NpySequence(keras.utils.Sequence):
    """A batch of files for each index."""

    def __init__(self, folder: Path, ids: list[str], labels: dict[str, int], shuffle: bool, **workers: Any) -> None:
        super().__init__(**workers)
        self.folder, self.ids, self.labels, self.shuffle = folder, list(ids), labels, shuffle
        self.n_classes = max(labels.values()) + 1
        self.on_epoch_end()

    def __len__(self) -> int:
        return math.ceil(len(self.ids) / BATCH_SIZE)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        ids = self.ids[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
        x = np.stack([np.load(self.folder / f"{name}.npy") for name in ids])
        y = [self.labels[name] for name in ids]
        return x, keras.utils.to_categorical(y, self.n_classes)

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        if self.shuffle:
            np.random.shuffle(self.ids)


class InGivenOrder(NpySequence):
    """The same in the orders of a loader, one for each epoch."""

    def __init__(self, orders: list[list[str]], *args: Any, **options: Any) -> None:
        self.orders = iter([orders[0], *orders])  # Keras calls on_epoch_end before the first epoch, too
        super().__init__(*args, **options)

    def on_epoch_end(self) -> None:
        """Take the next order."""
        self.ids = next(self.orders, self.ids)


def model_of(shape: tuple[int, ...], n_classes: int) -> keras.Model:
    keras.utils.set_random_seed(0)  # the same first weights in both ways
    inputs = keras.Input(shape)
    hidden = keras.layers.LayerNormalization()(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(n_classes, "softmax")(hidden))
    model.compile("sgd", "categorical_crossentropy")
    return model


def with_a_sequence(
    folder: Path, partition: dict[str, list[str]], labels: dict[str, int], orders: list[list[str]]
) -> Outcome:
    workers = {"workers": 6, "use_multiprocessing": True}
    train = InGivenOrder(orders, folder, partition["train"], labels, shuffle=True, **workers)
    val = NpySequence(folder, partition["validation"], labels, shuffle=False, **workers)
    model, clock = model_of(train[0][0].shape[1:], train.n_classes), AfterFirstEpoch()
    # fit(shuffle=True), the default, would shuffle the batches once more
    history = model.fit(train, validation_data=val, epochs=EPOCHS, shuffle=False, callbacks=[clock], verbose=0)
    return outcome(history, clock, len(train.ids) + len(val.ids))


def with_oocload(store: Path, n_classes: int, memory: str) -> Outcome:
    train, val = loaders_of(store, n_classes, memory)
    with train, val:
        model, clock = model_of(train.fields["x"].shape[1:], n_classes), AfterFirstEpoch()
        history = model.fit(
            train.to_keras(), validation_data=val.to_keras(), epochs=EPOCHS, callbacks=[clock], verbose=0
        )
        return outcome(history, clock, train.n_rows + val.n_rows)


def loaders_of(store: Path, n_classes: int, memory: str) -> tuple[oocload.Loader, oocload.Loader]:
    one_hot = {"y": ops.one_hot(n_classes)}
    train = oocload.Loader(store, BATCH_SIZE, x="x", y="y", split="train", seed=0, memory=memory, ops=one_hot)
    val = oocload.Loader(store, BATCH_SIZE, x="x", y="y", split="validation", shuffle=False, memory=memory, ops=one_hot)
    return train, val


def outcome(history: keras.callbacks.History, clock: AfterFirstEpoch, epoch_rows: int) -> Outcome:
    losses = [history.history["loss"], history.history["val_loss"]]
    return Outcome((EPOCHS - 1) * epoch_rows, losses, seconds=clock.seconds)


def make_samples(folder: Path, n_rows: int) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Write a file per sample; return which are for training and for validation, and their labels."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    patterns = rng.standard_normal((N_CLASSES, *SHAPE), np.float32) / 8
    labels = {f"id-{number}": int(rng.integers(N_CLASSES)) for number in range(n_rows)}
    for name, label in labels.items():
        np.save(folder / f"{name}.npy", patterns[label] + rng.standard_normal(SHAPE, np.float32))
    ids = list(labels)
    partition = {"train": [name for i, name in enumerate(ids) if i % 5], "validation": ids[::5]}
    return partition, labels


def read_labels(store: Path) -> dict[str, int]:
    """Return id → label in the order of the rows."""
    labels: dict[str, int] = {}
    with oocload.Loader(store, 1, x=["id", "y"], shuffle=False) as rows:
        for row in rows:
            labels[row["id"].values.tobytes().decode()] = row["y"][0].tolist()
    return labels


def main() -> None:
    parser = side_by_side.arguments(__doc__, rows=2_000)
    parser.add_argument("--folder", type=Path, help="samples of your own, ID.npy each")
    parser.add_argument("--labels", type=Path, help="JSON of {id: label}, or CSV with the columns id and label")
    parser.add_argument("--partition", type=Path, help="JSON of {set: [ids]}, or CSV with the columns id and split")
    args = parser.parse_args()
    if args.folder is None and (args.labels or args.partition):
        parser.error("--labels and --partition are those of --folder, which must be given too")
    with side_by_side.folder_of(args) as folder:
        samples, labels, partition = args.folder, args.labels, args.partition
        if samples is None:
            samples = folder / f"samples-{args.rows}"
            partition, labels = make_samples(samples, args.rows)
        source = oocload.sources.NpyFolderSource(samples, labels=labels, partition=partition)
        store = folder / "samples.h5"
        oocload.convert(source, store, overwrite=True)
        labels = read_labels(store)
        if np.min(list(labels.values())) < 0:
            raise oocload.InvalidArgumentError(f"labels of {samples} must be 0 and up, got {min(labels.values())}")
        n_classes = int(np.max(list(labels.values()))) + 1
        train, val = loaders_of(store, n_classes, args.memory)
        with train, val:
            ids = np.array(list(labels))
            orders = [ids[rows].tolist() for rows in side_by_side.orders_of(train, EPOCHS)]
            partition = {"train": orders[0], "validation": ids[side_by_side.orders_of(val, 1)[0]].tolist()}
            data_nbytes = train.fields["x"].nbytes
        old = partial(with_a_sequence, samples, partition, labels, orders)
        new = partial(with_oocload, store, n_classes, args.memory)
        side_by_side.compare(
            {"Sequence": old}, {"oocload": new}, args, data_nbytes=data_nbytes, same="losses", prepare=start_keras
        )


if __name__ == "__main__":
    side_by_side.run(main)
