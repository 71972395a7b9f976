"""Recipe 10: batches with equally many rows of each class, by lists of row numbers; and a loader in their place.

python scripts/recipes/balanced_batches.py --rows 200000
python scripts/recipes/balanced_batches.py --store train.h5
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from parts import side_by_side
from parts.labelled_store import LabelledStore, labelled_store
from parts.made_images import make_images
from parts.side_by_side import Outcome
from parts.softmax_regression import SoftmaxRegression

import oocload

SHARES = (0.6, 0.3, 0.1)
EPOCHS = 3
RATE = 0.02
H5PY_BATCHES = 3  # of fancy indexing, which takes long
TITLES = ("rows of each class", "different, of the largest", "recall, rarest", "accuracy", "reads of a block")

Choice = Callable[[list[np.ndarray], int, np.random.Generator], Iterator[np.ndarray]]


def plain(rows_of_class: list[np.ndarray], batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    rows = rng.permutation(np.concatenate(rows_of_class))
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def balanced(rows_of_class: list[np.ndarray], batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    part = batch_size // len(rows_of_class)
    shuffled = [rng.permutation(rows) for rows in rows_of_class]
    for start in range(0, min(map(len, shuffled)) - part + 1, part):  # until the smallest class is exhausted
        rows = np.concatenate([of_class[start : start + part] for of_class in shuffled])
        yield rng.permutation(rows)


def oversampled(rows_of_class: list[np.ndarray], batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    part = batch_size // len(rows_of_class)
    for _ in range(-(-sum(map(len, rows_of_class)) // batch_size)):
        rows = np.concatenate([rng.choice(of_class, part) for of_class in rows_of_class])  # with replacement
        yield rng.permutation(rows)


def with_arrays(known: LabelledStore, held_out: np.ndarray, choose: Choice) -> Outcome:
    start = time.perf_counter()
    with h5py.File(known.path) as file:
        data, labels = file["x"][:], file["y"][:]
    rows_of_class = [np.flatnonzero((labels == label) & ~held_out) for label in range(known.n_classes)]
    rng = np.random.default_rng(0)
    model, seen = SoftmaxRegression(known.n_inputs, known.n_classes, RATE), []
    for _ in range(EPOCHS):
        of_epoch = []
        for rows in choose(rows_of_class, batch_size_of(known), rng):
            model.step(data[rows], labels[rows])
            of_epoch.append(rows)
        seen.append(np.concatenate(of_epoch) if of_epoch else np.empty(0, np.int64))
    seconds = time.perf_counter() - start
    rest = np.flatnonzero(held_out)
    held = ((data[rows], labels[rows]) for rows in np.split(rest, range(256, len(rest), 256)))
    return outcome(labels, model, seen, held, seconds)


def with_h5py(known: LabelledStore, held_out: np.ndarray) -> Outcome:
    start = time.perf_counter()
    with h5py.File(known.path) as file:
        x, labels = file["x"], file["y"][:]
        rows_of_class = [np.flatnonzero((labels == label) & ~held_out) for label in range(known.n_classes)]
        model, n_rows = SoftmaxRegression(known.n_inputs, known.n_classes, RATE), 0
        batches = balanced(rows_of_class, batch_size_of(known), np.random.default_rng(0))
        for rows in itertools.islice(batches, H5PY_BATCHES):
            rows = np.sort(rows)  # h5py takes them in order only
            model.step(x[rows], labels[rows])
            n_rows += len(rows)
    return Outcome(n_rows, None, time.perf_counter() - start, dict.fromkeys(TITLES, "-"))


def with_oocload(known: LabelledStore, held_out: np.ndarray, memory: str) -> Outcome:
    start, batch_size = time.perf_counter(), batch_size_of(known)
    whole = oocload.Loader(known.path, batch_size=batch_size, balanced="y", seed=0, memory=memory)
    with whole, whole.select(~held_out) as loader:
        model, seen = SoftmaxRegression(known.n_inputs, known.n_classes, RATE), []
        for _ in range(EPOCHS):
            of_epoch = []
            for number, (x, y) in enumerate(loader):
                model.step(x, y)
                of_epoch.append(loader.batch_rows(number))
            seen.append(np.concatenate(of_epoch))
        seconds = time.perf_counter() - start
        reads = f"{loader.stats.reads_per_block:.2f}"  # of each block in an epoch
    with h5py.File(known.path) as file:
        labels = file["y"][:]
    validation = oocload.Loader(known.path, batch_size=batch_size, shuffle=False, memory=memory)
    with validation, validation.select(held_out) as held:
        return outcome(labels, model, seen, held, seconds, reads)


def batch_size_of(known: LabelledStore) -> int:
    """Return about 256, a multiple of the classes."""
    return max(1, 256 // known.n_classes) * known.n_classes


def outcome(
    labels: np.ndarray,
    model: SoftmaxRegression,
    seen: list[np.ndarray],
    held: Iterable[tuple[np.ndarray, np.ndarray]],
    seconds: float,
    reads: str = "-",
) -> Outcome:
    """Return what an epoch had of each class, and how many rows held out the model finds."""
    labels = labels.astype(np.int64)
    counts = np.bincount(labels)
    largest, rarest = int(counts.argmax()), int(counts.argmin())
    found = np.zeros((2, len(counts)))  # right, and all
    for x, y in held:
        for label in np.unique(y):
            of_class = y == label
            found[:, label] += of_class.sum() * np.array([model.accuracy(x[of_class], y[of_class]), 1])
    recall = found[0] / np.maximum(found[1], 1)
    of_each = [np.bincount(labels[rows], minlength=len(counts)).tolist() for rows in seen]
    distinct = [len(np.unique(rows[labels[rows] == largest])) for rows in (*seen, np.concatenate(seen))]
    result = {"rows": of_each, "distinct": distinct, "recall": recall.tolist()}
    shown = [
        " / ".join(f"{n:,}" for n in of_each[0]),
        f"{distinct[0]:,}; {distinct[-1]:,}",  # in the first epoch; in all
        f"{recall[rarest]:.3f}",
        f"{found[0].sum() / found[1].sum():.3f}",
        reads,
    ]
    return Outcome(sum(map(len, seen)), result, seconds, dict(zip(TITLES, shown, strict=True)))


def made_store(folder: Path, n_rows: int) -> Path:
    """Return a store of which 60 % of the rows are of one class, 30 % of another and 10 % of the third."""
    labels = np.random.default_rng(1).choice(len(SHARES), n_rows, p=SHARES)
    x, y = make_images(folder, labels, contrast=6)
    oocload.convert({"x": x, "y": y}, folder / "imbalanced.h5", overwrite=True)
    x.unlink()
    return folder / "imbalanced.h5"


def main() -> None:
    parser = side_by_side.arguments(__doc__, rows=20_000)
    parser.add_argument("--store", type=Path, help="an HDF5 file of your own, with x, and its classes as y")
    args = parser.parse_args()
    with side_by_side.folder_of(args) as folder:
        known = labelled_store(args.store or made_store(folder, args.rows), hdf5=True)
        held_out = np.random.default_rng(2).random(known.n_rows) < 0.1
        with oocload.Loader(known.path, batch_size_of(known), balanced="y", seed=0, memory=args.memory) as loader:
            loader.select(~held_out).close()  # what cannot be read that way is said here
        with oocload.Loader(known.path, batch_size_of(known), shuffle=False, memory=args.memory) as loader:
            loader.select(held_out).close()
        old = {
            "balanced, with replacement": partial(with_arrays, known, held_out, oversampled),
            "balanced, until one is exhausted": partial(with_arrays, known, held_out, balanced),
            "not balanced": partial(with_arrays, known, held_out, plain),
            f"h5py fancy index, {H5PY_BATCHES} batches": partial(with_h5py, known, held_out),
        }
        new = {"oocload, balanced": partial(with_oocload, known, held_out, args.memory)}
        side_by_side.compare(old, new, args, data_nbytes=known.nbytes)


if __name__ == "__main__":
    side_by_side.run(main)
