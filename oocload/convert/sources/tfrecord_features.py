"""From runs of values in ``tf.train.Example`` messages to the rows of a field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Bytes
from oocload.convert.fields import parse_fields
from oocload.convert.ragged import CsrSpec, RaggedRows, RaggedSpec
from oocload.convert.sources.content import content_of, problems_of_text
from oocload.convert.sources.tfrecord_example import BadRecordsError, Kind, Runs
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning

_KIND_NAMES = {Kind.BYTES: "bytes", Kind.FLOAT: "floats", Kind.INT64: "whole numbers"}
_DTYPES: Mapping[Kind, np.dtype[Any]] = {Kind.FLOAT: np.dtype(np.float32), Kind.INT64: np.dtype(np.int64)}
_CONTENTS = {"bytes": "", "text": "text", "image": "image"}
_NO_MEANING = Meaning()
_BYTES = RaggedSpec((), np.dtype(np.uint8))
_NO_RUNS = Runs(*np.empty((4, 0), np.int64))
_DECODED = 2**16  # bytes of whole numbers at a time


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature, and the field that it becomes.

    Attributes
    ----------
    name
        Of both.
    spec, meaning
        What the rows are.
    kind
        Of its values in each record; None where any will do that fits.
    whole
        Whether its bytes are kept as they are: text, images, or what else they be.
    optional
        Whether a record without it, or with an empty one, has an empty row.

    """

    name: str
    spec: FieldSpec | RaggedSpec
    meaning: Meaning = _NO_MEANING
    kind: Kind | None = None
    whole: bool = False
    optional: bool = False

    def rows(self, found: Mapping[str, Runs], n_records: int, data: Bytes) -> NDArray[Any] | RaggedRows:
        """Return the rows of some records.

        Raises
        ------
        BadRecordsError
            If the feature is missing, of another kind, or of another length than rows have.

        """
        runs = found.get(self.name, _NO_RUNS)
        n_runs = np.bincount(runs.records, minlength=n_records)
        if not self.optional:
            self._refuse(n_runs == 0, lambda i: f"feature {self.name!r} is missing or empty")
        kind = self._kind_of(runs)
        if kind == Kind.BYTES:
            self._refuse(
                n_runs > 1,
                lambda i: (
                    f"feature {self.name!r} must be one value of bytes, got {n_runs[i]}; leave it out with features="
                ),
            )
            return self._of_bytes(runs, n_records, data)
        return self._of_numbers(kind, runs, n_records, data)

    def _kind_of(self, runs: Runs) -> Kind:
        """Return the kind of all of them."""
        kind = self.kind or (Kind(int(runs.kinds[0])) if len(runs.kinds) else Kind.BYTES)
        others = runs.kinds != kind
        if others.any():
            reasons = zip(runs.records[others].tolist(), runs.kinds[others].tolist(), strict=True)
            raise BadRecordsError(
                {
                    record: f"feature {self.name!r} must hold {_KIND_NAMES[kind]}, got {_KIND_NAMES[Kind(other)]}"
                    for record, other in reasons
                }
            )
        if kind == Kind.BYTES and isinstance(self.spec, FieldSpec) and not self.spec.row_shape:
            self._refuse_all(runs, f"feature {self.name!r} must hold one number, got bytes")
        return kind

    def _of_bytes(self, runs: Runs, n_records: int, data: Bytes) -> NDArray[Any] | RaggedRows:
        values = _gathered(runs, data)
        offsets = _offsets(runs, runs.ends - runs.starts, n_records)
        if self.whole:
            if self.meaning.content == "text":
                bad = problems_of_text(values, offsets)
                if bad:
                    raise BadRecordsError({i: f"feature {self.name!r} must be UTF-8: {why}" for i, why in bad.items()})
            return RaggedRows(values, offsets)
        lengths = np.diff(offsets)
        shape = self.spec.row_shape if isinstance(self.spec, FieldSpec) else self.spec.item_shape
        unit = prod(shape) * self.spec.dtype.itemsize
        fits = lengths == unit if isinstance(self.spec, FieldSpec) else lengths % unit == 0
        of = "" if isinstance(self.spec, FieldSpec) else "a multiple of "
        self._refuse(
            ~fits,
            lambda i: f"feature {self.name!r} must have {of}{unit} bytes, for {self.spec}, got {lengths[i]}",
        )
        items = values.view(self.spec.dtype.newbyteorder("<")).reshape(-1, *shape)
        return items if isinstance(self.spec, FieldSpec) else RaggedRows(items, offsets // unit)

    def _of_numbers(self, kind: Kind, runs: Runs, n_records: int, data: Bytes) -> NDArray[Any] | RaggedRows:
        packed = _gathered(runs, data)
        if kind == Kind.FLOAT:
            values: NDArray[Any] = packed.view("<f4")
            counts = (runs.ends - runs.starts) // 4
        else:
            self._refuse_ends(runs, data)
            is_last = packed < 128
            values, counts = varints(packed, is_last), _counts_of(runs, is_last)
        offsets = _offsets(runs, counts, n_records)
        shape = self.spec.row_shape if isinstance(self.spec, FieldSpec) else self.spec.item_shape
        unit, lengths = prod(shape), np.diff(offsets)
        fits = lengths == unit if isinstance(self.spec, FieldSpec) else lengths % unit == 0
        of = "" if isinstance(self.spec, FieldSpec) else "a multiple of "
        self._refuse(
            ~fits, lambda i: f"feature {self.name!r} must have {of}{unit} values, for {self.spec}, got {lengths[i]}"
        )
        values = self._cast(values, offsets).reshape(-1, *shape)
        return values if isinstance(self.spec, FieldSpec) else RaggedRows(values, offsets // unit)

    def _cast(self, values: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[Any]:
        """Return values in the dtype asked for; whole numbers must come out as they went in."""
        dtype = self.spec.dtype
        if values.dtype == dtype:
            return values
        with np.errstate(invalid="ignore", over="ignore"):
            cast = values.astype(dtype)
            wrong = cast.astype(values.dtype) != values if dtype.kind in "iub" else np.isinf(cast) & np.isfinite(values)
        if wrong.any():
            at = np.flatnonzero(wrong)
            records = np.searchsorted(offsets, at, "right") - 1
            raise BadRecordsError(
                {
                    int(i): f"feature {self.name!r} must fit into {dtype}, got {value}"
                    for i, value in zip(records[::-1], values[at][::-1], strict=True)
                }
            )
        return cast

    def _refuse(self, bad: NDArray[np.bool_], why: Callable[[int], str]) -> None:
        if bad.any():
            raise BadRecordsError({int(i): why(int(i)) for i in np.flatnonzero(bad)})

    def _refuse_all(self, runs: Runs, why: str) -> None:
        if len(runs.records):
            raise BadRecordsError(dict.fromkeys(runs.records.tolist(), why))

    def _refuse_ends(self, runs: Runs, data: Bytes) -> None:
        if (bad := data[runs.ends - 1] > 127).any():
            why = f"it is no tf.train.Example: the last number of feature {self.name!r} has no end"
            raise BadRecordsError(dict.fromkeys(runs.records[bad].tolist(), why))


def parse_features(features: Mapping[str, Any]) -> list[Feature]:
    """Return the features that somebody asks for.

    Raises
    ------
    InvalidArgumentError
        If one is neither "bytes", "text" or "image" nor what `oocload.create` takes as a field.

    """
    if not isinstance(features, Mapping) or not features:
        raise InvalidArgumentError(
            f"features must map at least one name to a dtype, (row_shape, dtype), 'bytes', 'text' or 'image', "
            f"got {features!r}"
        )
    return [_parse(name, value) for name, value in features.items()]


def _parse(name: str, value: Any) -> Feature:
    if isinstance(value, str) and value in _CONTENTS:
        (name,) = parse_fields({name: _BYTES})
        return Feature(name, _BYTES, _meaning(_CONTENTS[value]), Kind.BYTES, whole=True)
    spec = parse_fields({name: value})[name]
    if isinstance(spec, CsrSpec) or spec.dtype.kind not in "biuf":
        raise InvalidArgumentError(f"features must be numbers, 'bytes', 'text' or 'image', got {value!r} for {name!r}")
    return Feature(name, spec, optional=isinstance(spec, RaggedSpec))


def infer_features(found: Mapping[str, Runs], n_records: int, data: Bytes) -> list[Feature]:
    """Return the features of some records, in the order of their names.

    Raises
    ------
    BadRecordsError
        If one has several values of bytes, or is of several kinds.

    """
    return [_infer(name, found[name], n_records, data) for name in sorted(found)]


def _infer(name: str, runs: Runs, n_records: int, data: Bytes) -> Feature:
    kind = Kind(int(runs.kinds[0]))
    n_runs = np.bincount(runs.records, minlength=n_records)
    optional = bool((n_runs == 0).any())
    if kind == Kind.BYTES:
        probe = Feature(name, _BYTES, kind=kind, whole=True, optional=optional)
        rows = probe.rows({name: runs}, n_records, data)
        assert isinstance(rows, RaggedRows)
        return Feature(name, _BYTES, _meaning(content_of(rows)), kind, whole=True, optional=optional)
    ragged = Feature(name, RaggedSpec((), _DTYPES[kind]), kind=kind, optional=True)
    rows = ragged.rows({name: runs}, n_records, data)
    assert isinstance(rows, RaggedRows)
    lengths = np.diff(rows.offsets)
    if lengths.min() != lengths.max():
        return ragged
    spec = FieldSpec(() if lengths[0] == 1 else (int(lengths[0]),), _DTYPES[kind])
    return Feature(name, spec, kind=kind)


def _meaning(content: Any) -> Meaning:
    return Meaning(content=content)


def _gathered(runs: Runs, data: Bytes) -> Bytes:
    """Return the bytes of all runs, one after the other."""
    starts, ends = runs.starts, runs.ends
    if not len(starts):
        return np.empty(0, np.uint8)
    lengths = ends - starts
    n, length = len(starts), int(lengths[0])
    if n > 1 and (lengths == length).all():
        gap = int(starts[1] - starts[0])
        if gap >= length and (np.diff(starts) == gap).all():
            each = np.lib.stride_tricks.as_strided(data[int(starts[0]) :], (n, length), (gap, 1), writeable=False)
            return np.ascontiguousarray(each).reshape(-1)
        if length <= 8:
            short: Bytes = data[starts[:, None] + np.arange(length)].reshape(-1)
            return short
    view = memoryview(data)
    joined = bytearray().join([view[s:e] for s, e in zip(starts.tolist(), ends.tolist(), strict=True)])
    return np.frombuffer(joined, np.uint8)


def varints(packed: Bytes, is_last: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the whole numbers in some bytes, of which those are known that end one."""
    if is_last.all():
        return packed.astype(np.int64)
    values: NDArray[np.int64] = np.empty(np.count_nonzero(is_last), np.int64)
    at = low = 0
    while low < len(packed):
        high = min(low + _DECODED, len(packed))
        while not is_last[high - 1]:
            high += 1
        stops = np.flatnonzero(is_last[low:high]) + low + 1
        starts = np.concatenate([[low], stops[:-1]])
        found = packed[starts].astype(np.uint64) & 127
        lengths = stops - starts
        for place in range(1, min(10, int(lengths.max()))):
            longer = lengths > place
            found[longer] |= (packed[starts[longer] + place].astype(np.uint64) & 127) << np.uint64(7 * place)
        values[at : at + len(found)] = found.view(np.int64)
        at, low = at + len(found), high
    return values


def _counts_of(runs: Runs, is_last: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many numbers each run has."""
    ends = np.cumsum(runs.ends - runs.starts)
    before = np.concatenate([[0], np.cumsum(is_last)])
    counts: NDArray[np.int64] = np.diff(before[ends], prepend=0)
    return counts


def _offsets(runs: Runs, counts: NDArray[np.int64], n_records: int) -> NDArray[np.int64]:
    """Return where the values of each record begin, and where the last of them ends."""
    offsets = np.zeros(n_records + 1, np.int64)
    np.cumsum(np.bincount(runs.records, counts, minlength=n_records).astype(np.int64), out=offsets[1:])
    return offsets
