"""What an operation is, and the draft of a program that operations are added to one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError
from oocload.ops.program import Affine, OneHot, Program, Step

_WIDE = 4  # bytes from which whole numbers do not fit the 24 bits of a float32


class Statistics(NamedTuple):
    """Mean and standard deviation of a stored field: one number, or one for each item along an axis of its rows."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    axis: int | None


class Op(ABC):
    """One operation on rows; frozen, and pickles."""

    @abstractmethod
    def add_to(self, draft: Draft) -> None:
        """Add what it does to a program.

        Raises
        ------
        InvalidArgumentError
            If it does not fit the rows as they are by then.

        """


class _Pending(NamedTuple):
    """Arithmetic that later operations may still join, in float64; its arrays broadcast to a row as it is by then."""

    factor: NDArray[np.float64] | None
    offset: NDArray[np.float64] | None
    wide: bool
    dtype: np.dtype[Any]


class Draft:
    """A program in the making: the shape and dtype of rows after the operations so far.

    Parameters
    ----------
    name
        The field, for errors.
    shape, dtype
        Of its stored rows.
    statistics
        Returns what is stored of the field.

    """

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], statistics: Callable[[], Statistics]
    ) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self._statistics = statistics
        self._stored = shape
        self._cuts = [slice(0, n, 1) for n in shape]
        self._axes = list(range(len(shape)))
        self._steps: list[Step] = []
        self._shapes: list[tuple[int, ...]] = []
        self._source = dtype  # of the values that pending arithmetic is done to
        self._pending: _Pending | None = None
        self._labels = False

    def error(self, op: Op, rule: str, remedy: str) -> InvalidArgumentError:
        """Return the error that an operation does not fit."""
        return InvalidArgumentError(
            f"{op} of field {self.name!r} must {rule}, got rows of {self.dtype} and shape {self.shape}; {remedy}"
        )

    def check_numbers(self, op: Op) -> None:
        """Refuse rows that are not real numbers."""
        if self.dtype.kind not in "biuf":
            raise self.error(op, "be given real numbers", "leave it out")

    def check_before_labels(self, op: Op) -> None:
        """Refuse to cut or transpose what is made of labels."""
        if self._labels:
            raise self.error(op, "come before one_hot", "move it there")

    def cut(self, cuts: Sequence[slice]) -> None:
        """Take some items along each axis: (start, stop, step) with a positive step, inside the axis."""
        for axis, cut in enumerate(cuts):
            source = self._axes[axis]
            old = self._cuts[source]
            start, step = old.start + cut.start * old.step, old.step * cut.step
            length = len(range(cut.start, cut.stop, cut.step))
            self._cuts[source] = slice(start, start + (length - 1) * step + 1, step)
            self.shape = (*self.shape[:axis], length, *self.shape[axis + 1 :])

        def cut_numbers(array: NDArray[Any]) -> NDArray[Any]:
            lengths = array.shape[: len(cuts)]
            return array[tuple(c if n > 1 else slice(None) for c, n in zip(cuts, lengths, strict=True))]

        self._view(cut_numbers)

    def transpose(self, axes: Sequence[int]) -> None:
        """Put axes into another order."""
        self._axes = [self._axes[axis] for axis in axes]
        self.shape = tuple(self.shape[axis] for axis in axes)
        self._view(lambda array: array.transpose(axes))

    def cast(self, dtype: np.dtype[Any]) -> None:
        """Change the dtype, as ``astype`` does; whole numbers in between are kept, floats in between are not."""
        before = self._pending
        if before is None:
            self._pending = _Pending(None, None, False, dtype)
        elif before.dtype.kind == "f":
            self._pending = before._replace(dtype=dtype)
        else:
            self._flush()
            self._pending = _Pending(None, None, False, dtype)
        self.dtype = dtype

    def affine(self, factor: NDArray[np.float64], offset: NDArray[np.float64], dtype: np.dtype[Any]) -> None:
        """Multiply, then add; both of shape (), or with an axis for each of a row's."""
        before = self._pending
        if before is not None and before.dtype.kind != "f":
            if before.factor is not None or not np.can_cast(self._source, before.dtype, "safe"):
                self._flush()
            before = None
        wide = dtype.itemsize > _WIDE or (before is not None and before.wide)
        if before is not None and before.factor is not None and before.offset is not None:
            factor, offset = before.factor * factor, before.offset * factor + offset
        self._pending = _Pending(factor, offset, wide, dtype)
        self.dtype = dtype

    def one_hot(self, n_classes: int, dtype: np.dtype[Any]) -> None:
        """Make each row, a label, a row of zeros and a one."""
        self._flush()
        self.shape, self.dtype, self._source = (n_classes,), dtype, dtype
        self._add(OneHot(n_classes, dtype))
        self._labels = True

    def statistics(self, op: Op) -> tuple[NDArray[np.float64], NDArray[np.float64], int | None]:
        """Return stored mean and standard deviation, and the axis along which they go by now."""
        if self._steps or (self._pending is not None and self._pending.factor is not None):
            raise self.error(
                op,
                "come before what changes values, as stored statistics are those of stored values",
                "move it there, or give mean and std",
            )
        mean, std, axis = self._statistics()
        if axis is None:
            return mean.reshape(()), std.reshape(()), None
        if not 0 <= axis < len(self._stored) or len(mean) != self._stored[axis]:
            raise self.error(op, f"fit the {len(mean)} stored statistics of row axis {axis}", "compute them anew")
        cut = self._cuts[axis]
        return mean[cut], std[cut], self._axes.index(axis)

    def finish(self, text: str) -> Program:
        """Return the program."""
        if self._pending is None and not self._labels:
            self._pending = _Pending(None, None, False, self.dtype)
        self._flush()
        return Program(tuple(self._cuts), tuple(self._axes), tuple(self._steps), tuple(self._shapes), text)

    def _flush(self) -> None:
        """Add the arithmetic that is pending as a step."""
        if self._pending is None:
            return
        factor, offset, wide, dtype = self._pending
        exact = self._source.itemsize < _WIDE or (self._source.kind == "f" and self._source.itemsize <= _WIDE)
        work = np.dtype(np.float64 if wide or not exact else np.float32)
        if factor is None:
            work = dtype
        self._add(Affine(_none_if(factor, 1.0, work), _none_if(offset, 0.0, work), work, dtype))
        self._source, self._pending = dtype, None

    def _add(self, step: Step) -> None:
        self._steps.append(step)
        self._shapes.append(self.shape)

    def _view(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """Change the axes of all arrays that broadcast to a row."""

        def changed(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return array if array is None or not array.ndim else change(array)

        self._shapes = [self.shape] * len(self._shapes)
        self._steps = [
            step
            if isinstance(step, OneHot)
            else Affine(changed(step.factor), changed(step.offset), step.work, step.dtype)
            for step in self._steps
        ]
        if self._pending is not None:
            factor, offset, wide, dtype = self._pending
            self._pending = _Pending(changed(factor), changed(offset), wide, dtype)


def _none_if(values: NDArray[np.float64] | None, neutral: float, work: np.dtype[Any]) -> NDArray[Any] | None:
    """Return numbers in the dtype of the work; a single one where all are equal, none where they change nothing."""
    if values is None or (values == neutral).all():
        return None
    found: NDArray[Any] = values.astype(work)
    return found.flat[:1].reshape(()) if (found == found.flat[0]).all() else found
