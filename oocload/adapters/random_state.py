"""State of the random generators that a backend draws from outside of a model's variables.

TensorFlow's and JAX's layers draw from seeds that are variables. On PyTorch an unseeded ``Dropout`` draws from the
process' own generators, one per device.
"""

from __future__ import annotations

import sys
from typing import Any

from numpy.typing import NDArray


def states(backend: str) -> list[NDArray[Any]]:
    """Return the state of each, as bytes."""
    if backend != "torch":
        return []
    torch: Any = sys.modules["torch"]
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [state.numpy().copy() for state in (torch.get_rng_state(), *cuda)]


def restore(backend: str, saved: list[NDArray[Any]]) -> None:
    """Set each to a state; devices that are no more, or that are new, are left alone."""
    if backend != "torch" or not saved:
        return
    torch: Any = sys.modules["torch"]
    torch.set_rng_state(torch.from_numpy(saved[0].copy()))
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else range(0)
    for device, state in zip(devices, saved[1:], strict=False):
        torch.cuda.set_rng_state(torch.from_numpy(state.copy()), device)
