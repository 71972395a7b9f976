"""Readers to compare: each delivers the rows of one stored array in batches, and says which rows they are.

What is checked is what is timed: `run` goes through the same batches as `check` does.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import oocload

try:
    import tensorstore
except ImportError:
    tensorstore = None

HAS_TENSORSTORE = tensorstore is not None
HAS_ZARRS = find_spec("zarrs") is not None


class Contender(ABC):
    """Reads an array once, batch by batch.

    Attributes
    ----------
    complete
        Whether it delivers every row, each once; one that is slow may stop after some seconds.

    """

    complete = True

    @abstractmethod
    def batches(self) -> Iterator[np.ndarray]:
        """Yield the batches of one pass; each is valid until the next."""

    @abstractmethod
    def rows(self) -> Iterator[Any]:
        """Yield what indexes the array to give each of these batches."""

    def run(self) -> int:
        """Go through all batches; return how many rows they had."""
        n = 0
        for batch in self.batches():
            n += len(batch)
        return n

    def close(self) -> None:  # noqa: B027, since most hold nothing
        """Let go of files."""


def slices(n_rows: int, step: int) -> Iterator[slice]:
    for start in range(0, n_rows, step):
        yield slice(start, min(n_rows, start + step))


class InOrder(Contender):
    """Reads slices of ``step`` rows, one after the other."""

    def __init__(self, n_rows: int, step: int) -> None:
        self._n_rows, self._step = n_rows, step

    def rows(self) -> Iterator[slice]:
        return slices(self._n_rows, self._step)


class ArrayReader(InOrder):
    """Slices a dataset of h5py or an array of zarr."""

    def __init__(self, array: Any, step: int) -> None:
        super().__init__(array.shape[0], step)
        self._array = array

    def batches(self) -> Iterator[np.ndarray]:
        for rows in self.rows():
            yield self._array[rows]


class NpyReader(InOrder):
    """Reads a ``.npy`` file by ``np.fromfile``."""

    def __init__(self, path: Path, step: int) -> None:
        mapped = np.load(path, mmap_mode="r")
        super().__init__(len(mapped), step)
        self._path, self._dtype, self._row_shape, self._offset = path, mapped.dtype, mapped.shape[1:], mapped.offset
        self._row_nbytes = mapped[0].nbytes

    def batches(self) -> Iterator[np.ndarray]:
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._offset)
            for rows in self.rows():
                n_rows = rows.stop - rows.start
                items = np.fromfile(file, self._dtype, n_rows * self._row_nbytes // self._dtype.itemsize)
                yield items.reshape(n_rows, *self._row_shape)


class ZarrsReader(InOrder):
    """Slices an array of zarr whose codecs are those of zarrs."""

    def __init__(self, path: Path, step: int) -> None:
        with _zarrs_codecs():  # an array keeps the pipeline with which it was opened
            self._array = zarr.open_group(path, mode="r")["x"]
        super().__init__(self._array.shape[0], step)

    def batches(self) -> Iterator[np.ndarray]:
        with _zarrs_codecs():
            for rows in self.rows():
                yield self._array[rows]


def _zarrs_codecs() -> AbstractContextManager[Any]:
    """Set zarr's pipeline for a while; strict, so that zarrs never hands the work back to zarr unnoticed."""
    return zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True})


class TensorStoreReader(InOrder):
    """Slices an array by TensorStore in its default configuration, some reads in flight at a time."""

    def __init__(self, path: Path, zarr_format: int, step: int, in_flight: int) -> None:
        driver = {2: "zarr", 3: "zarr3"}[zarr_format]
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(path / "x")}}
        self._array = tensorstore.open(spec, open=True, read=True).result()
        self._in_flight = in_flight
        super().__init__(self._array.shape[0], step)

    def batches(self) -> Iterator[np.ndarray]:
        reads: deque[Any] = deque()
        for rows in self.rows():
            reads.append(self._array[rows].read())
            if len(reads) == self._in_flight:
                yield reads.popleft().result()
        while reads:
            yield reads.popleft().result()


class Gather(Contender):
    """Gathers each batch by one index of random rows, of an array in memory or mapped: a perfect shuffle.

    Parameters
    ----------
    open_rows
        Called at the start of each pass.
    gather
        How: ``array[rows]`` or ``np.take``, which is the faster one for short rows.
    seconds
        The pass ends after so much time.

    """

    def __init__(
        self,
        open_rows: Callable[[], np.ndarray],
        batch_rows: int,
        gather: Callable[[np.ndarray, np.ndarray], np.ndarray],
        seconds: float = inf,
    ) -> None:
        self._open_rows, self._batch_rows, self._gather, self._seconds = open_rows, batch_rows, gather, seconds
        self._n_rows = len(open_rows())
        self.complete = seconds == inf

    def rows(self) -> Iterator[np.ndarray]:
        order = np.random.default_rng(0).permutation(self._n_rows)
        return (order[s] for s in slices(self._n_rows, self._batch_rows))

    def batches(self) -> Iterator[np.ndarray]:
        began, array = time.perf_counter(), self._open_rows()
        for rows in self.rows():
            yield self._gather(array, rows)
            if time.perf_counter() - began > self._seconds:
                return


class RandomRows(Contender):
    """The naive loop: one random row at a time, for some seconds."""

    complete = False

    def __init__(self, array: Any, seconds: float) -> None:
        self._array, self._seconds = array, seconds

    def rows(self) -> Iterator[slice]:
        order = np.random.default_rng(0).permutation(self._array.shape[0])
        return (slice(int(row), int(row) + 1) for row in order)

    def batches(self) -> Iterator[np.ndarray]:
        began = time.perf_counter()
        for row in self.rows():
            yield self._array[row.start][None]
            if time.perf_counter() - began > self._seconds:
                return


class LoaderReader(Contender):
    """oocload; each pass is its next epoch."""

    def __init__(self, loader: oocload.Loader) -> None:
        self.loader = loader

    def batches(self) -> Iterator[np.ndarray]:
        return iter(self.loader)

    def rows(self) -> Iterator[np.ndarray]:
        return map(self.loader.batch_rows, count())


def check(contender: Contender, array: np.ndarray) -> None:
    """Compare what a contender delivers with the array itself."""
    seen = np.zeros(len(array), np.uint8)
    for batch, rows in zip(contender.batches(), contender.rows(), strict=False):
        assert np.array_equal(batch, array[rows]), f"{contender} delivers other bytes at rows {rows}"
        seen[rows] += 1
    assert seen.max() == 1, f"{contender} delivers rows twice"
    assert seen.all() or not contender.complete, f"{contender} leaves rows out"
