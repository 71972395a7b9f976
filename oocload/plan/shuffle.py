"""Permutations that are the same on every machine, and the options of a shuffle.

Random bits come from Philox (Salmon et al., SC'11), keyed by what the permutation is for; NumPy keeps the raw
stream of a bit generator stable over versions (NEP 19), which it does not promise for ``Generator.permutation``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError

# What a permutation is for; part of its key, so that two uses never share a stream.
BLOCKS = 1
ROWS = 2

_MASK_64 = 2**64 - 1
_PIECE = 2**16


@dataclass(frozen=True, slots=True)
class Shuffle:
    """How to shuffle; pass it as ``Loader(..., shuffle=Shuffle(...))``.

    Parameters
    ----------
    window_rows
        Rows of one window, the pool in which rows are shuffled; rounded up to whole blocks. Default: the
        smallest that mixes well, see `oocload.plan.quality.default_window_blocks`.

    """

    window_rows: int | None = None

    def __post_init__(self) -> None:
        rows = self.window_rows
        if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or rows < 1):
            raise InvalidArgumentError(f"window_rows must be a whole number of at least 1, got {rows!r}")


def permutation(
    n: int, seed: int, epoch: int, purpose: int, index: int = 0, room: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return a uniformly random permutation of ``range(n)``, a pure function of the arguments.

    Each element gets random high bits and its own number as low bits; sorting these 64-bit keys permutes the
    numbers. Keys are distinct, so any sorting algorithm gives the same result. At ``n = 2**32`` the high bits
    are 32, and fewer than one pair in a billion keeps its order by a tie.

    Parameters
    ----------
    n
        Length, at most 2**40.
    seed, epoch, purpose, index
        What the permutation is for; non-negative.
    room
        Where to put it: shape (n,). None makes an array.

    Returns
    -------
    ndarray of int64, shape (n,)
        ``room`` or a fresh array; nothing else of that length is made meanwhile.

    """
    result = np.empty(n, np.int64) if room is None else room
    keys = result.view(np.uint64)
    low_bits = np.uint64(max(1, (n - 1).bit_length()) if n > 1 else 1)
    words = _random_words(seed, epoch, purpose, index)
    for start in range(0, n, _PIECE):
        piece = keys[start : start + _PIECE]
        np.right_shift(words.random_raw(len(piece)), low_bits, out=piece)
        np.left_shift(piece, low_bits, out=piece)
        piece |= np.arange(start, start + len(piece), dtype=np.uint64)
    keys.sort()
    keys &= (np.uint64(1) << low_bits) - np.uint64(1)
    return result


def _random_words(seed: int, epoch: int, purpose: int, index: int) -> np.random.Philox:
    key = np.array([seed & _MASK_64, (epoch << 8 | purpose) & _MASK_64], np.uint64)
    counter = np.array([0, 0, index & _MASK_64, seed >> 64], np.uint64)
    return np.random.Philox(key=key, counter=counter)
