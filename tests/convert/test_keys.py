"""Keys of rows: golden orders, uniformity, and orders beside NumPy's own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.convert.keys import order_of_keys, order_of_slots, row_keys, slots_of

CRITICAL = {"81": 151.0, "24": 56.0}  # of chi-square at a chance of about 1e-6, by degrees of freedom


def order(n: int, seed: int) -> list[int]:
    return np.argsort(row_keys(seed, 0, n), kind="stable").tolist()


def test_golden() -> None:
    assert order(12, 0) == [4, 10, 9, 8, 0, 3, 5, 1, 11, 6, 2, 7]
    assert order(12, 7) == [5, 7, 8, 0, 11, 4, 6, 9, 2, 1, 3, 10]
    assert row_keys(0, 10**12, 10**12 + 2).tolist() == [5401613326351748329, 5399656718449517543]


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 2**64 - 1))
def test_keys_of_a_range_are_those_of_its_rows(start: int, n: int, seed: int) -> None:
    np.testing.assert_array_equal(row_keys(seed, start, start + n), row_keys(seed, 0, start + n)[start:])


def test_seeds_give_other_keys() -> None:
    keys = np.concatenate([row_keys(seed, 0, 100) for seed in (0, 1, 2, 2**63, 2**64 - 1)])
    assert len(np.unique(keys)) == 500


def test_every_row_comes_to_every_place_equally_often() -> None:
    """Chi-square of places × rows over seeds: n² cells, of which (n - 1)² are free."""
    n, n_seeds = 10, 4000
    counts = np.zeros((n, n))
    for seed in range(n_seeds):
        counts[np.arange(n), order(n, seed)] += 1
    expected = n_seeds / n
    assert ((counts - expected) ** 2 / expected).sum() < CRITICAL["81"]


def test_every_order_comes_equally_often() -> None:
    n_seeds = 7200
    orders, counts = np.unique([order(4, seed) for seed in range(n_seeds)], axis=0, return_counts=True)
    assert len(orders) == 24
    assert ((counts - n_seeds / 24) ** 2 / (n_seeds / 24)).sum() < CRITICAL["24"]


@given(
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=40),
    st.sampled_from([0, 7, 16, 40, 64]),
)
def test_order_of_keys(numbers: list[int], prefix_bits: int) -> None:
    """Whatever the bits in common are said to be, equal keys stay in place."""
    keys = np.array(numbers, np.uint64)
    np.testing.assert_array_equal(order_of_keys(keys, prefix_bits), np.argsort(keys, kind="stable"))


@pytest.mark.parametrize(("low", "shift"), [(0, 48), (5 << 48, 32), (123, 0)])
def test_slots(low: int, shift: int) -> None:
    keys = np.uint64(low) + (np.arange(100, dtype=np.uint64)[::-1] << np.uint64(shift))
    slots = slots_of(keys, low, shift)
    assert slots.tolist() == list(range(99, -1, -1))
    assert order_of_slots(slots).tolist() == list(range(99, -1, -1))
