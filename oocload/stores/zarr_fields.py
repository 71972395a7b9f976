"""What zarr's metadata says about one array, as a layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr

from oocload.layout import Codec, FieldLayout, ReadPath, reason_against
from oocload.stores.base import direct_path_enabled, native, unreadable
from oocload.stores.meaning import meaning_of
from oocload.stores.zarr_members import Member, one_line

_DIRECT_V3 = {"gzip", "zstd", "blosc", "crc32c"}
_DIRECT_V2 = {"zlib", "gzip", "zstd", "blosc", "bz2", "lz4", "lzma", "shuffle", "delta"}
_DIRECT_KINDS = "biufcSUVMm"
_LZMA_CONTAINERS = (1, 2)  # xz, alone; a raw stream does not say how it was made


def describe(name: str, member: Member, unsuited: str) -> FieldLayout:
    """Return one array's layout; what cannot be described is listed as unreadable, and stops nobody else.

    Parameters
    ----------
    name, member
        The field.
    unsuited
        Why nothing of its store is read directly, or empty.

    """
    if member.array is None:
        return unreadable(name, (), member.problem)
    try:
        return _describe(name, member.array, unsuited, member.dtype)
    except Exception as exc:  # data types that have no NumPy form, codecs that are not installed
        return unreadable(name, (), f"zarr cannot describe it: {one_line(exc)}")


def config_of(codec: Any) -> Any:
    """Return a codec's metadata as a plain dict, whatever zarr holds it as."""
    if codec is None or isinstance(codec, Mapping):
        return codec
    if hasattr(codec, "get_config"):
        return codec.get_config()
    return codec.to_dict()


def _describe(name: str, array: zarr.Array[Any], unsuited: str, extension: np.dtype[Any] | None) -> FieldLayout:
    meta: Mapping[str, Any] = array.metadata.to_dict()
    dtype = np.dtype(array.dtype)
    if dtype.hasobject:
        dtype = np.dtype(object)
    describe_chunks = _describe_v2 if meta["zarr_format"] == 2 else _describe_v3
    stored, codecs, axes, reason = describe_chunks(meta, dtype)
    if dtype.hasobject:
        reason = "items of variable length"
    elif stored.kind not in _DIRECT_KINDS or not stored.itemsize:
        reason = f"dtype {stored.name}"
    elif not array.shape:
        reason = "not an array of rows"
    elif not direct_path_enabled():
        reason = "direct path switched off"
    fill = b"" if dtype.hasobject else _fill(array, stored)
    if extension is not None:
        if stored.byteorder == ">":
            reason = f"dtype {extension.name}, big-endian"
        stored = extension
    reason = reason or reason_against(codecs) or unsuited
    path: ReadPath = "zarr" if reason else "direct"
    return FieldLayout(
        name=name,
        shape=array.shape,
        dtype=native(stored),
        stored_dtype=stored,
        chunks=array.chunks if array.shape else None,
        codecs=codecs,
        read_path=path,
        reason=reason,
        fill=fill if path == "direct" else b"",
        shards=array.shards,
        axes=None if axes == tuple(range(len(axes))) else axes,
        meaning=meaning_of(meta.get("attributes") or {}),
    )


def _fill(array: zarr.Array[Any], stored: np.dtype[Any]) -> bytes:
    value = array.fill_value
    if value is None:  # Zarr v2 without one: what zarr-python takes
        metadata: Any = array.metadata
        value = metadata.dtype.default_scalar()
    return np.asarray(value).astype(stored).tobytes()


_Chunks = tuple[np.dtype[Any], tuple[Codec, ...], tuple[int, ...], str]


def _describe_v2(meta: Mapping[str, Any], dtype: np.dtype[Any]) -> _Chunks:
    """Return (stored dtype, codecs, axes, reason) of a Zarr v2 array."""
    steps = [config_of(f) for f in meta["filters"] or ()]
    if (compressor := config_of(meta["compressor"])) is not None:
        steps.append(compressor)
    axes = tuple(range(len(meta["shape"])))
    if meta["order"] == "F":
        axes = axes[::-1]
    codecs = tuple(_codec_v2(c) for c in steps)
    unknown = [c["id"] for c in steps if c["id"] not in _DIRECT_V2]
    reason = f"codec {unknown[0]}" if unknown else ""
    if any(c["id"] == "lzma" and (c.get("format", 1) not in _LZMA_CONTAINERS or c.get("filters")) for c in steps):
        reason = "codec lzma without a container"
    return dtype, codecs, axes, reason


def _codec_v2(config: Mapping[str, Any]) -> Codec:
    name = config["id"]
    if name == "shuffle":
        return Codec(name, item_bytes=max(1, config.get("elementsize", 4)))
    if name == "delta":
        return Codec(name, variant=f"{config.get('astype') or config['dtype']}:{config['dtype']}")
    return Codec(name, config.get("level", config.get("clevel")))


def _describe_v3(meta: Mapping[str, Any], dtype: np.dtype[Any]) -> _Chunks:
    """Return (stored dtype, codecs, axes, reason) of a Zarr v3 array."""
    chain = [config_of(c) for c in meta["codecs"]]
    reason = ""
    if chain[0]["name"] == "sharding_indexed":
        reason = reason_for_unusual_shards(chain)
        chain = [config_of(c) for c in chain[0]["configuration"]["codecs"]]
    stored, axes = dtype, tuple(range(len(meta["shape"])))
    codecs: list[Codec] = []
    for config in chain:
        name, options = config["name"], config.get("configuration", {})
        if name == "bytes":
            stored = dtype.newbyteorder(">" if str(options.get("endian")).endswith("big") else "<")
        elif name == "transpose" and not codecs:
            axes = tuple(axes[i] for i in options["order"])
        else:
            codecs.append(Codec(name, options.get("level", options.get("clevel"))))
            if name not in _DIRECT_V3:
                reason = reason or f"codec {name}"
    return stored, tuple(codecs), axes, reason


def reason_for_unusual_shards(chain: list[Any]) -> str:
    """Return why our own code does not find the chunks of shards with such codecs; empty when it does."""
    config = chain[0]["configuration"]
    index = [config_of(c)["name"] for c in config["index_codecs"]]
    inner = [config_of(c)["name"] for c in config["codecs"]]
    if len(chain) > 1 or index not in (["bytes", "crc32c"], ["bytes"]):
        return "shards encoded in an unusual way"
    return "shards within shards" if "sharding_indexed" in inner else ""
