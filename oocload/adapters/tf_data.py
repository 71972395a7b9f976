"""A ``tf.data.Dataset`` over a loader.

``Dataset.from_generator`` copies every batch and pays Python for each. Here Python is asked once a slab, for tensors
over the slab's own memory (DLPack), and TensorFlow cuts the batches without copying, or calling any function for one::

    scan: the next slab, from a py_function ─► rebatch: slices of batch_size rows

The state of the scan is a token: an iterator that is dropped lets go of it, which ends the iteration.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oocload.adapters import padding
from oocload.adapters.replay import Base
from oocload.adapters.tf_ragged import as_composite, spec_of
from oocload.chunks.scratch import ALIGNMENT, aligned_empty
from oocload.errors import InvalidArgumentError, StateError
from oocload.loader.batch import Batch, BatchForm
from oocload.optional import require

if TYPE_CHECKING:
    from oocload.adapters.handed import Handed
    from oocload.loader.source import BatchSource

tf: Any = require("tensorflow", "tensorflow", "to_tf()")

Arrays = dict[str, NDArray[Any]]

_TOKEN_LENGTH = 8


def to_tf(loader: BatchSource, pad_last: bool) -> Any:
    """Return a dataset of one epoch's batches; iterating it again is the next epoch.

    Raises
    ------
    InvalidArgumentError
        If a field has a dtype that TensorFlow lacks, or ``pad_last`` has no place for weights.

    """
    if not isinstance(pad_last, bool):
        raise InvalidArgumentError(f"pad_last must be True or False, got {pad_last!r}")
    form = padding.weighted(loader.form) if pad_last else loader.form
    if loader.transform is None:
        _check_dtypes(loader)
    if loader.transform is not None or not loader.uniform or loader.tight:
        return _Batches(loader, form, pad_last).dataset()
    return _Slabs(loader, form, pad_last).dataset()


def _check_dtypes(loader: BatchSource) -> None:
    for name, field in loader.fields.items():
        if not _has_tensors(field.dtype):
            raise InvalidArgumentError(
                f"field {name!r} must have a dtype that TensorFlow has, got {field.dtype}; choose other fields with x="
            )


def _has_tensors(dtype: np.dtype[Any]) -> bool:
    try:
        return dtype.kind in "biufc" and bool(tf.as_dtype(dtype))
    except TypeError:
        return False


def _with_options(loader: BatchSource, dataset: Any) -> Any:
    """Return a dataset that TensorFlow does not rewrite to hold more slabs than there are, nor shares out again.

    Made parallel, a map would take slabs ahead, which the loader does itself, and keep them from being filled again.
    Nor is a dataset shared out among the workers of ``tf.distribute`` where each has its own rows.
    """
    options = tf.data.Options()
    options.experimental_optimization.map_parallelization = False
    if loader.world_size > 1:
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


class _Iterations:
    """What the iterators of one dataset are given.

    Parameters
    ----------
    loader, form
        Gives the batches, and what is in them.
    pad_last
        Whether the last batch of an epoch is filled up.

    """

    def __init__(self, loader: BatchSource, form: BatchForm, pad_last: bool) -> None:
        self.loader, self.form, self.pad_last = loader, form, pad_last
        self.even = pad_last or loader.even
        self.n_batches = len(loader)
        self.whole = loader.stand().batch == 0  # else the first iteration is shorter than the others

    def check(self) -> None:
        """Check that an iteration that begins now has the batches that the cardinality says.

        Where it has fewer, TensorFlow would say so at the end; a checkpoint ends the epoch before it comes to that.

        Raises
        ------
        StateError
            If it has fewer, and there is no checkpoint.

        """
        if self.whole and self.loader.stand().batch and not self.loader.pass_lengths:
            raise StateError("state must be loaded before to_tf(), which fixes the number of batches; call it again")

    def _with_cardinality(self, dataset: Any) -> Any:
        """Return a dataset that knows how many batches an epoch has, and takes one ahead.

        TensorFlow would put a buffer at its end itself, and let it grow: with more batches than a slab has, it would
        keep slabs that are to be filled again.

        Where the first iteration is shorter, it is told that of the others: where it has none, Keras takes the length
        of the first epoch for that of all.
        """
        if self.whole:
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(self.n_batches))
        dataset = _with_options(self.loader, dataset.prefetch(1))
        if not self.whole:
            dataset.cardinality = lambda: tf.constant(self.n_batches, tf.int64)
        return dataset


class _Slabs(_Iterations):
    """Slabs on their way to TensorFlow."""

    def __init__(self, loader: BatchSource, form: BatchForm, pad_last: bool) -> None:
        super().__init__(loader, form, pad_last)
        fields = {name: padding.Rows(f.dtype, f.row_shape) for name, f in loader.fields.items()}
        self.rows = {name: fields.get(name, padding.WEIGHTS_ROWS) for name in form.names}
        self._dtypes = [tf.as_dtype(rows.dtype.newbyteorder("=")) for rows in self.rows.values()]
        self._streams: dict[int, Generator[Arrays]] = {}
        self._lock = threading.Lock()
        self._n_begun = 0
        self._positions: dict[int, Base] = {}  # of iterations: the batch noted next

    def dataset(self) -> Any:
        """Return the dataset, whose batches are views of slabs where they lie aligned."""
        token = tf.zeros(_TOKEN_LENGTH, tf.int64)
        slabs = tf.data.Dataset.counter().scan(token, self._step).take_while(lambda there, _: there)
        batches = slabs.map(lambda _, slab: slab).rebatch(self.loader.batch_size, drop_remainder=self.even)
        return self._with_cardinality(batches)

    def _step(self, token: Any, index: Any) -> tuple[Any, Any]:
        """Return an iteration's token, whether there is another slab, and that slab."""
        values = tf.py_function(self._next, [token, index], [tf.int64, tf.bool, *self._dtypes])
        token, there, *values = values
        token.set_shape(_TOKEN_LENGTH)
        there.set_shape(())
        parts = {}
        for (name, rows), tensor in zip(self.rows.items(), values, strict=True):
            tensor.set_shape((None, *rows.row_shape))
            parts[name] = tensor
        return token, (there, self.form.build(parts.__getitem__))

    # In Python, called by TensorFlow

    def _next(self, token: Any, index: Any) -> list[Any]:
        """Return an iteration's token, whether there is another slab, and its arrays."""
        number = int(token[0])
        if int(index) == 0:
            with self._lock:
                self._n_begun += 1
                number = self._n_begun
            self._positions[number] = Base(*self.loader.stand()[:2])
            self._streams[number] = self._stream()
            token = self._token(number)
        began = time.perf_counter()
        arrays = next(self._streams[number], None)
        if arrays is None:
            return [
                token,
                False,
                *(_as_tensor(np.empty((0, *rows.row_shape), rows.dtype)) for rows in self.rows.values()),
            ]
        if self.loader.handed is not None:
            self._note(self.loader.handed, number, len(next(iter(arrays.values()))), began)
        return [token, True, *(_as_tensor(arrays[name]) for name in self.rows)]

    def _note(self, handed: Handed, number: int, n_rows: int, began: float) -> None:
        ended, position = time.perf_counter(), self._positions[number]
        for _ in range(-(-n_rows // self.loader.batch_size)):
            handed.note(position, began, ended)
            position = position.plus(1, self.n_batches)
        self._positions[number] = position

    def _token(self, number: int) -> Any:
        array = aligned_empty(_TOKEN_LENGTH * 8).view(np.int64)
        array[:] = number
        root = array
        while isinstance(root.base, np.ndarray):  # what views keep alive is the root alone
            root = root.base
        weakref.finalize(root, _drop, self._streams, self._positions, number).atexit = False
        return _as_tensor(array)

    def _stream(self) -> Generator[Arrays]:
        """Yield the slabs of one iteration."""
        self.check()
        with closing(self.loader.slabs()) as slabs:
            yield from padding.whole(slabs, self.form, self.loader.batch_size) if self.pad_last else slabs


class _Batches(_Iterations):
    """Batches on their way to TensorFlow one by one, which copies them.

    They are arrays that a transform made; or of a mix, in which short ones lie between others; or there is one slab,
    that TensorFlow would hold while the loader needs it.
    """

    def dataset(self) -> Any:
        """Return the dataset."""
        first, wider = (self.loader.batch_at(*self.loader.stand()[:2], wider=wider) for wider in (0, 1))
        n_rows = self.loader.batch_size if self.even else None
        if self.pad_last:
            first, wider = (padding.filled(batch, self.loader.batch_size) for batch in (first, wider))
        spec = spec_of(first, wider, n_rows)
        dataset = tf.data.Dataset.from_generator(self._stream, output_signature=spec)
        return self._with_cardinality(dataset)

    def _stream(self) -> Generator[Batch]:
        self.check()
        position, began = Base(*self.loader.stand()[:2]), time.perf_counter()
        for batch in self.loader:
            given = padding.filled(batch, self.loader.batch_size) if self.pad_last else batch
            if self.loader.handed is not None:
                self.loader.handed.note(position, began, time.perf_counter())
            yield as_composite(given)
            del batch, given
            position, began = position.plus(1, self.n_batches), time.perf_counter()


def _drop(streams: dict[int, Generator[Arrays]], positions: dict[int, Base], number: int) -> None:
    """End an iteration whose iterator is gone."""
    positions.pop(number, None)
    stream = streams.pop(number, None)
    if stream is not None:
        stream.close()


def _as_tensor(array: NDArray[Any]) -> Any:
    """Return a tensor over the same memory where that is aligned."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.ctypes.data % ALIGNMENT:  # a resumed epoch's first slab may begin anywhere; TensorFlow wants aligned ones
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
