from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oocload.errors import InvalidArgumentError
from oocload.plan import balance
from oocload.plan.balance import BalancedOptions, Classes
from oocload.plan.blocks import BlockGrid
from oocload.plan.ranks import Share
from oocload.plan.select import Selection
from tests.plan.strategies import planned, selections
from tests.plan.test_blocks import grids
from tests.plan.test_epoch import order_by_hand, order_of


def balanced(grid: BlockGrid, codes: np.ndarray, part: int, window_blocks: int, **more: object) -> BalancedOptions:
    """Return options whose batches have ``part`` rows of each class of each stream of a rank."""
    share = more.get("share", Share())
    selection = more.pop("pool", Selection.of_grid(grid))
    classes = Classes(selection, codes, [f"c{i}" for i in range(int(codes.max()) + 1)], "y")
    batch_rows = part * classes.n_classes * len(share.own)
    plain = planned(grid, batch_rows, window_blocks, pool=selection, **more)
    names = ("grid", "pool", "batch_rows", "window_blocks", "shuffle", "seed", "drop_last", "share")
    return BalancedOptions(**{name: getattr(plain, name) for name in names}, classes=classes)


@settings(deadline=None)
@given(
    grid=grids(max_rows=300),
    data=st.data(),
    n_classes=st.integers(1, 5),
    part=st.integers(1, 6),
    window_blocks=st.integers(1, 6),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 5),
    ordered=st.booleans(),
)
def test_every_batch_is_exactly_balanced(
    grid: BlockGrid,
    data: st.DataObject,
    n_classes: int,
    part: int,
    window_blocks: int,
    seed: int,
    epoch: int,
    ordered: bool,
) -> None:
    selection = data.draw(selections(grid))
    rng = np.random.default_rng(seed)
    codes = rng.choice(n_classes, grid.n_rows, p=(w := rng.random(n_classes) ** 3 + 0.01) / w.sum())
    rows = np.concatenate([r for _, r in selection.row_pieces()])
    codes[rows[:n_classes]] = np.arange(min(n_classes, len(rows)))
    codes = np.sort(codes) if ordered and selection.whole else codes
    if len(np.unique(codes[rows])) < codes.max() + 1:
        return
    world_size = data.draw(st.integers(1, 3))
    for rank in range(world_size):
        o = balanced(grid, codes, part, window_blocks, pool=selection, seed=seed, share=Share(rank, world_size))
        plan = o.plan(epoch)
        order = order_of(plan)
        assert order == order_by_hand(o, epoch)
        assert len(order) == o.n_batches * o.batch_rows
        assert selection.holds(np.array(order)).all()
        for i in range(o.n_batches):
            assert set(np.bincount(codes[plan.batch_rows(i)], minlength=codes.max() + 1)) == {part}
        assert o.plan(epoch).batch_rows(o.n_batches - 1).tolist() == plan.batch_rows(o.n_batches - 1).tolist()
        assert all(plan.reading(w).n_rows <= o.most_read for w in range(plan.n_windows))


@pytest.mark.parametrize("ordered", [False, True])
def test_rows_of_a_class_come_equally_often(ordered: bool) -> None:
    """Their counts vary less than those of independent draws."""
    rng = np.random.default_rng(0)
    codes = rng.choice(3, 6000, p=[0.7, 0.25, 0.05])
    codes = np.sort(codes) if ordered else codes
    o = balanced(BlockGrid(6000, 50), codes, 10, 16)
    counts = np.zeros(6000)
    for epoch in range(10):
        counts += np.bincount(order_of(o.plan(epoch)), minlength=6000)
    for c in range(3):
        of_class = counts[codes == c]
        assert of_class.sum() == 10 * o.class_rows
        assert of_class.var() < of_class.mean()
        assert of_class.max() < of_class.mean() + 6 * of_class.mean() ** 0.5


@pytest.mark.parametrize("ordered", [False, True])
def test_each_block_is_read_about_once(ordered: bool) -> None:
    codes = np.random.default_rng(0).integers(0, 10, 100_000)
    codes = np.sort(codes) if ordered else codes
    o = balanced(BlockGrid(100_000, 100), codes, 10, 100)
    plan = o.plan(0)
    reads = sum(len(plan.reading(w).starts) for w in range(plan.n_windows))
    assert reads <= 1.2 * 1000


def test_a_rare_class_is_read_again_where_a_window_would_lack_rows() -> None:
    codes = (np.arange(10_000) % 1000 == 0).astype(int)  # 10 rows of 10,000
    o = balanced(BlockGrid(10_000, 100), codes, 16, 10)
    assert o.passes()[0] == 1
    assert o.passes()[1] == o.n_windows == 11  # a window would hold one of its rows
    seen = [set(o.plan(0).batch_rows(i)[codes[o.plan(0).batch_rows(i)] == 1].tolist()) for i in range(5)]
    assert all(len(rows) >= 5 for rows in seen)


def test_streams_give_the_same_global_batches_to_any_number_of_ranks() -> None:
    codes = np.random.default_rng(0).choice(3, 3000, p=[0.6, 0.3, 0.1])
    grid = BlockGrid(3000, 30)

    def global_batches(world_size: int) -> list[list[int]]:
        shares = [Share(rank, world_size, streams=4) for rank in range(world_size)]
        plans = [balanced(grid, codes, 5, 5, share=share).plan(2) for share in shares]
        return [sorted(r for p in plans for r in p.batch_rows(i).tolist()) for i in range(plans[0].n_batches)]

    assert global_batches(1) == global_batches(2) == global_batches(4)


def test_ranks_take_other_rows() -> None:
    codes = np.arange(3000) % 3
    orders = [order_of(balanced(BlockGrid(3000, 30), codes, 5, 5, share=Share(r, 3)).plan(0)) for r in range(3)]
    counts = Counter(row for order in orders for row in order)
    assert set(counts.values()) <= {1, 2}
    assert len(counts) > 2800


def test_rows_of_unequal_blocks_come_equally_often() -> None:
    """Few rows of a class, 8 in one block and 3 in another, of which an epoch takes 3."""
    codes = np.array([0] * 8 + [1, 2, 3, 4, 5, 6, 7, 1] + [0] * 3 + [2, 3, 4, 5, 6])
    o = balanced(BlockGrid(24, 16), codes, 1, 2, drop_last=True)
    assert o.class_rows == 3
    counts = np.zeros(24)
    for epoch in range(2000):
        counts += np.bincount(order_of(o.plan(epoch)), minlength=24)
    of_class = counts[codes == 0] / 2000
    assert np.abs(of_class / of_class.mean() - 1).max() < 0.15


def test_slices_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(0).choice(3, 3000, p=[0.6, 0.3, 0.1])
    o = balanced(BlockGrid(3000, 30), codes, 5, 20)
    whole = order_of(o.plan(0))
    monkeypatch.setattr(balance, "_SLICE_ROWS", 64)
    assert order_of(o.plan(0)) == whole


def test_rare_classes_are_not_read_for_over_and_over() -> None:
    codes = np.where(np.arange(100_000) % 1000 < 20, np.arange(100_000) % 1000 // 2 + 1, 0)  # ten classes of 200 rows
    o = balanced(BlockGrid(100_000, 500), codes, 100, 8)
    plan = o.plan(0)
    reads = sum(len(plan.reading(w).starts) for w in range(plan.n_windows))
    assert reads <= 3.2 * 200


def test_a_class_without_rows() -> None:
    grid, codes = BlockGrid(100, 10), np.arange(100) // 50
    with pytest.raises(InvalidArgumentError, match="class 'b' of 'y' has none among the 50 rows selected; leave it"):
        Classes(Selection.of_rows(grid, np.arange(50)), codes, ["a", "b"], "y")


def test_golden_balanced_batches() -> None:
    o = balanced(BlockGrid(12, 4), np.array([0] * 9 + [1] * 3), 2, 2, seed=42)
    assert [o.plan(0).batch_rows(i).tolist() for i in range(3)] == [[9, 11, 8, 6], [10, 7, 9, 3], [1, 11, 0, 10]]
