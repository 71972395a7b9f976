import numpy as np
import pytest

from oocload.plan.blocks import BlockGrid
from oocload.plan.measure import measure
from oocload.plan.quality import (
    MAX_WINDOW_NBYTES,
    MIN_WINDOW_BLOCKS,
    TARGET_ENTROPY,
    batch_entropy,
    default_window_blocks,
    epoch_entropy,
    relative_entropy,
)
from oocload.plan.select import Selection
from tests.plan.strategies import planned


@pytest.mark.parametrize(("batch", "blocks"), [(256, 16), (256, 256), (32, 500), (1000, 3)])
def test_entropy_equals_a_simulation(batch: int, blocks: int) -> None:
    rng = np.random.default_rng(0)
    entropies = []
    for _ in range(400):
        p = np.bincount(rng.integers(0, blocks, batch), minlength=blocks) / batch
        p = p[p > 0]
        entropies.append(-(p * np.log(p)).sum())
    assert batch_entropy(batch, blocks) == pytest.approx(np.mean(entropies), abs=0.01)


def test_known_value_of_windows_of_16_and_64_of_256_blocks() -> None:
    """Figures simulated apart from this code: 0.55 and 0.81."""
    assert relative_entropy(256, 16, 256) == pytest.approx(0.55, abs=0.01)
    assert relative_entropy(256, 64, 256) == pytest.approx(0.81, abs=0.01)


def test_default_window_is_the_smallest_that_mixes() -> None:
    blocks = default_window_blocks(10_000, 64, 784, 128)
    assert epoch_entropy(128, blocks, 10_000) >= TARGET_ENTROPY > epoch_entropy(128, blocks - 1, 10_000)


@pytest.mark.parametrize("deal", [True, False])
@pytest.mark.parametrize(("n_blocks", "window_blocks"), [(256, 16), (200, 55), (100, 100), (64, 40)])
def test_predicted_entropy_is_that_of_the_order(n_blocks: int, window_blocks: int, deal: bool) -> None:
    o = planned(BlockGrid(n_blocks * 256, 256), 256, window_blocks, deal=deal)
    found = measure(o, Selection.of_grid(o.grid), 0).relative_entropy
    assert found == pytest.approx(epoch_entropy(256, window_blocks, n_blocks, deal), abs=0.01)


def test_dealing_mixes_better_in_the_same_memory() -> None:
    """Three slabs of 16 blocks, dealt, against two of 24 (benchmarks/shuffle_quality.py)."""
    assert epoch_entropy(256, 16, 256, deal=True) > epoch_entropy(256, 24, 256, deal=False) + 0.04


def test_default_window_is_bounded_in_bytes_and_in_blocks() -> None:
    blocks = default_window_blocks(10_000, 256, 12288, 256)
    assert blocks * 256 * 12288 <= MAX_WINDOW_NBYTES < (blocks + 1) * 256 * 12288
    assert default_window_blocks(10_000, 1, 2**23, 1) == MIN_WINDOW_BLOCKS
    assert default_window_blocks(10_000, 1, 2**26, 1) == 4
    assert default_window_blocks(5, 100, 8, 10) == 5


def test_default_window_holds_a_batch() -> None:
    assert default_window_blocks(10**6, 1, 2**26, 100) == 100
