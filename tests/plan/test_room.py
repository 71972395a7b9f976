"""The most items that a window of ragged rows has."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from oocload.plan.blocks import BlockGrid, Span
from oocload.plan.epoch import PlanOptions
from oocload.plan.ranks import Share
from oocload.plan.room import most_items, visits_again
from oocload.plan.select import Selection


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 30)), min_size=1, max_size=6), st.integers(1, 12))
def test_no_window_has_more_items(groups: list[tuple[int, int]], n_rows: int) -> None:
    rows, items = np.array([g[0] for g in groups]), np.array([g[1] for g in groups])
    bound = most_items(rows, items, n_rows)
    for n in range(1, len(groups) + 1):
        for chosen in itertools.combinations(range(len(groups)), n):
            if rows[list(chosen)].sum() <= n_rows:
                assert items[list(chosen)].sum() <= bound
    assert bound <= items.sum()
    assert most_items(rows, items, n_rows, 2) == bound + np.sort(items)[::-1][:2].sum()
    assert most_items(rows, items, n_rows, 3, 3) == bound + 3 * items.max()
    assert most_items(rows[:0], items[:0], n_rows, 2) == 0


@settings(max_examples=300, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=3),
    streams=st.integers(1, 5),
    world_size=st.integers(1, 3),
    window_blocks=st.integers(1, 5),
    uneven=st.sampled_from(["pad", "drop"]),
    seed=st.integers(0, 50),
    data=st.data(),
)
def test_no_window_of_streams_has_more_items(
    spans: list[tuple[int, int]], streams: int, world_size: int, window_blocks: int, uneven: str, seed: int,
    data: st.DataObject,
) -> None:  # fmt: skip
    stops = np.cumsum([n for n, _ in spans]).tolist()
    grid = BlockGrid.of(
        [Span(stop - n, stop, min(n, height), stop - n) for stop, (n, height) in zip(stops, spans, strict=True)]
    )
    selection = Selection.of_grid(grid)
    if data.draw(st.booleans()):
        rows = np.flatnonzero(np.random.default_rng(seed).random(grid.n_rows) < 0.5)
        selection = Selection.of_rows(grid, rows if len(rows) else np.array([0]))
    streams *= world_size
    if uneven == "drop" and streams > selection.n_rows:
        return
    share = Share(data.draw(st.integers(0, world_size - 1)), world_size, uneven, streams)  # type: ignore[arg-type]
    options = PlanOptions(grid, selection, len(share.own), window_blocks, True, seed, share=share, deal=False)
    n_groups = selection.n_groups
    items = np.array(data.draw(st.lists(st.sampled_from([0, 1, 5, 1000]), min_size=n_groups, max_size=n_groups)))
    again = visits_again(share, selection.n_rows, selection.most_rows)
    bound = most_items(selection.counts, items, options.most_read, *again)
    plan = options.plan(seed)
    for window in range(plan.n_windows):
        groups = np.searchsorted(selection.starts, plan.reading(window).starts, side="right") - 1
        assert items[groups].sum() <= bound
