"""What is done with each batch of `gpu.py` by JAX: nothing but to wait for it, or a step of a small CNN."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch is in the same process

import jax
import jax.numpy as jnp
import numpy as np
from gpu_steps import N_CLASSES

_CHANNELS = (3, 32, 64, 128, 256)
_STEP_SIZE = 1e-3


def device_like(torch_device_type: str) -> Any:
    """Return JAX's own name for the device, or None where this JAX has none."""
    try:
        return jax.devices("gpu" if torch_device_type == "cuda" else "cpu")[0]
    except RuntimeError:
        return None


class SmallCnn:
    """The small CNN of PyTorch's steps, compiled; in bfloat16 on a GPU."""

    def __init__(self, device: Any) -> None:
        shapes = [(n_out, n_in, 3, 3) for n_in, n_out in pairwise(_CHANNELS)]
        rng = np.random.default_rng(0)
        weights = [rng.normal(0, 0.1, shape).astype(np.float32) for shape in (*shapes, (_CHANNELS[-1], N_CLASSES))]
        self.weights = jax.device_put(weights, device)
        self._update = _update(jnp.bfloat16 if device.platform == "gpu" else jnp.float32)

    def __call__(self, x: Any, y: Any) -> None:
        self.weights = self._update(self.weights, x, y)

    def finish(self) -> None:
        jax.block_until_ready(self.weights)


def _update(dtype: Any) -> Callable[[Any, Any, Any], Any]:
    def loss(weights: Any, x: Any, y: Any) -> Any:
        *kernels, last = (w.astype(dtype) for w in weights)
        x = x.astype(dtype)
        for kernel in kernels:
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1))))
        scores = jax.nn.log_softmax((x.mean((2, 3)) @ last).astype(jnp.float32))
        return -jnp.take_along_axis(scores, (y % N_CLASSES)[:, None], 1).mean()

    def update(weights: Any, x: Any, y: Any) -> Any:
        slopes = jax.grad(loss)(weights, x, y)
        return [w - _STEP_SIZE * slope for w, slope in zip(weights, slopes, strict=True)]

    return jax.jit(update)


def wait_for(x: Any, y: Any) -> None:
    """Touch nothing, but return when the batch is on the device."""
    jax.block_until_ready((x, y))
