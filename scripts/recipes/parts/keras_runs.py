"""What recipes with Keras share: their figures, without what TensorFlow takes once, memory of its own and tracing."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np

from parts.side_by_side import Outcome


def start_keras() -> None:
    """Train a small model on a few rows, so that what TensorFlow holds for itself is there before one measures."""
    model = keras.Sequential([keras.Input((1024,)), keras.layers.Dense(16), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(np.zeros((64, 1024), np.float32), np.zeros(64), verbose=0)


def validated(history: dict[str, list[float]], n_rows: int) -> Outcome:
    """Return the losses of training and of validation, and show the accuracy on the rows held out."""
    shown = {"held-out accuracy": f"{history['val_accuracy'][-1]:.4f}"}
    return Outcome(n_rows, [history["loss"], history["val_loss"]], shown=shown)


class AfterFirstEpoch(keras.callbacks.Callback):
    """Give it to `fit` with at least two epochs; then `seconds` are those after the first."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[float] = []

    @property
    def seconds(self) -> float:
        """From the end of the first epoch to the end of the last, validation included."""
        return self._ends[-1] - self._ends[0]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note when."""
        self._ends.append(time.perf_counter())
