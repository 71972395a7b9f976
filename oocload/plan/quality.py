"""How well a window mixes, from integers alone, and the window that follows from it.

The measure is the entropy of source blocks in a batch relative to that of a uniform shuffle of the whole store
(scDataset, arXiv:2506.01883): 1.0 is a perfect shuffle, 0.0 is batches from one block each.
"""

from __future__ import annotations

from functools import lru_cache
from math import lgamma, log

import numpy as np

TARGET_ENTROPY = 0.95
POOR_ENTROPY = 0.8  # a window below this, and below MIN_WINDOW_BLOCKS, is warned about
MAX_WINDOW_NBYTES = 256 * 2**20
MIN_WINDOW_BLOCKS = 16


@lru_cache(maxsize=4096)
def batch_entropy(batch_rows: int, n_blocks: int) -> float:
    """Return the expected entropy, in nats, of source blocks in a batch drawn from ``n_blocks`` equal blocks."""
    if n_blocks <= 1 or batch_rows <= 1:
        return 0.0
    # E[H] = log B - (K / B) E[n log n], n ~ Binomial(B, 1/K); terms far above the mean vanish.
    mean = batch_rows / n_blocks
    top = min(batch_rows, int(mean + 12 * mean**0.5 + 30))
    bottom = max(2, int(mean - 12 * mean**0.5 - 30))
    n = np.arange(bottom, top + 1, dtype=np.float64)
    log_choose = np.array([lgamma(batch_rows + 1) - lgamma(k + 1) - lgamma(batch_rows - k + 1) for k in n])
    p = np.exp(log_choose - n * log(n_blocks) + (batch_rows - n) * np.log1p(-1 / n_blocks))
    return float(log(batch_rows) - n_blocks / batch_rows * (p * n * np.log(n)).sum())


def relative_entropy(batch_rows: int, window_blocks: int, n_blocks: int) -> float:
    """Return the entropy of a batch drawn from a window relative to one drawn from the whole store."""
    uniform = batch_entropy(batch_rows, n_blocks)
    return 1.0 if uniform == 0.0 else batch_entropy(batch_rows, min(window_blocks, n_blocks)) / uniform


def default_window_blocks(n_blocks: int, block_rows: int, row_nbytes: int, batch_rows: int) -> int:
    """Return how many blocks a window has when nobody says.

    The smallest number that reaches `TARGET_ENTROPY`, but not fewer than `MIN_WINDOW_BLOCKS`; of at most
    `MAX_WINDOW_NBYTES` of rows, but not fewer than hold a batch.
    """
    most = max(1, MAX_WINDOW_NBYTES // max(1, block_rows * row_nbytes))
    least = smallest_window_blocks(n_blocks, block_rows, batch_rows)
    low, high = least, max(least, min(most, n_blocks))
    while low < high:  # relative_entropy grows with the window
        middle = (low + high) // 2
        if relative_entropy(batch_rows, middle, n_blocks) >= TARGET_ENTROPY:
            high = middle
        else:
            low = middle + 1
    return min(n_blocks, max(least, min(most, max(low, MIN_WINDOW_BLOCKS))))


def smallest_window_blocks(n_blocks: int, block_rows: int, batch_rows: int) -> int:
    """Return the fewest blocks that hold one batch."""
    return min(n_blocks, max(1, -(-batch_rows // block_rows)))
