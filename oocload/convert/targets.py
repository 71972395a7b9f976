"""Where chunks of rows are written: an HDF5 file or a Zarr v3 directory, not yet under its final name.

HDF5 chunks are encoded on all cores and written as they are by one thread. Zarr writes its own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import h5py
import imagecodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from oocload.convert.arrays import NewArray
from oocload.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class Encoding:
    """A codec by name, and its level (None: the codec's default)."""

    codec: str
    level: int | None


_LEVELS: dict[str, dict[str, range | None]] = {
    "hdf5": {"none": None, "gzip": range(10), "lzf": None},
    "zarr": {"none": None, "gzip": range(10), "zstd": range(-7, 23), "blosc": range(10)},
}
_DEFAULT_CODEC = {"hdf5": "gzip", "zarr": "zstd"}
_DEFAULT_LEVEL = {"gzip": 4, "zstd": 3, "blosc": 5}


def choose_encoding(target_format: str, codec: str | None, level: int | None) -> Encoding:
    """Return the encoding asked for, or the format's default.

    Raises
    ------
    InvalidArgumentError
        If the format has no such codec, or the codec no such level.

    """
    levels = _LEVELS[target_format]
    name = _DEFAULT_CODEC[target_format] if codec is None else codec
    if name not in levels:
        raise InvalidArgumentError(
            f"codec must be one of {', '.join(map(repr, levels))} for this format, got {codec!r}"
        )
    allowed = levels[name]
    if level is None:
        return Encoding(name, _DEFAULT_LEVEL.get(name))
    if allowed is None or level not in allowed:
        rule = "left out" if allowed is None else f"from {allowed[0]} to {allowed[-1]}"
        raise InvalidArgumentError(f"level must be {rule} for codec {name!r}, got {level!r}")
    return Encoding(name, level)


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
        self._pending: deque[tuple[str, int, Future[tuple[bytes | memoryview, int]]]] = deque()
        self._max_pending = 2 * n_threads
        self._datasets = {name: self._create(name, array) for name, array in arrays.items()}

    def write(self, name: str, start: int, rows: NDArray[Any]) -> None:
        """Queue rows that begin a chunk."""
        height = self._arrays[name].height
        for first in range(0, len(rows), height):
            chunk = _padded(rows[first : first + height], height)
            encode = partial(_encode_hdf5, chunk, self._encoding)
            self._pending.append((name, start + first, self._pool.submit(encode)))
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
        codec, level, spec = self._encoding.codec, self._encoding.level, array.spec
        return self._file.create_dataset(
            name,
            shape=(0, *spec.row_shape),
            maxshape=(None, *spec.row_shape),
            chunks=(array.height, *spec.row_shape),
            dtype=spec.dtype,
            compression=None if codec == "none" else codec,
            compression_opts=level if codec == "gzip" else None,
            shuffle=_shuffles(spec.dtype, codec),
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


def _shuffles(dtype: np.dtype[Any], codec: str) -> bool:
    return codec != "none" and dtype.itemsize > 1


def _encode_hdf5(chunk: NDArray[Any], encoding: Encoding) -> tuple[bytes | memoryview, int]:
    """Return a chunk as HDF5's filters would have encoded it, and the mask of filters left out."""
    raw = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8)
    if encoding.codec == "none":
        return raw.data, 0
    shuffled = _shuffles(chunk.dtype, encoding.codec)
    if shuffled:
        raw = np.ascontiguousarray(raw.reshape(-1, chunk.dtype.itemsize).T).reshape(-1)
    if encoding.codec == "gzip":
        return imagecodecs.deflate_encode(raw, encoding.level, raw=False), 0
    try:
        data = imagecodecs.lzf_encode(raw)
    except imagecodecs.LzfError:  # does not get smaller
        data = raw.data
    if len(data) < raw.nbytes:
        return data, 0
    return raw.data, 1 << int(shuffled)  # the bit of lzf, which follows the shuffle


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
                compressors=_zarr_compressor(encoding, spec.dtype),
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


def _zarr_compressor(encoding: Encoding, dtype: np.dtype[Any]) -> Any:
    level = encoding.level
    if encoding.codec == "gzip":
        return GzipCodec(level=level or 0)
    if encoding.codec == "zstd":
        return ZstdCodec(level=level or 0)
    if encoding.codec == "blosc":
        shuffle: Literal["shuffle", "bitshuffle"] = "shuffle" if dtype.itemsize > 1 else "bitshuffle"
        return BloscCodec(typesize=dtype.itemsize, cname="lz4", clevel=level or 0, shuffle=shuffle)
    return None
