"""The pass over a store, field by field."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import oocload.stores as stores
from oocload.chunks.ragged import open_ragged
from oocload.chunks.ragged_rows import LengthsReader
from oocload.chunks.read import FILES_KEPT_OPEN, FieldReader, PartsReader, open_reader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Places
from oocload.errors import InvalidArgumentError
from oocload.layout import FieldLayout
from oocload.statistics import labels as label_pass
from oocload.statistics import numbers as number_pass
from oocload.statistics.channels import ChannelAxis, Channels, choose_channels
from oocload.statistics.labels import LabelCounts, Labels, holds_labels
from oocload.statistics.moments import Moments, moments_nbytes
from oocload.statistics.result import FieldStatistics, RowLengths, StoreStatistics
from oocload.statistics.scan import Needs, Scan, cores, ranges_of, threads_within
from oocload.statistics.stored import Where, fingerprint_of, save_statistics, stats_path
from oocload.stores.base import Part, Store
from oocload.units import parse_bytes, whole_number

_LENGTHS_AT_ONCE = 8 * 1024
_MOST_LABELLED_ROWS = 128 * 1024  # of a range: each may have labels of its own, which are held
_UNSUITED = {
    "O": "holds text or arrays of variable length",
    "c": "holds complex numbers, which have no order",
    "M": "holds dates",
    "m": "holds spans of time",
    "V": "holds records",
    "S": "has several texts a row",
    "U": "has several texts a row",
}


def stats(
    store: stores.Paths | Store,
    fields: str | Sequence[str] | None = None,
    *,
    memory: int | str | None = None,
    threads: int | None = None,
    channel_axis: ChannelAxis = "auto",
    save: bool | Where = False,
    progress: bool | None = None,
) -> StoreStatistics:
    """Return count, mean, deviation and range of each channel, and the labels there are, from one pass over a store.

    Parameters
    ----------
    store
        A path, a glob or a list of paths (see `oocload.open`), or an open `Store`.
    fields
        Name of a field, or several; None takes all that hold numbers or labels.
    memory
        Ceiling on all that is held: bytes, or text such as ``"64 MiB"``. None takes a quarter of the available memory,
        at most 2 GiB, or what is needed where that is more.
    threads
        Threads that read, decode and add up; None takes one per core that this process may use. The result does not
        depend on them.
    channel_axis
        Axis of a row that counts channels, 0 for the first and -1 for the last; None for one channel over everything.
        ``"auto"`` takes each column of rows of shape (F,); of images the last axis, or the first where that is at most
        4 long and the last is not; one channel for planes (H, W) and single values; of more axes the last.
    save
        True writes the result as JSON beside the store (``train.h5.stats.json``); or a path to write it to. Fields
        that are there already stay, while the store is unchanged.
    progress
        Whether to show a progress bar; None shows one on a terminal.

    Returns
    -------
    StoreStatistics
        Field → `FieldStatistics`; print it.

    Raises
    ------
    InvalidArgumentError, UnknownFieldError, StoreNotFoundError, StoreFormatError
        If an argument breaks its rule, or a field that was named does not hold numbers or labels.
    MemoryCeilingError
        If the ceiling is too small for a block of a field; names the smallest that works.
    ChunkError
        If a chunk cannot be read, or offsets of ragged rows decrease or point past their items.

    Notes
    -----
    Each block is reduced by the thread that decoded it. Integers of 8 and 16 bits are summed exactly; all else in
    float64, as distances from a value near them where digits would be lost, merged by the formulae of Chan, Golub and
    LeVeque (1979).

    Examples
    --------
    >>> import numpy as np, oocload
    >>> x = np.arange(24, dtype="float32").reshape(8, 3)
    >>> _ = oocload.convert({"x": x, "y": np.array([0, 0, 0, 1, 1, 2, 2, 2])}, "few.h5")
    >>> found = oocload.stats("few.h5")
    >>> found["x"].mean.tolist()
    [10.5, 11.5, 12.5]
    >>> found["y"].histogram, found["y"].longest_run
    ({0: 3, 1: 2, 2: 3}, Run(label=0, length=3, first_row=0))

    """
    ceiling = None if memory is None else parse_bytes(memory, "memory")
    n_threads = cores() if threads is None else whole_number("threads", threads, 1)
    if not isinstance(save, bool | str | os.PathLike):
        raise InvalidArgumentError(f"save must be True, False or a path, got {save!r}")
    with nullcontext(store) if isinstance(store, Store) else stores.open(store) as opened:
        if save is True:
            stats_path(opened)  # refuses at once where there is none
        chosen, skipped = _choose(opened, fields)
        passes = [_Pass(opened, field, choose_channels(*_rows(field), channel_axis)) for field in chosen]
        fingerprint = fingerprint_of(opened)
        opened.check_unchanged()
        hidden = None if progress is None else not progress
        with tqdm(total=sum(p.nbytes for p in passes), unit="B", unit_scale=True, disable=hidden) as bar:
            found = {}
            for one in passes:
                bar.set_description(one.field.name)
                found[one.field.name] = one.run(ceiling, n_threads, bar)
        result = StoreStatistics(opened.address, found, skipped)
        if save is not False:
            save_statistics(result, opened, None if save is True else save, fingerprint)
    return result


def _choose(store: Store, names: str | Sequence[str] | None) -> tuple[list[FieldLayout], dict[str, str]]:
    """Return the fields to look at, and those left out with the reason."""
    if names is None:
        skipped = {name: why for name, field in store.fields.items() if (why := _why_not(field))}
        chosen = [field for name, field in store.fields.items() if name not in skipped]
        if not chosen:
            problems = "; ".join(f"{name!r} {why}" for name, why in skipped.items()) or "no fields"
            raise InvalidArgumentError(f"store must have a field of numbers or labels, got {store.address}: {problems}")
        return chosen, skipped
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
        raise InvalidArgumentError(f"fields must be a field's name or several, got {names!r}; None takes all")
    for name in names:
        if why := _why_not(store.field(name)):
            raise InvalidArgumentError(f"fields must hold numbers or labels, and {name!r} {why}; leave it out")
    return [store.field(name) for name in sorted(set(names))], {}


def _why_not(field: FieldLayout) -> str:
    """Return why a field has no statistics; empty where it has."""
    if field.read_path == "none":
        return f"cannot be read: {field.reason}"
    if not field.shape:
        return "is a single value, not an array of rows"
    values = _values(field)
    if values.dtype.kind not in "biuf" and not holds_labels(values):
        return _UNSUITED.get(values.dtype.kind, f"holds {values.dtype}")
    return "" if prod(values.shape) else f"has no values: its shape is {values.shape}"


def _values(field: FieldLayout) -> FieldLayout:
    """Return the array that has a field's values: of ragged rows, that of their items."""
    return field if field.ragged is None else field.ragged.values


def _rows(field: FieldLayout) -> tuple[str, tuple[int, ...]]:
    return field.name, _values(field).row_shape


@dataclass(frozen=True, slots=True)
class _Found:
    """What is found in a range of rows."""

    moments: Moments | None
    labels: list[LabelCounts]


class _Pass:
    """One field's statistics."""

    def __init__(self, store: Store, field: FieldLayout, channels: Channels) -> None:
        self._store, self.field, self._channels = store, field, channels
        self._values = _values(field)
        self._numeric = self._values.dtype.kind in "biuf"
        self._labels = Labels() if field.ragged is None and holds_labels(field) else None

    @property
    def nbytes(self) -> int:
        """Bytes to read, decoded."""
        return self._values.nbytes

    def run(self, ceiling: int | None, n_threads: int, bar: tqdm[Any]) -> FieldStatistics:
        """Read the field once."""
        values, channels = self._values, self._channels
        ranges = ranges_of(values, None if self._labels is None else _MOST_LABELLED_ROWS)
        moments = Moments.none(channels.n, values.dtype) if self._numeric else None
        ragged = self.field.ragged is not None
        opened = _open_items(self._store, self.field) if ragged else open_reader(self._store, values)
        with closing(opened) as reader:
            before = _lengths_nbytes(self._store, self.field) if ragged else 0
            needs = Needs(reader, values, ranges.block_rows, *self._costs(ranges.block_rows), before)
            fitting = threads_within(needs, ceiling, n_threads, self.field.name)
            lengths = _row_lengths(self._store, self.field) if ragged else None
            for (start, stop), found in Scan(reader, values, ranges, self._reduce, fitting):
                if moments is not None and found.moments is not None:
                    moments.merge(found.moments)
                for part in found.labels:
                    assert self._labels is not None
                    self._labels.add(part)
                bar.update((stop - start) * values.row_nbytes)
        return self._result(moments, lengths)

    def _costs(self, range_rows: int) -> tuple[int, int, int]:
        """Return the bytes that adding up takes: of each thread, of what is found in a range, and in all."""
        work = found = held = 0
        if self._numeric:
            work += sum(number_pass.work_nbytes(self._channels).values())
            found += moments_nbytes(self._channels.n)
            held += 4 * moments_nbytes(self._channels.n)
        if self._labels is not None:
            work += label_pass.work_nbytes(self._values, range_rows)
            found += label_pass.found_nbytes(self._values, range_rows)
            held += label_pass.labels_nbytes(self._values)
        return work, found, held

    def _reduce(self, block: NDArray[Any], first_row: int, scratch: Scratch) -> _Found:
        labels = self._labels
        return _Found(
            number_pass.reduce_block(block, self._channels, scratch) if self._numeric else None,
            [] if labels is None else label_pass.count_labels(block.reshape(-1), first_row, labels.counted),
        )

    def _result(self, moments: Moments | None, lengths: RowLengths | None) -> FieldStatistics:
        field, labels = self.field, self._labels
        common: dict[str, Any] = {
            "name": field.name,
            "shape": field.shape,
            "dtype": self._values.dtype,
            "channel_axis": self._channels.axis,
            "histogram": None if labels is None else labels.histogram(),
            "longest_run": None if labels is None else labels.longest_run,
            "lengths": lengths,
        }
        if moments is None:
            none = np.zeros(1, np.int64)
            return FieldStatistics(**common, count=none + field.n_rows, n_nan=none, n_infinite=none)
        with np.errstate(invalid="ignore", over="ignore"):
            mean, std = moments.means(), moments.deviations()
        return FieldStatistics(
            **common,
            count=moments.count + moments.n_infinite,
            n_nan=moments.n_nan,
            n_infinite=moments.n_infinite,
            mean=mean,
            std=std,
            min=moments.low,
            max=moments.high,
        )


def _open_items(store: Store, field: FieldLayout) -> FieldReader:
    """Return the reader of a ragged field's items, those of joined stores one after the other."""
    assert field.ragged is not None
    items, start = [], 0
    for part in store.parts(field.name):
        assert part.field.ragged is not None
        values = part.field.ragged.values
        items.append(Part(start, start + values.n_rows, 0, part.store, values))
        start += values.n_rows
    return PartsReader(items, FILES_KEPT_OPEN) if items else open_reader(store, field.ragged.values)


def _open_lengths(store: Store, field: FieldLayout) -> FieldReader:
    """Return the reader of a ragged field's row lengths."""
    return open_ragged(store, field, lambda s, f, keep_open: LengthsReader(s, f, keep_open=keep_open))


def _row_lengths(store: Store, field: FieldLayout) -> RowLengths:
    """Return how many items the rows of a ragged field have.

    Raises
    ------
    ChunkError
        If offsets decrease or point past the items.

    """
    found: list[tuple[int, int, int]] = []
    scratch = Scratch()
    with closing(_open_lengths(store, field)) as reader:
        for start in range(0, field.n_rows, _LENGTHS_AT_ONCE):
            lengths = np.empty(min(field.n_rows - start, _LENGTHS_AT_ONCE), np.int64)
            reader.read([(start, start + len(lengths))], Places(lengths), scratch)
            found.append((int(lengths.min()), int(lengths.sum()), int(lengths.max())))
    if not found:
        return RowLengths(0, 0.0, 0)
    total = sum(n for _, n, _ in found)
    return RowLengths(min(n for n, _, _ in found), total / field.n_rows, max(n for _, _, n in found))


def _lengths_nbytes(store: Store, field: FieldLayout) -> int:
    """Return the bytes that looking at row lengths takes."""
    with closing(_open_lengths(store, field)) as reader:
        return reader.held_nbytes + sum(reader.scratch_needs.values()) + 8 * _LENGTHS_AT_ONCE
