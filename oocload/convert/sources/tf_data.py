"""Datasets of ``tf.data``; TensorFlow is not imported to know them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.convert.fields import Spec, parse_fields
from oocload.convert.ragged import RaggedRows, RaggedSpec
from oocload.convert.sources.content import content_of
from oocload.convert.sources.identity import Identity
from oocload.convert.sources.records import Records, RecordSource
from oocload.convert.sources.stacking import PLACES, TEXT, text_rows
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning

_LOOKED_AT = 16  # rows that tell how long ragged ones are
_MOST_ROWS = 2**14  # of a batch: enough that Python does not weigh
_Batch = dict[str, Any]


class TfDatasetSource(RecordSource[_Batch]):
    """A ``tf.data.Dataset`` of rows or batches, iterated by the thread that converts.

    Its ``element_spec`` tells the fields: those of dicts by name, nested ones as ``"a/b"``; a tuple is ``(x, y)`` or
    ``(x, y, sample_weight)``, a lone tensor ``x``. Ragged tensors, and tensors whose first axis is unknown in a row,
    become ragged rows; text becomes ragged rows of bytes, known as text where all of it is UTF-8.

    Parameters
    ----------
    dataset
        The dataset. It must end.
    batched
        Whether its elements are batches. None takes them for rows where one of their tensors is a scalar, or the axes
        0 differ; for batches where all axes 0 are of unknown length; what else could be either is an error.

    Raises
    ------
    InvalidArgumentError
        If it is no dataset, has no end, could be either, or a tensor is sparse or has axes of unknown length but for
        the first of a row.

    Examples
    --------
    >>> import oocload, tensorflow as tf
    >>> dataset = tf.data.Dataset.from_tensor_slices((tf.zeros((100, 8)), tf.range(100)))
    >>> oocload.convert(oocload.sources.TfDatasetSource(dataset), "train.h5").fields
    ('x', 'y')

    """

    by_caller = True
    identity_is_proof = False

    def __init__(self, dataset: Any, *, batched: bool | None = None) -> None:
        if not self.recognises_object(dataset):
            raise InvalidArgumentError(f"dataset must be a tf.data.Dataset, got {type(dataset).__name__}")
        if (n_elements := int(dataset.cardinality())) == _tf().data.INFINITE_CARDINALITY:
            raise InvalidArgumentError("dataset must end, got one that repeats for ever; call .take(n)")
        leaves = dict(_leaves(dataset.element_spec))
        self._batched = _are_batches(leaves) if batched is None else batched
        self.label = type(dataset).__name__
        self._dataset = dataset
        self._n_rows = None if self._batched or n_elements < 0 else n_elements
        self._specs = parse_fields({n: _spec_of(n, leaf, self._batched) for n, leaf in leaves.items()})
        self._contents: dict[str, str | None] = {n: None for n, spec in self._specs.items() if spec == TEXT}

    @classmethod
    def recognises_object(cls, source: object) -> bool:
        """Whether an object is a dataset of ``tf.data``."""
        tf = sys.modules.get("tensorflow")
        return tf is not None and isinstance(source, tf.data.Dataset)

    @classmethod
    def from_object(cls, source: Any) -> Self:
        """Return the source of it."""
        return cls(source)

    @property
    def record_specs(self) -> Mapping[str, Spec]:
        """Field → spec."""
        return self._specs

    @property
    def record_meanings(self) -> Mapping[str, Meaning]:
        """Field → whether all that was read is text."""
        return {name: Meaning(content="text") for name, content in self._contents.items() if content == "text"}

    @property
    def n_records(self) -> int | None:
        """How many rows there are, where the dataset knows."""
        return self._n_rows

    def record_identity(self) -> Identity | None:
        """Only the rows can tell."""
        return None

    def pieces(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[_Batch]:
        """Yield batches: those of the dataset, or as many rows as come to a piece."""
        del start, stop
        batches = self._dataset
        if not self._batched:
            n_rows = max(1, min(_MOST_ROWS, piece_nbytes // 2 // max(1, self._row_nbytes)))
            batches = batches.ragged_batch(n_rows)
        for batch in batches:
            yield dict(_leaves(batch))

    def read(self, piece: _Batch, scratch: Scratch) -> Records:
        """Return the arrays of a batch."""
        del scratch
        rows = {name: _rows_of(tensor) for name, tensor in piece.items()}
        for name, content in self._contents.items():
            text = rows[name]
            if content in (None, "text") and isinstance(text, RaggedRows) and len(text.values):
                self._contents[name] = content_of(text)
        return Records(rows)

    @cached_property
    def _row_nbytes(self) -> int:
        """Bytes of a row; of ragged ones, of some of the first on average."""
        nbytes = sum(spec.row_nbytes for spec in self._specs.values() if isinstance(spec, FieldSpec))
        if any(isinstance(spec, RaggedSpec) for spec in self._specs.values()):
            for batch in self._dataset.ragged_batch(_LOOKED_AT).take(1):
                found = [_rows_of(tensor) for _, tensor in _leaves(batch)]
                ragged = [rows for rows in found if isinstance(rows, RaggedRows)]
                nbytes += sum(rows.values.nbytes // len(rows) + rows.offsets.itemsize for rows in ragged)
        return nbytes


def _tf() -> Any:
    return sys.modules["tensorflow"]


def _leaves(element: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the tensors of an element, or their specs, by field."""
    if isinstance(element, Mapping):
        for key, value in element.items():
            yield from _leaves(value, f"{name}/{key}" if name else str(key))
    elif hasattr(element, "_fields"):
        yield from _leaves(dict(zip(element._fields, element, strict=True)), name)
    elif not isinstance(element, tuple | list):
        yield name or "x", element
    elif name or not 0 < len(element) <= len(PLACES):
        raise InvalidArgumentError(
            f"dataset must have elements that are dicts, tuples (x, y) or (x, y, sample_weight), or tensors, got a "
            f"tuple of {len(element)}{f' as {name!r}' if name else ''}; map it to a dict"
        )
    else:
        for place, value in zip(PLACES, element, strict=False):
            yield from _leaves(value, "" if isinstance(value, Mapping) else place)


def _are_batches(leaves: Mapping[str, Any]) -> bool:
    shapes = [leaf.shape for leaf in leaves.values()]
    if any(shape.rank == 0 for shape in shapes):
        return False
    firsts = {shape[0] if shape.rank else "unknown" for shape in shapes}
    if firsts == {None}:
        return True
    if len(firsts) > 1 and "unknown" not in firsts:
        return False
    shown = ", ".join(f"{name!r} has {leaf.shape}" for name, leaf in leaves.items())
    raise InvalidArgumentError(
        f"dataset must have elements that are surely rows or surely batches: {shown}; say which with "
        "oocload.sources.TfDatasetSource(dataset, batched=...)"
    )


def _spec_of(name: str, leaf: Any, batched: bool) -> Spec:
    """Return the spec of rows of a tensor."""
    tf = _tf()
    if not isinstance(leaf, tf.TensorSpec | tf.RaggedTensorSpec):
        raise InvalidArgumentError(
            f"field {name!r} must be a dense or ragged tensor, got {type(leaf).__name__}; "
            "map it with tf.sparse.to_dense"
        )
    rank = leaf.shape.rank
    if rank is None or (batched and not rank):
        raise InvalidArgumentError(f"field {name!r} must have axes of known number, got {leaf.shape}; set its shape")
    shape = tuple(leaf.shape)[1:] if batched else tuple(leaf.shape)
    if leaf.dtype == tf.string:
        if shape:
            raise InvalidArgumentError(f"field {name!r} must have one text a row, got rows of shape {shape}; join them")
        return TEXT
    if None in shape[1:]:
        raise InvalidArgumentError(
            f"field {name!r} must have rows that differ in their first axis only, got shape {shape}; pad the others"
        )
    dtype = np.dtype(leaf.dtype.as_numpy_dtype)
    return RaggedSpec(shape[1:], dtype) if None in shape else FieldSpec(shape, dtype)


def _rows_of(tensor: Any) -> NDArray[Any] | RaggedRows:
    tf = _tf()
    if isinstance(tensor, tf.RaggedTensor):
        return RaggedRows(tensor.values.numpy(), tensor.row_splits.numpy().astype(np.int64))
    if tensor.dtype == tf.string:
        return text_rows(tensor.numpy())
    rows: NDArray[Any] = tensor.numpy()
    return rows
