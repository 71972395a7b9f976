"""A training run that may be killed at any batch; `test_kill.py` starts it as often as it takes."""

import os
import signal
import warnings
from typing import Any

import keras
import numpy as np

import oocload
from oocload.keras import Checkpoint

keras.utils.set_random_seed(1)  # imports TensorFlow where there is one: here, and not in each process that is forked


class Kill(keras.callbacks.Callback):
    """Kills the process, as the machine's power would."""

    def __init__(self, n_batches: int) -> None:
        super().__init__()
        self.left = n_batches

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def train(store: str, directory: str, out: str, kill: int, way: str) -> None:
    """Train, and write the weights to ``out``; killed after ``kill`` batches, unless that is 0."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Rescaling(1e-4),
            layers.Dense(16, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(1),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    warnings.filterwarnings("ignore", "`shuffle=True` was passed", UserWarning)
    with oocload.Loader(store, 32, seed=0, shuffle=oocload.Shuffle(window_rows=500)) as loader:
        callbacks = [Checkpoint(loader, directory, every=13), Kill(kill)]
        model.fit(getattr(loader, way)(), epochs=3, verbose=0, callbacks=callbacks)
    variables = [*model.variables, *model.optimizer.variables]
    np.savez(out, *[np.asarray(keras.ops.convert_to_numpy(v)) for v in variables])
