"""What a loader reads with, once it has settled on that: everything that holds memory, files or threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping

from oocload.chunks.read import FieldReader
from oocload.errors import (
    MemoryCeilingError,
)
from oocload.loader.arena import Arenas
from oocload.loader.board import MOST_SLOTS
from oocload.loader.buckets import Buckets
from oocload.loader.budget import Budget
from oocload.loader.costs import (
    BLOCK_NBYTES,
    INDEX_NBYTES,
    chosen_nbytes,
    copy_rows,
    items_of_slab,
    left_over_rows,
    order_nbytes,
    permuting_nbytes,
    scratch_nbytes,
    slab_nbytes_of,
)
from oocload.loader.fit import Fit
from oocload.loader.options import Setup
from oocload.loader.pipeline import Part, Pipeline, Resources
from oocload.loader.room import Room
from oocload.loader.slabs import BatchCopies, KeptBatches, Prepare, SlabPool
from oocload.loader.stats import Stats
from oocload.loader.tally import Tally
from oocload.loader.transforming import Means, Transforming
from oocload.plan.epoch import PlanOptions
from oocload.plan.quality import (
    epoch_entropy,
)
from oocload.plan.ranks import blocks_of_rank
from oocload.plan.select import Selection
from oocload.plan.windows import Plan
from oocload.stores.base import Store
from oocload.units import format_bytes


class Runtime:
    """What a loader needs to read: everything that holds memory, files or threads."""

    def __init__(
        self,
        options: PlanOptions,
        fitted: Fit,
        ceiling: int,
        min_memory: int,
        setup: Setup,
        selection: Selection,
        resident: frozenset[str],
        readers: Mapping[str, FieldReader],
        store: Store,
        arenas: Arenas,
        buckets: Buckets | None,
        tally: Tally,
    ) -> None:
        self._store = store
        self.pid = os.getpid()
        self.options = options
        self.buckets = buckets
        self.selection = selection
        self.fit = fitted
        self.min_memory = min_memory
        condition = threading.Condition(threading.RLock())
        self.budget = Budget(ceiling, condition)
        blocks_per_row = options.pool.n_groups / options.n_rows
        self.stats = Stats(setup.fields, resident, self.budget, blocks_per_row, setup.read_row_nbytes, tally)
        self.n_blocks = blocks_of_rank(options.share, options.pool.n_groups)
        self.window_blocks = min(self.n_blocks, options.window_blocks * options.n_streams)
        self.relative_entropy = epoch_entropy(options.batch_rows, self.window_blocks, self.n_blocks, options.dealt)
        self._pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()
        fields, n_copies = setup.fields, fitted.n_copies
        kept = KeptBatches()
        self.copies = BatchCopies(fields, copy_rows(options), n_copies, self.budget, condition, kept, arenas)
        self._slabs = SlabPool(slab_nbytes_of(setup, options, arenas), fitted.n_slabs, self.budget, condition)
        self._resources = Resources(
            fields=fields,
            readers=readers,
            block_rows=options.pool.block_rows,
            pool=self._slabs,
            budget=self.budget,
            stats=self.stats,
            condition=condition,
            n_threads=fitted.n_threads,
            kept=kept,
            permuting_nbytes=permuting_nbytes(options, buckets),
            scratch_nbytes=scratch_nbytes(setup, readers, resident),
            spare_nbytes=ceiling - fitted.needed,
            buckets=buckets,
            arenas=arenas,
            items=items_of_slab(options, arenas),
            left_over=arenas.left_over(left_over_rows(options)),
        )
        self.budget.take("order", order_nbytes(options.pool.most_visits, options.shuffle))
        self.budget.take("selection", chosen_nbytes(setup, options))
        self.budget.take("index", arenas.held_nbytes + (0 if buckets is None else buckets.held_nbytes))
        for name, reader in readers.items():
            self.budget.take("resident" if name in resident else "index", reader.held_nbytes)
        means = Means(fitted.n_threads, options.batch_rows * setup.row_nbytes, fitted.tight)
        self.transforming = Transforming(Room(self.budget, fitted.needed, condition), means, self.stats)
        self._held_nbytes = self.budget.held  # for as long as the loader lives
        weakref.finalize(self, _give_rest, self.budget, self.pid).atexit = False

    def open_pipeline(self, source: Iterator[tuple[Plan, int]], ahead: int, part: Part | None = None) -> Pipeline:
        """Start threads that decode windows, or a part of each.

        Raises
        ------
        StoreFormatError
            If the store is not the one that was opened.

        """
        self._store.check_unchanged()
        resources = self._resources if part is None else self._resources.restricted(part)
        pipeline = Pipeline(resources, source, ahead)
        self._pipelines.add(pipeline)
        return pipeline

    @property
    def slab_nbytes(self) -> int:
        """Size of a slab."""
        return self._slabs.slab_nbytes

    def slots_of_team(self, n_workers: int, n_ahead: int) -> int:
        """Return how many slabs some processes share that read together under this loader's one ceiling.

        Beside them each holds what one reads with, a copy of what a slab leaves over, a batch that it makes, one that
        it hands on, and those asked for ahead.

        Raises
        ------
        MemoryCeilingError
            If there is no room for as few as it works with.

        """
        o, r, fitted = self.options, self._resources, self.fit
        each = self._held_nbytes + r.permuting_nbytes + o.most_read * INDEX_NBYTES * o.indexed
        each += (2 + n_ahead + o.leaves_over) * self.copies.batch_nbytes
        beside = self._held_nbytes + n_workers * each + max(n_workers, fitted.n_threads) * r.scratch_nbytes
        least = 1 + o.dealt
        room = (self.budget.ceiling - beside) // self.slab_nbytes
        if room < least:
            needed = beside + least * self.slab_nbytes
            raise MemoryCeilingError(
                f"memory must be at least {needed} bytes ({format_bytes(needed)}) for {n_workers} workers of a "
                f"DataLoader, of which each holds {format_bytes(each)} beside the slabs that they share, got "
                f"{self.budget.ceiling} ({format_bytes(self.budget.ceiling)}); raise memory=, or use num_workers=0, "
                "which reads with as many threads"
            )
        return min(room, max(least, fitted.n_slabs), MOST_SLOTS)

    def prepare_slabs(self, prepare: Prepare) -> None:
        """Have a function called with the memory of each slab, and of each copy of a batch."""
        self._slabs.prepare(prepare)
        self.copies.prepare(prepare)

    def rest(self) -> None:
        """Let go of what is made again when it is needed: slabs and scratch that nobody uses."""
        r = self._resources
        self.transforming.rest()
        self._slabs.rest()
        while r.scratches:
            self.budget.give("scratch", r.scratches.pop().nbytes)

    def close(self) -> None:
        """Stop all pipelines, close files and let go of slabs; a second call does nothing.

        What says which rows come when stays: a closed loader still has a length, and row numbers for each batch.
        """
        if self.pid != os.getpid():
            return
        r = self._resources
        self.transforming.close()
        ended = [pipeline.close() for pipeline in list(self._pipelines)]
        if all(ended):
            for reader in r.readers.values():
                reader.close()
            if self.buckets is not None:
                self.buckets.close()
            r.readers = {}  # with the chunk indexes and fields that they hold
        self._slabs.close()
        self.copies.close()
        self.rest()
        _give_all(self.budget, ("index", "resident"))
        order, _ = self.budget.parts()["order"]
        self.budget.give("order", order - BLOCK_NBYTES * self.options.pool.most_visits)


def _give_rest(budget: Budget, pid: int) -> None:
    """Note that a closed runtime is forgotten; in a forked child its lock may be held for ever."""
    if pid == os.getpid():
        _give_all(budget, ("order", "selection"))


def _give_all(budget: Budget, parts: Collection[str]) -> None:
    for part, (held, _) in budget.parts().items():
        if part in parts:
            budget.give(part, held)
