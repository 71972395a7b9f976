"""TFRecord files written byte by byte, so that tests need no TensorFlow, and can write what it would not."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {"": bytes, "GZIP": gzip.compress, "ZLIB": zlib.compress}


def masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked_crc(length) + data + masked_crc(data)


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def delimited(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(value: Any, packed: bool = True) -> bytes:
    """Encode bytes, a list of bytes, or one or several numbers."""
    if isinstance(value, bytes | str):
        value = [value]
    if isinstance(value, list) and value and isinstance(value[0], bytes | str):
        each = [v.encode() if isinstance(v, str) else v for v in value]
        return delimited(1, b"".join(delimited(1, v) for v in each))
    numbers = np.atleast_1d(value)
    if numbers.dtype.kind == "f":
        each = [struct.pack("<f", v) for v in numbers]
        return delimited(2, delimited(1, b"".join(each)) if packed else b"".join(b"\x0d" + v for v in each))
    each = [varint(int(v)) for v in numbers]
    return delimited(3, delimited(1, b"".join(each)) if packed else b"".join(b"\x08" + v for v in each))


def example(features: Mapping[str, Any], packed: bool = True) -> bytes:
    entries = (
        delimited(1, delimited(1, name.encode()) + delimited(2, feature(value, packed)))
        for name, value in features.items()
    )
    return delimited(1, b"".join(entries))


def write(path: Path, records: Iterable[Mapping[str, Any]], compression: str = "", packed: bool = True) -> Path:
    path.write_bytes(COMPRESS[compression](b"".join(frame(example(r, packed)) for r in records)))
    return path


def each_of(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
