"""The chain of functions that each batch passes through, and what they may return."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from oocload.errors import InvalidArgumentError, TransformError
from oocload.loader.batch import Batch
from oocload.loader.seeded import Rng, generator, how_it_takes_rng


class Numbered(NamedTuple):
    """A batch, which one it is, and how long its transforms took."""

    epoch: int
    number: int
    n_rows: int
    batch: Batch
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One function of a chain.

    Attributes
    ----------
    function
        Called with a batch.
    number
        Among those that were given by the user, from 0; part of the key of its random numbers.
    rng
        How it takes them.

    """

    function: Callable[..., Any]
    number: int = 0
    rng: Rng = "none"

    @property
    def name(self) -> str:
        """What errors call it."""
        return name_of(self.function)

    def call(self, batch: Batch, seed: int, rank: int, epoch: int, number: int) -> Any:
        """Return what the function makes of a batch."""
        if self.rng == "none":
            return self.function(batch)
        rng = generator(seed, epoch, number, rank, self.number)
        return self.function(batch, rng=rng) if self.rng == "keyword" else self.function(batch, rng)


Stages = tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Transforms:
    """Stages one after the other, whose random numbers are a pure function of seed, rank, epoch and batch.

    Attributes
    ----------
    stages
        At least one.
    seed, rank
        Of the loader.

    """

    stages: Stages
    seed: int
    rank: int

    def apply(self, batch: Batch, n_rows: int, epoch: int, number: int) -> Batch:
        """Return what the stages make of batch ``number`` of an epoch, which has ``n_rows`` rows.

        What they raise passes, with a note on which stage and which batch it was.

        Raises
        ------
        InvalidArgumentError
            If one returns nothing, or arrays of another number of rows.
        TransformError
            If one raises StopIteration.

        """
        where = f"batch {number} of epoch {epoch}"
        for stage in self.stages:
            try:
                batch = stage.call(batch, self.seed, self.rank, epoch, number)
            except StopIteration as exc:  # would end what iterates over batches, without a word
                raise TransformError(
                    f"transform {stage.name!r} must return a batch, and raised StopIteration at {where}; give next() "
                    "a default, or raise another error"
                ) from exc
            except Exception as exc:
                given = ", called with a batch and a generator of random numbers" if stage.rng == "position" else ""
                exc.add_note(f"raised by transform {stage.name!r}{given} at {where}")
                raise
            _check(batch, n_rows, stage.name, where)
        return batch

    def applied(self, given: Numbered) -> Numbered:
        """Return a numbered batch with its stages applied, and how long that took."""
        began = time.perf_counter()
        made = self.apply(given.batch, given.n_rows, given.epoch, given.number)
        return given._replace(batch=made, took_s=time.perf_counter() - began)


def stages_of(functions: Sequence[Callable[..., Any]], n_before: int = 0) -> Stages:
    """Return the stages of a user's functions, of which so many came before.

    Raises
    ------
    InvalidArgumentError
        If one cannot be called with a batch.

    """
    for function in functions:
        if not callable(function):
            raise InvalidArgumentError(f"transform must be a function of one batch, got {function!r}")
    return tuple(
        Stage(function, n_before + i, how_it_takes_rng(function, name_of(function)))
        for i, function in enumerate(functions)
    )


def name_of(function: Any) -> str:
    """Return a function's qualified name; of an object that can be called, its class'."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def rows_of(part: Any) -> int | None:
    """Return the rows of one part of a batch; None of what has none, a number or a text beside the arrays."""
    shape: tuple[int, ...] = getattr(part, "shape", ())
    if len(shape):
        return shape[0]
    n_rows = getattr(part, "n_rows", None)
    return n_rows if isinstance(n_rows, int) else None


def parts_of(batch: Batch) -> Iterator[Any]:
    """Yield the parts of a batch: what is neither a mapping nor a tuple or list of others."""
    if isinstance(batch, Mapping):
        batch = tuple(batch.values())
    if isinstance(batch, tuple | list) and not hasattr(batch, "n_rows"):
        for part in batch:
            yield from parts_of(part)
    else:
        yield batch


def _check(batch: Batch, n_rows: int, name: str, where: str) -> None:
    if batch is None:
        raise InvalidArgumentError(f"transform {name!r} must return a batch, got None at {where}")
    for part in parts_of(batch):
        found = rows_of(part)
        if found is not None and found != n_rows:
            raise InvalidArgumentError(
                f"transform {name!r} must keep the rows of a batch, and made {found} of {n_rows} at {where}"
            )
