"""How well a window mixes, from integers alone, and the window that follows from it.

The measure is the entropy of source blocks in a batch relative to that of a uniform shuffle of the whole store
(scDataset, arXiv:2506.01883): 1.0 is a perfect shuffle, 0.0 is batches from one block each.
"""

from __future__ import annotations

from functools import lru_cache
from math import lgamma, log

import numpy as np
from numpy.typing import NDArray

TARGET_ENTROPY = 0.95
POOR_ENTROPY = 0.8  # a window below this, and below MIN_WINDOW_BLOCKS, is warned about
MAX_WINDOW_NBYTES = 256 * 2**20
MIN_WINDOW_BLOCKS = 16


@lru_cache(maxsize=4096)
def batch_entropy(batch_rows: int, n_blocks: int) -> float:
    """Return the expected entropy, in nats, of source blocks in a batch drawn from ``n_blocks`` equal blocks."""
    if n_blocks <= 1 or batch_rows <= 1:
        return 0.0
    return log(batch_rows) - n_blocks / batch_rows * _expected_n_log_n(batch_rows, 1 / n_blocks)


def drawn_entropy(batch_rows: int, shares: NDArray[np.float64]) -> float:
    """Return the expected entropy, in nats, of kinds in a batch of independent draws, given the share of each kind."""
    if batch_rows <= 1:
        return 0.0
    distinct, n_kinds = np.unique(shares[shares > 0], return_counts=True)
    parts = [n * _expected_n_log_n(batch_rows, share) for share, n in zip(distinct.tolist(), n_kinds, strict=True)]
    return float(log(batch_rows) - sum(parts) / batch_rows)


def shuffled_entropy(batch_rows: int, counts: NDArray[np.int64]) -> float:
    """Return the expected entropy, in nats, of kinds in a batch of shuffled rows, given how many there are of each."""
    if batch_rows <= 1:
        return 0.0
    total = int(counts.sum())
    distinct, n_kinds = np.unique(counts[counts > 0], return_counts=True)
    parts = [
        n * _expected_n_log_n(batch_rows, count / total, count, total)
        for count, n in zip(distinct.tolist(), n_kinds, strict=True)
    ]
    return float(log(batch_rows) - sum(parts) / batch_rows)


def entropy_of_counts(counts: NDArray[np.integer]) -> float:
    """Return the entropy, in nats, of what comes so often each."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _expected_n_log_n(n_draws: int, share: float, count: int = 0, total: int = 0) -> float:
    """Return the mean of n log n for n of a binomial distribution; hypergeometric where rows are counted."""
    if share >= 1:
        return n_draws * log(n_draws)
    mean = n_draws * share  # terms far from the mean vanish
    top = min(n_draws, int(mean + 12 * mean**0.5 + 30))
    bottom = max(2, int(mean - 12 * mean**0.5 - 30))
    if count:
        top, bottom = min(top, count), max(bottom, n_draws - (total - count))
    n = np.arange(bottom, top + 1, dtype=np.float64)
    if count:
        chosen = [_log_choose(count, k) + _log_choose(total - count, n_draws - k) for k in n]
        p = np.exp(np.array(chosen) - _log_choose(total, n_draws))
    else:
        chosen = [_log_choose(n_draws, k) for k in n]
        p = np.exp(np.array(chosen) + n * log(share) + (n_draws - n) * np.log1p(-share))
    return float((p * n * np.log(n)).sum())


def _log_choose(n: float, k: float) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def relative_entropy(batch_rows: int, mixed_blocks: int, n_blocks: int) -> float:
    """Return the entropy of a batch that mixes some blocks relative to one drawn from the whole store."""
    uniform = batch_entropy(batch_rows, n_blocks)
    return 1.0 if uniform == 0.0 else batch_entropy(batch_rows, min(mixed_blocks, n_blocks)) / uniform


def epoch_entropy(batch_rows: int, window_blocks: int, n_blocks: int, deal: bool = True) -> float:
    """Return `relative_entropy` as the mean over the batches of an epoch.

    Where rows are dealt over two slabs, a batch mixes the blocks of two windows, and at the epoch's beginning and end
    those of one.
    """
    n_windows = -(-n_blocks // window_blocks)
    window = n_blocks / n_windows
    if not deal or n_windows == 1:
        return relative_entropy(batch_rows, round(window), n_blocks)
    alone, both = (relative_entropy(batch_rows, round(n * window), n_blocks) for n in (1, 2))
    return (alone + (n_windows - 1) * both) / n_windows


def default_window_blocks(n_blocks: int, block_rows: int, row_nbytes: int, batch_rows: int, deal: bool = True) -> int:
    """Return how many blocks a window has when nobody says.

    The smallest number that reaches `TARGET_ENTROPY`, but not fewer than `MIN_WINDOW_BLOCKS`; of at most
    `MAX_WINDOW_NBYTES` of rows, but not fewer than hold a batch.
    """
    most = max(1, MAX_WINDOW_NBYTES // max(1, block_rows * row_nbytes))
    least = smallest_window_blocks(n_blocks, block_rows, batch_rows)
    low, high = least, max(least, min(most, n_blocks))
    while low < high:  # epoch_entropy grows with the window, in steps
        middle = (low + high) // 2
        if epoch_entropy(batch_rows, middle, n_blocks, deal) >= TARGET_ENTROPY:
            high = middle
        else:
            low = middle + 1
    return min(n_blocks, max(least, min(most, max(low, MIN_WINDOW_BLOCKS))))


def smallest_window_blocks(n_blocks: int, block_rows: int, batch_rows: int) -> int:
    """Return the fewest blocks that hold one batch."""
    return min(n_blocks, max(1, -(-batch_rows // block_rows)))
