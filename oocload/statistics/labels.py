"""How often each label comes, and the longest run of equal ones, in the order of the store."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.layout import FieldLayout

Label = int | bool | str

MOST_LABELS = 65_536  # more are no labels; they would be held in memory
_PIECE_ROWS = 64 * 1024
_LABEL_NBYTES = 160  # of a label and how often it comes, in a dict
_ROW_NBYTES = 48  # of a row of a piece while runs are looked for and labels sorted


class Run(NamedTuple):
    """Equal labels in rows that follow each other."""

    label: Label
    length: int
    first_row: int


class LabelCounts(NamedTuple):
    """Of some rows: the labels there are and how often each comes, and their first, longest and last runs, in order."""

    labels: NDArray[Any] | None  # None where they are not counted
    counts: NDArray[np.int64] | None
    runs: tuple[Run, ...]


def holds_labels(field: FieldLayout) -> bool:
    """Whether a field has one whole number, truth value or text of fixed length for each row."""
    return field.dtype.kind in "biuSU" and (len(field.shape) == 1 or field.shape[1:] == (1,))


def labels_nbytes(field: FieldLayout) -> int:
    """Return the bytes that the labels of a field take at most."""
    return min(field.n_rows, MOST_LABELS) * (_LABEL_NBYTES + 2 * field.dtype.itemsize)


def work_nbytes(field: FieldLayout, n_rows: int) -> int:
    """Return the bytes that are taken while so many rows are looked at."""
    return min(n_rows, _PIECE_ROWS) * (_ROW_NBYTES + 4 * field.dtype.itemsize)


def found_nbytes(field: FieldLayout, n_rows: int) -> int:
    """Return the bytes of what is found in so many rows at most."""
    distinct = min(n_rows, _PIECE_ROWS, 1 << min(63, 8 * field.dtype.itemsize))
    return -(-n_rows // _PIECE_ROWS) * distinct * (8 + field.dtype.itemsize)


def count_labels(labels: NDArray[Any], first_row: int, counted: bool) -> list[LabelCounts]:
    """Return what is found in labels of rows that follow each other, a piece at a time.

    Parameters
    ----------
    labels
        One-dimensional.
    first_row
        Row of the first.
    counted
        Whether to count how often each comes.

    """
    return [
        _count(labels[start : start + _PIECE_ROWS], first_row + start, counted)
        for start in range(0, len(labels), _PIECE_ROWS)
    ]


def _count(labels: NDArray[Any], first_row: int, counted: bool) -> LabelCounts:
    borders = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    starts = np.concatenate([[0], borders])
    lengths = np.diff(starts, append=len(labels))
    chosen = sorted({0, int(np.argmax(lengths)), len(starts) - 1})
    runs = tuple(Run(as_label(labels[starts[i]]), int(lengths[i]), first_row + int(starts[i])) for i in chosen)
    if not counted:
        return LabelCounts(None, None, runs)
    return LabelCounts(*_histogram(labels), runs)


def _histogram(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the labels there are, and how often each comes."""
    if labels.dtype.kind in "SU":
        return np.unique(labels, return_counts=True)
    numbers = labels.view(np.uint8) if labels.dtype.kind == "b" else labels
    low, high = int(numbers.min()), int(numbers.max())
    if high - low >= _PIECE_ROWS:
        return np.unique(labels, return_counts=True)
    above = numbers.astype(np.uint64) - np.uint64(low % 2**64)  # wraps, as negative numbers do in 64 bits
    counts = np.bincount(above.astype(np.intp))
    found = np.flatnonzero(counts)
    there = (found.astype(np.uint64) + np.uint64(low % 2**64)).astype(numbers.dtype)
    return there.view(labels.dtype), counts[found]


def as_label(value: Any) -> Label:
    """Return a label as Python has it; bytes as text."""
    plain = value.item()
    label: Label = plain.decode("utf-8", "surrogateescape") if isinstance(plain, bytes) else plain
    return label


class Labels:
    """The labels of rows from the first on, as they are found; not thread-safe but for `counted`."""

    def __init__(self) -> None:
        self._counts: dict[Any, int] | None = {}
        self._open: Run | None = None
        self._longest: Run | None = None

    @property
    def counted(self) -> bool:
        """Whether labels are still counted: not when there were too many."""
        return self._counts is not None

    def add(self, found: LabelCounts) -> None:
        """Take in the rows that follow."""
        for run in found.runs:
            self._add_run(run)
        if self._counts is None or found.labels is None or found.counts is None:
            return
        counts = self._counts
        for label, count in zip(found.labels.tolist(), found.counts.tolist(), strict=True):
            counts[label] = counts.get(label, 0) + count
        if len(counts) > MOST_LABELS:
            self._counts = None

    def _add_run(self, run: Run) -> None:
        last = self._open
        if last is not None and last.label == run.label and last.first_row + last.length == run.first_row:
            run = Run(run.label, last.length + run.length, last.first_row)
        self._open = run
        if self._longest is None or run.length > self._longest.length:
            self._longest = run

    @property
    def longest_run(self) -> Run | None:
        """The longest run, the first of those; None before there is any."""
        return self._longest

    def histogram(self) -> dict[Label, int] | None:
        """Return how often each label comes, sorted by label; None where there are too many."""
        if self._counts is None:
            return None
        named = {_named(label): count for label, count in self._counts.items()}
        return dict(sorted(named.items()))


def _named(label: Any) -> Label:
    named: Label = label.decode("utf-8", "surrogateescape") if isinstance(label, bytes) else label
    return named
