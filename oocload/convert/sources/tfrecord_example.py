"""Where the values of features lie in serialised ``tf.train.Example`` messages; nothing is copied here.

Wire format: https://protobuf.dev/programming-guides/encoding, of tensorflow/core/example/{example,feature}.proto::

    Example     1: Features        Feature   1: BytesList, 2: FloatList, 3: Int64List
    Features    1: map entries     lists     1: values; numbers packed into one run, or each with a tag of its own
    map entry   1: key, 2: Feature

Most records of a file differ in their values alone. One of each length is therefore read byte by byte, and the others
of that length are compared with it, all bytes but values: those that agree have their values in the same places.
Numbers that have tags of their own must have as many bytes as well, as another number could look like value and tag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Bytes

Span = tuple[int, int]


class BadRecordsError(Exception):
    """Some records cannot be read: number → why."""

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons


class Kind(IntEnum):
    """Which list a feature has; the number of its field."""

    BYTES = 1
    FLOAT = 2
    INT64 = 3


class Runs(NamedTuple):
    """Where the values of one feature lie: runs of bytes, in the order of records.

    A run is one value of bytes, or one or several numbers.
    """

    records: NDArray[np.int64]
    kinds: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


Feature = tuple[Kind, list[Span]]
_Found = dict[bytes, Feature]

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_FEW = 4  # records of one length for which it is not worth looking for more of the same form
_WALKED = 1024  # records, whose runs are lists, at a time


def find_runs(data: Bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> dict[str, Runs]:
    """Return feature → its runs in records, which count from 0.

    Raises
    ------
    BadRecordsError
        If some are no examples.

    """
    parts: dict[bytes, list[NDArray[np.int64]]] = {}
    view = memoryview(data)
    lengths = ends - starts
    order = np.argsort(lengths, kind="stable")
    left: list[NDArray[np.int64]] = []
    bad: dict[int, str] = {}
    for group in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1) if len(order) else ():
        rest = group
        while len(rest) > _FEW:
            first = int(rest[0])
            lone: list[Span] = []
            try:
                found = _walk(view, int(starts[first]), int(ends[first]), lone)
            except ValueError as exc:
                bad[first] = str(exc)
                rest = rest[1:]
                continue
            same = _of_one_form(data, starts[rest], int(lengths[first]), found, lone)
            _add_form(parts, found, rest[same], starts, int(starts[first]))
            few, rest = np.count_nonzero(same) <= _FEW, rest[~same]
            if few:
                break
        left.append(rest)
    remaining = np.concatenate(left) if left else np.empty(0, np.int64)
    for at in range(0, len(remaining), _WALKED):
        _add_each(parts, view, remaining[at : at + _WALKED], starts, ends, bad)
    if bad:
        raise BadRecordsError(bad)
    return {_name(key): _joined(found) for key, found in parts.items()}


def _of_one_form(
    data: Bytes, starts: NDArray[np.int64], length: int, found: _Found, lone: Sequence[Span]
) -> NDArray[np.bool_]:
    """Return which records have the bytes of the first wherever that has no values, and lone numbers as long."""
    origin = int(starts[0])
    fixed = np.ones(length, bool)
    for _, spans in found.values():
        for start, end in spans:
            fixed[start - origin : end - origin] = False
    places = np.flatnonzero(fixed)
    bytes_of = data[starts[:, None] + places]
    same: NDArray[np.bool_] = (bytes_of == bytes_of[0]).all(axis=1)
    if lone:
        places = np.concatenate([np.arange(start, end) for start, end in lone]) - origin
        has_more = data[starts[:, None] + places] > 127
        same &= (has_more == has_more[0]).all(axis=1)
    return same


def _add_form(
    parts: dict[bytes, list[NDArray[np.int64]]],
    found: _Found,
    records: NDArray[np.int64],
    starts: NDArray[np.int64],
    origin: int,
) -> None:
    """Note the runs of records of one form."""
    for key, (kind, spans) in found.items():
        if not spans:
            continue
        places = np.array(spans, np.int64) - origin
        runs = np.empty((4, len(records), len(spans)), np.int64)
        runs[0] = records[:, None]
        runs[1] = kind
        runs[2:] = starts[records][:, None] + places.T[:, None, :]
        parts.setdefault(key, []).append(runs.reshape(4, -1))


def _add_each(
    parts: dict[bytes, list[NDArray[np.int64]]],
    view: memoryview,
    records: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    bad: dict[int, str],
) -> None:
    """Note the runs of records, one by one."""
    runs: dict[bytes, list[tuple[int, int, int, int]]] = {}
    places = zip(records.tolist(), starts[records].tolist(), ends[records].tolist(), strict=True)
    for record, start, end in places:
        try:
            found = _walk(view, start, end, [])
        except ValueError as exc:
            bad[record] = str(exc)
            continue
        for key, (kind, spans) in found.items():
            into = runs.get(key)
            if into is None:
                into = runs[key] = []
            for low, high in spans:
                into.append((record, kind, low, high))
    for key, each in runs.items():
        if each:
            parts.setdefault(key, []).append(np.array(each, np.int64).T)


def _joined(parts: Sequence[NDArray[np.int64]]) -> Runs:
    runs = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    if (runs[0, 1:] < runs[0, :-1]).any():
        runs = runs[:, np.argsort(runs[0], kind="stable")]
    return Runs(*runs)


def _name(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


def _walk(data: memoryview, at: int, end: int, lone: list[Span]) -> _Found:
    """Return key → feature of one example, and add the places of whole numbers that have tags of their own.

    Raises
    ------
    ValueError
        If it is none.

    """
    found: _Found = {}
    for tag, low, high in _fields(data, at, end):
        if tag != 1 << 3 | _DELIMITED:
            continue
        for entry_tag, entry, entry_end in _fields(data, low, high):
            if entry_tag == 1 << 3 | _DELIMITED:
                _walk_entry(data, entry, entry_end, found, lone)
    return found


def _walk_entry(data: memoryview, at: int, end: int, found: _Found, lone: list[Span]) -> None:
    key = b""
    feature: Feature | None = None
    for tag, low, high in _fields(data, at, end):
        if tag == 1 << 3 | _DELIMITED:
            key = bytes(data[low:high])
        elif tag == 2 << 3 | _DELIMITED:
            feature = _walk_feature(data, low, high, feature, lone)
    if feature is None:
        found.pop(key, None)
    else:
        found[key] = feature


def _walk_feature(data: memoryview, at: int, end: int, before: Feature | None, lone: list[Span]) -> Feature | None:
    found = before
    for tag, low, high in _fields(data, at, end):
        number = tag >> 3
        if tag & 7 != _DELIMITED or not 1 <= number <= 3:
            continue
        spans = list(_spans(data, low, high, _KINDS[number], lone))
        if found is not None and found[0] == number:
            found[1].extend(spans)
        else:
            found = (_KINDS[number], spans)
    return found


def _spans(data: memoryview, at: int, end: int, kind: Kind, lone: list[Span]) -> list[Span]:
    spans = []
    for tag, low, high in _fields(data, at, end):
        if tag >> 3 != 1:
            continue
        if tag & 7 != _DELIMITED and tag & 7 != _UNPACKED[kind]:
            raise ValueError(f"it is no tf.train.Example: a value at byte {low} has wire type {tag & 7}")
        if kind == Kind.FLOAT and (high - low) % 4:
            raise ValueError(f"it is no tf.train.Example: floats at byte {low} have {high - low} bytes")
        if kind == Kind.INT64 and high > low and data[high - 1] & 128:
            raise ValueError(f"it is no tf.train.Example: whole numbers at byte {low} have no end")
        if high > low or kind == Kind.BYTES:
            spans.append((low, high))
            if tag & 7 == _VARINT:
                lone.append((low, high))
    return spans


_KINDS: Mapping[int, Kind] = {int(kind): kind for kind in Kind}
_UNPACKED = {Kind.BYTES: _DELIMITED, Kind.FLOAT: _FIXED32, Kind.INT64: _VARINT}


def _fields(data: memoryview, at: int, end: int) -> list[tuple[int, int, int]]:
    """Return tag and place of each field of a message; of a number without a length, the place of its bytes."""
    found = []
    while at < end:
        tag = data[at]
        at += 1
        if tag > 127:
            tag, at = _varint(data, at - 1, end)
        wire = tag & 7
        if wire == _DELIMITED:
            n = data[at] if at < end else 128
            at += 1
            if n > 127:
                n, at = _varint(data, at - 1, end)
            stop = at + n
        elif wire == _VARINT:
            _, stop = _varint(data, at, end)
        elif wire == _FIXED32:
            stop = at + 4
        elif wire == _FIXED64:
            stop = at + 8
        else:
            raise ValueError(f"it is no tf.train.Example: wire type {wire} at byte {at - 1}")
        if stop > end:
            raise ValueError(f"it is no tf.train.Example: {stop - end} bytes are missing at its end")
        found.append((tag, at, stop))
        at = stop
    return found


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError(f"it is no tf.train.Example: a number at byte {at} has no end")
