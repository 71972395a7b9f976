"""The state of a loader: a few integers, and a fingerprint of what they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple

from oocload.errors import StateError
from oocload.loader.options import Setup
from oocload.loader.ragged import references
from oocload.plan.epoch import PlanOptions

VERSION = 2


class Position(NamedTuple):
    """Where a loader stands, and the window that its order comes from."""

    epoch: int
    batch: int
    window_blocks: int
    deal: bool


def identity_of(store: str, setup: Setup, options: PlanOptions) -> dict[str, Any]:
    """Return what a state belongs to.

    Where the number of streams is fixed, the number of ranks does not matter, but for the rows of their batches
    together.
    """
    share, elastic = options.share, options.share.streams is not None
    return {
        "store": store,
        "n_rows": options.grid.n_rows,
        "blocks": options.grid.fingerprint,
        "rows": None if setup.selection is None else setup.selection.fingerprint,
        "drawn": setup.drawn,
        "batch_size": setup.batch_size * (share.world_size if elastic else 1),
        "shuffle": options.shuffle,
        "seed": options.seed,
        "drop_last": options.drop_last,
        "streams": share.streams,
        "world_size": None if elastic else share.world_size,
        "uneven": share.uneven,
        "bucket_by_length": setup.bucket,
        "assembled": sorted(references(setup.feeds)) or None,  # whose rows' lengths bound windows
    }


def make_state(identity: Mapping[str, Any], epoch: int, batch: int, window_blocks: int, deal: bool) -> dict[str, Any]:
    """Return a state: plain integers, booleans and text, ready for JSON."""
    position = Position(epoch, batch, window_blocks, deal)._asdict()
    return {"version": VERSION, **identity, **position}


def check_state(state: Any, identity: Mapping[str, Any], n_batches: int) -> Position:
    """Return the position of a state that belongs to this loader.

    Raises
    ------
    StateError
        If it does not; the message says what differs.

    """
    if isinstance(state, Mapping):
        state = {"bucket_by_length": None, "assembled": None, **state}  # of which earlier states know nothing
    expected = {"version", *identity, *Position._fields}
    if not isinstance(state, Mapping) or not (expected <= state.keys() or state.get("version", VERSION) != VERSION):
        raise StateError(f"state must be what state_dict() returned, got {type(state).__name__} without its keys")
    differs = [
        f"{key} is {state.get(key)!r} there and {here!r} here"
        for key, here in {"version": VERSION, **identity}.items()
        if state.get(key) != here and (key in state or state.get("version") == VERSION)
    ]
    if differs:
        raise StateError(f"state must belong to this store and these options, but {'; '.join(differs)}")
    epoch, batch, window, deal = (state[key] for key in Position._fields)
    whole = all(isinstance(v, Integral) and int(v) >= 0 for v in (epoch, batch, window))
    if not whole or batch > n_batches or window < 1 or not isinstance(deal, bool):
        raise StateError(f"state must name a batch from 0 to {n_batches}, got epoch {epoch!r}, batch {batch!r}")
    return Position(int(epoch), int(batch), int(window), deal)
