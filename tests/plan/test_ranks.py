from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.errors import InvalidArgumentError
from oocload.plan.blocks import BlockGrid
from oocload.plan.ranks import Share, Uneven, visits_of
from oocload.plan.select import Selection
from tests.plan.strategies import planned
from tests.plan.test_blocks import grids


def rows_of(share: Share, grid: BlockGrid, order: np.ndarray) -> list[int]:
    visits = Selection.of_grid(grid).visits(0).take(order)
    own = visits_of(share, share.rank, visits, np.cumsum(visits.counts))
    assert (own.counts > 0).all()
    starts = grid.borders(own.groups)[0]
    columns = zip(starts.tolist(), own.lows.tolist(), own.highs.tolist(), strict=True)
    return [row for start, low, high in columns for row in range(start + low, start + high)]


@given(grid=grids(), world_size=st.integers(1, 40), seed=st.integers(0, 99), uneven=st.sampled_from(["pad", "drop"]))
def test_ranks_are_disjoint_and_complete(grid: BlockGrid, world_size: int, seed: int, uneven: Uneven) -> None:
    if uneven == "drop" and world_size > grid.n_rows:
        with pytest.raises(InvalidArgumentError, match="world_size must be at most the"):
            Share(0, world_size, uneven).n_rows(grid.n_rows)
        return
    order = np.random.default_rng(seed).permutation(grid.n_blocks)
    shares = [rows_of(Share(rank, world_size, uneven), grid, order) for rank in range(world_size)]
    assert len({len(rows) for rows in shares}) == 1
    counts = Counter(row for rows in shares for row in rows)
    if uneven == "drop":
        assert set(counts.values()) == {1}
        assert grid.n_rows - len(counts) == grid.n_rows % world_size
    else:
        assert len(counts) == grid.n_rows
        assert sum(counts.values()) - grid.n_rows < world_size


@given(
    grid=grids(),
    data=st.data(),
    world_size=st.integers(1, 9),
    epoch=st.integers(0, 4),
    uneven=st.sampled_from(["pad", "drop"]),
)
def test_ranks_take_equal_steps(
    grid: BlockGrid, data: st.DataObject, world_size: int, epoch: int, uneven: Uneven
) -> None:
    world_size = min(world_size, grid.n_rows)
    most = Share(0, world_size, uneven).n_rows(grid.n_rows)
    batch_rows = data.draw(st.integers(1, most))
    window_blocks = data.draw(st.integers(1, grid.n_blocks))
    shuffle, drop_last = data.draw(st.booleans()), data.draw(st.booleans())
    seen: Counter[int] = Counter()
    for rank in range(world_size):
        share = Share(rank, world_size, uneven)
        o = planned(grid, batch_rows, window_blocks, shuffle=shuffle, seed=3, drop_last=drop_last, share=share)
        plan = o.plan(epoch)
        assert plan.n_batches == (most // batch_rows if drop_last else -(-most // batch_rows))
        seen.update(row for i in range(plan.n_batches) for row in plan.batch_rows(i).tolist())
    if not drop_last:
        assert grid.n_rows - len(seen) < world_size
        assert sum(seen.values()) == most * world_size


def test_epochs_deal_other_rows_to_a_rank() -> None:
    o = planned(BlockGrid(1000, 10), 50, 4, share=Share(1, 4))
    first, second = (np.concatenate([o.plan(e).batch_rows(i) for i in range(5)]) for e in (0, 1))
    assert len(set(first.tolist()) & set(second.tolist())) < 200


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 2), (2, 2), (0, 0)])
def test_rank_out_of_range(rank: int, world_size: int) -> None:
    with pytest.raises(InvalidArgumentError, match="rank must be from 0 to"):
        Share(rank, world_size)


def test_uneven_must_be_known() -> None:
    with pytest.raises(InvalidArgumentError, match="uneven must be 'pad', 'drop' or 'error', got 'keep'"):
        Share(0, 2, "keep")  # type: ignore[arg-type]


def test_uneven_as_an_error() -> None:
    assert Share(0, 4, "error").n_rows(100) == 25
    with pytest.raises(InvalidArgumentError, match=r"world_size must divide the 101 rows where uneven='error', got 4"):
        Share(0, 4, "error").n_rows(101)


def test_ranks_must_divide_the_streams() -> None:
    with pytest.raises(InvalidArgumentError, match="world_size must divide the 8 streams of the shuffle, got 3; use"):
        Share(0, 3, streams=8)


@pytest.mark.parametrize("uneven", ["drop", "pad"])
@pytest.mark.parametrize(("n_rows", "block_rows"), [(10, 10), (43, 8)])
def test_other_rows_are_left_out_or_repeated_each_epoch(uneven: Uneven, n_rows: int, block_rows: int) -> None:
    counts = np.zeros(n_rows)
    n_epochs = 400
    ranks = [planned(BlockGrid(n_rows, block_rows), 1, 2, share=Share(rank, 4, uneven)) for rank in range(4)]
    for epoch in range(n_epochs):
        for rank in ranks:
            plan = rank.plan(epoch)
            for i in range(plan.n_batches):
                counts[plan.batch_rows(i)] += 1
    each = 4 * Share(0, 4, uneven).n_rows(n_rows) / n_rows
    assert np.abs(counts / n_epochs - each).max() < 0.12
