from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.errors import InvalidArgumentError
from oocload.plan.mix import ByBatches, WithinBatches, check_until, shares_of

WEIGHTS = st.lists(st.floats(0.05, 5), min_size=1, max_size=4)
UNTIL = st.sampled_from(["first", "last"])


@given(weights=WEIGHTS, batch_rows=st.integers(30, 100), data=st.data(), until=UNTIL)
def test_rows_of_every_source_in_every_batch(
    weights: list[float], batch_rows: int, data: st.DataObject, until: str
) -> None:
    shares = shares_of(weights, len(weights))
    rows = [data.draw(st.integers(200, 3000)) for _ in shares]
    if min(int(share * batch_rows) for share in shares) == 0:
        return
    schedule = WithinBatches(shares, batch_rows, rows, until)
    given_ = np.array([schedule.parts(i) for i in range(schedule.n_batches)])
    assert (given_ >= 0).all()
    assert (given_.sum(axis=1) == batch_rows).all()
    assert given_.sum(axis=0).tolist() == schedule.taken(schedule.n_batches)
    exact = np.array([float(s) for s in shares]) * batch_rows * schedule.n_batches
    off = np.abs(given_.sum(axis=0) - exact)
    assert np.sort(off)[:-1].max(initial=0) < 1
    assert off.max() < len(shares)
    over = [a > b for a, b in zip(schedule.taken(schedule.n_batches), rows, strict=True)]
    more = [a > b for a, b in zip(schedule.taken(schedule.n_batches + 1), rows, strict=True)]
    if until == "first":
        assert not any(over)
        assert any(more)
    else:
        before = schedule.taken(schedule.n_batches - 1)
        assert all(a >= b for a, b in zip(schedule.taken(schedule.n_batches), rows, strict=True))
        assert any(a < b for a, b in zip(before, rows, strict=True))


@given(weights=WEIGHTS, data=st.data(), until=UNTIL)
def test_batches_take_turns(weights: list[float], data: st.DataObject, until: str) -> None:
    shares = shares_of(weights, len(weights))
    batches = [data.draw(st.integers(1, 200)) for _ in shares]
    schedule = ByBatches(shares, batches, until)
    turns = schedule.turns.tolist()
    for n in range(len(turns) + 1):
        taken = schedule.taken(n)
        assert taken == [turns[:n].count(i) for i in range(len(shares))]
        assert max(abs(t - n * float(s)) for t, s in zip(taken, shares, strict=True)) <= len(shares)
    if until == "first":
        assert all(a <= b for a, b in zip(taken, batches, strict=True))
        assert any(a == b for a, b in zip(taken, batches, strict=True))
    else:
        assert all(a >= b for a, b in zip(taken, batches, strict=True))


def test_golden_turns() -> None:
    schedule = ByBatches(shares_of([0.5, 0.3, 0.2], 3), [10, 10, 10], "first")
    assert schedule.turns.tolist() == [0, 1, 2, 0, 0, 1, 0, 2, 1, 0] * 2


def test_weights_are_shares() -> None:
    assert shares_of([3, 1], 2) == [Fraction(3, 4), Fraction(1, 4)]
    assert shares_of(None, 3) == [Fraction(1, 3)] * 3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1], "weights must be one for each of the 2 loaders, got 1"),
        ([1, -1], r"weights must be finite and above 0, got -1\.0"),
        ([1, 0], r"weights must be finite and above 0, got 0\.0; leave the loader out"),
        ([1, float("nan")], "weights must be finite and above 0, got nan"),
    ],
)
def test_bad_weights(weights: list[float], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        shares_of(weights, 2)


def test_too_few_rows() -> None:
    with pytest.raises(InvalidArgumentError, match="batch_size must be at least 5 to have rows of each of 6 loaders"):
        WithinBatches(shares_of(None, 6), 4, [100] * 6, "first")
    with pytest.raises(InvalidArgumentError, match="loader 1 must have the rows of one batch of the mix, and has 3"):
        WithinBatches(shares_of(None, 2), 10, [100, 3], "first")
    with pytest.raises(InvalidArgumentError, match="until must be 'first' or 'last', got 'end'"):
        check_until("end")  # type: ignore[arg-type]
