"""A model small enough to be trained in NumPy, by stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class SoftmaxRegression:
    """Classes from flattened uint8 images; starts at zero, so that the same batches give the same losses."""

    def __init__(self, n_inputs: int, n_classes: int, rate: float = 0.05, momentum: float = 0.9) -> None:
        self.rate, self.momentum = rate, momentum
        self.weights = np.zeros((n_inputs + 1, n_classes), np.float32)
        self.velocity = np.zeros_like(self.weights)

    def train(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
        """Take a step for each batch; return the mean loss of the rows."""
        losses = n_rows = 0.0
        for x, y in batches:
            losses += len(x) * self.step(x, y)
            n_rows += len(x)
        return losses / n_rows

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        """Go one step down the gradient of the mean cross-entropy; return what it was."""
        inputs, chances = self._forward(x)
        loss = float(-np.log(chances[np.arange(len(y)), y] + 1e-9).mean())
        chances[np.arange(len(y)), y] -= 1
        self.velocity *= self.momentum
        self.velocity -= (self.rate / len(y)) * (inputs.T @ chances)
        self.weights += self.velocity
        return loss

    def accuracy(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return the share of rows whose class is found."""
        return float((self._forward(x)[1].argmax(1) == y).mean())

    def _forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs = np.ones((len(x), len(self.weights)), np.float32)
        np.divide(x.reshape(len(x), -1), np.float32(255), out=inputs[:, :-1])
        inputs[:, :-1] -= 0.5
        scores = inputs @ self.weights
        scores -= scores.max(1, keepdims=True)
        chances = np.exp(scores)
        chances /= chances.sum(1, keepdims=True)
        return inputs, chances
