from collections import Counter
from itertools import islice
from math import ceil

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from oocload.plan.blocks import BlockGrid
from oocload.plan.epoch import PlanOptions, slabs_from
from oocload.plan.ranks import Share
from oocload.plan.select import Selection
from oocload.plan.windows import Plan
from tests.plan.strategies import options, planned


def order_of(plan: Plan) -> list[int]:
    return [row for i in range(plan.n_batches) for row in plan.batch_rows(i).tolist()]


def order_by_hand(o: PlanOptions, epoch: int) -> list[int]:
    """The epoch's order of rows, slab by slab, as the loader puts it together: what is read, to which place."""
    plan, order, carried = o.plan(epoch), [], []
    late: list[int] = []
    for number in range(plan.n_slabs):
        slab = plan.slab(number)
        places = plan.places(number)
        own, own_late = [], []
        if number < plan.n_windows:
            reading = plan.reading(number)
            for row, early in zip(reading.rows().tolist(), reading.early.tolist(), strict=True):
                (own if early else own_late).append(row)
        own, late = late + own, own_late
        assert len(own) == slab.n_own
        filled = [None] * slab.n_places
        assert len(carried) == slab.head_rows
        for place, row in zip(np.arange(slab.n_places)[slab.head].tolist(), carried, strict=True):
            filled[place] = row
        into = range(slab.head_rows, slab.n_places) if places is None else places.tolist()
        for place, row in zip(into, own, strict=True):
            assert filled[place] is None
            filled[place] = row
        order += filled[: slab.n_rows]
        if number + 1 < plan.n_slabs:
            carried = [filled[p] for p in np.arange(slab.n_places)[plan.slab(number + 1).head_from].tolist()]
    return order


@given(o=options(), epoch=st.integers(0, 50))
def test_every_row_exactly_once(o: PlanOptions, epoch: int) -> None:
    plan = o.plan(epoch)
    rows = order_of(plan)
    wanted = o.pool.visits(epoch)
    kept = o.n_rows // o.batch_rows * o.batch_rows if o.drop_last else o.n_rows
    assert len(rows) == kept
    assert rows == order_by_hand(o, epoch)
    if o.share.n_streams == 1:
        assert len(set(rows)) == kept
        if not o.drop_last:
            assert set(rows) == set(o.pool.cover(epoch, 0, wanted).rows().tolist())


@given(o=options())
def test_all_batches_are_full_but_the_last(o: PlanOptions) -> None:
    plan = o.plan(0)
    sizes = [len(plan.batch_rows(i)) for i in range(plan.n_batches)]
    assert sizes[:-1] == [o.batch_rows] * (len(sizes) - 1)


@given(o=options(), epoch=st.integers(0, 5))
def test_slabs_deliver_each_batch_once_and_keep_their_bounds(o: PlanOptions, epoch: int) -> None:
    plan = o.plan(epoch)
    delivered: list[int] = []
    for number in range(plan.n_slabs):
        slab = plan.slab(number)
        assert slab.n_places <= o.slab_rows
        assert slab.n_own <= o.most_read
        delivered += range(slab.first_batch, slab.first_batch + slab.n_batches)
    assert delivered == list(range(plan.n_batches))
    assert all(plan.reading(w).n_rows <= o.most_read for w in range(plan.n_windows))


@given(o=options(), epoch=st.integers(0, 5))
def test_in_order_where_nothing_is_shuffled(o: PlanOptions, epoch: int) -> None:
    if not o.shuffle and o.share.n_streams == 1:
        rows = order_of(o.plan(epoch))
        assert rows == sorted(rows)
        assert all(o.plan(epoch).places(n) is None for n in range(o.plan(epoch).n_slabs))


@given(o=options(), epoch=st.integers(0, 5), data=st.data())
def test_any_batch_alone_and_any_start(o: PlanOptions, epoch: int, data: st.DataObject) -> None:
    if not o.n_batches:
        return
    batch = data.draw(st.integers(0, o.n_batches - 1))
    assert (
        o.plan(epoch).batch_rows(batch).tolist() == [o.plan(epoch).batch_rows(i) for i in range(batch + 1)][-1].tolist()
    )
    whole = [(p.epoch, n) for p, n in islice(slabs_from(o, epoch, 0, endless=True), 50)]
    rest = [(p.epoch, n) for p, n in islice(slabs_from(o, epoch, batch, endless=True), 20)]
    first = o.plan(epoch).first_slab(batch) - o.plan(epoch).first_slab(0)  # slabs before that one have no batch
    assert rest == whole[first : first + 20]


@given(o=options(), epoch=st.integers(0, 5))
def test_late_rows_alone_are_those_of_the_whole_window(o: PlanOptions, epoch: int) -> None:
    plan = o.plan(epoch)
    for window in range(plan.n_windows):
        reading, late = plan.reading(window), plan.reading(window, late_only=True)
        assert late.rows().tolist() == reading.rows()[~reading.early].tolist()
        assert not late.early.any()


@given(o=options())
def test_two_epochs_differ(o: PlanOptions) -> None:
    if o.shuffle and o.pool.n_rows > 50 and o.n_batches:
        assert order_of(o.plan(0)) != order_of(o.plan(1))


@given(window_blocks=st.integers(2, 9), seed=st.integers(0, 99))
def test_half_of_each_block_goes_to_the_next_slab(window_blocks: int, seed: int) -> None:
    o = planned(BlockGrid(1000, 20), 10, window_blocks, seed=seed)
    plan = o.plan(0)
    for window in range(plan.n_windows):
        reading = plan.reading(window)
        assert set(np.diff(reading.early_ends, prepend=0).tolist()) == {10}
    rows = [*plan.reading(0, late_only=True).rows(), *plan.reading(1).only(late=False).rows()]
    assert len(rows) == plan.slab(1).n_own
    n_blocks = Counter(row // 20 for row in rows)
    assert len(n_blocks) == len(plan.reading(0).starts) + len(plan.reading(1).starts) >= 2 * window_blocks - 2
    assert set(n_blocks.values()) == {10}


@settings(deadline=None)
@given(
    n_rows=st.integers(8, 150),
    block_rows=st.integers(1, 40),
    window_blocks=st.integers(1, 5),
    parts=st.integers(1, 4),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    uneven=st.sampled_from(["pad", "drop"]),
)
def test_streams_give_the_same_global_batches_to_any_number_of_ranks(
    n_rows: int, block_rows: int, window_blocks: int, parts: int, shuffle: bool, drop_last: bool, uneven: str
) -> None:
    streams, grid = 8, BlockGrid(n_rows, min(n_rows, block_rows))

    def global_batches(world_size: int, epoch: int) -> list[list[int]]:
        plans = []
        for rank in range(world_size):
            share = Share(rank, world_size, uneven, streams)  # type: ignore[arg-type]
            batch_rows = parts * streams // world_size
            o = planned(grid, batch_rows, window_blocks, shuffle=shuffle, drop_last=drop_last, share=share)
            plans.append(o.plan(epoch))
            assert order_of(plans[-1]) == order_by_hand(o, epoch)
        assert len({p.n_batches for p in plans}) == 1
        return [sorted(r for p in plans for r in p.batch_rows(i).tolist()) for i in range(plans[0].n_batches)]

    for epoch in (0, 3):
        alone = global_batches(1, epoch)
        assert all(len(batch) == streams * parts for batch in alone[:-1])
        assert all(global_batches(world_size, epoch) == alone for world_size in (2, 4, 8))
        if not drop_last:
            seen = Counter(r for batch in alone for r in batch)
            assert ceil(n_rows / streams) * streams - n_rows == sum(seen.values()) - len(seen) or uneven == "drop"


def test_rows_of_a_dropped_batch_have_room() -> None:
    """One window of several streams, where each stream has rows of a batch that is not delivered."""
    for n_rows, block_rows, part, streams in ((2300, 600, 800, 2), (1003, 100, 8, 4), (50, 50, 7, 3)):
        share = Share(streams=streams)
        o = planned(BlockGrid(n_rows, block_rows), part * streams, 9, drop_last=True, share=share)
        assert o.n_windows <= 2
        plan = o.plan(0)
        assert all(plan.slab(n).n_places <= o.slab_rows for n in range(plan.n_slabs))
        assert order_of(plan) == order_by_hand(o, 0)


def test_a_slab_without_rows_of_its_own() -> None:
    o = planned(BlockGrid(9, 4), 2, 1, seed=1)
    assert sorted(order_of(o.plan(0))) == list(range(9))


def test_the_last_window_is_as_large_as_the_others() -> None:
    """A small one would end every epoch with batches of few blocks."""
    for n_blocks, window_blocks in ((125, 41), (13, 4), (10, 9), (7, 3)):
        o = planned(BlockGrid(n_blocks * 64, 64), 64, window_blocks)
        sizes = [len(o.plan(0).reading(w).starts) for w in range(o.n_windows)]
        assert sum(sizes) == n_blocks
        assert max(sizes) <= window_blocks
        assert max(sizes) - min(sizes) <= 1


@given(data=st.data(), n_rows=st.integers(2, 200), seed=st.integers(0, 9), deal=st.booleans())
def test_windows_of_whole_blocks_have_no_more_than_asked_for(
    data: st.DataObject, n_rows: int, seed: int, deal: bool
) -> None:
    """Also where the last block is lower, and comes anywhere."""
    block_rows = data.draw(st.integers(1, n_rows))
    window_blocks = data.draw(st.integers(1, 8))
    batch_rows = data.draw(st.integers(1, n_rows))
    o = planned(BlockGrid(n_rows, block_rows), batch_rows, window_blocks, seed=seed, deal=deal)
    plan = o.plan(0)
    assert all(1 <= len(plan.reading(w).starts) <= window_blocks for w in range(plan.n_windows))
    assert all(plan.slab(n).n_places <= o.slab_rows for n in range(plan.n_slabs))
    assert o.slab_rows <= window_blocks * block_rows + batch_rows


def test_golden_batches() -> None:
    """The order is a promise: a change here breaks every saved state."""
    o = planned(BlockGrid(23, 4), 7, 3, seed=42)
    assert [o.plan(2).batch_rows(i).tolist() for i in range(4)] == [
        [21, 2, 22, 12, 3, 13, 15],
        [20, 16, 1, 8, 9, 6, 0],
        [7, 17, 14, 11, 5, 10, 19],
        [18, 4],
    ]


def test_golden_batches_of_streams() -> None:
    o = planned(BlockGrid(24, 4), 4, 1, seed=42, share=Share(0, 2, streams=4))
    assert [o.plan(0).batch_rows(i).tolist() for i in range(3)] == [[4, 11, 6, 23], [10, 5, 7, 22], [8, 9, 20, 21]]


def test_golden_batches_of_a_selection() -> None:
    grid = BlockGrid(23, 4)
    o = planned(grid, 4, 2, seed=42, pool=Selection.of_rows(grid, np.arange(1, 23, 2)))
    assert [o.plan(0).batch_rows(i).tolist() for i in range(3)] == [[11, 21, 5, 9], [17, 1, 7, 19], [15, 13, 3]]
