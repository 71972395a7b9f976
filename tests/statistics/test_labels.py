from collections import Counter
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.statistics import labels as module
from oocload.statistics.labels import Labels, Run, count_labels

DTYPES = ["?", "u1", "i1", "u2", "i4", "i8", "u8", "S3", "U2"]


def plainly(values: list[object]) -> tuple[dict[object, int], Run]:
    """Return histogram and longest run by the obvious way."""
    longest, row = Run("", 0, 0), 0
    for label, group in groupby(values):
        length = len(list(group))
        if length > longest.length:
            longest = Run(label, length, row)  # type: ignore[arg-type]
        row += length
    return dict(sorted(Counter(values).items())), longest


@st.composite
def runs(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    if dtype.kind in "SU":
        known = np.array(["", "a", "b", "xyz"], dtype)
    elif dtype.kind == "b":
        known = np.array([False, True])
    else:
        limits = np.iinfo(dtype)
        chosen = draw(st.sampled_from([[0, 1, 2], [limits.min, 0, limits.max], [limits.max - 1, limits.max]]))
        known = np.array(chosen, dtype)
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=12))
    return np.repeat(rng.choice(known, len(lengths)), lengths)


@given(runs(), st.lists(st.integers(0, 100), max_size=5), st.integers(1, 9))
def test_labels_in_any_parts(values: np.ndarray, borders: list[int], piece_rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE_ROWS", piece_rows)
        labels, row = Labels(), 0
        for part in np.split(values, sorted(borders)):
            for found in count_labels(part, row, True):
                labels.add(found)
            row += len(part)
    plain = [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]
    histogram, longest = plainly(plain)
    assert labels.histogram() == histogram
    assert list(labels.histogram() or ()) == list(histogram)
    assert labels.longest_run == longest
    assert type(next(iter(labels.histogram() or ()))) is type(plain[0])


def test_numbers_of_rows_are_no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LABELS", 10)
    labels = Labels()
    for first in (0, 8):
        assert labels.counted
        for found in count_labels(np.arange(first, first + 8), first, True):
            labels.add(found)
    assert not labels.counted
    for found in count_labels(np.full(5, 15), 16, labels.counted):
        labels.add(found)
    assert labels.histogram() is None
    assert labels.longest_run == Run(15, 6, 15)
