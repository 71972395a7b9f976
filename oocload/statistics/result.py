"""What is found out about a store's values: frozen facts, which print well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.errors import UnknownFieldError
from oocload.statistics.labels import Label, Run
from oocload.statistics.show import show


class RowLengths(NamedTuple):
    """Items of the rows of a ragged field: of the shortest, on average, and of the longest."""

    min: int
    mean: float
    max: int


@dataclass(frozen=True, slots=True, eq=False)
class FieldStatistics:
    """What the values of one field are like.

    Arrays have one item for each channel, and are read-only.

    Attributes
    ----------
    name, shape, dtype
        Of the field. Of ragged rows the dtype is that of their items.
    channel_axis
        Axis of a row that counts channels; None where one channel has all values.
    count
        int64: values that are not NaN.
    n_nan, n_infinite
        int64: values that are NaN, and that are infinite; the latter are in ``count`` too.
    mean, std
        float64: mean and standard deviation of the population (``ddof=0``), NaN left out. As NumPy's ``nanmean`` and
        ``nanstd`` have it, infinities make the mean infinite or NaN, and the deviation NaN. None for text.
    min, max
        The least and the greatest value in the field's dtype, NaN left out. None for text.
    histogram
        Of labels (one whole number, truth value or text of fixed length a row): label → how often it comes, sorted by
        label; None where there are over 65,536, and for all other fields.
    longest_run
        Of labels: the longest run of equal ones in the order of the store, the first of several.
    lengths
        Of ragged rows: how many items they have.

    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    channel_axis: int | None
    count: NDArray[np.int64]
    n_nan: NDArray[np.int64]
    n_infinite: NDArray[np.int64]
    mean: NDArray[np.float64] | None = None
    std: NDArray[np.float64] | None = None
    min: NDArray[Any] | None = None
    max: NDArray[Any] | None = None
    histogram: Mapping[Label, int] | None = None
    longest_run: Run | None = None
    lengths: RowLengths | None = None

    def __post_init__(self) -> None:
        for array in (self.count, self.n_nan, self.n_infinite, self.mean, self.std, self.min, self.max):
            if array is not None:
                array.setflags(write=False)

    @property
    def n_rows(self) -> int:
        """Rows of the field."""
        return self.shape[0]

    @property
    def n_channels(self) -> int:
        """Channels that the arrays have an item for."""
        return len(self.count)

    def __str__(self) -> str:
        return show([self])

    __repr__ = __str__


@dataclass(frozen=True, slots=True, eq=False)
class StoreStatistics(Mapping[str, FieldStatistics]):
    """What the values of a store are like: field → `FieldStatistics`. Print it.

    Attributes
    ----------
    address
        Of the store.
    fields
        Field → its statistics, sorted by name.
    skipped
        Field → why it has none.

    """

    address: str
    fields: Mapping[str, FieldStatistics]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> FieldStatistics:
        try:
            return self.fields[name]
        except KeyError:
            known = ", ".join(map(repr, self.fields)) or "none at all"
            raise UnknownFieldError(
                f"field {name!r} must be one of those looked at in {self.address}: {known}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __str__(self) -> str:
        skipped = [f"  {name}: left out, {why}" for name, why in self.skipped.items()]
        return "\n".join([f"statistics of {self.address}", show(list(self.fields.values())), *skipped])

    __repr__ = __str__
