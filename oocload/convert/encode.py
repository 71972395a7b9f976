"""How the chunks of a new store are encoded: the codecs asked for, from a chunk to its stored bytes, and what each
format's metadata say of it. Both follow from one `Encoding`, so that h5py and zarr read what is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import h5py
import imagecodecs
import numcodecs
import numpy as np
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ZstdCodec

from oocload.chunks.scratch import Bytes, as_bytes
from oocload.convert.encoders import Encoded, Gzip, Shuffle, blosc, blosc_shuffle, lzf, zstd
from oocload.convert.shuffle import bitshuffle_lz4
from oocload.errors import InvalidArgumentError
from oocload.layout import Codec

TargetFormat = Literal["hdf5", "zarr2", "zarr3"]

_LEVELS: dict[str, dict[str, range | None]] = {
    "hdf5": {
        "none": None,
        "gzip": range(10),
        "lzf": None,
        "zstd": range(1, 23),
        "blosc": range(10),
        "lz4": None,
        "bitshuffle": None,
    },
    "zarr": {"none": None, "gzip": range(10), "zstd": range(-7, 23), "blosc": range(10)},
}
_DEFAULT_CODEC = {"hdf5": "gzip", "zarr": "zstd"}
_DEFAULT_LEVEL = {"gzip": 4, "zstd": 3, "blosc": 5}

# https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
_FILTER_NUMBERS = {"blosc": 32001, "lz4": 32004, "bitshuffle": 32008, "zstd": 32015}
_SHUFFLED = {"gzip", "lzf", "zstd", "lz4"}  # blosc and bitshuffle have a shuffle of their own
_MAX_BLOSC_ITEM_BYTES = 255  # larger items it does not shuffle
_BLOSC_LZ4 = 1


@dataclass(frozen=True, slots=True)
class Encoding:
    """A codec by name, and its level (None: it has none)."""

    codec: str
    level: int | None

    def __str__(self) -> str:
        return self.codec if self.level is None else f"{self.codec} {self.level}"


def choose_encoding(target_format: str, codec: str | None, level: int | None) -> Encoding:
    """Return the encoding asked for, or the format's default.

    Parameters
    ----------
    target_format
        ``"hdf5"``, or ``"zarr"`` with its version or without.
    codec, level
        As they were given; None for the default.

    Raises
    ------
    InvalidArgumentError
        If the format has no such codec, or the codec no such level.

    """
    family = "hdf5" if target_format == "hdf5" else "zarr"
    levels = _LEVELS[family]
    name = _DEFAULT_CODEC[family] if codec is None else codec
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


def encoder_for(
    target_format: TargetFormat, encoding: Encoding, dtype: np.dtype[Any], chunk_shape: tuple[int, ...]
) -> Callable[[NDArray[Any]], Encoded]:
    """Return the function that encodes the chunks of one array.

    Parameters
    ----------
    target_format
        Of the store.
    encoding
        Of the array.
    dtype
        Of the array, as it is stored.
    chunk_shape
        Of each of its chunks.

    Returns
    -------
    Callable
        From a whole C-contiguous chunk to what is stored of it. Thread-safe, and outside the GIL but for microseconds;
        each thread keeps a buffer of a chunk where bytes are shuffled. What it returns is fresh, or a view of the chunk
        where nothing is encoded.

    """
    encode = _bytes_encoder(target_format, encoding, dtype.itemsize)
    nbytes = prod(chunk_shape) * dtype.itemsize

    def encode_chunk(chunk: NDArray[Any]) -> Encoded:
        raw = as_bytes(chunk)
        assert len(raw) == nbytes
        return encode(raw)

    return encode_chunk


def _bytes_encoder(target_format: TargetFormat, encoding: Encoding, item_bytes: int) -> Callable[[Bytes], Encoded]:
    level = encoding.level or 0
    if encoding.codec == "none":
        return lambda raw: Encoded(raw.data)
    if encoding.codec == "blosc":
        return lambda raw: Encoded(blosc(raw, item_bytes, level))
    if encoding.codec == "bitshuffle":
        return lambda raw: Encoded(bitshuffle_lz4(raw, item_bytes))
    shuffled = target_format == "hdf5" and _shuffles(encoding, item_bytes)
    shuffle: Callable[[Bytes], Bytes] = Shuffle(item_bytes) if shuffled else (lambda raw: raw)
    if encoding.codec == "gzip":
        return Gzip(level, item_bytes, shuffle, shuffled, has_gzip_header=target_format != "hdf5")
    if encoding.codec == "lzf":
        return lambda raw: lzf(shuffle(raw), shuffled)
    if encoding.codec == "lz4":
        return lambda raw: Encoded(imagecodecs.lz4h5_encode(shuffle(raw)))
    return lambda raw: Encoded(zstd(shuffle(raw), level))


def _shuffles(encoding: Encoding, item_bytes: int) -> bool:
    """Whether HDF5's byte shuffle goes before the codec."""
    return encoding.codec in _SHUFFLED and item_bytes > 1


def codecs_of(target_format: TargetFormat, encoding: Encoding, dtype: np.dtype[Any]) -> tuple[Codec, ...]:
    """Return the steps of an encoding as the store's layout will name them, in the order in which they are applied."""
    item_bytes = dtype.itemsize
    if encoding.codec == "none":
        return ()
    if target_format != "hdf5":
        return (Codec(encoding.codec, encoding.level),)
    name = {"gzip": "deflate", "lz4": "lz4h5"}.get(encoding.codec, encoding.codec)
    if name == "bitshuffle":
        return (Codec(name, item_bytes=item_bytes, variant="lz4"),)
    compressor = Codec(name, encoding.level if name == "deflate" else None)
    return (Codec("shuffle", item_bytes=item_bytes), compressor) if _shuffles(encoding, item_bytes) else (compressor,)


def hdf5_filters(encoding: Encoding, dtype: np.dtype[Any], chunk_shape: tuple[int, ...]) -> dict[str, Any]:
    """Return arguments of `h5py.Group.create_dataset`: the chunks, and the filters that the encoder applies.

    Works also where HDF5 does not have the filters, since they are optional and chunks are written encoded.
    """
    codec, item_bytes = encoding.codec, dtype.itemsize
    options: dict[str, Any] = {"chunks": chunk_shape}
    if codec == "none":
        return options
    options |= {"compression": _FILTER_NUMBERS.get(codec, codec), "shuffle": _shuffles(encoding, item_bytes)}
    if codec == "gzip":
        options["compression_opts"] = encoding.level
    elif codec != "lzf":
        nbytes = prod(chunk_shape) * item_bytes
        options |= {"compression_opts": _filter_values(encoding, item_bytes, nbytes), "allow_unknown_filter": True}
    return options


def _filter_values(encoding: Encoding, item_bytes: int, chunk_nbytes: int) -> tuple[int, ...]:
    """Return what a registered filter keeps of itself; where HDF5 has it, the filter puts its part before it."""
    level = encoding.level or 0
    if encoding.codec == "zstd":
        return (level,)
    if encoding.codec == "lz4":
        return (0,)  # the block size of its own choice; chunks say theirs
    if encoding.codec == "bitshuffle":
        choice = (0, 2)  # the block size of its own choice; LZ4
        is_there = h5py.h5z.filter_avail(_FILTER_NUMBERS["bitshuffle"])
        return choice if is_there else (0, 4, item_bytes, *choice)
    item = item_bytes if item_bytes <= _MAX_BLOSC_ITEM_BYTES else 1
    return (2, 2, item, chunk_nbytes, level, blosc_shuffle(item_bytes), _BLOSC_LZ4)


def zarr_codecs(encoding: Encoding, dtype: np.dtype[Any], zarr_format: Literal[2, 3]) -> dict[str, Any]:
    """Return arguments of `zarr.Group.create_array`: the codecs that the encoder applies."""
    codec, level = encoding.codec, encoding.level or 0
    item_bytes = dtype.itemsize
    options: dict[str, Any] = {"compressors": None, "filters": None}
    if zarr_format == 3 and dtype.str.startswith(">"):
        options["serializer"] = BytesCodec(endian="big")  # else zarr takes the bytes for little-endian
    if codec == "none":
        return options
    if zarr_format == 2:
        made: Any = {
            "gzip": lambda: numcodecs.GZip(level),
            "zstd": lambda: numcodecs.Zstd(level),
            "blosc": lambda: numcodecs.Blosc("lz4", level, blosc_shuffle(item_bytes)),
        }
    else:
        shuffle: Literal["shuffle", "bitshuffle"] = "shuffle" if item_bytes > 1 else "bitshuffle"
        made = {
            "gzip": lambda: GzipCodec(level=level),
            "zstd": lambda: ZstdCodec(level=level),
            "blosc": lambda: BloscCodec(typesize=item_bytes, cname="lz4", clevel=level, shuffle=shuffle),
        }
    return options | {"compressors": made[codec]()}
