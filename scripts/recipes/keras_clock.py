"""How long `fit` takes, without what it does once: a callback."""

from __future__ import annotations

import time
from typing import Any

import keras


class Clock(keras.callbacks.Callback):
    """Times epochs. In the first one TensorFlow compiles the model: it counts as much as the last one took."""

    def __init__(self) -> None:
        super().__init__()
        self.n_epochs = 0
        self.began = self.last_epoch_s = 0.0

    @property
    def seconds(self) -> float:
        """Of all epochs, validation included."""
        return self.n_epochs * self.last_epoch_s

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start."""
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop."""
        self.last_epoch_s = time.perf_counter() - self.began
        self.n_epochs += 1
