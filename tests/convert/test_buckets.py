"""How rows are cut into runs and buckets: sums, against what they are to come to."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.convert.buckets import (
    KeyRange,
    bucket_nbytes_for,
    edges_of,
    memory_for,
    pieces_for,
    ranges_of,
    rows_that_fit,
    run_nbytes_for,
)

MIB = 2**20


@given(st.lists(st.integers(0, 20), max_size=50), st.integers(1, 30))
def test_ranges(sizes: list[int], most: int) -> None:
    ranges = ranges_of(np.array(sizes, np.int64), most)
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(len(sizes)))
    for start, stop in ranges:
        assert stop - start == 1 or sum(sizes[start:stop]) <= most
    for (start, stop), _ in pairwise(ranges):
        assert sum(sizes[start : stop + 1]) > most  # the next one would not have fitted


def test_edges() -> None:
    assert edges_of(np.array([3, 3, 3, 9, 1, 0, 1]), 6).tolist() == [0, 2, 3, 4, 7]


@given(st.lists(st.integers(1, 20), max_size=20), st.integers(0, 100))
def test_rows_that_fit(sizes: list[int], room: int) -> None:
    n = rows_that_fit(np.array(sizes, np.int64), room)
    assert sum(sizes[:n]) <= room
    assert n == len(sizes) or sum(sizes[: n + 1]) > room


def test_keys_of_slots_lie_in_finer_slots() -> None:
    part = KeyRange().part(5, 6)
    assert part == (5 << 48, 32)
    assert part.part(65535, 65536) == ((5 << 48) + (65535 << 32), 16)
    assert part.part(0, 1).part(0, 1) == (5 << 48, 0)
    three = KeyRange().part(1, 4)
    assert three.low == 1 << 48
    assert 65536 << three.shift >= 3 << 48


def test_bits_in_common() -> None:
    assert KeyRange().prefix_bits(65536) == 0
    assert KeyRange().prefix_bits(1) == 16
    assert KeyRange().prefix_bits(3) == 14
    assert KeyRange(0, 0).prefix_bits(1) == 64


@pytest.mark.parametrize(
    ("nbytes", "n_runs", "most", "expected"),
    [
        (100 * MIB, 2, 32 * MIB, 4 * MIB),  # small buckets serve as well
        (100 * MIB, 2, MIB, MIB),
        (2**36, 256, 64 * MIB, 16 * MIB),  # segments of 64 KiB
        (2**38, 16_000, 8 * MIB, 250 * MIB),  # larger than memory, so that segments are not too short
    ],
)
def test_bytes_of_buckets(nbytes: int, n_runs: int, most: int, expected: int) -> None:
    found = bucket_nbytes_for(nbytes, n_runs, most, 8)
    assert expected <= found <= 80 * expected
    assert (found <= most) == (expected <= most)


def test_shares_of_memory() -> None:
    assert pieces_for(64 * MIB, 100) == 4 * MIB
    assert pieces_for(2**40, 100) == 8 * MIB
    assert pieces_for(64 * MIB, 9 * MIB) == 9 * MIB
    assert run_nbytes_for(64 * MIB, 20 * MIB, 2) == 40 * MIB
    assert run_nbytes_for(2**40, 0, 2) == 256 * MIB
    assert run_nbytes_for(24 * MIB, 18 * MIB, 2) == 0
    least = memory_for(18 * MIB, 2)
    assert run_nbytes_for(least, 18 * MIB, 2) > 0
    assert run_nbytes_for(least - 10, 18 * MIB, 2) == 0
