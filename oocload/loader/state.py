"""The state of a loader: a few integers, and a fingerprint of what they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oocload.errors import StateError

VERSION = 1
_POSITION = ("epoch", "batch", "window_blocks")


def make_state(identity: Mapping[str, Any], epoch: int, batch: int, window_blocks: int) -> dict[str, Any]:
    """Return a state: plain integers, booleans and text, ready for JSON."""
    return {"version": VERSION, **identity, "epoch": epoch, "batch": batch, "window_blocks": window_blocks}


def check_state(state: Any, identity: Mapping[str, Any], n_batches: int) -> tuple[int, int, int]:
    """Return (epoch, batch, window in blocks) of a state that belongs to this loader.

    Raises
    ------
    StateError
        If it does not; the message says what differs.

    """
    expected = {"version", *identity, *_POSITION}
    if not isinstance(state, Mapping) or not expected <= state.keys():
        raise StateError(f"state must be what state_dict() returned, got {type(state).__name__} without its keys")
    differs = [
        f"{key} is {state[key]!r} there and {here!r} here"
        for key, here in {"version": VERSION, **identity}.items()
        if state[key] != here
    ]
    if differs:
        raise StateError(f"state must belong to this store and these options, but {'; '.join(differs)}")
    epoch, batch, window = (state[key] for key in _POSITION)
    if not all(isinstance(v, int) and v >= 0 for v in (epoch, batch, window)) or batch > n_batches or window < 1:
        raise StateError(f"state must name a batch from 0 to {n_batches}, got epoch {epoch!r}, batch {batch!r}")
    return epoch, batch, window
