"""Batches with equally many rows of each class, from a store in any order.

::

    blocks in random order     |  5  |  0  |  7  |  2  |  6  | ...
    class a, in most of them   ----------------|----------------|     all classes go through the same blocks
    class b, in few of them    -----------------------|---------      at the same pace: window by window, each takes
    windows                          0                 1              as many rows as the others

An epoch takes equally many rows of each class, as many in all as without balance. Of a frequent class that is a part,
other rows each epoch; rows of a rare class are taken again. A class goes through its blocks once an epoch, so that each
block is read about once; more often only where a window would else hold fewer of its rows than one batch takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError
from oocload.plan.epoch import PlanOptions
from oocload.plan.select import Selection
from oocload.plan.shuffle import BATCHES, BLOCKS, CLASSES, ROWS, USES, permutation, random_keys, random_words
from oocload.plan.visits import cover_of, firsts
from oocload.plan.windows import Plan, Reading, SlabPlan

_PASS_BITS = 24
_CLASS_BITS = 20
_SLICE_ROWS = 2**15  # of blocks whose rows are looked up at a time


class Classes:
    """In which blocks of a selection the rows of each class lie, and how many in each.

    Parameters
    ----------
    selection
        The rows.
    codes
        Class of each row of the store, from 0, shape (rows of the store,).
    labels
        Label of each class.
    field
        Name of the field of labels, for errors.

    Raises
    ------
    InvalidArgumentError
        If a class has no rows in the selection.

    """

    def __init__(self, selection: Selection, codes: NDArray[Any], labels: Sequence[Any], field: str) -> None:
        self.selection = selection
        self.codes = codes
        self.n_classes = len(labels)
        cells, counts = [], []
        for groups, rows in selection.row_pieces():
            group = np.repeat(np.arange(groups.start, groups.stop), selection.counts[groups])
            found, n_rows = np.unique(group * self.n_classes + codes[rows], return_counts=True)
            cells.append(found)
            counts.append(n_rows)
        cell, count = np.concatenate(cells), np.concatenate(counts)
        order = np.argsort(cell % self.n_classes, kind="stable")
        self.groups = (cell // self.n_classes)[order]
        self.counts = count[order]
        self.firsts = np.searchsorted((cell % self.n_classes)[order], np.arange(self.n_classes + 1))
        missing = np.flatnonzero(np.diff(self.firsts) == 0)
        if len(missing):
            raise InvalidArgumentError(
                f"balanced must name a field of which every class has rows, and class {labels[missing[0]]!r} of "
                f"{field!r} has none among the {selection.n_rows} rows selected; leave it out with select()"
            )
        self.totals = np.add.reduceat(self.counts, self.firsts[:-1])

    @property
    def held_nbytes(self) -> int:
        """Bytes of the codes, of the blocks of each class while an epoch is planned, and for looking rows up."""
        looked_up = 12 * 8 * max(_SLICE_ROWS, self.selection.most_rows)
        return int(self.codes.nbytes + 5 * 8 * len(self.groups) + looked_up)

    def of_class(self, number: int) -> slice:
        """Return which of `groups` and `counts` belong to a class."""
        return slice(int(self.firsts[number]), int(self.firsts[number + 1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedOptions(PlanOptions):
    """Options of an order in which every batch has equally many rows of each class."""

    classes: Classes

    @property
    def n_batches(self) -> int:
        """Batches of every epoch: as many as without balance, all full."""
        n_rows = self.share.n_rows(self.pool.n_rows)
        return max(1, n_rows // self.batch_rows if self.drop_last else -(-n_rows // self.batch_rows))

    @property
    def n_rows(self) -> int:
        """Rows of an epoch of this rank."""
        return self.n_batches * self.batch_rows

    @property
    def part(self) -> int:
        """Rows of each class in the rows that one stream gives to a batch."""
        return self.batch_rows // (self.n_streams * self.classes.n_classes)

    @property
    def window_batches(self) -> int:
        """Batches of a window."""
        return max(1, min(self.n_batches, self.window_rows // (self.batch_rows // self.n_streams)))

    @property
    def n_windows(self) -> int:
        """Windows of every epoch."""
        return -(-self.n_batches // self.window_batches)

    @property
    def dealt(self) -> bool:
        """Nothing is dealt: classes are mixed by the choice of rows."""
        return False

    @property
    def indexed(self) -> bool:
        """Rows go to other places than consecutive ones."""
        return True

    @property
    def leaves_over(self) -> bool:
        """Windows are of whole batches."""
        return False

    @property
    def picks_nbytes(self) -> int:
        """Bytes per row of a window that are held while it is read: what choosing its rows takes."""
        return 16 * 8

    @property
    def most_read(self) -> int:
        """Rows that are read for a window."""
        return self.window_batches * self.batch_rows

    @property
    def slab_rows(self) -> int:
        """Rows of a slab."""
        return self.most_read

    @property
    def class_rows(self) -> int:
        """Rows of each class in an epoch of all ranks."""
        return self.n_batches * self.part * self.share.n_streams

    def passes(self) -> NDArray[np.int64]:
        """Return how often an epoch goes through the blocks of each class.

        Once, or as often as makes a window hold as many of its rows as a batch takes, or all that there are; but not
        so often that blocks were read more than once again, on average.
        """
        totals, windows = self.classes.totals, self.n_windows * self.share.n_streams
        wanted = np.minimum(totals, min(self.part, self.class_rows))
        more = np.clip(-(-wanted * windows // totals), 1, self.class_rows) - 1
        n_more = int((more * np.diff(self.classes.firsts)).sum())
        allowed: NDArray[np.int64] = 1 + more * min(1.0, self.pool.n_groups / max(1, n_more))
        return allowed.astype(np.int64)

    def plan(self, epoch: int) -> Plan:
        """Return the order of an epoch."""
        return BalancedPlan(self, epoch)


class _Takes(NamedTuple):
    """Rows of one class taken from blocks: by group, in which pass, and which uses of the class' rows there."""

    groups: NDArray[np.int64]
    passes: NDArray[np.int64]
    lows: NDArray[np.int64]
    highs: NDArray[np.int64]
    number: int


class _Window(NamedTuple):
    reading: Reading
    places: NDArray[np.int64]


class BalancedPlan(Plan):
    """The order of one epoch in which every batch is balanced, a pure function of (options, epoch).

    Parameters
    ----------
    options
        Rows, classes, batch size, window, seed.
    epoch
        The epoch's number, from 0.

    """

    def __init__(self, options: BalancedOptions, epoch: int) -> None:
        super().__init__(epoch, options)
        self.options = options
        self._uses: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._ranks: dict[int, NDArray[np.int64]] = {}  # of the pass asked for last
        self._last: tuple[int, _Window] | None = None

    def first_slab(self, batch: int) -> int:
        """Return the slab that holds a batch."""
        return batch // self.options.window_batches

    def slab(self, number: int) -> SlabPlan:
        """Return what a slab holds: whole batches."""
        o = self.options
        first = number * o.window_batches
        n_batches = min(o.window_batches, o.n_batches - first)
        n_rows = n_batches * o.batch_rows
        return SlabPlan(first, n_batches, n_rows, n_rows, n_rows, 0, slice(0, 0), slice(0, 0))

    def places(self, number: int, room: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return the places of a slab's rows, in reading order."""
        places = self._window(number).places
        if room is None:
            return places
        room[:] = places
        return room

    def reading(self, window: int, late_only: bool = False) -> Reading:
        """Return what is read for a window."""
        reading = self._window(window).reading
        return reading.only(late=True) if late_only else reading

    def batch_rows(self, batch: int) -> NDArray[np.int64]:
        """Return the store's row numbers of one batch, in order."""
        number = self.first_slab(batch)
        window = self._window(number)
        at = (batch - number * self.options.window_batches) * self.batch_size
        order = np.empty_like(window.places)
        order[window.places] = np.arange(len(order))
        return window.reading.rows(order[at : at + self.batch_size])

    def _window(self, number: int) -> _Window:
        last = self._last
        if last is None or last[0] != number:
            self._last = last = (number, self._plan_window(number))
        return last[1]

    def _plan_window(self, number: int) -> _Window:
        o, slab = self.options, self.slab(number)
        each = slab.n_batches * o.part
        takes, batches = [], []
        for stream in o.share.own:
            first = stream * o.n_batches * o.part + slab.first_batch * o.part
            for c in range(o.classes.n_classes):
                takes.append(self._takes(c, first, first + each))
                index = (stream << _CLASS_BITS | c) << _PASS_BITS | number
                order = permutation(each, o.seed, self.epoch, ROWS, index)
                batches.append(order // o.part)
        rows = self._rows(takes)
        batch = np.concatenate(batches)
        mixed = permutation(len(rows), o.seed, self.epoch, BATCHES, o.share.own[0] << _PASS_BITS | number)
        by_batch = mixed[np.argsort(batch[mixed], kind="stable")]  # rows of batch after batch, each in random order
        places = np.empty(len(rows), np.int64)
        places[by_batch] = np.arange(len(rows))
        return self._in_reading_order(rows, places)

    def _in_reading_order(self, rows: NDArray[np.int64], places: NDArray[np.int64]) -> _Window:
        order = np.argsort(rows, kind="stable")
        rows, places = rows[order], places[order]
        group = np.searchsorted(self.options.classes.selection.starts, rows, side="right")
        cover, counts = cover_of(rows, group)
        ends = np.cumsum(counts)
        return _Window(Reading(*cover, ends, ends, np.zeros(len(ends), bool)), places)

    def _takes(self, number: int, first: int, last: int) -> _Takes:
        """Return what is taken of a class at positions ``first`` to ``last`` of its rows in this epoch."""
        o = self.options
        n_passes, total = int(self._passes[number]), o.class_rows
        parts = []
        for n_pass in range(n_passes * first // total, n_passes):
            start, stop = total * n_pass // n_passes, total * (n_pass + 1) // n_passes
            if start >= last:
                break
            low, high = max(first, start) - start, min(last, stop) - start
            if low >= high:
                continue
            groups, ends = self._pass(number, n_pass, stop - start)
            lowest, highest = int(np.searchsorted(ends, low, side="right")), int(np.searchsorted(ends, high)) + 1
            before = np.concatenate([[0], ends])[lowest:highest]
            lows = np.maximum(low - before, 0)
            highs = np.minimum(high, ends[lowest:highest]) - before
            some = highs > lows
            passes = np.full(int(some.sum()), n_pass)
            parts.append((groups[lowest:highest][some], passes, lows[some], highs[some]))
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return _Takes(columns[0], columns[1], columns[2], columns[3], number)

    def _pass(self, number: int, n_pass: int, n_uses: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the blocks of a class in the order of a pass, and how many uses of rows there are up to each."""
        if (number, n_pass) not in self._uses:
            classes, which = self.options.classes, self.options.classes.of_class(number)
            order = np.argsort(self._block_ranks(n_pass)[classes.groups[which]])
            cum = np.cumsum(classes.counts[which][order])
            index = n_pass << _CLASS_BITS | number  # systematic sampling: rows left over by rounding are anybody's
            offset = (int(random_words(self.options.seed, self.epoch, CLASSES, index + 1).random_raw()) >> 11) / 2**53
            ends = np.floor(cum * (n_uses / int(cum[-1])) + offset).astype(np.int64)
            ends[-1] = n_uses
            for other in [key for key in self._uses if key[0] == number]:
                del self._uses[other]
            self._uses[number, n_pass] = classes.groups[which][order], np.minimum(ends, n_uses)
        return self._uses[number, n_pass]

    @cached_property
    def _passes(self) -> NDArray[np.int64]:
        return self.options.passes()

    def _block_ranks(self, n_pass: int) -> NDArray[np.int64]:
        """Return when each block's turn is in a pass: the same for all classes."""
        if n_pass not in self._ranks:
            self._ranks.clear()
            o = self.options
            self._ranks[n_pass] = permutation(o.pool.n_groups, o.seed, self.epoch, BLOCKS, n_pass)
        return self._ranks[n_pass]

    def _rows(self, takes: Sequence[_Takes]) -> NDArray[np.int64]:
        """Return the store's row number of each row taken.

        The rows of a class in a block are used in a random order, and again from its beginning when all have been.
        """
        o, n_classes = self.options, self.options.classes.n_classes
        group, n_pass, low, high = (np.concatenate([t[i] for t in takes]) for i in range(4))
        number = np.repeat([t.number for t in takes], [len(t.groups) for t in takes])
        taken = np.empty(int((high - low).sum()), np.int64)
        where = firsts(high - low)
        for some in self._slices(group, n_pass):
            groups, of = np.unique(group[some], return_inverse=True)
            counts = o.classes.selection.counts[groups]
            rows = o.classes.selection.cover_all(groups).rows()
            cell = np.repeat(np.arange(len(groups)), counts) * n_classes + o.classes.codes[rows]
            keys = random_keys(rows, o.seed, self.epoch, USES, int(n_pass[some[0]]))
            order = np.lexsort((keys, cell))
            cells, starts, sizes = np.unique(cell[order], return_index=True, return_counts=True)
            run = np.searchsorted(cells, of * n_classes + number[some])
            n_uses = (high - low)[some]
            nth = np.arange(int(n_uses.sum())) - np.repeat(firsts(n_uses), n_uses)
            use = (nth + np.repeat(low[some], n_uses)) % np.repeat(sizes[run], n_uses)
            taken[np.repeat(where[some], n_uses) + nth] = rows[order[np.repeat(starts[run], n_uses) + use]]
        return taken

    def _slices(self, group: NDArray[np.int64], n_pass: NDArray[np.int64]) -> list[NDArray[np.intp]]:
        """Return which takes are looked up together: of the same pass, and of blocks with a bounded number of rows."""
        order = np.lexsort((group, n_pass))
        new_pass = np.diff(n_pass[order], prepend=-1) != 0
        new_group = new_pass | (np.diff(group[order], prepend=-1) != 0)
        n_rows = np.where(new_group, self.options.classes.selection.counts[group[order]], 0)
        slice_of = np.cumsum(n_rows) // _SLICE_ROWS
        borders = np.flatnonzero(new_pass | (np.diff(slice_of, prepend=slice_of[:1]) != 0))
        return np.split(order, borders[borders > 0])
