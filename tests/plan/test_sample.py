from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from oocload.errors import InvalidArgumentError
from oocload.plan.blocks import BlockGrid
from oocload.plan.epoch import PlanOptions
from oocload.plan.ranks import Share
from oocload.plan.sample import Draws
from oocload.plan.select import Selection
from tests.plan.strategies import planned, selections
from tests.plan.test_blocks import grids
from tests.plan.test_epoch import order_by_hand, order_of


def drawn(selection: Selection, weights: np.ndarray, seed: int = 0) -> Draws:
    return Draws(selection, weights, selection.block_rows, seed)


@given(grid=grids(max_rows=300), data=st.data(), seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_blocks_give_what_their_mass_is_worth(grid: BlockGrid, data: st.DataObject, seed: int, epoch: int) -> None:
    selection = data.draw(selections(grid))
    rng = np.random.default_rng(seed)
    weights = np.where(rng.random(grid.n_rows) < 0.3, 0, rng.random(grid.n_rows) * 10)
    weights[selection.starts[0]] = 1
    pool = drawn(selection, weights, seed)
    visits = pool.visits(epoch)
    assert (visits.counts > 0).all()
    assert visits.counts.max() <= selection.block_rows
    assert visits.counts.sum() == selection.n_rows
    rows = next(r for _, r in selection.row_pieces())
    masses = np.add.reduceat(weights[rows], np.cumsum(selection.counts) - selection.counts)
    given_ = np.bincount(visits.groups, visits.counts, minlength=selection.n_groups)
    assert np.abs(given_ - masses / masses.sum() * selection.n_rows).max() < 1 + 1e-6
    found = pool.cover(epoch, 3, visits)
    assert (weights[found.rows()] > 0).all()
    assert selection.holds(found.rows()).all()
    assert found.rows().tolist() == pool.cover(epoch, 3, visits).rows().tolist()
    group = np.searchsorted(selection.starts, found.rows(), side="right") - 1
    assert Counter(group.tolist()) == {int(g): int(n) for g, n in enumerate(given_) if n}


@given(grid=grids(max_rows=300), seed=st.integers(0, 99), window_blocks=st.integers(1, 5), data=st.data())
def test_orders_of_draws_keep_all_bounds(grid: BlockGrid, seed: int, window_blocks: int, data: st.DataObject) -> None:
    weights = np.random.default_rng(seed).pareto(0.5, grid.n_rows) + 1e-9
    batch_rows = data.draw(st.integers(1, grid.n_rows))
    pool = drawn(Selection.of_grid(grid), weights, seed)
    o = planned(grid, batch_rows, window_blocks, pool=pool, seed=seed)
    plan = o.plan(2)
    assert order_of(plan) == order_by_hand(o, 2)
    assert len(order_of(plan)) == grid.n_rows
    assert all(plan.slab(n).n_places <= o.slab_rows for n in range(plan.n_slabs))
    assert all(plan.reading(w).n_rows <= o.most_read for w in range(plan.n_windows))


@pytest.mark.parametrize("ordered", [False, True])
def test_rows_come_in_proportion(ordered: bool) -> None:
    """Chi-square of the rows' counts over some epochs, with weights mixed in the store, and with weights in order."""
    n_rows = 20_000
    weights = np.random.default_rng(0).choice([0.0, 0.5, 1, 3, 20], n_rows).astype("float32")
    weights = np.sort(weights) if ordered else weights
    pool = drawn(Selection.of_grid(BlockGrid(n_rows, 64)), weights)
    counts = np.zeros(n_rows)
    n_epochs = 40
    for epoch in range(n_epochs):
        counts += np.bincount(pool.cover(epoch, 0, pool.visits(epoch)).rows(), minlength=n_rows)
    expected = weights.astype(float) / weights.sum(dtype=float) * n_rows * n_epochs
    some = expected > 0
    assert not counts[~some].any()
    assert stats.chisquare(counts[some], expected[some] / expected.sum() * counts.sum()).pvalue > 1e-3
    by_weight = [(counts[weights == w].sum(), expected[weights == w].sum()) for w in (0.5, 1, 3, 20)]
    assert all(abs(found / wanted - 1) < 0.02 for found, wanted in by_weight)


def test_seventeen_million_rows() -> None:
    """More than 2**24, where single precision and multinomial samplers elsewhere stop."""
    n_rows, n_kinds = 17_000_000, 1000
    kind = (np.arange(n_rows, dtype=np.int64) * 2654435761 % n_rows % n_kinds).astype(np.int32)
    weights = (kind + 1).astype(np.float32)
    pool = Draws(Selection.of_grid(BlockGrid(n_rows, 4096)), weights, 4096, 1)
    visits = pool.visits(0)
    counts, last = np.zeros(n_kinds), 0
    for first in range(0, len(visits.groups), 512):
        rows = pool.cover(0, first, visits.take(slice(first, first + 512))).rows()
        counts += np.bincount(kind[rows], minlength=n_kinds)
        last = max(last, int(rows.max()))
    assert last > 16_990_000
    totals = np.bincount(kind, weights, minlength=n_kinds)
    assert stats.chisquare(counts, totals / totals.sum() * n_rows).pvalue > 1e-3


def test_ranks_and_streams_share_the_draws() -> None:
    grid = BlockGrid(1000, 20)
    pool = drawn(Selection.of_grid(grid), np.arange(1, 1001, dtype=float))

    def global_batches(world_size: int) -> list[list[int]]:
        shares = [Share(rank, world_size, streams=4) for rank in range(world_size)]
        plans = [planned(grid, 40 // world_size, 2, pool=pool, share=share).plan(1) for share in shares]
        return [sorted(r for p in plans for r in p.batch_rows(i).tolist()) for i in range(plans[0].n_batches)]

    assert global_batches(1) == global_batches(2) == global_batches(4)


def test_two_epochs_draw_other_rows() -> None:
    o = planned(BlockGrid(1000, 10), 50, 4, pool=drawn(Selection.of_grid(BlockGrid(1000, 10)), np.ones(1000)))
    assert Counter(order_of(o.plan(0))) != Counter(order_of(o.plan(1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({5: -1.0}, r"weights must be finite and not negative, got -1\.0 for row 5"),
        ({7: np.nan}, "weights must be finite and not negative, got nan for row 7"),
        ({99: np.inf}, "weights must be finite and not negative, got inf for row 99"),
        (dict.fromkeys(range(100), 0.0), "weights must have at least one above 0, got 100 zeros"),
    ],
)
def test_bad_weights(change: dict[int, float], message: str) -> None:
    weights = np.ones(100)
    weights[list(change)] = list(change.values())
    with pytest.raises(InvalidArgumentError, match=message):
        drawn(Selection.of_grid(BlockGrid(100, 10)), weights)


def test_golden_draws() -> None:
    grid = BlockGrid(12, 4)
    pool = drawn(Selection.of_grid(grid), np.arange(12.0), 42)
    o: PlanOptions = planned(grid, 4, 2, pool=pool, seed=42)
    assert [o.plan(0).batch_rows(i).tolist() for i in range(3)] == [[10, 9, 5, 4], [9, 11, 11, 8], [2, 6, 7, 10]]
