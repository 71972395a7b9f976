"""Recipe 2: an endless generator with steps per epoch counted by hand, and `forever()` or `to_keras()` in its place.

python scripts/recipes/endless_generator.py --rows 50000
python scripts/recipes/endless_generator.py --messages SMSSpamCollection.tsv
"""

from __future__ import annotations

import os

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")  # or TensorFlow tells of itself

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import keras
import numpy as np
from parts import side_by_side
from parts.keras_runs import AfterFirstEpoch, start_keras
from parts.made_messages import make_messages
from parts.side_by_side import Outcome

import oocload
from oocload.sources import CsvSource, Text

BATCH_SIZE = 128
EPOCHS = 3
N_FEATURES = 1024

Orders = list[np.ndarray]


def bag_of_words(texts: list[str]) -> np.ndarray:
    features = np.zeros((len(texts), N_FEATURES), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            features[row, 1 + crc32(word.encode()) % (N_FEATURES - 1)] = 1
    return features


def generate(texts: list[str], labels: np.ndarray, orders: Orders) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    while 1:
        for order in orders:
            for start in range(0, len(order), BATCH_SIZE):
                rows = order[start : start + BATCH_SIZE]
                yield bag_of_words([texts[row] for row in rows]), labels[rows]


def with_a_generator(messages: Path, orders: Orders, val_orders: Orders) -> Outcome:
    with messages.open(newline="") as file:
        lines = [line for line in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if line][1:]
    texts, labels = [text for _, text in lines], np.array([label == "spam" for label, _ in lines])
    del lines
    steps_per_epoch = (len(orders[0]) + BATCH_SIZE - 1) // BATCH_SIZE  # rounded up: the last batch is smaller
    validation_steps = (len(val_orders[0]) + BATCH_SIZE - 1) // BATCH_SIZE
    training = Training(len(labels))
    training.fit(
        generate(texts, labels, orders),
        steps_per_epoch=steps_per_epoch,
        validation_data=generate(texts, labels, val_orders),
        validation_steps=validation_steps,
    )
    return training.outcome(generate(texts, labels, val_orders), steps=validation_steps)


def bag_of_tokens(batch: tuple[oocload.Ragged, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    tokens, labels = batch
    features = np.zeros((tokens.n_rows, N_FEATURES), np.float32)
    rows = np.repeat(np.arange(tokens.n_rows), np.diff(tokens.offsets))
    features[rows, tokens.values] = 1
    return features, labels.copy()  # Keras keeps the first batches of a generator


def parts_of(store: Path, memory: str) -> tuple[oocload.Loader, oocload.Loader]:
    loader = oocload.Loader(store, batch_size=BATCH_SIZE, x="text", y="y", seed=0, memory=memory)
    train, val = loader.map(bag_of_tokens).split(0.8, 0.2)
    return train, val


def with_forever(store: Path, memory: str) -> Outcome:
    train, val = parts_of(store, memory)
    with train, val:
        training = Training(train.n_rows + val.n_rows)
        training.fit(train.forever(), steps_per_epoch=len(train), validation_data=val.to_keras())
        return training.outcome(val.to_keras())


def with_to_keras(store: Path, memory: str) -> Outcome:
    train, val = parts_of(store, memory)
    with train, val:
        training = Training(train.n_rows + val.n_rows)
        training.fit(train.to_keras(), validation_data=val.to_keras())
        return training.outcome(val.to_keras())


class Training:
    """The same model from the same weights for each way, and what came of it."""

    def __init__(self, n_rows: int) -> None:
        keras.utils.set_random_seed(0)
        layers = [keras.Input((N_FEATURES,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1, "sigmoid")]
        self.model = keras.Sequential(layers)
        self.model.compile("adam", "binary_crossentropy")
        self.n_rows, self.clock = n_rows, AfterFirstEpoch()

    def fit(self, data: Any, **options: Any) -> None:
        """Call `model.fit`."""
        callbacks = [self.clock]
        self.history = self.model.fit(data, epochs=EPOCHS, callbacks=callbacks, shuffle=False, verbose=0, **options)

    def outcome(self, val: Any, steps: int | None = None) -> Outcome:
        """Return the losses: of training, of the first validation in `fit`, and of one by itself at the end."""
        of_fit, exact = self.history.history["val_loss"], self.model.evaluate(val, steps=steps, verbose=0)
        shown = {"val_loss of the last epoch": f"{of_fit[-1]:.5f}", "of all validation rows": f"{exact:.5f}"}
        losses = [*self.history.history["loss"], of_fit[0], exact]
        return Outcome((EPOCHS - 1) * self.n_rows, losses, self.clock.seconds, shown)


def main() -> None:
    parser = side_by_side.arguments(__doc__, rows=5_000)
    parser.add_argument("--messages", type=Path, help='a .tsv of your own: a header, then "ham" or "spam", and a text')
    args = parser.parse_args()
    with side_by_side.folder_of(args) as folder:
        made = args.messages is None
        messages = make_messages(folder, args.rows, ("ham", "spam"), (60, 180)) if made else args.messages
        store = folder / "messages.h5"
        text = {"text": Text("hashing", n_buckets=N_FEATURES)}
        labels = {"label": ["ham", "spam"]}
        source = CsvSource(messages, label="label", labels=labels, text=text, header=["label", "text"], skip_lines=1)
        oocload.convert(source, store, chunk_bytes="128 KiB", overwrite=True)  # small chunks mix under a small ceiling
        train, val = parts_of(store, args.memory)
        with train, val:
            orders, val_orders = side_by_side.orders_of(train, EPOCHS), side_by_side.orders_of(val, EPOCHS)
            data_nbytes = sum(field.nbytes for field in train.fields.values())
        old = partial(with_a_generator, messages, orders, val_orders)
        new = {"forever()": partial(with_forever, store, args.memory)}
        new["to_keras()"] = partial(with_to_keras, store, args.memory)
        side_by_side.compare(
            {"endless generator": old}, new, args, data_nbytes=data_nbytes, same="losses", prepare=start_keras
        )


if __name__ == "__main__":
    side_by_side.run(main)
