"""A ``tf.data.Dataset`` over a loader.

``Dataset.from_generator`` copies every batch and pays Python for each. Here a generator yields only numbers, one per
slab; a ``py_function`` turns the number into tensors over the slab's own memory (DLPack), and TensorFlow cuts the
batches itself::

    number of a slab ─► py_function: the slab as tensors, not copied ─► flat_map: slices of batch_size rows
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import ALIGNMENT
from oocload.errors import InvalidArgumentError, StateError
from oocload.optional import require

if TYPE_CHECKING:
    from oocload.loader.source import BatchSource

tf = require("tensorflow", "tensorflow", "to_tf()")


def to_tf(loader: BatchSource) -> Any:
    """Return a dataset of one epoch's batches; iterating it again is the next epoch.

    Raises
    ------
    InvalidArgumentError
        If a field has a dtype that TensorFlow lacks.

    """
    for name, field in loader.fields.items():
        if field.dtype.kind not in "biufc":
            raise InvalidArgumentError(
                f"field {name!r} must have a dtype that TensorFlow has, got {field.dtype}; choose other fields with x="
            )
    exact = loader.begin_state()["batch"] == 0
    dataset = _from_slabs(loader, exact) if loader.transform is None else _from_batches(loader)
    if exact:
        return dataset.apply(tf.data.experimental.assert_cardinality(len(loader)))
    return dataset  # resumed: its first epoch is shorter than the others


def _from_batches(loader: BatchSource) -> Any:
    """Return the dataset batch by batch: a transform makes arrays of its own."""
    first = loader[0]
    spec = tf.nest.map_structure(lambda a: tf.TensorSpec((None, *np.shape(a)[1:]), np.asarray(a).dtype), first)
    return tf.data.Dataset.from_generator(lambda: iter(loader), output_signature=spec)


def _from_slabs(loader: BatchSource, exact: bool) -> Any:
    names, form, batch_size = loader.form.names, loader.form, loader.batch_size
    slabs = _Slabs(loader, exact)
    fields = [loader.fields[name] for name in names]
    even = loader.even

    def fetch(number: Any) -> Any:
        tensors = tf.py_function(slabs.tensors, [number], [tf.as_dtype(f.dtype) for f in fields])
        return tuple(tf.ensure_shape(t, (None, *f.row_shape)) for t, f in zip(tensors, fields, strict=True))

    def cut(*tensors: Any) -> Any:
        n_rows = tf.shape(tensors[0], out_type=tf.int64)[0]

        def batch(number: Any) -> Any:
            start = number * batch_size
            parts = {name: t[start : start + batch_size] for name, t in zip(names, tensors, strict=True)}
            if even:
                parts = {n: tf.ensure_shape(t, (batch_size, *t.shape[1:])) for n, t in parts.items()}
            return form.build(parts.__getitem__)

        return tf.data.Dataset.range(-(-n_rows // batch_size)).map(batch)

    numbers = tf.data.Dataset.from_generator(slabs.numbers, output_signature=tf.TensorSpec((), tf.int64))
    return numbers.map(fetch).flat_map(cut)


class _Slabs:
    """Slabs on their way to TensorFlow, by number. TensorFlow closes the generator when its iterator goes."""

    def __init__(self, loader: BatchSource, exact: bool) -> None:
        self._loader = loader
        self._exact = exact
        self._names = loader.form.names
        self._waiting: dict[int, list[NDArray[Any]]] = {}
        self._counter = itertools.count()
        self._lock = threading.Lock()

    def numbers(self) -> Iterator[int]:
        """Yield the number of each slab of an epoch, when it is decoded."""
        if self._exact and self._loader.begin_state()["batch"] != 0:
            raise StateError("state must be loaded before to_tf(), which fixes the number of batches; call it again")
        number = -1
        try:
            for arrays in self._loader.slabs():
                with self._lock:
                    number = next(self._counter)
                    self._waiting[number] = [arrays[name] for name in self._names]
                del arrays
                yield number
        finally:
            self._waiting.pop(number, None)

    def tensors(self, number: Any) -> list[Any]:
        """Return a slab's arrays as tensors over the same memory."""
        return [_as_tensor(array) for array in self._waiting.pop(int(number))]


def _as_tensor(array: NDArray[Any]) -> Any:
    if array.ctypes.data % ALIGNMENT:  # a resumed epoch's first slab may begin anywhere; TensorFlow wants aligned ones
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
