import numpy as np
import pytest

from oocload.plan.blocks import BlockGrid
from oocload.plan.measure import measure
from oocload.plan.sample import Draws
from oocload.plan.select import Selection
from tests.plan.strategies import planned

GRID = BlockGrid(20_000, 100)
WHOLE = Selection.of_grid(GRID)
CODES = np.arange(20_000) // 400


def test_one_window_is_a_uniform_shuffle() -> None:
    found = measure(planned(GRID, 100, 200), WHOLE, 0, CODES)
    assert found.relative_entropy == pytest.approx(1, abs=0.02)
    assert found.rank_correlation == pytest.approx(0, abs=0.03)
    assert found.relative_displacement == pytest.approx(1, abs=0.03)
    assert found.relative_label_entropy == pytest.approx(1, abs=0.02)
    assert found.blocks_per_batch == pytest.approx(200 * (1 - (1 - 1 / 200) ** 100), rel=0.03)
    assert found.label_run_rows == 400


def test_in_order() -> None:
    found = measure(planned(GRID, 100, 16, shuffle=False), WHOLE, 0, CODES)
    assert found.relative_entropy == found.label_entropy == 0
    assert found.blocks_per_batch == 1
    assert found.rank_correlation == pytest.approx(1)
    assert found.relative_displacement == pytest.approx(0, abs=1e-3)


def test_a_batch_is_looked_at_as_it_is() -> None:
    """Against the definition, batch by batch."""
    o = planned(GRID, 64, 3)
    plan, entropies, blocks = o.plan(1), [], []
    for i in range(o.n_batches - 1):  # but the last, which is short
        counts = np.bincount(plan.batch_rows(i) // 100)
        p = counts[counts > 0] / counts.sum()
        entropies.append(-(p * np.log(p)).sum())
        blocks.append(len(p))
    found = measure(o, WHOLE, 1)
    uniform = measure(planned(GRID, 64, 200), WHOLE, 1)
    assert found.blocks_per_batch == pytest.approx(np.mean(blocks))
    assert found.relative_entropy == pytest.approx(np.mean(entropies) / np.log(64) * 1.037, abs=0.02)
    assert found.relative_entropy < uniform.relative_entropy
    assert found.label_run_rows is None
    assert "labels" not in repr(found)


def test_a_large_epoch_is_sampled_in_proportion() -> None:
    grid = BlockGrid(2**20, 256)
    o = planned(grid, 64, 512)
    found = measure(o, Selection.of_grid(grid), 0)
    assert found.batches <= 3000
    assert found.relative_entropy > 0.95


def test_of_a_selection() -> None:
    part = Selection.of_rows(GRID, np.arange(0, 20_000, 3))
    found = measure(planned(GRID, 50, 200, pool=part), part, 0)
    assert found.relative_entropy == pytest.approx(1, abs=0.02)
    assert found.relative_displacement == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("n_rows", "block_rows", "batch"), [(100, 10, 99), (64, 8, 60), (32, 4, 32), (500, 7, 100)])
def test_a_shuffle_of_few_rows_is_as_good_as_any(n_rows: int, block_rows: int, batch: int) -> None:
    grid = BlockGrid(n_rows, block_rows)
    whole, codes = Selection.of_grid(grid), np.arange(n_rows) // block_rows
    found = [measure(planned(grid, batch, grid.n_blocks), whole, epoch, codes) for epoch in range(30)]
    assert np.mean([f.relative_entropy for f in found]) == pytest.approx(1, abs=0.01)
    assert np.mean([f.relative_label_entropy for f in found]) == pytest.approx(1, abs=0.01)


def test_blocks_of_unlike_weight() -> None:
    """A uniform shuffle of one dense block and many sparse ones mixes as it does, and so does a weighted draw."""
    grid = BlockGrid(10_000, 100)
    part = Selection.of_rows(grid, np.concatenate([np.arange(100), np.arange(100, 10_000, 50)]))
    assert measure(planned(grid, 32, 100, pool=part), part, 0).relative_entropy == pytest.approx(1, abs=0.03)
    whole = Selection.of_grid(grid)
    weights = np.where(np.arange(10_000) < 500, 100.0, 1.0)
    pool = Draws(whole, weights, 100, 0)
    found = measure(planned(grid, 32, 300, pool=pool), whole, 0, (np.arange(10_000) < 500).astype(int))
    assert found.relative_entropy == pytest.approx(1, abs=0.03)
    assert found.relative_label_entropy == pytest.approx(1, abs=0.03)
