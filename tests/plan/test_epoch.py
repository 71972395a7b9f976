from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from oocload.plan.blocks import BlockGrid
from oocload.plan.epoch import EpochPlan, PlanOptions, count_batches, slab_rows, windows_from
from tests.plan.test_blocks import grids


@st.composite
def options(draw: st.DrawFn) -> PlanOptions:
    grid = draw(grids(max_rows=400))
    batch_rows = draw(st.integers(1, grid.n_rows))
    least = min(grid.n_blocks, -(-batch_rows // grid.mean_rows))
    return PlanOptions(
        grid=grid,
        batch_rows=batch_rows,
        window_blocks=draw(st.integers(least, grid.n_blocks)),
        shuffle=draw(st.booleans()),
        seed=draw(st.integers(0, 2**64 - 1)),
        drop_last=draw(st.booleans()),
    )


def order_by_hand(o: PlanOptions, epoch: int) -> list[int]:
    """The epoch's order of rows, the slow and obvious way."""
    plan = EpochPlan(o, epoch)
    order: list[int] = []
    blocks = plan.block_order.tolist()
    for number, first in enumerate(range(0, len(blocks), o.window_blocks)):
        pool = [r for b in blocks[first : first + o.window_blocks] for r in range(*o.grid.rows(b))]
        places = plan.window(number).destinations
        placed = pool[:]
        for row, place in zip(pool, range(len(pool)) if places is None else places, strict=True):
            placed[place] = row
        order += placed
    return order


@given(o=options(), epoch=st.integers(0, 50))
def test_every_row_exactly_once(o: PlanOptions, epoch: int) -> None:
    plan = EpochPlan(o, epoch)
    rows = np.concatenate([plan.batch_rows(i) for i in range(plan.n_batches)] or [np.empty(0, int)])
    n_kept = o.grid.n_rows // o.batch_rows * o.batch_rows if o.drop_last else o.grid.n_rows
    assert len(rows) == len(set(rows.tolist())) == n_kept
    assert rows.tolist() == order_by_hand(o, epoch)[:n_kept]


@given(o=options())
def test_all_batches_are_full_but_the_last(o: PlanOptions) -> None:
    plan = EpochPlan(o, 0)
    sizes = [len(plan.batch_rows(i)) for i in range(plan.n_batches)]
    assert sizes[:-1] == [o.batch_rows] * (len(sizes) - 1)
    assert plan.n_batches == count_batches(o)


@given(o=options(), epoch=st.integers(0, 5))
def test_windows_tile_the_positions_and_deliver_each_batch_once(o: PlanOptions, epoch: int) -> None:
    plan = EpochPlan(o, epoch)
    position, delivered, carried = 0, [], 0
    for number in range(plan.n_windows):
        window = plan.window(number)
        assert plan.window_start(number) == position
        assert all(plan.window_of(p) == number for p in (position, position + window.n_rows - 1))
        assert window.head_rows == carried
        assert window.head_rows + window.n_rows <= slab_rows(o)
        delivered += list(range(window.first_batch, window.first_batch + window.n_batches))
        position += window.n_rows
        carried = window.tail_rows
    assert position == o.grid.n_rows
    assert carried == 0
    assert delivered == list(range(plan.n_batches))


@given(o=options(), epoch=st.integers(0, 5), data=st.data())
def test_windows_from_a_batch_are_the_rest_of_the_sequence(o: PlanOptions, epoch: int, data: st.DataObject) -> None:
    if not count_batches(o):
        return
    batch = data.draw(st.integers(0, count_batches(o) - 1))
    whole = [(p.epoch, w) for p, w in islice(windows_from(o, epoch, 0, endless=True), 50)]
    rest = [(p.epoch, w) for p, w in islice(windows_from(o, epoch, batch, endless=True), 20)]
    first = EpochPlan(o, epoch).first_window(batch)
    assert rest == whole[first : first + 20]
    last = EpochPlan(o, epoch).last_window(batch)
    assert first <= last


@given(o=options())
def test_two_epochs_differ(o: PlanOptions) -> None:
    if o.shuffle and o.grid.n_rows > 50:
        assert order_by_hand(o, 0) != order_by_hand(o, 1)


def test_golden_batches() -> None:
    """The order is a promise: a change here breaks every saved state."""
    o = PlanOptions(BlockGrid(23, 4), batch_rows=7, window_blocks=3, shuffle=True, seed=42)
    assert [EpochPlan(o, 2).batch_rows(i).tolist() for i in range(4)] == [
        [21, 1, 22, 14, 2, 15, 3],
        [0, 13, 12, 20, 10, 8, 17],
        [4, 5, 6, 7, 11, 16, 19],
        [9, 18],
    ]
