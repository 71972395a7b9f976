"""Datasets and loaders of PyTorch, which is not imported to know them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from oocload.convert.fields import Spec
from oocload.convert.sources.rows import RowsSource
from oocload.convert.sources.stacking import array_of, named, text_rows
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning


class TorchSource(RowsSource):
    """A PyTorch dataset, row by row, or the batches of a ``DataLoader``, read by the thread that converts.

    Of a map-style dataset row i is ``dataset[i]``; a ``TensorDataset`` is sliced. Rows are what those of `RowsSource`
    are, tensors and images of Pillow among them. Batches of a loader are dicts, tuples or lists ``(x, y)``, or single
    tensors; they are not copied where they lie in memory as they are stored. Lists of text become ragged rows of bytes.

    Parameters
    ----------
    dataset
        A map-style or iterable dataset, or a loader of either.
    fields, ragged
        As of `RowsSource`, for datasets; a loader has made batches already.

    Raises
    ------
    InvalidArgumentError
        If it is neither.

    Examples
    --------
    >>> import oocload, torch
    >>> dataset = torch.utils.data.TensorDataset(torch.zeros(100, 8), torch.arange(100))
    >>> oocload.convert(oocload.sources.TorchSource(dataset), "train.h5").fields
    ('x', 'y')

    """

    def __init__(
        self,
        dataset: Any,
        *,
        fields: Mapping[str, Any] | None = None,
        ragged: Sequence[str] | bool = (),
    ) -> None:
        if not self.recognises_object(dataset):
            raise InvalidArgumentError(
                f"dataset must be a torch.utils.data Dataset, IterableDataset or DataLoader, "
                f"got {type(dataset).__name__}"
            )
        data = sys.modules["torch.utils.data"]
        self._is_loader = isinstance(dataset, data.DataLoader) and dataset.batch_sampler is not None
        self._is_map = not isinstance(dataset, data.DataLoader | data.IterableDataset)
        if self._is_loader and (fields is not None or ragged):
            raise InvalidArgumentError("fields and ragged must be left out of a DataLoader; pass its dataset instead")
        super().__init__(() if self._is_map else dataset, fields=fields, ragged=ragged)
        self.label = type(dataset).__name__
        self.can_jump = self._is_map
        self.owned = not self._is_loader
        if self._is_map and not hasattr(dataset, "__len__"):
            raise InvalidArgumentError(
                f"dataset must have a length, got {self.label}, which has no __len__; give it one, or make it an "
                "IterableDataset"
            )
        self._dataset = dataset
        self._slices = isinstance(dataset, data.TensorDataset) and fields is None and not ragged
        self._text: dict[str, Meaning] = {}

    @classmethod
    def recognises_object(cls, source: object) -> bool:
        """Whether an object is a dataset or a loader of PyTorch."""
        data = sys.modules.get("torch.utils.data")
        return data is not None and isinstance(source, data.Dataset | data.DataLoader)

    @classmethod
    def from_object(cls, source: Any) -> Self:
        """Return the source of it."""
        return cls(source)

    @property
    def record_specs(self) -> Mapping[str, Spec] | None:
        """Field → spec; of a loader only batches tell."""
        return None if self._is_loader else super().record_specs

    @property
    def record_meanings(self) -> Mapping[str, Meaning]:
        """Field → whether it is text."""
        return self._text if self._is_loader else super().record_meanings

    @property
    def n_records(self) -> int | None:
        """Length of a map-style dataset."""
        return len(self._dataset) if self._is_map else None

    def look(self) -> Any:
        """Return the first row."""
        if not self._is_map:
            return self._row(super().look())
        if not len(self._dataset):
            raise InvalidArgumentError("dataset must have at least one row, got none")
        return self._dataset[0]

    def numbered(self, start: int, stop: int | None) -> Iterator[tuple[int, Any]]:
        """Yield the number of each row, and the row."""
        if not self._is_map:
            return ((number, self._row(row)) for number, row in super().numbered(start, stop))
        n_rows = len(self._dataset)
        return ((i, self._dataset[i]) for i in range(start, n_rows if stop is None else min(stop, n_rows)))

    def pieces(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[dict[str, Any]]:
        """Yield rows of all fields: pieces of a dataset, or the batches of a loader."""
        if self._is_loader:
            return map(self._batch, self._dataset)
        if self._slices:
            return self._sliced(piece_nbytes, start, stop)
        return super().pieces(piece_nbytes, start, stop)

    def _sliced(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[dict[str, Any]]:
        row_nbytes = sum(spec.row_nbytes for spec in self._form.specs.values() if isinstance(spec, FieldSpec))
        step = max(1, piece_nbytes // max(1, row_nbytes))
        n_rows = len(self._dataset)
        stop = n_rows if stop is None else min(stop, n_rows)
        for at in range(start, stop, step):
            rows = named(self._dataset[at : min(stop, at + step)], f"rows from {at}")
            yield {name: array_of(tensor) for name, tensor in rows.items()}

    def _row(self, row: Any) -> Any:
        return _pair(row) if isinstance(self._dataset, sys.modules["torch.utils.data"].DataLoader) else row

    def _batch(self, batch: Any) -> dict[str, Any]:
        rows = named(_pair(batch), "a batch")
        return {name: self._column(name, values) for name, values in rows.items()}

    def _column(self, name: str, values: Any) -> Any:
        if isinstance(values, list | tuple) and values and all(isinstance(value, str | bytes) for value in values):
            if isinstance(values[0], str):
                self._text[name] = Meaning(content="text")
            return text_rows(values)
        is_list = isinstance(values, list | tuple)
        arrays = [array_of(value) for value in (values if is_list else [values])]
        if any(array.dtype.kind in "OSU" for array in arrays) or not (is_list or arrays[0].ndim):
            raise InvalidArgumentError(
                f"field {name!r} must have batches that are tensors, or lists of tensors or text, got "
                f"{type(values).__name__}; change the collate_fn, or pass the dataset"
            )
        return arrays if is_list else arrays[0]


def _pair(given: Any) -> Any:
    """Return what a loader gives: a list where a dataset gave a tuple."""
    return tuple(given) if isinstance(given, list) else given
