"""Dask arrays: computed block by block, those of one height together, a bounded number at a time.

::

    x          |----|----|----|--|         blocks along axis 0; those of other axes belong to one block here
    y          |----|----|----|--|         of equal heights: computed with those of x, what both need just once
    computed   |---------|-------|         as many blocks at a time as the pieces asked for have room for
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.convert.sources.ahead import Pending, ReadAhead
from oocload.convert.sources.base import FieldSource
from oocload.convert.sources.identity import Identity, array_identity
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError


def is_dask(value: Any) -> bool:
    """Whether a value is a dask array; dask is not imported for that."""
    kind = type(value)
    return kind.__name__ == "Array" and kind.__module__.partition(".")[0] == "dask" and hasattr(value, "dask")


def dask_sources(arrays: Mapping[str, Any]) -> dict[str, DaskField]:
    """Return a source for each of several dask arrays.

    Raises
    ------
    InvalidArgumentError
        If the size of blocks is not known, an array is a scalar, or holds Python objects.

    """
    by_heights: dict[tuple[int, ...], dict[str, Any]] = {}
    for name, array in arrays.items():
        by_heights.setdefault(_heights(name, array), {})[name] = array
    groups = [_Together(heights, together) for heights, together in by_heights.items()]
    return {name: DaskField(name, group) for group in groups for name in group.arrays}


def _heights(name: str, array: Any) -> tuple[int, ...]:
    if not array.ndim:
        raise InvalidArgumentError(f"field {name!r} must be an array whose axis 0 counts rows, got a scalar")
    if any(isnan(n) for axis in array.chunks for n in axis):
        raise InvalidArgumentError(
            f"field {name!r} must be a dask array whose blocks have known sizes, got chunks {array.chunks}; "
            "call its compute_chunk_sizes() first"
        )
    if array.dtype.hasobject:
        raise InvalidArgumentError(
            f"field {name!r} must have a fixed-size dtype, got object; convert it with .astype() first"
        )
    return tuple(int(n) for n in array.chunks[0])


class DaskField(FieldSource):
    """One dask array. A block, with all that lie beside it, is the smallest piece."""

    identity_is_proof = False
    advice = "raise memory=, or give it smaller blocks with array.rechunk({0: rows})"

    def __init__(self, name: str, group: _Together) -> None:
        self._name, self._group = name, group
        self._array = group.arrays[name]
        self.label = f"dask array {self._array.name}"
        self.n_rows = sum(group.heights)

    @property
    def spec(self) -> FieldSpec:
        """Shape and dtype of a row."""
        return FieldSpec(tuple(int(n) for n in self._array.shape[1:]), self._array.dtype.newbyteorder("="))

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row."""
        return self.spec.row_nbytes

    @property
    def least_nbytes(self) -> int:
        """Bytes of the rows of the tallest block."""
        return max(self._group.heights, default=0) * self.row_nbytes

    def held_nbytes(self) -> int:
        """Return the bytes of blocks that lie side by side while they are joined; what dask takes is its own."""
        return self.least_nbytes if any(len(axis) > 1 for axis in self._array.chunks[1:]) else 0

    def identity(self) -> Identity:
        """Return shape, dtype and name, which dask makes of the graph. Another name says nothing: it may be random."""
        return array_identity(self._array.shape, self._array.dtype, [], dask=str(self._array.name))

    def track(self, start: int, stop: int, piece_nbytes: int, ahead: ReadAhead) -> _Track:
        """Return rows from ``start`` to ``stop`` on their way."""
        n_blocks = max(1, piece_nbytes // max(1, self.least_nbytes))
        computing = ahead.shared(self._group, lambda: _Computing(self._group, start, stop, n_blocks, ahead))
        return _Track(computing, self._name, np.empty((0, *self.spec.row_shape), self.spec.dtype))


class _Together:
    """Dask arrays whose blocks have the same heights."""

    def __init__(self, heights: tuple[int, ...], arrays: Mapping[str, Any]) -> None:
        self.heights, self.arrays = heights, arrays

    def compute(self, numbers: Sequence[int]) -> dict[str, deque[NDArray[Any]]]:
        """Return field → some blocks: by the scheduler that is set, or threads."""
        import dask

        wanted = [array.blocks[number] for number in numbers for array in self.arrays.values()]
        found = iter(dask.compute(*wanted))  # type: ignore[no-untyped-call,attr-defined,unused-ignore]
        blocks: dict[str, deque[NDArray[Any]]] = {name: deque() for name in self.arrays}
        for _ in numbers:
            for name in self.arrays:
                blocks[name].append(np.asarray(next(found)))
        return blocks


class _Computing:
    """The blocks of one group on their way: some are computed while those before them are taken."""

    def __init__(self, group: _Together, start: int, stop: int, n_blocks: int, ahead: ReadAhead) -> None:
        at = 0
        self._left: deque[tuple[int, slice]] = deque()  # numbers of blocks, and which of their rows
        for number, height in enumerate(group.heights):
            rows = slice(max(0, start - at), min(height, stop - at))
            if rows.start < rows.stop:
                self._left.append((number, rows))
            at += height
        self._group = group
        self._n_blocks = n_blocks if not ahead.n_ahead else max(1, n_blocks * (ahead.n_ahead + 1) // 2)
        self._submit = ahead.submit("one")
        self._is_ahead = ahead.n_ahead > 0
        self._context = contextvars.copy_context()  # a Client may be current in this context alone
        self._blocks: dict[str, deque[NDArray[Any]]] = {name: deque() for name in group.arrays}
        self._pending: Pending[dict[str, deque[NDArray[Any]]]] | None = None
        if self._is_ahead:
            self._begin()

    def next(self, name: str) -> NDArray[Any] | None:
        """Return the next rows of a field; None at the end."""
        if not self._blocks[name]:
            if self._pending is None:
                self._begin()
            if self._pending is None:
                return None
            found, self._pending = self._pending.result(), None
            if self._is_ahead:
                self._begin()
            for field, blocks in found.items():
                self._blocks[field].extend(blocks)
        return self._blocks[name].popleft()

    def _begin(self) -> None:
        together = [self._left.popleft() for _ in range(min(self._n_blocks, len(self._left)))]
        if together:
            self._pending = self._submit(partial(self._context.run, self._compute, together))

    def _compute(self, together: Sequence[tuple[int, slice]]) -> dict[str, deque[NDArray[Any]]]:
        found = self._group.compute([number for number, _ in together])
        for blocks in found.values():
            for i, (_, rows) in enumerate(together):
                blocks[i] = blocks[i][rows]
        return found


class _Track:
    """Rows of one field on their way."""

    def __init__(self, computing: _Computing, name: str, none: NDArray[Any]) -> None:
        self._computing, self._name = computing, name
        self._rows, self._none, self._at = none, none, 0

    def available(self) -> int:
        """Return the rows left of this block, or those of the next; 0 at the end."""
        while self._at == len(self._rows):
            self._rows, self._at = self._none, 0
            found = self._computing.next(self._name)
            if found is None:
                return 0
            self._rows = found
        return len(self._rows) - self._at

    def take(self, n_rows: int) -> NDArray[Any]:
        """Return the next rows; a view."""
        self._at += n_rows
        return self._rows[self._at - n_rows : self._at]
