"""Random numbers of a transform: one generator for each batch, the same wherever and whenever it is made."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from oocload.errors import InvalidArgumentError
from oocload.plan.shuffle import AUGMENTS, random_words

Rng = Literal["none", "keyword", "position"]
"""How a function takes its generator."""

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def how_it_takes_rng(function: Callable[..., Any], name: str) -> Rng:
    """Return whether a function wants a generator: by a parameter ``rng``, or a second one that it requires.

    Raises
    ------
    InvalidArgumentError
        If it requires more than that, or takes nothing.

    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of C, and says nothing of its parameters
        return "none"
    bound = function.keywords if isinstance(function, functools.partial) else {}
    if any(p.name == "rng" and p.kind in _NAMED and "rng" not in bound for p in parameters):
        rng: Rng = "keyword"
    else:
        required = [p for p in parameters if p.kind in _POSITIONAL and p.default is p.empty]
        rng = "position" if len(required) == 2 else "none"
    try:
        arguments: dict[str, tuple[tuple[None, ...], dict[str, None]]] = {
            "none": ((None,), {}),
            "keyword": ((None,), {"rng": None}),
            "position": ((None, None), {}),
        }
        positional, named = arguments[rng]
        inspect.signature(function).bind(*positional, **named)
    except TypeError as exc:
        raise InvalidArgumentError(
            f"transform {name!r} must take a batch, or a batch and rng, and cannot be called so: {exc}; give it its "
            "other arguments with functools.partial"
        ) from None
    return rng


def generator(seed: int, epoch: int, batch: int, rank: int, stage: int) -> np.random.Generator:
    """Return the generator of one stage for one batch, a pure function of the arguments."""
    return np.random.Generator(random_words(seed, epoch, AUGMENTS, batch, rank << 32 | stage))
