"""The last chunks of an array that grows, encoded by our own encoders where they know its codecs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numcodecs
import numpy as np
from numpy.typing import NDArray

from oocload.convert.encode import Encoding, encoder_for, zarr_codecs
from oocload.convert.encoders import Encoded
from oocload.convert.growth import Addition
from oocload.layout import FieldLayout
from oocload.stores.zarr_fields import config_of

Encoder = Callable[[NDArray[Any]], Encoded]

_HDF5_NAMES = {"deflate": "gzip", "lzf": "lzf", "zstd": "zstd", "lz4h5": "lz4", "blosc": "blosc"}
_BLOSC_LZ4 = 1


def hdf5_encoder(array: FieldLayout, filter_values: Sequence[int]) -> Encoder | None:
    """Return the encoder of a dataset's chunks, given what its last filter keeps of itself; None if h5py must encode.

    A shuffle belongs to gzip and the like where items have several bytes, and only there; of items taken for single
    bytes, the encoder makes none.
    """
    if not _is_plain(array):
        return None
    steps = list(array.codecs)
    shuffled = bool(steps) and steps[0].name == "shuffle" and steps.pop(0).item_bytes == array.stored_dtype.itemsize
    if len(steps) > 1 or (not steps and array.codecs):
        return None
    encoding = Encoding("none", None)
    has_own_shuffle = False
    if steps:
        name, has_own_shuffle = steps[0].name, steps[0].name in ("blosc", "bitshuffle")
        if (name not in _HDF5_NAMES and steps[0].variant != "lz4") or steps[0].block_items:
            return None
        if name == "blosc" and tuple(filter_values[6:7]) != (_BLOSC_LZ4,):
            return None
        level = {"deflate": slice(0, 1), "zstd": slice(0, 1), "blosc": slice(4, 5)}.get(name, slice(0, 0))
        encoding = Encoding(_HDF5_NAMES.get(name, name), next(iter(filter_values[level]), None))
    if shuffled and has_own_shuffle:
        return None
    return _encoder("hdf5", encoding, array, by_item=shuffled or has_own_shuffle)


def zarr_encoder(array: FieldLayout, metadata: Any) -> Encoder | None:
    """Return the encoder of an array's chunks, given zarr's metadata; None if zarr-python must encode."""
    if not _is_plain(array) or len(array.codecs) > 1:
        return None
    described = metadata.to_dict()
    zarr_format: Literal[2, 3] = described["zarr_format"]
    codec = array.codecs[0] if array.codecs else None
    encoding = Encoding("none", None) if codec is None else Encoding(codec.name, codec.level)
    if encoding.codec not in ("none", "gzip", "zstd", "blosc"):
        return None
    ours = zarr_codecs(encoding, array.stored_dtype, zarr_format)["compressors"]
    if codec is not None and _last_codec(described) != config_of(ours):
        return None
    return _encoder("zarr2" if zarr_format == 2 else "zarr3", encoding, array, by_item=True)


def last_chunks(addition: Addition, old_rows: Callable[[int, int], NDArray[Any]]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield number and rows of each whole chunk that an append fills or begins.

    Parameters
    ----------
    addition
        The array, and its new rows.
    old_rows
        Reads a range of the rows that are there.

    """
    array, rows = addition.layout, addition.rows
    height, n_rows = array.chunk_rows, array.n_rows
    for start in range(n_rows // height * height, addition.n_rows, height):
        first, last = max(start, n_rows), min(start + height, addition.n_rows)
        given = rows[first - n_rows : last - n_rows]
        if last - first == height:
            yield start // height, given
            continue
        fill = np.frombuffer(array.fill, array.stored_dtype) if array.fill else np.zeros(1, array.stored_dtype)
        chunk = np.empty((height, *array.row_shape), array.stored_dtype)
        chunk[last - start :] = fill[0]
        if start < n_rows:
            chunk[: n_rows - start] = old_rows(start, n_rows)
        chunk[first - start : last - start] = given
        yield start // height, chunk


def encode_ahead(chunks: Iterator[tuple[int, NDArray[Any]]], encode: Encoder) -> Iterator[tuple[int, Encoded]]:
    """Yield encoded chunks in order, a few ahead of who takes them, from all cores."""
    n_threads = len(os.sched_getaffinity(0))
    pending: deque[tuple[int, Future[Encoded]]] = deque()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="oocload-append") as pool:
        for number, rows in chunks:
            pending.append((number, pool.submit(encode, rows)))
            if len(pending) > 2 * n_threads:
                first, encoded = pending.popleft()
                yield first, encoded.result()
        while pending:
            first, encoded = pending.popleft()
            yield first, encoded.result()


def _is_plain(array: FieldLayout) -> bool:
    """Whether an array's chunks are whole rows one after the other."""
    return array.read_path == "direct" and array.chunks is not None and array.whole_rows


def _encoder(
    target_format: Literal["hdf5", "zarr2", "zarr3"], encoding: Encoding, array: FieldLayout, by_item: bool
) -> Encoder:
    dtype = array.stored_dtype if by_item else np.dtype(np.uint8)
    return encoder_for(target_format, encoding, dtype, (array.chunk_nbytes // dtype.itemsize,))


def _last_codec(described: Any) -> Any:
    """Return the compressor in an array's metadata."""
    if described["zarr_format"] == 2:
        return numcodecs.get_codec(config_of(described["compressor"])).get_config()  # with what it took as default
    chain = [config_of(c) for c in described["codecs"]]
    if chain[0]["name"] == "sharding_indexed":
        chain = [config_of(c) for c in chain[0]["configuration"]["codecs"]]
    return chain[-1]
