"""Recipe 1: a plain batch generator over arrays in memory, and a loader in its place.

python scripts/recipes/batch_generator.py --rows 200000
python scripts/recipes/batch_generator.py --x images.npy --y labels.npy
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from parts import side_by_side
from parts.labelled_store import labelled_store
from parts.made_images import any_class, make_images
from parts.side_by_side import Outcome
from parts.softmax_regression import SoftmaxRegression

import oocload

BATCH_SIZE = 256
EPOCHS = 2


def batch_generator(data: np.ndarray, labels: np.ndarray, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(data), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        yield data[rows], labels[rows]


def with_a_generator(x: Path, y: Path, n_classes: int, orders: list[np.ndarray]) -> Outcome:
    data, labels = np.load(x), np.load(y)  # all of it, before the first step
    model = SoftmaxRegression(data[0].size, n_classes)
    losses = []
    for order in orders:
        batches = batch_generator(data, labels, order)  # single use: a new one for each epoch
        losses.append(model.train(batches))
    return Outcome(EPOCHS * len(data), losses)


def with_oocload(store: Path, n_classes: int, memory: str) -> Outcome:
    with oocload.Loader(store, batch_size=BATCH_SIZE, seed=0, memory=memory) as loader:
        model = SoftmaxRegression(math.prod(loader.fields["x"].shape[1:]), n_classes)
        losses = []
        for _ in range(EPOCHS):
            losses.append(model.train(loader))  # each `for` over the loader is the next epoch
        print(f"{loader.stats}\n")  # how long training waited for data, and more
    return Outcome(EPOCHS * loader.n_rows, losses)


def main() -> None:
    parser = side_by_side.arguments(__doc__, rows=40_000)
    parser.add_argument("--x", type=Path, help="images of your own, .npy")
    parser.add_argument("--y", type=Path, help="their labels, 0 and up, .npy")
    args = parser.parse_args()
    if bool(args.x) != bool(args.y):
        parser.error("--x and --y must be given together")
    with side_by_side.folder_of(args) as folder:
        x, y = (args.x, args.y) if args.x else make_images(folder, any_class(args.rows))
        store = folder / "train.h5"
        oocload.convert({"x": x, "y": y}, store, overwrite=True)
        n_classes = labelled_store(store).n_classes
        with oocload.Loader(store, batch_size=BATCH_SIZE, seed=0, memory=args.memory) as loader:
            orders = side_by_side.orders_of(loader, EPOCHS)
            data_nbytes = loader.fields["x"].nbytes
        old = partial(with_a_generator, x, y, n_classes, orders)
        new = partial(with_oocload, store, n_classes, args.memory)
        side_by_side.compare({"batch generator": old}, {"oocload": new}, args, data_nbytes=data_nbytes, same="losses")


if __name__ == "__main__":
    side_by_side.run(main)
