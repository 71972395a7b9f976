import numpy as np
import pytest

from oocload.plan.quality import (
    MAX_WINDOW_NBYTES,
    MIN_WINDOW_BLOCKS,
    TARGET_ENTROPY,
    batch_entropy,
    default_window_blocks,
    relative_entropy,
)


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
    assert relative_entropy(128, blocks, 10_000) >= TARGET_ENTROPY > relative_entropy(128, blocks - 1, 10_000)


def test_default_window_is_bounded_in_bytes_and_in_blocks() -> None:
    blocks = default_window_blocks(10_000, 256, 12288, 256)
    assert blocks * 256 * 12288 <= MAX_WINDOW_NBYTES < (blocks + 1) * 256 * 12288
    assert default_window_blocks(10_000, 1, 2**23, 1) == MIN_WINDOW_BLOCKS
    assert default_window_blocks(10_000, 1, 2**26, 1) == 4
    assert default_window_blocks(5, 100, 8, 10) == 5


def test_default_window_holds_a_batch() -> None:
    assert default_window_blocks(10**6, 1, 2**26, 100) == 100
