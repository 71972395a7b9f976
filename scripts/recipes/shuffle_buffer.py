"""Recipe 6: slices of a store bounded in bytes, a shuffle buffer behind them; and windows in their place.

python scripts/recipes/shuffle_buffer.py --rows 200000
python scripts/recipes/shuffle_buffer.py --store train.h5 --memory "256 MiB"
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from parts import mixing, side_by_side
from parts.labelled_store import LabelledStore, labelled_store
from parts.made_images import by_class, make_images
from parts.mixing import Delivered
from parts.side_by_side import Outcome
from parts.softmax_regression import SoftmaxRegression

import oocload

BATCH_SIZE = 256
EPOCHS = 2
OBJECTS_NBYTES = 256  # what Python takes for a row besides its bytes

Row = tuple[int, np.ndarray, int]


def rows_of(store: Path, slice_nbytes: int) -> Iterator[Row]:
    with h5py.File(store) as file:
        x, y = file["x"], file["y"]
        n_rows = max(1, slice_nbytes // (x.nbytes // len(x)))
        if x.chunks and x.chunks[0] < n_rows:
            n_rows -= n_rows % x.chunks[0]  # or chunks at both ends would be decoded twice
        for start in range(0, len(x), n_rows):
            images, labels = x[start : start + n_rows], y[start : start + n_rows]
            for at in range(len(images)):
                yield start + at, images[at].copy(), labels[at]  # a view would keep the whole slice in the buffer


def shuffle_buffer(rows: Iterator[Row], size: int, rng: np.random.Generator) -> Iterator[Row]:
    buffer = list(itertools.islice(rows, size))  # fill
    for row in rows:
        at = rng.integers(len(buffer))
        yield buffer[at]  # emit any
        buffer[at] = row  # replace
    rng.shuffle(buffer)
    yield from buffer


def batches_of(rows: Iterator[Row]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    while batch := list(itertools.islice(rows, BATCH_SIZE)):
        numbers, images, labels = zip(*batch, strict=True)
        yield np.array(numbers), np.stack(images), np.array(labels)


def with_a_buffer(known: LabelledStore, memory: int) -> Outcome:
    start = time.perf_counter()
    slice_nbytes = memory // 8  # of which there are two for a moment; the buffer has the rest
    size = (memory - 2 * slice_nbytes) // (known.row_nbytes + OBJECTS_NBYTES) - 2 * BATCH_SIZE
    rng = np.random.default_rng(0)
    model, delivered = SoftmaxRegression(known.n_inputs, known.n_classes), [Delivered() for _ in range(EPOCHS)]
    for of_epoch in delivered:
        rows = shuffle_buffer(rows_of(known.path, slice_nbytes), max(1, size), rng)
        for numbers, x, y in batches_of(rows):
            model.step(x, y)
            of_epoch.add(numbers, y)
    return outcome(known, model, delivered, time.perf_counter() - start)


def with_windows(known: LabelledStore, memory: int) -> Outcome:
    start = time.perf_counter()
    with oocload.Loader(known.path, batch_size=BATCH_SIZE, seed=0, memory=memory) as loader:
        model, delivered = SoftmaxRegression(known.n_inputs, known.n_classes), [Delivered() for _ in range(EPOCHS)]
        for of_epoch in delivered:
            for number, (x, y) in enumerate(loader):
                model.step(x, y)
                of_epoch.add(loader.batch_rows(number), y)
    return outcome(known, model, delivered, time.perf_counter() - start)


def outcome(known: LabelledStore, model: SoftmaxRegression, delivered: list[Delivered], seconds: float) -> Outcome:
    """Return how well batches were mixed, and what that did to the model."""
    labels, chunk_rows = labels_and_chunks(known.path)
    with h5py.File(known.path) as file:
        found = mixing.mean([mixing.mixing(of_epoch, labels, chunk_rows) for of_epoch in delivered])
        n_rows = min(64, known.n_rows)
        starts = np.linspace(0, known.n_rows - n_rows, 40, dtype=int)
        accuracy = np.mean([model.accuracy(file["x"][s : s + n_rows], labels[s : s + n_rows]) for s in starts])
    shown = {**found.shown(), "accuracy": f"{accuracy:.3f}"}
    return Outcome(EPOCHS * known.n_rows, {**vars(found), "accuracy": accuracy}, seconds, shown)


def labels_and_chunks(store: Path) -> tuple[np.ndarray, int]:
    """Return the label of each row, and the rows of a chunk (of a batch, where nothing is chunked)."""
    with h5py.File(store) as file:
        return file["y"][:], (file["x"].chunks or (BATCH_SIZE,))[0]


def made_store(folder: Path, n_rows: int) -> Path:
    """Return a store whose rows are sorted by label."""
    x, y = make_images(folder, by_class(n_rows), contrast=12)
    oocload.convert({"x": x, "y": y}, folder / "sorted.h5", chunk_rows=64, overwrite=True)
    x.unlink()
    return folder / "sorted.h5"


def main() -> None:
    parser = side_by_side.arguments(__doc__, rows=40_000)
    parser.add_argument("--store", type=Path, help="an HDF5 file of your own, with x, and its classes as y")
    args = parser.parse_args()
    with side_by_side.folder_of(args) as folder:
        known = labelled_store(args.store or made_store(folder, args.rows), hdf5=True)
        with oocload.Loader(known.path, batch_size=BATCH_SIZE, seed=0, memory=args.memory) as loader:
            memory = loader.memory  # in bytes
            print(f"{loader.shuffle_quality()}\n")  # what the loader says itself, from its plan
        old, new = (partial(way, known, memory) for way in (with_a_buffer, with_windows))
        side_by_side.compare({"shuffle buffer": old}, {"oocload": new}, args, data_nbytes=known.nbytes)
        chunks, _ = mixing.uniform(*labels_and_chunks(known.path), BATCH_SIZE)
        print(f"every row came exactly once an epoch; a shuffle of the whole store has {chunks:.1f} chunks in a batch,")
        print("an entropy of labels and a displacement of 1, and no correlation of a row's place with its number")


if __name__ == "__main__":
    side_by_side.run(main)
