"""Datasets of Hugging Face; the package is not imported to know them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from oocload.convert.fields import Spec
from oocload.convert.ragged import RaggedSpec
from oocload.convert.sources.arrow import ArrowSource
from oocload.convert.sources.hf_table import ARRAYS, HfTable, image_bytes, kind_of
from oocload.convert.sources.rows import RowsSource
from oocload.convert.sources.table_choice import Features, Labels, TableChoice, Texts
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning

_SPLIT = "split"


class HuggingFaceSource(ArrowSource):
    """A ``datasets.Dataset``, or a ``DatasetDict``, whose splits follow each other, named by the field ``split``.

    Columns are as those of `ArrowSource`. Class labels become codes with their names as vocabulary, -1 where there is
    none; arrays of two and more dimensions rows of that shape; images stay encoded, ragged rows of bytes known as
    images. Columns of groups have names such as ``group.column``. Of an ``IterableDataset`` see `HuggingFaceStream`.

    Parameters
    ----------
    dataset
        The dataset or datasets.
    columns, features, label, labels, text, dtypes
        As of `CsvSource`.

    Raises
    ------
    InvalidArgumentError
        If it is neither, or an option breaks its rule.

    Examples
    --------
    >>> import datasets, oocload
    >>> dataset = datasets.Dataset.from_dict({"text": ["good", "bad"], "label": [1, 0]})
    >>> source = oocload.sources.HuggingFaceSource(dataset, label="label")
    >>> oocload.convert(source, "reviews.h5").fields
    ('text', 'y')

    """

    def __init__(
        self,
        dataset: Any,
        *,
        columns: Sequence[str] | None = None,
        features: Features = None,
        label: str | None = None,
        labels: Labels = None,
        text: Texts = None,
        dtypes: Mapping[str, DTypeLike] | None = None,
    ) -> None:
        if not self.recognises_object(dataset):
            raise InvalidArgumentError(
                f"dataset must be a datasets.Dataset or DatasetDict, got {type(dataset).__name__}"
            )
        self._choice = TableChoice.checked(columns, features, label, labels, text, dtypes)
        if isinstance(dataset, Mapping):
            if not dataset or any(_SPLIT in each.features for each in dataset.values()):
                raise InvalidArgumentError(
                    f"dataset must have splits, and no column of the name {_SPLIT!r}, got {', '.join(dataset)}"
                )
            tables = {name: HfTable(each, f"split {name!r}") for name, each in dataset.items()}
            self._partitions: list[dict[str, str]] = [{_SPLIT: name} for name in tables]
        else:
            tables = {"": HfTable(dataset, "dataset")}
            self._partitions = [{}]
        self._files = list(tables.values())
        self.label = f"Hugging Face {type(dataset).__name__}"
        self.identity_is_proof = False
        self.least_piece_reason = "raise memory="
        first = next(iter(tables.values()))
        self._images = {name for name, feature in first.features.items() if kind_of(feature) == "Image"}

    @classmethod
    def recognises_object(cls, source: object) -> bool:
        """Whether an object is a dataset, or a dict of them by split."""
        datasets = sys.modules.get("datasets")
        kinds = [getattr(datasets, name, None) for name in ("Dataset", "DatasetDict")]
        return datasets is not None and isinstance(source, tuple(kind for kind in kinds if kind is not None))

    @cached_property
    def record_meanings(self) -> Mapping[str, Meaning]:
        """Field → text, images or vocabulary."""
        images = dict.fromkeys(self._images & self.record_specs.keys(), Meaning(content="image"))
        return {**super().record_meanings, **images}


class HuggingFaceStream(RowsSource):
    """A ``datasets.IterableDataset``, row by row, by the thread that converts.

    Rows are as those of `RowsSource`; class labels and images as of `HuggingFaceSource`. Lists that have no length in
    the dataset's features become ragged rows.

    Parameters
    ----------
    dataset
        The dataset.
    fields, ragged
        As of `RowsSource`; what the features do not tell, if it has none.

    Raises
    ------
    InvalidArgumentError
        If it is none.

    Examples
    --------
    >>> import datasets, oocload
    >>> dataset = datasets.Dataset.from_dict({"text": ["good", "bad"], "label": [1, 0]}).to_iterable_dataset()
    >>> oocload.convert(oocload.sources.HuggingFaceStream(dataset), "stream.h5").fields
    ('text', 'label')

    """

    def __init__(
        self, dataset: Any, *, fields: Mapping[str, Any] | None = None, ragged: Sequence[str] | bool = ()
    ) -> None:
        if not self.recognises_object(dataset):
            raise InvalidArgumentError(f"dataset must be a datasets.IterableDataset, got {type(dataset).__name__}")
        known = dataset.features or {}
        specs = {name: spec for name, f in known.items() if (spec := _spec_of(f)) is not None}
        for name, feature in known.items():
            if kind_of(feature) == "Image":
                dataset = dataset.cast_column(name, type(feature)(decode=False))
        self._known = known
        super().__init__(dataset, fields={**specs, **(fields or {})} or None, ragged=ragged)
        self.label = "Hugging Face IterableDataset"

    @classmethod
    def recognises_object(cls, source: object) -> bool:
        """Whether an object is a dataset that is iterated."""
        kind = getattr(sys.modules.get("datasets"), "IterableDataset", None)
        return kind is not None and isinstance(source, kind)

    @classmethod
    def from_object(cls, source: Any) -> Self:
        """Return the source of it."""
        return cls(source)

    @property
    def record_meanings(self) -> Mapping[str, Meaning]:
        """Field → text, images or vocabulary."""
        found = dict(super().record_meanings)
        for name, feature in self._known.items():
            if kind_of(feature) == "Image":
                found[name] = Meaning(content="image")
            if kind_of(feature) == "ClassLabel":
                found[name] = Meaning(vocabulary=tuple(feature.names))
        return found

    def look(self) -> Any:
        """Return the first row."""
        return self._row(super().look(), 0)

    def numbered(self, start: int, stop: int | None) -> Iterator[tuple[int, Any]]:
        """Yield the number of each row, and the row."""
        return ((number, self._row(row, number)) for number, row in super().numbered(start, stop))

    def _row(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        found = dict(row)
        for name, feature in self._known.items():
            if kind_of(feature) == "Image":
                found[name] = image_bytes(found[name], f"column {name!r}, row {number},")
        return found


def _spec_of(feature: Any) -> Spec | None:
    """Return the spec of numbers, of lists of them, and of arrays; None of all else."""
    kind = kind_of(feature)
    if kind == "ClassLabel":
        return FieldSpec((), np.dtype(np.int64))
    inner = feature.feature if kind in ("List", "LargeList") else feature
    try:
        dtype = np.dtype(getattr(inner, "dtype", ""))
    except TypeError:
        return None
    if dtype.kind not in "biuf":
        return None
    if kind == "Value":
        return FieldSpec((), dtype)
    if kind in ("List", "LargeList") and kind_of(inner) == "Value":
        length = int(getattr(feature, "length", -1))
        return RaggedSpec((), dtype) if length < 0 else FieldSpec((length,), dtype)
    if kind in ARRAYS:
        shape = tuple(feature.shape)
        return RaggedSpec(shape[1:], dtype) if None in shape else FieldSpec(shape, dtype)
    return None
