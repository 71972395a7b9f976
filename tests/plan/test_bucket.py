"""Rows of like length in one batch."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from oocload.plan.blocks import BlockGrid
from oocload.plan.bucket import bucketed_span, by_length
from oocload.plan.epoch import PlanOptions
from oocload.plan.select import Selection


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(1, 150),
    block_rows=st.integers(1, 20),
    window_blocks=st.integers(1, 5),
    batch_rows=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_each_row_has_a_place_and_batches_are_of_like_length(
    n_rows: int, block_rows: int, window_blocks: int, batch_rows: int, seed: int
) -> None:
    grid = BlockGrid(n_rows, block_rows)
    options = PlanOptions(grid, Selection.of_grid(grid), min(batch_rows, n_rows), window_blocks, True, seed, deal=False)
    plan = options.plan(1)
    lengths = np.random.default_rng(seed).integers(0, 9, n_rows)
    for number in range(plan.n_slabs):
        own = lengths[plan.reading(number).rows()]
        before = plan.places(number)
        assert before is not None
        after = by_length(before, own, plan, number, seed)
        assert sorted(after) == sorted(before)
        low, high = bucketed_span(plan, number)
        inside = (before >= low) & (before < high)
        assert (after[~inside] == before[~inside]).all()
        spans = []
        for first in range(low, high, plan.batch_size):
            held = own[(after >= first) & (after < min(high, first + plan.batch_size))]
            spans.append((int(held.min()), int(held.max())))
        for (_, highest), (lowest, _) in itertools.pairwise(sorted(spans)):
            assert highest <= lowest or spans.count((lowest, highest)) > 1


def test_the_order_of_batches_is_pinned() -> None:
    grid = BlockGrid(24, 6)
    plan = PlanOptions(grid, Selection.of_grid(grid), 4, 4, True, 3, deal=False).plan(0)
    places = plan.places(0)
    assert places is not None
    assert by_length(places, np.arange(24) % 7, plan, 0, 3).tolist() == GOLDEN


GOLDEN = [13, 23, 9, 1, 16, 19, 6, 12, 22, 10, 0, 17, 4, 5, 15, 21, 8, 2, 3, 18, 7, 14, 20, 11]
