"""Permutations that are the same on every machine, and the options of a shuffle.

Random bits come from Philox (Salmon et al., SC'11), keyed by what the permutation is for; NumPy keeps the raw
stream of a bit generator stable over versions (NEP 19), which it does not promise for ``Generator.permutation``.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError

# What a permutation is for; part of its key, so that two uses never share a stream.
BLOCKS = 1
ROWS = 2
DEALS = 3
MASSES = 4
DRAWS = 5
SPLITS = 6
CLASSES = 7
USES = 8
MIXES = 9
CUTS = 10
BATCHES = 11
AUGMENTS = 12
BUCKETS = 13

WORKSPACE_NBYTES = 32  # per element, while a permutation is made: keys, two orders and the sort's own copy

_MASK_64 = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Shuffle:
    """How to shuffle; pass it as ``Loader(..., shuffle=Shuffle(...))``.

    Parameters
    ----------
    window_rows
        Rows of one window, which are decoded together; rounded up to whole blocks. Default: the smallest that mixes
        well, see `oocload.plan.quality.default_window_blocks`.
    streams
        Cuts every epoch into so many streams, of which each batch of the whole job (all ranks') takes equally many
        rows. Any number of ranks that divides them sees the same batches, as sets of rows, in the same order, when
        ``batch_size`` times ``world_size`` stays the same; a state goes from one number of ranks to another. Default:
        one per rank.

    """

    window_rows: int | None = None
    streams: int | None = None

    def __post_init__(self) -> None:
        for name in ("window_rows", "streams"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
                raise InvalidArgumentError(f"{name} must be a whole number of at least 1, got {value!r}")
            object.__setattr__(self, name, int(value))  # also NumPy's


def permutation(
    n: int, seed: int, epoch: int, purpose: int, index: int = 0, room: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return a uniformly random permutation of ``range(n)``, a pure function of the arguments.

    Every element gets 32 random bits, and the numbers are sorted by them, 16 bits at a time: NumPy sorts such keys by
    radix, at 13 ns an element in all, where sorting 64-bit keys takes 56 and ``Generator.permutation`` 12. One pair in
    2**32 draws equal bits and keeps its order.

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
        ``room`` or a fresh array; `WORKSPACE_NBYTES` per element are taken meanwhile.

    """
    result = np.empty(n, np.int64) if room is None else room
    keys = _keys(n, seed, epoch, purpose, index)
    by_low = np.argsort(keys[:, 0], kind="stable")
    by_high = np.argsort(keys[:, 1].take(by_low), kind="stable")
    return by_low.take(by_high, out=result, mode="clip")


def found_at(
    values: NDArray[np.int64], n: int, seed: int, epoch: int, purpose: int, index: int = 0
) -> NDArray[np.int64]:
    """Return where some values lie in a `permutation`, which is not made: a tenth of its cost for a few of them."""
    keys = _keys(n, seed, epoch, purpose, index)
    high = keys[:, 1]
    counts = np.bincount(high, minlength=2**16)
    sought = np.zeros(2**16, bool)
    sought[high[values]] = True
    alike = np.flatnonzero(sought[high])  # all that share their upper bits with one of the values
    by_low = alike[np.argsort(keys[alike, 0], kind="stable")]
    ordered = by_low[np.argsort(high[by_low], kind="stable")]
    before = np.cumsum(counts) - counts
    bins = high[ordered]
    first = np.searchsorted(bins, bins)
    ranks = np.empty(len(alike), np.int64)
    ranks[np.searchsorted(alike, ordered)] = before[bins] + np.arange(len(ordered)) - first
    return ranks[np.searchsorted(alike, values)]


def _keys(n: int, seed: int, epoch: int, purpose: int, index: int) -> NDArray[np.uint16]:
    """Return 32 random bits for each element as two numbers, the lower first; shape (n, 2)."""
    words = random_words(seed, epoch, purpose, index).random_raw((n + 1) // 2)
    return words.astype("<u8", copy=False).view("<u2").reshape(-1, 2)[:n]


def random_words(seed: int, epoch: int, purpose: int, index: int = 0, part: int = 0) -> np.random.Philox:
    """Return a stream of random 64-bit words, a pure function of the arguments; ``part`` is one of 2**64 of each."""
    key = np.array([seed & _MASK_64, (epoch << 8 | purpose) & _MASK_64], np.uint64)
    counter = np.array([0, part & _MASK_64, index & _MASK_64, seed >> 64], np.uint64)
    return np.random.Philox(key=key, counter=counter)


def random_keys(numbers: NDArray[np.int64], seed: int, epoch: int, purpose: int, index: int = 0) -> NDArray[np.uint64]:
    """Return a random key for each of some numbers, a pure function of the number and the other arguments.

    For what must not depend on which other numbers are asked for. A number's bits are mixed as SplitMix64 does it
    (Steele, Lea and Flood, OOPSLA 2014).
    """
    base, step = random_words(seed, epoch, purpose, index).random_raw(2)
    z = numbers.astype(np.uint64) * (step | np.uint64(1)) + base
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
