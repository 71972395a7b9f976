"""One epoch: which blocks each window holds, which slab each row goes to, and where.

::

    visits of blocks  |  5  0  7  |  2  6  1  |  4  3  |      in random order
    windows           |     0     |     1     |   2    |      decoded together
                       dealt, half of each block's rows to one slab, half to the next
    slabs             |  0  |     1     |     2    | 3 |      rows permuted within
    positions         |-----|-----------|----------|---|      the final order of the epoch's rows
    batches           |---|---|---|---|---|---|---|---||      cut from positions; one may span two slabs

Every batch mixes the blocks of two windows, so a window of half the size does. Where there is one window only, or no
shuffle, nothing is dealt: slab and window are the same rows. A rank with several streams has all this for each of them,
side by side, and its batches take equally many rows of each.

Nothing here is as long as the store has rows: the state is a few integers per block, and one or two per row of a
window while that window is being read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from oocload.plan.blocks import BlockGrid
from oocload.plan.ranks import ALONE, Share, visits_of
from oocload.plan.shuffle import BLOCKS, CUTS, DEALS, ROWS, found_at, permutation, random_words
from oocload.plan.visits import Pool, Visits
from oocload.plan.windows import Plan, Reading, SlabPlan

_WINDOW_BITS = 40  # of the number that tells one stream's window from another's

PLAN_NBYTES = 4 * 8  # per visit of an epoch, while its plan is held


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What fixes the order of every epoch, apart from the epoch's number.

    Attributes
    ----------
    grid
        The blocks of the store.
    pool
        The rows that epochs are made of.
    batch_rows
        Rows of a batch of this rank.
    window_blocks
        Blocks of a window of one stream.
    shuffle
        Whether blocks and rows are permuted.
    deal
        Whether each block's rows are dealt over two slabs, where there is more than one window.

    """

    grid: BlockGrid
    pool: Pool
    batch_rows: int
    window_blocks: int
    shuffle: bool
    seed: int
    drop_last: bool = False
    share: Share = ALONE
    deal: bool = True

    @property
    def n_rows(self) -> int:
        """Rows of an epoch: this rank's share."""
        return self.share.n_rows(self.pool.n_rows)

    @property
    def n_batches(self) -> int:
        """Batches of every epoch."""
        n_rows, batch_rows = self.n_rows, self.batch_rows
        return n_rows // batch_rows if self.drop_last else -(-n_rows // batch_rows)

    @property
    def n_streams(self) -> int:
        """Streams of this rank."""
        return len(self.share.own)

    @property
    def stream_rows(self) -> int:
        """Rows of an epoch of one stream."""
        return self.share.stream_rows(self.pool.n_rows)

    @property
    def window_rows(self) -> int:
        """Most rows of one stream's window; its last block may go beyond."""
        return self.window_blocks * self.pool.block_rows

    @property
    def n_windows(self) -> int:
        """Windows of every epoch."""
        return -(-self.stream_rows // self.window_rows)

    @property
    def dealt(self) -> bool:
        """Whether rows of a window go to two slabs."""
        return self.deal and self.shuffle and self.n_windows > 1

    @property
    def indexed(self) -> bool:
        """Whether rows go to other places than consecutive ones."""
        return self.shuffle or self.n_streams > 1

    @property
    def picks_nbytes(self) -> int:
        """Bytes per row of a window that are held while it is read, beside its rows' places."""
        return self.pool.picks_nbytes

    @property
    def most_read(self) -> int:
        """Rows that are read for the largest slab, or window."""
        return self.n_streams * min(self.stream_rows, self._most_own)

    @property
    def slab_rows(self) -> int:
        """Rows of the largest slab: those read for it, and what the slab before left over."""
        n_streams, part = self.n_streams, self.batch_rows // self.n_streams
        if self.n_windows == 1:
            return self.n_rows if n_streams == 1 else -(-self.stream_rows // part) * self.batch_rows
        if n_streams == 1:
            own = min(self.stream_rows, self._most_own)
            return own + part - 1 if self.leaves_over else own
        return n_streams * (self._most_own + self.pool.most_rows + 2 * part)

    @property
    def leaves_over(self) -> bool:
        """Whether a slab may end in the middle of a batch."""
        if self.n_windows == 1:
            return False
        return not (self._even and self.pool.block_rows % ((1 + self.dealt) * self.batch_rows) == 0)

    @property
    def _most_own(self) -> int:
        """Rows that are read for the largest slab, of one stream; windows may begin early by a block less a row."""
        if self.regular:
            return self.window_rows + (self.dealt and not (self._even and self.pool.block_rows % 2 == 0))
        return self.window_rows + self.pool.most_rows

    @property
    def regular(self) -> bool:
        """Whether all blocks are whole and, but for one that may be lower, of equally many rows."""
        return self.pool.regular and self.share.n_streams == 1

    @property
    def _even(self) -> bool:
        """Whether all blocks are of equally many rows."""
        return self.regular and self.pool.n_rows % self.pool.block_rows == 0

    def plan(self, epoch: int) -> Plan:
        """Return the order of an epoch."""
        return EpochPlan(self, epoch)


class _Stream:
    """One stream of an epoch: visits in order, cut into windows of about equally many rows."""

    def __init__(self, options: PlanOptions, visits: Visits, number: int, epoch: int) -> None:
        self.visits = visits
        self.number = number
        self.cum = np.concatenate([[0], np.cumsum(visits.counts)])
        n_windows, n_visits = options.n_windows, len(visits.groups)
        if options.regular:
            self.firsts = np.arange(n_windows + 1) * n_visits // n_windows  # all of equally many blocks
        else:
            starts = np.arange(n_windows) * options.stream_rows // n_windows  # all of about equally many rows
            self.firsts = np.append(np.searchsorted(self.cum[:-1], starts, side="right") - 1, n_visits)
        borders = self.cum[self.firsts]
        self._dealt = options.dealt
        if not self._dealt:
            self.ends, self.late = borders[1:], np.zeros(options.n_windows, np.int64)
            return
        early = (borders + 1) // 2
        late = borders - early
        self.ends = np.append(early[1:], early[-1]) + late
        self.late = np.diff(late)
        self._flip = int(random_words(options.seed, epoch, DEALS, number).random_raw()) & 1

    def window(self, window: int) -> slice:
        """Return which visits a window has."""
        return slice(int(self.firsts[window]), int(self.firsts[window + 1]))

    def index(self, number: int) -> int:
        """Return the number that tells a window or slab of this stream from those of others."""
        return self.number << _WINDOW_BITS | number

    def n_late(self, slab: int) -> int:
        """Return how many rows of a slab the window before brings."""
        return int(self.late[slab - 1]) if slab else 0

    def early_counts(self, which: slice) -> NDArray[np.int64]:
        """Return how many rows of each visit go to the window's own slab: a half, over all."""
        cum = self.cum[which.start : which.stop + 1]
        return np.diff((cum + 1) // 2) if self._dealt else np.diff(cum)

    def late_first(self, which: slice) -> NDArray[np.bool_]:
        """Return of which visits the first rows go to the next slab: every second, so that equal halves meet."""
        number = np.arange(which.start, which.stop)
        return (number + self._flip) % 2 == 1 if self._dealt else np.zeros(len(number), bool)


class EpochPlan(Plan):
    """The order of one epoch, a pure function of (options, epoch).

    Parameters
    ----------
    options
        Rows, batch size, window, seed.
    epoch
        The epoch's number, from 0.

    """

    def __init__(self, options: PlanOptions, epoch: int) -> None:
        super().__init__(epoch, options)
        self.options = options

    @cached_property
    def _streams(self) -> list[_Stream]:
        o = self.options
        visits = o.pool.visits(self.epoch)
        if o.shuffle:
            visits = visits.take(permutation(len(visits.groups), o.seed, self.epoch, BLOCKS))
        ends = np.cumsum(visits.counts)
        shift = 0
        if o.shuffle and o.pool.n_rows % o.share.n_streams:  # not always the same rows are repeated, or left out
            shift = int(random_words(o.seed, self.epoch, CUTS).random_raw()) % o.pool.n_rows
        return [_Stream(o, visits_of(o.share, s, visits, ends, shift), s, self.epoch) for s in o.share.own]

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """For each stream, the position behind each slab's last row; shape (streams, slabs)."""
        return np.stack([s.ends for s in self._streams])

    @cached_property
    def _full(self) -> NDArray[np.int64]:
        """Batches delivered before each slab, and after the last."""
        o = self.options
        done = self._ends.min(axis=0) // self._part
        return np.concatenate([[0], np.minimum(done[:-1], o.n_batches), [o.n_batches]])

    @property
    def _part(self) -> int:
        """Rows of each stream in a batch."""
        return self.options.batch_rows // self.options.n_streams

    @property
    def _last_part(self) -> int:
        """Rows of each stream in the epoch's last batch."""
        return min(self._part, self.options.stream_rows - (self.options.n_batches - 1) * self._part)

    def first_slab(self, batch: int) -> int:
        """Return the slab in which a batch begins."""
        return int(np.searchsorted(self._ends.max(axis=0), batch * self._part, side="right"))

    def slab(self, number: int) -> SlabPlan:
        """Return what a slab holds."""
        o, ends = self.options, self._ends[:, number]
        before = self._ends[:, number - 1] if number else np.zeros_like(ends)
        first, end = int(self._full[number]), int(self._full[number + 1])
        n_rows = (end - first) * o.batch_rows
        if end == o.n_batches > first:
            n_rows -= (self._part - self._last_part) * o.n_streams
        head: slice | NDArray[np.int64]
        head_from: slice | NDArray[np.int64]
        shift = (first - int(self._full[number - 1])) * o.batch_rows if number else 0
        if o.n_streams == 1:
            head_rows = int(before[0]) - first * self._part
            head, head_from = slice(0, head_rows), slice(shift, shift + head_rows)
            n_places = int(ends[0]) - first * self._part
        else:
            positions = [np.arange(first * self._part, end_before) for end_before in before.tolist()]
            head = np.concatenate([self._place(p, s, first) for s, p in enumerate(positions)])
            head_from = head + shift
            n_places = max(int(self._place(ends[s] - 1, s, first)) + 1 for s in range(o.n_streams))
        return SlabPlan(
            first_batch=first,
            n_batches=end - first,
            n_rows=n_rows,
            n_places=max(0, n_places),
            n_own=int((ends - before).sum()),
            n_late=sum(s.n_late(number) for s in self._streams),
            head=head,
            head_from=head_from,
        )

    def _place(self, positions: NDArray[np.int64], stream: int, first_batch: int) -> NDArray[np.int64]:
        """Return where rows of a stream lie in the slab whose first batch is given."""
        o, part = self.options, self._part
        batch, within = np.divmod(positions, part)
        width = np.where(batch == o.n_batches - 1, self._last_part, part)
        places: NDArray[np.int64] = (batch - first_batch) * o.batch_rows + stream * width + within
        return places

    def places(self, number: int, room: NDArray[np.int64] | None = None) -> NDArray[np.int64] | None:
        """Return the places of a slab's own rows, as `Plan` says."""
        o = self.options
        if not self.indexed:
            return None
        first = int(self._full[number])
        starts = self._ends[:, number - 1] if number else np.zeros(o.n_streams, np.int64)
        counts = self._ends[:, number] - starts
        if o.n_streams == 1:
            places = self._permutation(self._streams[0], number, int(counts[0]), room)
            places += int(starts[0]) - first * self._part
            return places
        late, early = [], []
        for own, (stream, start, count) in enumerate(zip(self._streams, starts, counts, strict=True)):
            places = self._permutation(stream, number, int(count)) if o.shuffle else np.arange(count)
            places = self._place(places + start, own, first)
            n_late = stream.n_late(number)
            late.append(places[:n_late])
            early.append(places[n_late:])
        return np.concatenate([*late, *early], out=room)

    def _permutation(
        self, stream: _Stream, number: int, n_rows: int, room: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        return permutation(n_rows, self.options.seed, self.epoch, ROWS, stream.index(number), room)

    def batch_rows(self, batch: int) -> NDArray[np.int64]:
        """Return the store's row numbers of one batch, in order: of each stream the rows at its positions."""
        start = batch * self._part
        stop = start + (self._last_part if batch == self.n_batches - 1 else self._part)
        parts = []
        for stream in self._streams:
            first = int(np.searchsorted(stream.ends, start, side="right"))
            last = int(np.searchsorted(stream.ends, stop))
            parts += [self._slab_rows(stream, n, start, stop) for n in range(first, last + 1)]
        return np.concatenate(parts)

    def _slab_rows(self, stream: _Stream, number: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows at those positions of a stream, from ``start`` to ``stop``, that lie in one slab."""
        before = int(stream.ends[number - 1]) if number else 0
        n_rows = int(stream.ends[number]) - before
        places = np.arange(max(start - before, 0), min(stop - before, n_rows))
        if self.options.shuffle:
            places = found_at(places, n_rows, self.options.seed, self.epoch, ROWS, stream.index(number))
        rows = np.empty(len(places), np.int64)
        n_late = stream.n_late(number)
        late = places < n_late
        if late.any():
            rows[late] = self._reading(stream, number - 1, late_only=True).rows(places[late])
        if not late.all():
            rows[~late] = self._reading(stream, number, early_only=True).rows(places[~late] - n_late)
        return rows

    def reading(self, window: int, late_only: bool = False) -> Reading:
        """Return what is read for a window, as `Plan` says."""
        parts = [self._reading(stream, window, late_only) for stream in self._streams]
        return parts[0] if len(parts) == 1 else Reading.joined(parts)

    def _reading(self, stream: _Stream, window: int, late_only: bool = False, early_only: bool = False) -> Reading:
        which = stream.window(window)
        visits, early = stream.visits.take(which), stream.early_counts(which)
        late_first = stream.late_first(which)
        if not len(visits.groups):  # a block that is higher than a window fills several
            return Reading.joined([])
        cover = self.options.pool.cover(self.epoch, stream.index(window), visits)
        reading = Reading(
            cover.starts, cover.stops, cover.picks, np.cumsum(visits.counts), np.cumsum(early), late_first
        )
        return reading.only(late=late_only) if late_only or early_only else reading


def slabs_from(options: PlanOptions, epoch: int, batch: int, endless: bool) -> Iterator[tuple[Plan, int]]:
    """Yield (epoch's plan, slab) from the slab where a batch begins; to the epoch's end, or for ever."""
    plan = options.plan(epoch)
    first = plan.first_slab(batch)
    while True:
        for slab in range(first, plan.n_slabs):
            yield plan, slab
        if not endless:
            return
        first = 0
        plan = options.plan(plan.epoch + 1)
