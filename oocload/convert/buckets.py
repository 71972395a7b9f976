"""How rows are cut into runs and buckets under a memory ceiling: integers only.

::

    source   r0 r1 r2 ...                        read once, in order
    runs     [slot 0 | slot 1 | ...] [...] ...   what memory holds, ordered by the upper bits of the keys, on disk
    bucket    = some slots, of all runs          read as one, and ordered by the whole key

Where segments of runs would be too short to be read one by one, buckets are made larger than memory, and each of them
is cut into runs and buckets again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

N_SLOTS = 2**16
KEY_BITS = 64

_MOST_RUN_NBYTES = 256 * 2**20  # a multiple of it is no faster: benchmarks/source_shuffle.py
_LEAST_RUN_SHARE = 8  # of the ceiling, a run has one in so many at least
_PIECE_NBYTES = 8 * 2**20
_BUCKET_NBYTES = 4 * 2**20
_SEGMENT_NBYTES = 64 * 2**10  # wanted of each run that a bucket has rows of
_LEAST_SEGMENT_NBYTES = 16 * 2**10
_LEAST_BUCKETS = 4  # that are cut again, so that each has fewer slots
_TABLE_SHARE = 4  # of what a bucket may take, one in so many is left to the table of segments
SLAB_NBYTES = 2**20  # of rows put in order at a time, by each thread
SLAB_ITEMS = 2**16
ROW_SHARE = 4  # of the ceiling, the largest row may take one in so many
ROW_WORK_NBYTES = 48  # of a row, while rows are ordered: key, slot, two orders and the sort's own copy
RAGGED_WORK_NBYTES = 40  # of a ragged row: length, first item, both in order


class Room(NamedTuple):
    """What the first pass may hold.

    Attributes
    ----------
    piece_nbytes, n_ahead
        Of the source.
    run_nbytes
        Of a run, with what ordering it takes.

    """

    piece_nbytes: int
    n_ahead: int
    run_nbytes: int


class KeyRange(NamedTuple):
    """Keys from ``low`` on, in slots of ``2**shift``."""

    low: int = 0
    shift: int = KEY_BITS - 16

    def part(self, first_slot: int, last_slot: int) -> KeyRange:
        """Return the keys of some slots, in finer slots."""
        width = (last_slot - first_slot) << self.shift
        return KeyRange(self.low + (first_slot << self.shift), max(0, (width - 1).bit_length() - 16))

    def prefix_bits(self, n_slots: int) -> int:
        """Return how many upper bits so many slots have in common, about."""
        return max(0, KEY_BITS - self.shift - (n_slots - 1).bit_length())


def pieces_for(memory: int, least_piece_nbytes: int) -> int:
    """Return the bytes of a piece of the source."""
    return max(least_piece_nbytes, min(_PIECE_NBYTES, memory // 16))


def run_nbytes_for(memory: int, held_nbytes: int, n_threads: int) -> int:
    """Return the bytes of a run, beside what reading holds; 0 where too little is left."""
    left = memory - held_nbytes - 2 * n_threads * SLAB_NBYTES
    return min(_MOST_RUN_NBYTES, left) if left >= memory // _LEAST_RUN_SHARE else 0


def memory_for(held_nbytes: int, n_threads: int) -> int:
    """Return the ceiling that leaves enough for a run, beside what reading holds."""
    return (held_nbytes + 2 * n_threads * SLAB_NBYTES) * _LEAST_RUN_SHARE // (_LEAST_RUN_SHARE - 1) + 1


def bucket_nbytes_for(nbytes: int, n_runs: int, most_nbytes: int, entry_nbytes: int) -> int:
    """Return the bytes of a bucket; more than ``most_nbytes`` where buckets are to be cut again.

    Parameters
    ----------
    nbytes, n_runs
        Of all rows.
    most_nbytes
        What can be read as one.
    entry_nbytes
        Of the table of segments, for each bucket and run.

    """
    wanted = min(most_nbytes, max(_BUCKET_NBYTES, n_runs * _SEGMENT_NBYTES))
    table = -(-nbytes * n_runs * entry_nbytes * _TABLE_SHARE // most_nbytes)
    larger = max(n_runs * _LEAST_SEGMENT_NBYTES, table)
    return max(wanted, min(larger, nbytes // _LEAST_BUCKETS))


def edges_of(slot_nbytes: NDArray[np.int64], bucket_nbytes: int) -> NDArray[np.int64]:
    """Return the slots at which buckets begin, and the last one's end: as many slots as a bucket has room for."""
    return np.array([0, *(stop for _, stop in ranges_of(slot_nbytes, bucket_nbytes))], np.int64)


def rows_that_fit(row_nbytes: NDArray[np.int64], room: int) -> int:
    """Return how many of the first rows come to no more than some bytes."""
    return int(np.searchsorted(np.cumsum(row_nbytes), room, "right"))


def ranges_of(sizes: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Return consecutive ranges whose sizes come to no more than some, or that are one."""
    ends = np.cumsum(sizes)
    found, start = [], 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, "right")))
        found.append((start, stop))
        start = stop
    return found
