"""Carries out a program of operations on rows that were just decoded, a piece at a time, in cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.ops.program import Affine, OneHot, Program, Step

# A piece has about this many bytes of what comes out: each pass over it is one call that lets go of the GIL, and
# threads that call often wait for each other: half of it gave 0.75 of the speed on two threads.
_PIECE_NBYTES = 2**20
# Numbers are repeated to about so many, so that they stay in the second cache. NumPy copies what has inner loops below
# its buffer (8,192 items) into that: with 3,072 items a pass takes 1.6 times as long as with 12,288.
_TILE_ITEMS = 16_384
_LEAST_INNER_ITEMS = 8192

Array = NDArray[Any]
Apply = Callable[[Array, Array, Scratch], None]


class UnfitLabelError(Exception):
    """A label has no class; says which row of a piece it is, and the label."""

    def __init__(self, row: int, label: int) -> None:
        super().__init__(row, label)
        self.row, self.label = row, label


class Converter:
    """Makes rows for delivery of stored ones. Thread-safe.

    Parameters
    ----------
    program
        What is done.

    Attributes
    ----------
    piece_rows
        How many rows are made at a time.
    row_nbytes
        Bytes of one that is made.

    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._view = (slice(None), *program.cuts)
        self._axes = (0, *(axis + 1 for axis in program.axes))
        self._applied = [_applied(step, shape) for step, shape in zip(program.steps, program.shapes, strict=True)]
        items = [prod(shape) for shape in program.shapes]
        self.row_nbytes = items[-1] * program.dtype.itemsize
        self._work_nbytes = [
            n * step.work.itemsize if isinstance(step, Affine) and step.work != step.dtype else 0
            for step, n in zip(program.steps, items, strict=True)
        ]
        self._between_nbytes = [n * step.dtype.itemsize for step, n in zip(program.steps[:-1], items[:-1], strict=True)]
        self.piece_rows = max(1, _PIECE_NBYTES // max(1, self.row_nbytes, *self._work_nbytes, *self._between_nbytes))

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers that it multiplies with and adds, at most."""
        return sum(
            2 * step.work.itemsize * max(2 * _TILE_ITEMS, prod(shape))
            for step, shape in zip(self.program.steps, self.program.shapes, strict=True)
            if isinstance(step, Affine)
        )

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Bytes that one thread needs, by buffer."""
        each = {"prepared": self.row_nbytes, "work": max(self._work_nbytes, default=0)}
        each |= {f"step {i}": nbytes for i, nbytes in enumerate(self._between_nbytes)}
        return {name: self.piece_rows * nbytes for name, nbytes in each.items() if nbytes}

    def convert(self, rows: Array, out: Array, scratch: Scratch) -> None:
        """Make ``out``, which is C-contiguous, of as many stored rows, at most `piece_rows`.

        Raises
        ------
        UnfitLabelError
            If a label is no class.

        """
        n_rows = len(rows)
        rows = rows[self._view].transpose(self._axes)
        last = len(self._applied) - 1
        with np.errstate(all="ignore"):  # values that do not fit their dtype, as `astype` leaves them
            for number, (apply, step, shape) in enumerate(
                zip(self._applied, self.program.steps, self.program.shapes, strict=True)
            ):
                made = out
                if number < last:
                    nbytes = n_rows * self._between_nbytes[number]
                    made = scratch.get(f"step {number}", nbytes).view(step.dtype).reshape(n_rows, *shape)
                apply(rows, made, scratch)
                rows = made


def _applied(step: Step, shape: tuple[int, ...]) -> Apply:
    return _one_hot(step) if isinstance(step, OneHot) else _affine(step, shape)


def _affine(step: Affine, shape: tuple[int, ...]) -> Apply:
    """Return what copies rows with a cast, then multiplies and adds in place."""
    numbers = [
        (ufunc, _InPlace(values, shape))
        for ufunc, values in ((np.multiply, step.factor), (np.add, step.offset))
        if values is not None
    ]

    def apply(rows: Array, out: Array, scratch: Scratch) -> None:
        made = out
        if step.work != step.dtype:
            made = scratch.get("work", out.size * step.work.itemsize).view(step.work).reshape(out.shape)
        np.copyto(made, rows, casting="unsafe")
        for ufunc, values in numbers:
            values.apply(ufunc, made)
        if made is not out:
            np.copyto(out, made, casting="unsafe")

    return apply


def _one_hot(step: OneHot) -> Apply:
    def apply(rows: Array, out: Array, scratch: Scratch) -> None:
        labels = rows.reshape(-1)
        unfit = (labels < 0) | (labels >= step.n_classes)
        if unfit.any():
            row = int(unfit.argmax())
            raise UnfitLabelError(row, int(labels[row]))
        out.fill(0)
        out[np.arange(len(labels)), labels.astype(np.intp)] = 1

    return apply


class _InPlace:
    """Numbers that are multiplied with, or added to, each row of a piece, with long inner loops.

    ::

        one number                  whole piece
        (C, 1, 1) to (C, H, W)      as they broadcast: inner loops of H × W items
        (C,) to (H, W, C)           repeated over as many pixels as divide a row and stay in the first cache
        (C,) to (C,)                repeated over some rows

    """

    def __init__(self, numbers: Array, shape: tuple[int, ...]) -> None:
        self._numbers = numbers
        inner = next((i for i, n in enumerate(reversed(numbers.shape)) if n > 1), len(shape))  # axes with one number
        tiled = numbers.ndim and prod(shape[len(shape) - inner :]) < _LEAST_INNER_ITEMS
        self._tile = _tile(numbers, shape) if tiled else None

    def apply(self, ufunc: Any, piece: Array) -> None:
        """Change a C-contiguous piece."""
        if self._tile is None:
            ufunc(piece, self._numbers, out=piece)
            return
        flat, length = piece.reshape(-1), len(self._tile)
        whole = len(flat) // length * length
        tiles, rest = flat[:whole].reshape(-1, length), flat[whole:]
        ufunc(tiles, self._tile, out=tiles)
        ufunc(rest, self._tile[: len(rest)], out=rest)


def _tile(numbers: Array, shape: tuple[int, ...]) -> Array:
    """Return the numbers of a whole number of rows, or of a part that divides a row."""
    n_items = prod(shape)
    if n_items <= _TILE_ITEMS:
        return np.tile(np.broadcast_to(numbers, shape).reshape(-1), _TILE_ITEMS // n_items)
    n_channels = numbers.shape[-1]
    if numbers.size == n_channels:
        pixels = n_items // n_channels
        most = max(1, _TILE_ITEMS // n_channels)
        repeats = next(n for n in range(min(most, pixels), 0, -1) if pixels % n == 0)
        if repeats * n_channels >= _LEAST_INNER_ITEMS // 2:
            return np.tile(numbers.reshape(-1), repeats)
    return np.ascontiguousarray(np.broadcast_to(numbers, shape)).reshape(-1)
