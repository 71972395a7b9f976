"""Where chunks of rows are written: an HDF5 file or a Zarr v3 directory, not yet under its final name.

HDF5 chunks are encoded on all cores and written as they are by one thread. Zarr writes its own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from oocload.convert.arrays import NewArray
from oocload.convert.encode import Encoding, encoder_for, hdf5_filters, zarr_codecs
from oocload.convert.encoders import Encoded


class Target(Protocol):
    """Takes whole chunks of rows, array by array, in order."""

    def write(self, name: str, start: int, rows: NDArray[Any]) -> None:
        """Write rows from ``start``, which is where a chunk begins; only an array's last chunk may be short.

        The array belongs to the target from then on.
        """
        ...

    def finish(self, lengths: Mapping[str, int], attributes: Mapping[str, Mapping[str, Any]]) -> None:
        """Write what is pending, array → its length and group → its attributes among that, and close."""
        ...

    def abort(self) -> None:
        """Close without caring for what is lost."""
        ...


class Hdf5Target:
    """Writes an HDF5 file.

    Parameters
    ----------
    path
        A file that does not exist.
    arrays
        Name → what it is.
    encoding
        Of every array; gzip and lzf come with the byte shuffle where items have several bytes.

    """

    def __init__(self, path: str, arrays: Mapping[str, NewArray], encoding: Encoding) -> None:
        self._file = h5py.File(path, "w-")
        self._arrays = arrays
        self._encoding = encoding
        n_threads = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="oocload-encode")
        self._pending: deque[tuple[str, int, Future[Encoded]]] = deque()
        self._max_pending = 2 * n_threads
        self._datasets = {name: self._create(name, array) for name, array in arrays.items()}
        self._encoders = {
            name: encoder_for("hdf5", encoding, array.spec.dtype, self._datasets[name].chunks)
            for name, array in arrays.items()
        }

    def write(self, name: str, start: int, rows: NDArray[Any]) -> None:
        """Queue rows that begin a chunk."""
        height = self._arrays[name].height
        for first in range(0, len(rows), height):
            chunk = _padded(rows[first : first + height], height)
            self._pending.append((name, start + first, self._pool.submit(self._encoders[name], chunk)))
            while len(self._pending) > self._max_pending:
                self._write_oldest()

    def finish(self, lengths: Mapping[str, int], attributes: Mapping[str, Mapping[str, Any]]) -> None:
        """Write what is pending, cut the datasets to their length, and close."""
        while self._pending:
            self._write_oldest()
        for name, dataset in self._datasets.items():
            dataset.resize(lengths[name], axis=0)
        for group, said in attributes.items():
            self._file[group].attrs.update(said)
        self._pool.shutdown()
        self._file.close()

    def abort(self) -> None:
        """Close without caring for what is lost."""
        self._pool.shutdown(cancel_futures=True)
        self._pending.clear()
        with suppress(OSError, RuntimeError):  # a full disk: HDF5 cannot flush, and the file is about to be removed
            self._file.close()

    def _create(self, name: str, array: NewArray) -> h5py.Dataset:
        spec = array.spec
        chunks = (array.height, *spec.row_shape)
        return self._file.create_dataset(
            name,
            shape=(0, *spec.row_shape),
            maxshape=(None, *spec.row_shape),
            dtype=spec.dtype,
            **hdf5_filters(self._encoding, spec.dtype, chunks),
        )

    def _write_oldest(self) -> None:
        name, start, encoded = self._pending.popleft()
        data, skipped = encoded.result()
        dataset = self._datasets[name]
        if len(dataset) <= start:
            dataset.resize(start + self._arrays[name].height, axis=0)
        corner = (start, *(0 for _ in self._arrays[name].spec.row_shape))
        dataset.id.write_direct_chunk(corner, data, filter_mask=skipped)


def _padded(rows: NDArray[Any], height: int) -> NDArray[Any]:
    """Return a whole chunk: HDF5 stores edge chunks in full."""
    if len(rows) == height:
        return rows
    chunk = np.zeros((height, *rows.shape[1:]), rows.dtype)
    chunk[: len(rows)] = rows
    return chunk


class ZarrTarget:
    """Writes a Zarr v3 directory.

    Parameters
    ----------
    path
        A directory that does not exist.
    arrays
        Name → what it is.
    encoding
        Of every array.

    """

    def __init__(self, path: str, arrays: Mapping[str, NewArray], encoding: Encoding) -> None:
        self._group = zarr.open_group(path, mode="w-", zarr_format=3)
        self._arrays = {}
        for name, array in arrays.items():
            spec = array.spec
            self._arrays[name] = self._group.create_array(
                name,
                shape=(0, *spec.row_shape),
                chunks=(array.height, *spec.row_shape),
                shards=None if array.chunks_per_shard == 1 else (array.shard_height, *spec.row_shape),
                dtype=spec.dtype,
                **zarr_codecs(encoding, spec.dtype, 3),
            )

    def write(self, name: str, start: int, rows: NDArray[Any]) -> None:
        """Write rows that begin a chunk."""
        array = self._arrays[name]
        stop = start + len(rows)
        if array.shape[0] < stop:
            # Growing by halves keeps the number of metadata writes logarithmic; `finish` cuts to length.
            array.resize((max(stop, array.shape[0] * 3 // 2), *array.shape[1:]))
        array[start:stop] = rows

    def finish(self, lengths: Mapping[str, int], attributes: Mapping[str, Mapping[str, Any]]) -> None:
        """Cut the arrays to their length."""
        for name, array in self._arrays.items():
            array.resize((lengths[name], *array.shape[1:]))
        for group, said in attributes.items():
            self._group.require_group(group).attrs.update(said)

    def abort(self) -> None:
        """Nothing is open."""
