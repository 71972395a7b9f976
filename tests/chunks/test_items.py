"""Laying rows of several lengths out: padded and dense, against a loop over rows."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oocload.chunks.items import numbers_of, pad_rows, put_dense, truncated
from oocload.chunks.ragged_rows import mask_of


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=60),
    width=st.integers(1, 12) | st.sampled_from([64, 100, 1000]),
    dtype=st.sampled_from(["u1", "i2", "i4", "f4", "f8", "c16", ">i4", "V3"]),
    item_shape=st.sampled_from([(), (2,), (3, 1)]),
    before=st.integers(0, 3),
    gap=st.integers(0, 2),
    pre=st.booleans(),
    value=st.sampled_from([0, 1, 200]),
    order=st.randoms(use_true_random=False),
)
@example([1000] * 3, 1000, "i4", (), 0, 0, False, 3, random.Random(0))
def test_padding_is_that_of_a_loop(
    lengths: list[int], width: int, dtype: str, item_shape: tuple[int, ...], before: int, gap: int, pre: bool,
    value: int, order: Any,
) -> None:  # fmt: skip
    length = np.minimum(np.array(lengths, np.int64), width)
    starts = before + np.cumsum(length + gap) - (length + gap)
    n_items = int(starts[-1] + length[-1]) if len(length) else before
    items = np.random.default_rng(0).integers(0, 255, n_items * int(np.prod(item_shape)) * np.dtype(dtype).itemsize)
    items = items.astype(np.uint8).view(dtype).reshape(n_items, *item_shape)
    shuffled = list(range(len(length)))
    order.shuffle(shuffled)
    starts, length = starts[shuffled], length[shuffled]
    fill = np.frombuffer(bytes([value] * np.dtype(dtype).itemsize), dtype)[0] if dtype == "V3" else value
    out = np.empty((len(length), width, *item_shape), dtype)
    pad_rows(items, starts, length, out, pre, fill)
    expected = np.empty_like(out)
    for row, start, n in zip(expected, starts.tolist(), length.tolist(), strict=True):
        row[...] = fill
        row[slice(width - n, width) if pre else slice(0, n)] = items[start : start + n]
    assert out.tobytes() == expected.tobytes()
    mask = mask_of(length, width, pre)
    assert mask.sum(axis=1).tolist() == length.tolist()


def test_many_rows_pass_in_pieces() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 300, 5000)
    starts = np.cumsum(lengths) - lengths
    items = rng.integers(1, 100, int(lengths.sum())).astype("i4")
    for width in (37, 300, 1024):
        first, kept = truncated(starts, lengths, width, keep_end=True)
        out = np.empty((5000, width), "i4")
        pad_rows(items, first, kept, out, True, -1)
        for row, start, n in zip(out[::97], first[::97].tolist(), kept[::97].tolist(), strict=True):
            np.testing.assert_array_equal(row[: width - n], -1)
            np.testing.assert_array_equal(row[width - n :], items[start : start + n])


@pytest.mark.parametrize("keep_end", [False, True])
def test_what_is_truncated(keep_end: bool) -> None:
    starts, lengths = truncated(np.array([0, 5, 7]), np.array([5, 2, 0]), 3, keep_end)
    assert starts.tolist() == ([2, 5, 7] if keep_end else [0, 5, 7])
    assert lengths.tolist() == [3, 2, 0]
    assert numbers_of(starts, lengths).tolist() == ([2, 3, 4, 5, 6] if keep_end else [0, 1, 2, 5, 6])


def test_dense_rows_sum_what_has_one_place() -> None:
    rows = np.full((3, 4), 9.0)
    put_dense(rows, np.array([1.0, 2, 4]), np.array([3, 3, 0]), np.array([2, 0, 1]))
    assert rows.tolist() == [[0, 0, 0, 3], [0] * 4, [4, 0, 0, 0]]
    rows = np.full((2, 3), 9.0)
    put_dense(rows, np.array([1.0, 2, 4]), np.array([2, 0, 1]), np.array([2, 1]))  # not in order, and none twice
    assert rows.tolist() == [[2, 0, 1], [0, 4, 0]]
