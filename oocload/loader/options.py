"""The options of a loader, checked one by one before any file opens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError
from oocload.layout import FieldLayout
from oocload.loader.feeds import Feed
from oocload.loader.world import detect
from oocload.plan.ranks import ALONE, Share, Uneven
from oocload.plan.select import Selection
from oocload.plan.shuffle import Shuffle
from oocload.units import whole_number as whole_number  # for adapters too, which know the loader

Workers = int | Literal["threads"] | None
"""Where transforms run: in one thread ahead of the consumer (None), in several, or in so many processes; 0: nowhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Balance:
    """The classes whose rows every batch has equally many of.

    Attributes
    ----------
    field
        The field of labels.
    codes
        Class of each row of the store, from 0.
    labels
        Label of each class.

    """

    field: str
    codes: NDArray[Any]
    labels: Sequence[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """The checked options of a loader."""

    feeds: dict[str, Feed]
    batch_size: int
    shuffle: bool | Shuffle
    seed: int
    ceiling: int | None
    drop_last: bool
    threads: int
    share: Share = ALONE
    label: str | None = None  # the field of targets, where those are classes
    selection: Selection | None = None
    weights: NDArray[Any] | None = None
    balance: Balance | None = None
    drawn: str | None = None  # what tells these weights or classes from others
    transform_workers: Workers = None
    window_blocks: int | None = None  # of a state that was loaded
    deal: bool | None = None
    rules: Mapping[str, Any] = field(default_factory=dict)  # of ragged fields whose batches are assembled
    bucket: str | None = None  # the ragged field by whose lengths rows are put together

    @property
    def fields(self) -> dict[str, FieldLayout]:
        """Field → how it lies in a slab."""
        return {name: feed.layout for name, feed in self.feeds.items()}

    @property
    def sources(self) -> tuple[str, ...]:
        """The fields of the store that are read, each once."""
        return tuple(dict.fromkeys(feed.source for feed in self.feeds.values()))

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row over all fields."""
        return sum(f.row_nbytes for f in self.fields.values())

    @property
    def read_row_nbytes(self) -> int:
        """Bytes of one row over all fields, as it is read."""
        return sum(feed.read_row_nbytes for feed in self.feeds.values())

    @property
    def store_rows(self) -> int:
        """Rows of the store."""
        return next(iter(self.fields.values())).n_rows


def check_workers(value: Any) -> Workers:
    """Return where transforms run.

    Raises
    ------
    InvalidArgumentError
        If it is not one of the values that say so.

    """
    if value is None:
        return None
    if isinstance(value, str):
        if value != "threads":
            raise InvalidArgumentError(f"transform_workers must be None, 'threads' or a number, got {value!r}")
        return "threads"
    return whole_number("transform_workers", value, 0)


def print_of(weights: NDArray[Any] | None, balance: Balance | None) -> str | None:
    """Return what tells weights, or classes, from others."""
    if balance is not None:
        labels = hashlib.sha256(repr(balance.labels).encode())
        labels.update(np.ascontiguousarray(balance.codes))
        return f"balanced {balance.field} {labels.hexdigest()[:16]}"
    if weights is not None:
        return f"weights {hashlib.sha256(np.ascontiguousarray(weights)).hexdigest()[:16]}"
    return None


def check_share(rank: Any, world_size: Any, uneven: Uneven, shuffle: bool | Shuffle, batch_size: int) -> Share:
    """Return this process's share of the rows, detected where nobody says.

    Raises
    ------
    InvalidArgumentError
        If rank, ranks and streams do not go together, or batches cannot take equally many rows of each stream.

    """
    if (rank is None) != (world_size is None):
        raise InvalidArgumentError(
            f"rank and world_size must be given together, got rank={rank!r} and world_size={world_size!r}"
        )
    if rank is None:
        rank, world_size = detect()
    else:
        rank, world_size = whole_number("rank", rank, 0), whole_number("world_size", world_size, 1)
    share = Share(rank, world_size, uneven, shuffle.streams if isinstance(shuffle, Shuffle) else None)
    if batch_size % len(share.own):
        n_streams = len(share.own)
        raise InvalidArgumentError(
            f"batch_size must be a multiple of the {n_streams} streams of each rank ({share.n_streams} streams, "
            f"{world_size} ranks), got {batch_size}; use {multiples_near(batch_size, n_streams)}"
        )
    return share


def multiples_near(value: int, step: int) -> str:
    """Return the multiples of a step on both sides of a number that is none, for errors."""
    below = value // step * step
    return f"{below} or {below + step}" if below else f"{step}"


def check_flags(shuffle: Any, drop_last: Any) -> None:
    """Refuse what is none of the values that these take."""
    if not isinstance(shuffle, bool | Shuffle):
        remedy = f"; for so many rows pass oocload.Shuffle(window_rows={shuffle})" if isinstance(shuffle, int) else ""
        raise InvalidArgumentError(f"shuffle must be True, False or an oocload.Shuffle, got {shuffle!r}{remedy}")
    if not isinstance(drop_last, bool):
        raise InvalidArgumentError(f"drop_last must be True or False, got {drop_last!r}")


def check_sampling(shuffle: bool | Shuffle, weights: Any, balanced: Any) -> None:
    """Refuse ways to choose rows that do not go together."""
    if weights is not None and balanced is not None:
        raise InvalidArgumentError(
            "weights and balanced must not be given together: balanced fixes how often each class comes; "
            "for another proportion use weights alone"
        )
    for name, value in (("weights", weights), ("balanced", balanced)):
        if value is not None and not shuffle:
            raise InvalidArgumentError(f"shuffle must not be False where {name} is given: rows are drawn at random")
    if balanced is not None and not isinstance(balanced, str):
        raise InvalidArgumentError(f"balanced must be the name of a field of labels, got {balanced!r}")
