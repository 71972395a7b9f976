"""Other dtypes for the rows of a source; values that do not survive are an error, not a surprise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from oocload.convert.fields import Spec, spec_of
from oocload.convert.ragged import RaggedRows
from oocload.convert.sources.base import RowSource
from oocload.convert.sources.batches import count_rows
from oocload.convert.sources.fresh import fresh_rows
from oocload.convert.sources.identity import Identity
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning

_KINDS = "biuf"
_CAST_NBYTES = 2**20  # at a time: what the check takes beside the rows comes to a few of these


class Cast:
    """A source whose rows are cast.

    Whole numbers must come out as they went in. Floats may lose digits, but not become infinite.

    Parameters
    ----------
    source
        Where the rows come from.
    dtypes
        Field → dtype, or one dtype for all fields.

    Raises
    ------
    InvalidArgumentError
        If a field is not there, or a dtype is no number or bool.

    """

    def __init__(self, source: RowSource, dtypes: Mapping[str, DTypeLike] | DTypeLike) -> None:
        self.source = source
        if isinstance(dtypes, Mapping):
            self._one, self._each = None, {name: _number(dtype) for name, dtype in dtypes.items()}
        else:
            self._one, self._each = _number(dtypes), {}
        self.n_rows = source.n_rows
        self.specs: Mapping[str, Spec] | None = None if source.specs is None else self._cast_specs(source.specs)

    @property
    def meanings(self) -> Mapping[str, Meaning]:
        """Field → what its values stand for."""
        return self.source.meanings

    @property
    def owned(self) -> bool:
        """Whether arrays of batches are never changed afterwards."""
        return self.source.owned

    @property
    def can_jump(self) -> bool:
        """Whether to begin at a row costs no reading of those before it."""
        return self.source.can_jump

    @property
    def identity_is_proof(self) -> bool:
        """Whether another identity means that rows have changed."""
        return self.source.identity_is_proof

    @property
    def least_piece_nbytes(self) -> int:
        """The smallest piece that can be read."""
        return self.source.least_piece_nbytes

    @property
    def wanted_piece_nbytes(self) -> int:
        """The smallest piece with which no chunk is decoded twice."""
        return self.source.wanted_piece_nbytes

    @property
    def least_piece_reason(self) -> str:
        """Which field asks for it, and what can be done."""
        return self.source.least_piece_reason

    def held_nbytes(self, piece_nbytes: int, n_ahead: int = 0, n_threads: int | None = None) -> int:
        """Return the bytes that reading takes, with a piece that is cast and what checking it takes."""
        return self.source.held_nbytes(piece_nbytes, n_ahead, n_threads) + (
            self._growth() * piece_nbytes + 8 * _CAST_NBYTES
        )

    def identity(self) -> Identity | None:
        """Return that of the source, and the dtypes."""
        found = self.source.identity()
        each = {name: dtype.str for name, dtype in self._each.items()}
        return None if found is None else {**found, "cast": each or (self._one.str if self._one else "")}

    def batches(
        self,
        piece_nbytes: int,
        start: int = 0,
        stop: int | None = None,
        n_ahead: int = 0,
        n_threads: int | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Yield rows of all fields, cast.

        Raises
        ------
        InvalidArgumentError
            If a value does not survive; names the field, the rows and the value.

        """
        at, specs = start, self.source.specs
        for batch in self.source.batches(piece_nbytes, start, stop, n_ahead, n_threads):
            if specs is None:
                specs = {name: spec_of(name, rows) for name, rows in batch.items()}
                self._cast_specs(specs)
            cast = {name: self._cast(name, rows, specs.get(name), at) for name, rows in batch.items()}
            at += count_rows(next(iter(batch.values()), ()))
            yield cast
            del batch, cast

    def _cast_specs(self, specs: Mapping[str, Spec]) -> dict[str, Spec]:
        for name in self._each:
            if name not in specs:
                known = ", ".join(map(repr, specs))
                raise InvalidArgumentError(f"dtypes must be given for fields of the source, {known}, got {name!r}")
        cast: dict[str, Spec] = {}
        for name, spec in specs.items():
            dtype = self._dtype_of(name)
            if dtype is not None and spec.dtype.kind not in _KINDS:
                raise InvalidArgumentError(
                    f"field {name!r} must hold numbers or bools to be cast, got {spec.dtype}; leave it out of dtypes"
                )
            cast[name] = spec if dtype is None else replace(spec, dtype=dtype)
        return cast

    def _dtype_of(self, name: str) -> np.dtype[Any] | None:
        return self._one if self._one is not None else self._each.get(name)

    def _cast(self, name: str, given: Any, spec: Spec | None, first_row: int) -> Any:
        dtype = self._dtype_of(name)
        if dtype is None or spec is None:
            return given
        rows = spec.check(name, given)
        ragged = rows if isinstance(rows, RaggedRows) else None
        values = rows.values if isinstance(rows, RaggedRows) else rows
        cast, lost = cast_values(values, dtype)
        if lost is not None:
            row = first_row + (
                lost[0] if ragged is None else int(np.searchsorted(ragged.offsets, lost[0], "right")) - 1
            )
            raise InvalidArgumentError(
                f"field {name!r} must hold values that {dtype} can, got {values[lost]} in row {row}; choose a larger "
                "dtype"
            )
        return cast if ragged is None else replace(ragged, values=cast)

    def _growth(self) -> int:
        """Return how many bytes a byte becomes, at most, in a field that is cast."""
        growth = 1
        for name, spec in (self.source.specs or {}).items():
            if (dtype := self._dtype_of(name)) is not None:
                growth = max(growth, -(-dtype.itemsize // spec.dtype.itemsize))
        return growth


def cast_values(values: NDArray[Any], dtype: np.dtype[Any]) -> tuple[NDArray[Any], tuple[int, ...] | None]:
    """Return values in another dtype, and the place of the first that does not survive, if any."""
    if np.can_cast(values.dtype, dtype, "safe"):
        return values.astype(dtype, copy=False), None
    cast = fresh_rows(values.shape, dtype)
    step = max(1, _CAST_NBYTES // max(1, values[:1].nbytes))
    with np.errstate(all="ignore"):  # what does not survive is told of
        for first in range(0, len(values), step):
            part = values[first : first + step]
            cast[first : first + step] = part
            lost = _lost(part, cast[first : first + step])
            if lost.any():
                place = np.unravel_index(int(np.argmax(lost)), lost.shape)
                return cast, (first + int(place[0]), *map(int, place[1:]))
    return cast, None


def _lost(values: NDArray[Any], cast: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which values did not survive a cast."""
    lost: NDArray[np.bool_]
    if cast.dtype.kind == "f":
        lost = np.isinf(cast) & np.isfinite(values)
        return lost
    lost = (cast.astype(values.dtype) != values) | ((cast < 0) != (values < 0))
    if values.dtype.kind == "f" and cast.dtype.kind in "iu":  # beyond the limits, what comes out is not defined
        limits = np.iinfo(cast.dtype)
        lost |= ~np.isfinite(values) | (values < float(limits.min)) | (values >= float(limits.max) + 1)
    return lost


def _number(dtype: Any) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except TypeError as exc:
        raise InvalidArgumentError(f"dtypes must be names of dtypes, such as 'float32', got {dtype!r}") from exc
    if found.kind not in _KINDS:
        raise InvalidArgumentError(f"dtypes must be of numbers or bools, got {found}; choose for example 'float32'")
    native: np.dtype[Any] = found.newbyteorder("=")
    return native
