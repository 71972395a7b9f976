"""Operations on labels."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from oocload.errors import InvalidArgumentError
from oocload.ops.base import Draft, Op
from oocload.ops.values import as_dtype


@dataclass(frozen=True, slots=True)
class LabelsOneHot(Op):
    """Labels as rows of zeros with a one at the label's place."""

    n_classes: int
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"ops.one_hot({self.n_classes})"

    def add_to(self, draft: Draft) -> None:
        """Add the step."""
        draft.check_before_labels(self)
        if draft.dtype.kind not in "biu" or draft.shape not in ((), (1,)):
            raise draft.error(self, "be given one whole number a row", 'cast labels with ops.cast("int64") before it')
        draft.one_hot(self.n_classes, self.dtype)


def one_hot(n_classes: int, dtype: DTypeLike = "float32") -> LabelsOneHot:
    """Return the operation that makes a row of ``n_classes`` numbers of each label: 1 at its place, 0 elsewhere.

    Rows must be one whole number each, of shape () or (1,). A label outside 0 to ``n_classes - 1`` is an
    `InvalidArgumentError` when its rows are read, which names the field, the label and the row.

    Parameters
    ----------
    n_classes
        From 1.
    dtype
        Of the numbers: whole numbers, floats or bool.

    Examples
    --------
    >>> from oocload import ops
    >>> print(ops.one_hot(10))
    ops.one_hot(10)

    """
    try:
        number = operator.index(n_classes)
    except TypeError:
        number = 0
    if number < 1 or isinstance(n_classes, bool):
        raise InvalidArgumentError(f"n_classes must be a whole number of at least 1, got {n_classes!r}")
    return LabelsOneHot(number, as_dtype(dtype, "biuf"))
