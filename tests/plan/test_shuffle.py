import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.errors import InvalidArgumentError
from oocload.plan import shuffle
from oocload.plan.shuffle import BLOCKS, ROWS, Shuffle, found_at, permutation

SEEDS = st.integers(0, 2**64 - 1)


@given(n=st.integers(0, 3000), seed=SEEDS, epoch=st.integers(0, 10**6), index=st.integers(0, 10**9))
def test_is_a_permutation_and_a_pure_function(n: int, seed: int, epoch: int, index: int) -> None:
    first = permutation(n, seed, epoch, ROWS, index)
    assert np.array_equal(np.sort(first), np.arange(n))
    assert np.array_equal(first, permutation(n, seed, epoch, ROWS, index))


@given(seed=SEEDS)
def test_differs_by_epoch_purpose_index_and_seed(seed: int) -> None:
    base = permutation(500, seed, 3, ROWS, 1)
    for other in (
        permutation(500, seed, 4, ROWS, 1),
        permutation(500, seed, 3, BLOCKS, 1),
        permutation(500, seed, 3, ROWS, 2),
        permutation(500, (seed + 1) % 2**64, 3, ROWS, 1),
    ):
        assert not np.array_equal(base, other)


def test_every_place_is_equally_likely() -> None:
    n, runs = 8, 4000
    counts = np.zeros((n, n))
    for seed in range(runs):
        counts[np.arange(n), permutation(n, seed, 0, ROWS)] += 1
    chi_square = ((counts - runs / n) ** 2 / (runs / n)).sum()
    assert chi_square < 49 + 5 * (2 * 49) ** 0.5  # (n - 1)² = 49 degrees of freedom


def test_golden_order() -> None:
    """The order is a promise: a change here breaks every saved state."""
    assert permutation(10, 0, 0, BLOCKS).tolist() == [4, 2, 7, 5, 9, 3, 1, 8, 6, 0]
    assert permutation(10, 12345, 7, ROWS, 3).tolist() == [5, 3, 6, 4, 8, 7, 9, 0, 2, 1]


@pytest.mark.parametrize("rows", [0, -1, 1.5, "64", True])
def test_window_rows_must_be_a_count(rows: object) -> None:
    with pytest.raises(InvalidArgumentError, match="window_rows must be a whole number of at least 1, got"):
        Shuffle(window_rows=rows)  # type: ignore[arg-type]


@given(n=st.integers(1, 3000), seed=SEEDS, index=st.integers(0, 10**9), data=st.data())
def test_finds_values_without_the_permutation(n: int, seed: int, index: int, data: st.DataObject) -> None:
    values = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=50)), np.int64)
    whole = permutation(n, seed, 1, ROWS, index)
    assert whole[found_at(values, n, seed, 1, ROWS, index)].tolist() == values.tolist()


def test_finds_values_among_equal_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def few_keys(n: int, *_: int) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 3, (n, 2)).astype("u2")

    monkeypatch.setattr(shuffle, "_keys", few_keys)
    whole = permutation(1000, 0, 0, ROWS)
    assert whole[found_at(np.arange(1000), 1000, 0, 0, ROWS)].tolist() == list(range(1000))
