"""The random key of every row, and the order that keys give: a pure function of seed and number of the row.

A shuffled store has its rows in the order of their keys, rows of equal keys in the order of the source. So the order
depends on nothing else: not on memory, threads or pieces. Two of n rows have equal keys in one of 2**65 / n² stores.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

_PURPOSE = 0x636F6E76657274  # "convert": no other use of a seed shares the stream
_MASK_64 = 2**64 - 1
_WORDS = 4  # of Philox, for one step of its counter
_DIGIT_BITS = 16  # NumPy sorts numbers of 16 bits by radix: 6 ns each, where 64 bits take 75


def row_keys(seed: int, start: int, stop: int) -> Keys:
    """Return the keys of consecutive rows.

    Word by word of Philox (Salmon et al., SC'11), whose counter is the number of the row; NumPy keeps the raw stream
    of a bit generator stable over versions (NEP 19).
    """
    first, skipped = divmod(start, _WORDS)
    key = np.array([seed & _MASK_64, _PURPOSE], np.uint64)
    counter = np.array([first, 0, 0, seed >> 64], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(stop - start + skipped)[skipped:]


def slots_of(keys: Keys, low: int, shift: int) -> NDArray[np.uint16]:
    """Return where keys lie among 65,536 equal ranges of keys, the first of which begins at ``low``."""
    return ((keys - np.uint64(low)) >> np.uint64(shift)).astype(np.uint16)


def order_of_slots(slots: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return the order of slots; equal ones stay as they are."""
    return np.argsort(slots, kind="stable").astype(np.int64, copy=False)


def order_of_keys(keys: Keys, prefix_bits: int) -> NDArray[np.int64]:
    """Return the order of keys; equal ones stay as they are.

    Sorted by the 32 bits that follow the ``prefix_bits`` in which they agree, about, and then by what few are left in
    disorder, which costs next to nothing.
    """
    upper = np.uint64(max(0, 64 - prefix_bits - _DIGIT_BITS))
    lower = np.uint64(max(0, 64 - prefix_bits - 2 * _DIGIT_BITS))
    order = np.argsort((keys >> lower).astype(np.uint16), kind="stable")
    order = order[np.argsort((keys >> upper).astype(np.uint16).take(order), kind="stable")]
    sorted_keys = keys.take(order)
    if (sorted_keys[1:] < sorted_keys[:-1]).any():
        order = order[np.argsort(sorted_keys, kind="stable")]
    return order.astype(np.int64, copy=False)
