"""What a chain of operations comes down to: a view of the rows, then steps that each make an array of the one before.

Numbers only; `oocload.chunks` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """``values × factor + offset`` computed in ``work``, then made ``dtype``.

    Attributes
    ----------
    factor, offset
        In ``work``, of shape () or as many axes as a row has, and such that they broadcast to it; None for 1 and 0.
    work
        Dtype in which it is computed.
    dtype
        Dtype of what comes out.

    """

    factor: NDArray[Any] | None
    offset: NDArray[Any] | None
    work: np.dtype[Any]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class OneHot:
    """A label of each row becomes a row of zeros with a one at its place."""

    n_classes: int
    dtype: np.dtype[Any]


Step = Affine | OneHot


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """What is done to rows.

    Attributes
    ----------
    cuts
        Of each axis of a stored row, which items are taken.
    axes
        Axes of the stored row in the order in which a row has them after that.
    steps
        At least one: what is done to the values, one after the other.
    shapes
        Shape of a row after each step.
    text
        The operations as they were written, for people.

    """

    cuts: tuple[slice, ...]
    axes: tuple[int, ...]
    steps: tuple[Step, ...]
    shapes: tuple[tuple[int, ...], ...]
    text: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a delivered row."""
        return self.shapes[-1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of delivered rows."""
        return self.steps[-1].dtype
