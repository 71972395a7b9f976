"""Recipe 4: numbered CSV files, padded batch by batch, for several inputs and outputs, and a loader in their place.

python scripts/recipes/csv_padded_batches.py --rows 200000
python scripts/recipes/csv_padded_batches.py --files "mail-*.csv" --text body --numbers size --topic kind --score rank
"""

from __future__ import annotations

import glob
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import keras
import numpy as np
import pandas as pd
from parts import side_by_side
from parts.keras_runs import AfterFirstEpoch, start_keras
from parts.side_by_side import Outcome

import oocload
from oocload.sources import CsvSource, Text

BATCH_SIZE = 128
EPOCHS = 2
MAXLEN = 150
Batch = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Columns:
    """The names of the columns."""

    text: str = "text"
    numbers: tuple[str, ...] = ("hour", "links", "replies")
    topic: str = "topic"
    score: str = "score"


class CsvBatches:
    """Endless batches of files that are read one at a time; rows that a file leaves go into the first of the next."""

    def __init__(self, files: list[str], columns: Columns) -> None:
        self.files, self.columns, self.n_rows = files, columns, 0
        words: Counter[str] = Counter()
        topics: set[str] = set()
        for frame in map(self.read, files):  # a pass of its own for the vocabularies
            words.update(word for text in frame[columns.text] for word in text.lower().split())
            topics.update(frame[columns.topic])
            self.n_rows += len(frame)
        frequent_first = sorted(words, key=lambda word: (-words[word], word))
        self.tokens = {word: number for number, word in enumerate(frequent_first, start=2)}  # 0 is padding
        self.topics = {topic: code for code, topic in enumerate(sorted(topics))}

    def read(self, file: str) -> pd.DataFrame:
        """Return a file."""
        return pd.read_csv(file, converters={self.columns.text: str, self.columns.topic: str})

    def batch(self, rows: pd.DataFrame) -> Batch:
        """Return inputs and targets, by their names."""
        columns = self.columns
        tokens = [[self.tokens[word] for word in text.lower().split()] for text in rows[columns.text]]
        inputs = {
            columns.text: keras.utils.pad_sequences(tokens, maxlen=MAXLEN, padding="post", truncating="post"),
            "numbers": rows[list(columns.numbers)].to_numpy(np.float32),
        }
        topic, score = rows[columns.topic].map(self.topics), rows[columns.score]
        return inputs, {columns.topic: topic.to_numpy(), columns.score: score.to_numpy(np.float32)}

    def __iter__(self) -> Iterator[Batch]:
        while True:
            left = None
            for file in self.files:
                rows = pd.concat([left, self.read(file)])
                n_full = len(rows) // BATCH_SIZE * BATCH_SIZE
                for start in range(0, n_full, BATCH_SIZE):
                    yield self.batch(rows[start : start + BATCH_SIZE])
                left = rows[n_full:] if n_full < len(rows) else None
            if left is not None:
                yield self.batch(left)


def numbered(pattern: str) -> list[str]:
    """Return files in the order of the numbers in their names: 2 before 10."""
    return sorted(glob.glob(pattern), key=lambda name: [int(n) if n.isdigit() else n for n in re.split(r"(\d+)", name)])


def model_of(columns: Columns, n_words: int, n_topics: int) -> keras.Model:
    keras.utils.set_random_seed(0)  # the same first weights in all ways
    tokens = keras.Input((None,), name=columns.text, dtype="int32")
    numbers = keras.Input((len(columns.numbers),), name="numbers")
    text = keras.layers.GlobalMaxPooling1D()(keras.layers.Embedding(n_words, 16)(tokens))
    both = keras.layers.Concatenate()([text, keras.layers.LayerNormalization()(numbers)])
    topic = keras.layers.Dense(n_topics, "softmax", name=columns.topic)(both)
    score = keras.layers.Dense(1, name=columns.score)(both)
    model = keras.Model([tokens, numbers], {columns.topic: topic, columns.score: score})
    model.compile("sgd", {columns.topic: "sparse_categorical_crossentropy", columns.score: "mae"})
    return model


def with_a_generator(files: list[str], columns: Columns) -> Outcome:
    batches = CsvBatches(files, columns)
    steps = math.ceil(batches.n_rows / BATCH_SIZE)
    model, clock = model_of(columns, len(batches.tokens) + 2, len(batches.topics)), AfterFirstEpoch()
    counts = np.zeros(2, np.int64)
    counted = with_tokens_counted(iter(batches), columns, counts)
    history = model.fit(counted, steps_per_epoch=steps, epochs=EPOCHS, shuffle=False, callbacks=[clock], verbose=0)
    return outcome(history, clock, batches.n_rows, 1 - counts[0] / counts[1])


def with_oocload(store: Path, columns: Columns, memory: str) -> Outcome:
    with loader_of(store, columns, memory) as loader:
        model, clock = model_of(columns, *sizes_of(store, columns)), AfterFirstEpoch()
        history = model.fit(loader.to_keras(), epochs=EPOCHS, shuffle=False, callbacks=[clock], verbose=0)
        return outcome(history, clock, loader.n_rows, loader.stats.padded_share)


def loader_of(store: Path, columns: Columns, memory: str) -> oocload.Loader:
    inputs, targets = [columns.text, "numbers"], [columns.topic, columns.score]
    pad = oocload.Pad(maxlen=MAXLEN)
    return oocload.Loader(store, BATCH_SIZE, x=inputs, y=targets, ragged=pad, shuffle=False, memory=memory)


def with_buckets(store: Path, columns: Columns, memory: str) -> Outcome:
    inputs, targets = [columns.text, "numbers"], [columns.topic, columns.score]
    pad = oocload.Pad(maxlen=MAXLEN, static=False)  # each batch to its longest row
    with oocload.Loader(
        store, BATCH_SIZE, x=inputs, y=targets, ragged=pad, bucket_by_length=True, seed=0, memory=memory
    ) as loader:
        model, clock = model_of(columns, *sizes_of(store, columns)), AfterFirstEpoch()
        history = model.fit(loader.to_tf(), epochs=EPOCHS, shuffle=False, callbacks=[clock], verbose=0)
        # its order is another: no losses to compare
        return replace(outcome(history, clock, loader.n_rows, loader.stats.padded_share), result=None)


def sizes_of(store: Path, columns: Columns) -> tuple[int, int]:
    """Return how many words there are, and how many topics."""
    with oocload.open(store) as opened:
        words, topics = (opened.field(name).meaning.vocabulary for name in (columns.text, columns.topic))
    return len(words), len(topics)


def with_tokens_counted(batches: Iterator[Batch], columns: Columns, counts: np.ndarray) -> Iterator[Batch]:
    """Yield the batches; count their tokens, without padding and with it."""
    for x, y in batches:
        counts += np.count_nonzero(x[columns.text]), x[columns.text].size
        yield x, y


def outcome(history: keras.callbacks.History, clock: AfterFirstEpoch, n_rows: int, padded_share: float) -> Outcome:
    shown = {"padding": f"{padded_share:.0%}"}
    return Outcome((EPOCHS - 1) * n_rows, history.history["loss"], seconds=clock.seconds, shown=shown)


def make_files(folder: Path, n_rows: int, columns: Columns) -> str:
    """Write files of different lengths, with text about their rows' topics; return the glob that finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    topics = np.array(["games", "music", "news", "sport"])
    words = np.array([f"word{n}" for n in range(5000)] + [f"{topic}{n}" for topic in topics for n in range(100)])
    written = number = 0
    while written < n_rows:
        n = min(int(rng.integers(500, 5000)), n_rows - written)
        topic, numbers = rng.integers(0, len(topics), n), rng.poisson(5, (n, len(columns.numbers)))
        lengths = rng.geometric(1 / 80, n)
        of_row = np.repeat(topic, lengths)
        common = np.minimum(rng.zipf(1.3, len(of_row)), 5000) - 1
        of_topic = 5000 + of_row * 100 + rng.integers(0, 100, len(of_row))
        chosen = words[np.where(rng.random(len(of_row)) < 0.2, of_topic, common)]
        text = [" ".join(row) for row in np.split(chosen, np.cumsum(lengths)[:-1])]
        frame = pd.DataFrame({columns.text: text} | dict(zip(columns.numbers, numbers.T, strict=True)))
        frame[columns.topic], frame[columns.score] = topics[topic], (numbers.sum(axis=1) / 15).round(3)
        frame.to_csv(folder / f"part-{number}.csv", index=False)
        written, number = written + n, number + 1
    return f"{folder}/part-*.csv"


def main() -> None:
    parser = side_by_side.arguments(__doc__, rows=10_000)
    parser.add_argument("--files", help="a glob of CSV files of your own, with commas and a line of names")
    parser.add_argument("--text", default=Columns.text, help="their column of text")
    parser.add_argument("--numbers", nargs="+", default=Columns.numbers, help="their columns of numbers")
    parser.add_argument("--topic", default=Columns.topic, help="the column of words to be told from the others")
    parser.add_argument("--score", default=Columns.score, help="the column of numbers to be told from the others")
    args = parser.parse_args()
    if len({args.topic, args.score, *args.numbers}) < 2 + len(set(args.numbers)):
        parser.error("--topic, --score and --numbers must name columns of their own")
    if not all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII) for name in (args.text, args.topic, args.score)):
        parser.error("--text, --topic and --score must be of letters, digits, '_', '-' and '.': layers are named so")
    columns = Columns(args.text, tuple(args.numbers), args.topic, args.score)
    with side_by_side.folder_of(args) as folder:
        made = args.files is None
        files = make_files(folder / f"parts-{args.rows}", args.rows, columns) if made else args.files
        source = CsvSource(
            files,
            columns=[columns.score],
            text={columns.text: Text("words")},
            features={"numbers": columns.numbers},
            labels=[columns.topic],
            dtypes={columns.score: "float32"},
            delimiter=",",
        )
        store = folder / "train.h5"
        oocload.convert(source, store, overwrite=True, chunk_rows=1024)  # small chunks mix well in little memory
        loader_of(store, columns, args.memory).close()  # what is wrong with it comes out here
        with oocload.open(store) as opened:
            data_nbytes = sum(field.nbytes for field in opened.fields.values())
        old = partial(with_a_generator, numbered(files), columns)
        new, bucketed = (partial(way, store, columns, args.memory) for way in (with_oocload, with_buckets))
        ways = {"oocload": new, "oocload, bucket_by_length": bucketed}
        side_by_side.compare(
            {"generator": old}, ways, args, data_nbytes=data_nbytes, same="losses", prepare=start_keras
        )


if __name__ == "__main__":
    side_by_side.run(main)
