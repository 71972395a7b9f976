"""Plans to draw from."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from oocload.plan.blocks import BlockGrid
from oocload.plan.epoch import PlanOptions
from oocload.plan.ranks import Share
from oocload.plan.select import Selection
from tests.plan.test_blocks import grids


def planned(grid: BlockGrid, batch_rows: int, window_blocks: int, **more: Any) -> PlanOptions:
    """Return options of a whole store, shuffled with seed 0, where nothing else is said."""
    return PlanOptions(
        **{
            "grid": grid,
            "pool": Selection.of_grid(grid),
            "batch_rows": batch_rows,
            "window_blocks": window_blocks,
            "shuffle": True,
            "seed": 0,
            **more,
        }
    )


@st.composite
def selections(draw: st.DrawFn, grid: BlockGrid) -> Selection:
    """Draw all rows, or some."""
    if draw(st.booleans()):
        return Selection.of_grid(grid)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    mask = rng.random(grid.n_rows) < draw(st.sampled_from([0.02, 0.3, 0.9]))
    mask[rng.integers(grid.n_rows)] = True
    return Selection.of_rows(grid, np.flatnonzero(mask))


@st.composite
def options(draw: st.DrawFn) -> PlanOptions:
    """Draw the options of an order: grid, selection, ranks, streams and all."""
    grid = draw(grids(max_rows=400))
    pool = draw(selections(grid))
    world_size = draw(st.integers(1, min(3, pool.n_rows)))
    each = draw(st.integers(1, max(1, min(3, pool.n_rows // world_size))))
    rank, uneven = draw(st.integers(0, world_size - 1)), draw(st.sampled_from(["pad", "drop"]))
    share = Share(rank, world_size, uneven, draw(st.sampled_from([None, world_size * each])))
    most = share.stream_rows(pool.n_rows)
    return PlanOptions(
        grid=grid,
        pool=pool,
        batch_rows=draw(st.integers(1, most)) * len(share.own),
        window_blocks=draw(st.integers(1, grid.n_blocks)),
        shuffle=draw(st.booleans()),
        seed=draw(st.integers(0, 2**64 - 1)),
        drop_last=draw(st.booleans()),
        share=share,
        deal=draw(st.booleans()),
    )
