"""Recipe 5: mini-batches cut by hand, a dataset and a loader class of one's own; and a loader in their place.

python scripts/recipes/mini_batches.py --rows 200000
python scripts/recipes/mini_batches.py --drop-last
python scripts/recipes/mini_batches.py --x images.npy --y labels.npy
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from parts import side_by_side
from parts.labelled_store import LabelledStore, labelled_store
from parts.made_images import any_class, make_images
from parts.side_by_side import Outcome
from parts.softmax_regression import SoftmaxRegression

import oocload

BATCH_SIZE = 256
EPOCHS = 2

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def create_mini_batches(
    x: np.ndarray, y: np.ndarray, batch_size: int, rng: Any, drop_last: bool = False
) -> list[tuple[np.ndarray, np.ndarray]]:
    y = y.astype(np.min_scalar_type(y.max()))  # int64 would make int64 of the whole stack
    stack = np.column_stack((x.reshape(len(x), -1), y))
    rng.shuffle(stack)  # images and labels together
    mini_batches = []
    for start in range(0, len(stack) // batch_size * batch_size, batch_size):
        rows = stack[start : start + batch_size]
        mini_batches.append((rows[:, :-1], rows[:, -1].astype(int)))
    n_left = len(stack) % batch_size
    if n_left and not drop_last:
        mini_batches.append((stack[-n_left:, :-1], stack[-n_left:, -1].astype(int)))
    return mini_batches


class SimpleDataset:
    """Arrays, row by row."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        return self.x[row], self.y[row]


class DataLoader:
    """Batches of a dataset, shuffled anew for each epoch."""

    def __init__(
        self, dataset: SimpleDataset, batch_size: int, rng: Any, shuffle: bool = True, drop_last: bool = False
    ) -> None:
        self.dataset, self.batch_size, self.rng = dataset, batch_size, rng
        self.shuffle, self.drop_last = shuffle, drop_last

    def __len__(self) -> int:
        n_full, n_left = divmod(len(self.dataset), self.batch_size)
        return n_full + (n_left > 0 and not self.drop_last)

    def __iter__(self) -> Batches:
        rows = np.arange(len(self.dataset))
        if self.shuffle:
            self.rng.shuffle(rows)
        for number in range(len(self)):
            of_batch = rows[number * self.batch_size : (number + 1) * self.batch_size]
            samples = [self.dataset[row] for row in of_batch]
            xs, ys = zip(*samples, strict=True)
            yield np.stack(xs), np.array(ys)


class LoadersOrder:
    """In the place of `np.random.default_rng()`: shuffles as the loader does, so that losses are the same."""

    def __init__(self, orders: list[np.ndarray]) -> None:
        self.orders = iter(orders)

    def shuffle(self, rows: np.ndarray) -> None:
        """Put rows into the order of the next epoch, in place."""
        order, columns = next(self.orders), rows.reshape(len(rows), -1)
        for first in range(0, columns.shape[1], 64):
            columns[:, first : first + 64] = columns[order, first : first + 64]


def with_mini_batches(x: Path, y: Path, known: LabelledStore, orders: list[np.ndarray], drop_last: bool) -> Outcome:
    data, labels = np.load(x), np.load(y)
    rng = LoadersOrder(orders)
    model = SoftmaxRegression(known.n_inputs, known.n_classes)
    losses = []
    for _ in range(EPOCHS):
        for x_batch, y_batch in create_mini_batches(data, labels, BATCH_SIZE, rng, drop_last):
            losses.append(model.step(x_batch, y_batch))
    return outcome(known, losses, drop_last)


def with_a_dataset(x: Path, y: Path, known: LabelledStore, orders: list[np.ndarray], drop_last: bool) -> Outcome:
    rng = LoadersOrder(orders)
    batches = DataLoader(SimpleDataset(np.load(x), np.load(y)), BATCH_SIZE, rng, drop_last=drop_last)
    model = SoftmaxRegression(known.n_inputs, known.n_classes)
    losses = []
    for _ in range(EPOCHS):
        for x_batch, y_batch in batches:
            losses.append(model.step(x_batch, y_batch))
    return outcome(known, losses, drop_last)


def with_oocload(known: LabelledStore, memory: str, drop_last: bool) -> Outcome:
    with oocload.Loader(known.path, batch_size=BATCH_SIZE, drop_last=drop_last, seed=0, memory=memory) as loader:
        model = SoftmaxRegression(known.n_inputs, known.n_classes)
        losses = []
        for _ in range(EPOCHS):
            for x_batch, y_batch in loader:
                losses.append(model.step(x_batch, y_batch))
    return outcome(known, losses, drop_last)


def outcome(known: LabelledStore, losses: list[float], drop_last: bool) -> Outcome:
    """Return the loss of each step, and what the table shows of them."""
    left = 0 if drop_last else known.n_rows % BATCH_SIZE
    n_rows = known.n_rows // BATCH_SIZE * BATCH_SIZE + left
    by_epoch = [f"{np.mean(of_epoch):.6f}" for of_epoch in np.split(np.array(losses), EPOCHS)]
    shown = {"steps": str(len(losses)), "loss by epoch": ", ".join(by_epoch)}
    return Outcome(EPOCHS * n_rows, losses, shown=shown)


def main() -> None:
    parser = side_by_side.arguments(__doc__, rows=40_000)
    parser.add_argument("--drop-last", action="store_true", help="leave out the last batch where it is not full")
    parser.add_argument("--x", type=Path, help="images of your own, .npy")
    parser.add_argument("--y", type=Path, help="their labels, 0 and up, .npy")
    args = parser.parse_args()
    if bool(args.x) != bool(args.y):
        parser.error("--x and --y must be given together")
    with side_by_side.folder_of(args) as folder:
        x, y = (args.x, args.y) if args.x else make_images(folder, any_class(args.rows), contrast=12)
        store = folder / "train.h5"
        oocload.convert({"x": x, "y": y}, store, overwrite=True)
        known = labelled_store(store)
        with oocload.Loader(store, batch_size=BATCH_SIZE, seed=0, memory=args.memory) as loader:
            orders = side_by_side.orders_of(loader, EPOCHS)
        old = {
            "create_mini_batches": partial(with_mini_batches, x, y, known, orders, args.drop_last),
            "SimpleDataset, DataLoader": partial(with_a_dataset, x, y, known, orders, args.drop_last),
        }
        new = {"oocload": partial(with_oocload, known, args.memory, args.drop_last)}
        side_by_side.compare(old, new, args, data_nbytes=known.nbytes, same="losses")


if __name__ == "__main__":
    side_by_side.run(main)
