"""A dataset of Hugging Face as a table that is read part by part, its columns as the simple types of Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from oocload.convert.sources.arrow_files import Part
from oocload.convert.sources.arrow_values import one_array, pyarrow
from oocload.convert.sources.identity import Facts
from oocload.errors import InvalidArgumentError

ARRAYS = ("Array2D", "Array3D", "Array4D", "Array5D")
_PART_NBYTES = 2**22


def kind_of(feature: Any) -> str:
    """Return the name of a feature's class."""
    return type(feature).__name__


def image_bytes(value: Mapping[str, Any] | None, where: str) -> bytes:
    """Return the encoded bytes of an image that is not decoded: those in the table, or those of its file.

    Raises
    ------
    InvalidArgumentError
        If there are none.

    """
    value = value or {}
    if value.get("bytes") is not None:
        return bytes(value["bytes"])
    if not value.get("path"):
        raise InvalidArgumentError(f"{where} must have an image in every row, got none; filter them out first")
    try:
        with open(value["path"], "rb") as file:
            return file.read()
    except OSError as exc:
        raise InvalidArgumentError(f"{where} must have images that are there, got {value['path']!r}: {exc}") from exc


class HfTable:
    """One dataset; its parts are some rows each."""

    part_name = "part"
    pages_nbytes = 0

    def __init__(self, dataset: Any, label: str) -> None:
        self.label = label
        has_groups = any(isinstance(feature, dict) for feature in dataset.features.values())
        self._dataset = (dataset.flatten() if has_groups else dataset).with_format("arrow")
        self.features: Mapping[str, Any] = self._dataset.features

    @cached_property
    def schema(self) -> Any:
        """The Arrow schema of what is read."""
        return self._simple(self._dataset.features.arrow_schema.empty_table()).schema

    @cached_property
    def parts(self) -> Sequence[Part]:
        """So many rows at a time."""
        n_rows, table = len(self._dataset), self._dataset.data
        row_nbytes = max(1, table.nbytes // max(1, table.num_rows))
        self._step = max(1, _PART_NBYTES // row_nbytes)
        counts = [min(self._step, n_rows - start) for start in range(0, n_rows, self._step)]
        return [Part(n, n * row_nbytes) for n in counts]

    @property
    def dictionaries(self) -> Mapping[str, tuple[str, ...]]:
        """Column → names of its classes."""
        return {name: tuple(f.names) for name, f in self.features.items() if kind_of(f) == "ClassLabel"}

    def facts(self) -> Facts | None:
        """Nobody knows."""
        return None

    def read(self, part: int, columns: Sequence[str], n_rows: int) -> Iterator[Any]:
        """Yield some rows, in slices."""
        first = part * self._step
        chosen = self._dataset.select_columns(list(columns))
        for start in range(first, first + self.parts[part].n_rows, max(1, n_rows)):
            stop = min(start + max(1, n_rows), first + self.parts[part].n_rows)
            yield from self._simple(chosen[start:stop]).combine_chunks().to_batches()

    def _simple(self, table: Any) -> Any:
        columns = {name: self._column(name, table.column(name)) for name in table.column_names}
        return pyarrow().Table.from_arrays(list(columns.values()), names=list(columns))

    def _column(self, name: str, values: Any) -> Any:
        feature = self.features[name]
        kind = kind_of(feature)
        where = f"column {name!r} of {self.label}"
        if kind == "ClassLabel":
            return _words(one_array(values), feature.names, where)
        if kind == "Image":
            each = [image_bytes(value, where) for value in values.to_pylist()]
            return pyarrow().array(each, pyarrow().large_binary())
        if kind in ARRAYS:
            return _rows_of_shape(one_array(values), feature.shape, where)
        return values


def _words(codes: Any, names: Sequence[str], where: str) -> Any:
    """Return codes as an array of a dictionary; negative ones are missing."""
    arrow = pyarrow()
    numbers = codes.fill_null(-1).to_numpy(zero_copy_only=False)
    if len(numbers) and numbers.max() >= len(names):
        raise InvalidArgumentError(
            f"{where} must have labels below {len(names)}, one for each name, got {numbers.max()}"
        )
    indices = arrow.array(numbers.astype(np.int32), mask=numbers < 0)
    return arrow.DictionaryArray.from_arrays(indices, arrow.array(names, arrow.string()))


def _rows_of_shape(values: Any, shape: Sequence[int | None], where: str) -> Any:
    """Return arrays, which are stored as lists of lists, as lists of one length; the first may have any."""
    arrow = pyarrow()
    if values.null_count:
        raise InvalidArgumentError(f"{where} must have an array in every row, got none; filter them out first")
    lists = getattr(values, "storage", values)
    counts = np.diff(lists.offsets.to_numpy())
    items = lists
    for _ in shape:
        items = items.flatten()
    rest = tuple(int(n or 0) for n in shape[1:])
    if shape[0] is not None:
        rest = (int(shape[0]), *rest)
    if len(items) != (int(counts.sum()) * prod(rest) if shape[0] is None else len(values) * prod(rest)):
        raise InvalidArgumentError(f"{where} must have arrays of shape {tuple(shape)}, got others")
    for size in reversed(rest):
        items = arrow.FixedSizeListArray.from_arrays(items, size)
    if shape[0] is not None:
        return items
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return arrow.LargeListArray.from_arrays(arrow.array(offsets), items)
