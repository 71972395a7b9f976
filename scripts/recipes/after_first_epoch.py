"""Times `fit` without what Keras does once: the first epoch traces the model's graph, the others only run it."""

from __future__ import annotations

import time
from typing import Any

import keras


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
