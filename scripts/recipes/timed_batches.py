"""Recipe 9: a loader that prints how long each batch took, and stats, a callback and a progress bar in its place.

python scripts/recipes/timed_batches.py --rows 100000
python scripts/recipes/timed_batches.py --file train.h5
"""

from __future__ import annotations

import os

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")  # or TensorFlow tells of itself

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import keras
import numpy as np
from parts import side_by_side
from parts.keras_runs import AfterFirstEpoch, start_keras
from parts.labelled_store import labelled_store
from parts.made_images import any_class, make_h5
from parts.side_by_side import Outcome
from tqdm import tqdm

import oocload
from oocload.keras import DataWait

BATCH_SIZE = 256
EPOCHS = 3


class TimedLoader:
    """Batches of an HDF5 file, in its order."""

    def __init__(self, path: Path) -> None:
        self.file = h5py.File(path)
        self.seconds = 0.0

    def __len__(self) -> int:
        return (len(self.file["y"]) + BATCH_SIZE - 1) // BATCH_SIZE

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number in range(len(self)):
            start = time.perf_counter()
            rows = slice(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
            x, y = self.file["x"][rows], self.file["y"][rows]
            seconds = time.perf_counter() - start
            self.seconds += seconds
            print(f"batch {number + 1} of {len(self)}: loaded in {seconds:.4f} s")
            yield x, y


def with_a_timed_loader(path: Path, n_classes: int) -> Outcome:
    loader = TimedLoader(path)
    training = Training(path, n_classes)
    with printed_shortly():
        for epoch in range(EPOCHS):
            for x, y in loader:
                training.step(x, y)
            training.end_epoch(epoch, loader.seconds)
            print(f"epoch {epoch + 1}: {loader.seconds:.2f} s of loading so far")
    return training.outcome()


def with_a_progress_bar(path: Path, n_classes: int, memory: str) -> Outcome:
    with oocload.Loader(path, batch_size=BATCH_SIZE, x="x", y="y", shuffle=False, memory=memory) as loader:
        training = Training(path, n_classes)
        for epoch in range(EPOCHS):
            with tqdm(loader, f"epoch {epoch + 1}", unit="batch", file=sys.stdout) as bar:
                for x, y in bar:
                    loss = training.step(x, y)
                    bar.set_postfix_str(f"loss {loss:.3f}, waited {loader.stats.wait_share:.0%}", refresh=False)
            training.end_epoch(epoch, loader.stats.wait_s)
        print(f"{loader.stats}\n")
        return training.outcome()


def with_data_wait(path: Path, n_classes: int, memory: str) -> Outcome:
    with oocload.Loader(path, batch_size=BATCH_SIZE, x="x", y="y", shuffle=False, memory=memory) as loader:
        model, clock = model_of(path, n_classes), AfterFirstEpoch()
        callbacks = [DataWait(loader), clock]
        history = model.fit(loader.to_keras(), epochs=EPOCHS, callbacks=callbacks, shuffle=False, verbose=2).history
        shown = {"waited for data": f"{np.mean(history['data_wait'][1:]):.0%}"}
        print()
        return Outcome((EPOCHS - 1) * loader.n_rows, history["loss"], clock.seconds, shown)


class Training:
    """A loop of one's own around a model of Keras'."""

    def __init__(self, path: Path, n_classes: int) -> None:
        self.model, self.clock = model_of(path, n_classes), AfterFirstEpoch()
        self.losses: list[tuple[float, int]] = []
        self.of_epochs: list[float] = []
        self.waits: list[float] = []
        self.n_rows = 0

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        """Train on a batch; return its loss."""
        loss = float(self.model.train_on_batch(x, y))
        self.losses.append((loss, len(y)))
        return loss

    def end_epoch(self, epoch: int, waited_s: float) -> None:
        """Note mean loss and time, and for how long the loop waited so far."""
        losses, weights = zip(*self.losses, strict=True)
        self.of_epochs.append(float(np.average(losses, weights=weights)))
        self.n_rows = sum(weights)
        self.waits.append(waited_s)
        self.losses.clear()
        self.clock.on_epoch_end(epoch)

    def outcome(self) -> Outcome:
        """Return the losses, and what was measured after the first epoch."""
        shown = {"waited for data": f"{(self.waits[-1] - self.waits[0]) / self.clock.seconds:.0%}"}
        return Outcome((EPOCHS - 1) * self.n_rows, self.of_epochs, self.clock.seconds, shown)


def model_of(path: Path, n_classes: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    with oocload.open(path) as store:
        inputs = keras.Input(store.fields["x"].shape[1:])
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(n_classes, "softmax")]
    model = keras.Sequential([inputs, *layers])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


@contextlib.contextmanager
def printed_shortly(n_first: int = 3, n_last: int = 3) -> Iterator[None]:
    """Print the first and the last lines of what is printed in here."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        yield
    lines = text.getvalue().splitlines()
    left_out = lines[n_first:-n_last]
    print("\n".join([*lines[:n_first], f"… {len(left_out):,} more lines", *lines[-n_last:], ""]))


def main() -> None:
    parser = side_by_side.arguments(__doc__, rows=10_000, memory="24 MiB")
    parser.add_argument("--file", type=Path, help='an HDF5 file of your own: rows "x", and "y", labels from 0')
    args = parser.parse_args()
    with side_by_side.folder_of(args) as folder:
        path = args.file or make_h5(folder, any_class(args.rows))
        with oocload.Loader(path, batch_size=BATCH_SIZE, x="x", y="y", shuffle=False, memory=args.memory) as loader:
            n_classes = labelled_store(path).n_classes
            data_nbytes = loader.fields["x"].nbytes
        old = partial(with_a_timed_loader, path, n_classes)
        new = {"tqdm over the loader": partial(with_a_progress_bar, path, n_classes, args.memory)}
        new["fit with DataWait"] = partial(with_data_wait, path, n_classes, args.memory)
        side_by_side.compare(
            {"timed loader": old}, new, args, data_nbytes=data_nbytes, same="losses", prepare=start_keras
        )


if __name__ == "__main__":
    side_by_side.run(main)
