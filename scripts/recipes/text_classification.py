"""Recipe 7: an LSTM on texts that are tokenized in memory, and on the same ones from a store.

python scripts/recipes/text_classification.py --rows 500000
python scripts/recipes/text_classification.py --messages SMSSpamCollection.tsv --columns Label SMS
"""

from __future__ import annotations

import collections
import csv
import os
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import keras
import numpy as np
from parts import side_by_side
from parts.keras_runs import validated
from parts.made_messages import make_messages
from parts.side_by_side import Outcome

import oocload

BATCH_SIZE = 128
EPOCHS = 2
HELD_OUT = 0.2  # the last fifth of the rows
MAX_TOKENS = 5000
MAXLEN = 24


def lstm(n_classes: int) -> keras.Model:
    keras.utils.set_random_seed(0)  # both ways begin with the same weights
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((MAXLEN,), dtype="int32"),
            layers.Embedding(MAX_TOKENS, 16),
            layers.LSTM(16),
            layers.Dense(n_classes, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def with_lists(path: Path, columns: tuple[str, str], shuffle: bool) -> Outcome:
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    label, text = columns
    names = sorted({line[label] for line in lines})
    y = np.array([names.index(line[label]) for line in lines])
    texts = [line[text].lower().split() for line in lines]
    counts = collections.Counter(word for words in texts for word in words)
    vocabulary = sorted(counts, key=lambda word: (-counts[word], word))[: MAX_TOKENS - 2]
    numbers = {word: number for number, word in enumerate(vocabulary, 2)}  # 0 is padding, 1 an unknown word
    tokens = [[numbers.get(word, 1) for word in words] for words in texts]
    x = keras.utils.pad_sequences(tokens, MAXLEN, padding="pre", truncating="post")
    model = lstm(len(names))
    history = model.fit(
        x,
        y,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        validation_split=HELD_OUT,
        shuffle=shuffle,
        verbose=0,
    ).history
    return validated(history, EPOCHS * len(x))


def with_oocload(store: Path, text: str, shuffle: bool, memory: str) -> Outcome:
    pad = oocload.Pad(MAXLEN, padding="pre", truncating="post")
    with oocload.Loader(store, BATCH_SIZE, x=text, y="y", ragged=pad, shuffle=shuffle, seed=0, memory=memory) as loader:
        n_train = int(loader.n_rows * (1 - HELD_OUT))
        train, held_out = loader.split(range(n_train), range(n_train, loader.n_rows))
        model = lstm(len(loader.fields["y"].meaning.vocabulary))
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
    parser.add_argument("--messages", type=Path, help="a file of two columns, separated by tabs, and their names")
    parser.add_argument("--columns", nargs=2, default=("label", "text"), help="its columns of labels and of text")
    parser.add_argument("--shuffle", action="store_true", help="each way in an order of its own: other losses")
    args = parser.parse_args()
    with side_by_side.folder_of(args) as folder:
        path = args.messages or make_messages(folder, args.rows, ("rain", "soup", "train"), (4, 24))
        label, text = args.columns
        store = folder / "messages.h5"
        words = {text: oocload.sources.Text("words", max_tokens=MAX_TOKENS)}
        source = oocload.sources.CsvSource(path, label=label, labels=[label], text=words, delimiter="\t", quote=None)
        oocload.convert(source, store, overwrite=True)
        with oocload.Loader(store, BATCH_SIZE, memory=args.memory) as loader:  # which may have something to say
            data_nbytes = loader.fields[text].nbytes
        old = partial(with_lists, path, (label, text), args.shuffle)
        new = partial(with_oocload, store, text, args.shuffle, args.memory)
        same = "" if args.shuffle else "losses"
        side_by_side.compare({"lists in memory": old}, {"oocload": new}, args, data_nbytes=data_nbytes, same=same)


if __name__ == "__main__":
    side_by_side.run(main)
