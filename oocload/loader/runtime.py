"""What a loader settles at construction: readers, blocks, window, slabs and threads under the ceiling."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from oocload.chunks.read import FieldReader, open_reader
from oocload.errors import InvalidArgumentError, ReadAmplificationWarning, ShuffleQualityWarning
from oocload.layout import FieldLayout
from oocload.loader.budget import Budget, Costs, Fit, Wish, fit
from oocload.loader.pipeline import Pipeline, Resources
from oocload.loader.slabs import SlabPool, slab_nbytes
from oocload.loader.stats import Stats
from oocload.plan.blocks import BlockGrid, FieldRows, amplification, lay_blocks
from oocload.plan.epoch import EpochPlan, PlanOptions, index_rows, slab_rows
from oocload.plan.quality import (
    MIN_WINDOW_BLOCKS,
    POOR_ENTROPY,
    default_window_blocks,
    relative_entropy,
    smallest_window_blocks,
)
from oocload.plan.ranks import ALONE, Share, blocks_of_rank
from oocload.plan.shuffle import WORKSPACE_NBYTES, Shuffle
from oocload.stores.base import Store
from oocload.units import format_bytes

_UNSHUFFLED_WINDOW_NBYTES = 32 * 2**20
_WARN_AMPLIFICATION = 1.2


@dataclass(frozen=True, slots=True)
class Setup:
    """The checked options of a loader."""

    fields: dict[str, FieldLayout]
    batch_size: int
    shuffle: bool | Shuffle
    seed: int
    ceiling: int | None
    drop_last: bool
    threads: int
    share: Share = ALONE
    window_blocks: int | None = None  # of a state that was loaded

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row over all fields."""
        return sum(f.row_nbytes for f in self.fields.values())


class Runtime:
    """What a loader needs to read: everything that holds memory, files or threads."""

    def __init__(
        self,
        options: PlanOptions,
        fitted: Fit,
        ceiling: int,
        setup: Setup,
        resident: frozenset[str],
        readers: Mapping[str, FieldReader],
        store: Store,
    ) -> None:
        self._store = store
        self.pid = os.getpid()
        self.options = options
        self.fit = fitted
        condition = threading.Condition(threading.RLock())
        self.budget = Budget(ceiling, condition)
        self.stats = Stats(setup.fields, resident, self.budget)
        self.n_blocks = blocks_of_rank(options.share, options.grid)
        self.relative_entropy = relative_entropy(options.batch_rows, options.window_blocks, self.n_blocks)
        self._pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()
        slab = slab_nbytes(setup.fields, slab_rows(options), index_rows(options))
        self._resources = Resources(
            fields=setup.fields,
            readers=readers,
            grid=options.grid,
            pool=SlabPool(slab, fitted.n_slabs, self.budget, condition),
            budget=self.budget,
            stats=self.stats,
            condition=condition,
            n_threads=fitted.n_threads,
        )
        for name, reader in readers.items():
            self.budget.take("resident" if name in resident else "index", reader.held_nbytes)

    def open_pipeline(self, source: Iterator[tuple[EpochPlan, int]], ahead: int) -> Pipeline:
        """Start threads that decode windows.

        Raises
        ------
        StoreFormatError
            If the store is not the one that was opened.

        """
        self._store.check_unchanged()
        pipeline = Pipeline(self._resources, source, ahead)
        self._pipelines.add(pipeline)
        return pipeline

    def close(self) -> None:
        """Stop all pipelines, close files and let go of slabs; a second call does nothing."""
        if self.pid != os.getpid():
            return
        ended = [pipeline.close() for pipeline in list(self._pipelines)]
        if all(ended):
            for reader in self._resources.readers.values():
                reader.close()
        self._resources.pool.close()
        while self._resources.scratches:
            self.budget.give("scratch", self._resources.scratches.pop().nbytes)


def settle(store: Store, setup: Setup) -> Runtime:
    """Choose blocks, window, slabs and threads, and open what is needed to read.

    Raises
    ------
    InvalidArgumentError
        If a batch is larger than the store.
    MemoryCeilingError
        If the ceiling is below the smallest that works.

    """
    fields = setup.fields
    n_rows = next(iter(fields.values())).n_rows
    if setup.batch_size > (most := setup.share.n_rows(n_rows)):
        whose = "the store" if setup.share.world_size == 1 else f"one of {setup.share.world_size} ranks"
        raise InvalidArgumentError(
            f"batch_size must be at most the rows of {whose}, {most}, got {setup.batch_size}; lower batch_size"
        )
    grid, resident = lay_blocks(n_rows, {name: FieldRows(f.row_nbytes, f.segments) for name, f in fields.items()})
    readers = {name: open_reader(store, f) for name, f in fields.items()}
    try:
        options = _plan_options(setup, grid)
        costs = _costs(setup, options, readers, resident)
        wish = _wish(setup, grid)
        fitted, ceiling = fit(costs, setup.ceiling, wish, setup.threads)
        options = _plan_options(setup, grid, fitted.window_blocks)
        for name in resident:
            readers[name] = open_reader(store, fields[name], resident=True)
    except BaseException:
        for reader in readers.values():
            reader.close()
        raise
    runtime = Runtime(options, fitted, ceiling, setup, resident, readers, store)
    _warn_of_amplification(fields, resident, grid)
    _warn_of_small_window(runtime, setup)
    return runtime


def _plan_options(setup: Setup, grid: BlockGrid, window_blocks: int = 1) -> PlanOptions:
    s = setup
    return PlanOptions(grid, s.batch_size, window_blocks, bool(s.shuffle), s.seed, s.drop_last, s.share)


def _wish(setup: Setup, grid: BlockGrid) -> Wish:
    """Return the window to wish for and the smallest that will do, in blocks."""
    n_blocks = blocks_of_rank(setup.share, grid)
    least = smallest_window_blocks(n_blocks, grid.mean_rows, setup.batch_size)
    asked = setup.window_blocks
    if asked is None and isinstance(setup.shuffle, Shuffle) and setup.shuffle.window_rows is not None:
        asked = min(n_blocks, max(least, -(-setup.shuffle.window_rows // grid.mean_rows)))
    if asked is not None:
        return Wish(asked, asked, asked)
    if setup.shuffle:
        wished = default_window_blocks(n_blocks, grid.mean_rows, setup.row_nbytes, setup.batch_size)
        return Wish(wished, max(least, min(wished, MIN_WINDOW_BLOCKS)), least)
    blocks = _UNSHUFFLED_WINDOW_NBYTES // max(1, grid.mean_rows * setup.row_nbytes)
    return Wish(min(n_blocks, max(least, blocks)), least, least)


def _costs(setup: Setup, options: PlanOptions, readers: Mapping[str, FieldReader], resident: frozenset[str]) -> Costs:
    needs: dict[str, int] = {}
    for name, reader in readers.items():
        for buffer, n_bytes in () if name in resident else reader.scratch_needs.items():
            needs[buffer] = max(needs.get(buffer, 0), n_bytes)
    held = sum(setup.fields[n].nbytes if n in resident else r.held_nbytes for n, r in readers.items())
    grid = options.grid
    # The blocks' order, what making it takes, and their sizes while windows are cut from it.
    order = (2 * 8 + max(WORKSPACE_NBYTES, 2 * 8)) * grid.n_blocks

    def slab(blocks: int) -> int:
        window = replace(options, window_blocks=blocks)
        return slab_nbytes(setup.fields, slab_rows(window), index_rows(window))

    def shuffle(blocks: int) -> int:
        return WORKSPACE_NBYTES * index_rows(replace(options, window_blocks=blocks))

    return Costs(fixed=held + order, per_thread=sum(needs.values()), slab=slab, shuffle=shuffle)


def _warn_of_amplification(fields: Mapping[str, FieldLayout], resident: frozenset[str], grid: BlockGrid) -> None:
    factors = {
        name: amplification(grid, f.segments)
        for name, f in fields.items()
        if any(s.height for s in f.segments) and name not in resident and f.nbytes
    }
    more = sum((factor - 1) * fields[name].nbytes for name, factor in factors.items())
    if more > (_WARN_AMPLIFICATION - 1) * sum(f.nbytes for f in fields.values()):
        name = max(factors, key=lambda n: (factors[n] - 1) * fields[n].nbytes)
        height = max(s.height for s in fields[name].segments)
        warnings.warn(
            f"field {name!r} has chunks of {height} rows, which do not fit blocks of "
            f"{grid.block_rows} rows: each is decoded {factors[name]:.1f} times an epoch; oocload convert gives all "
            "fields chunks that fit",
            ReadAmplificationWarning,
            stacklevel=4,
        )


def _warn_of_small_window(runtime: Runtime, setup: Setup) -> None:
    options = runtime.options
    blocks = options.window_blocks
    explicit = setup.window_blocks is not None or (isinstance(setup.shuffle, Shuffle) and setup.shuffle.window_rows)
    if (
        setup.shuffle
        and not explicit
        and blocks < min(MIN_WINDOW_BLOCKS, runtime.n_blocks)
        and runtime.relative_entropy < POOR_ENTROPY
    ):
        nbytes = blocks * options.grid.mean_rows * setup.row_nbytes
        warnings.warn(
            f"the window has {blocks} blocks only ({format_bytes(nbytes)}), so rows mix poorly (batch entropy "
            f"{runtime.relative_entropy:.2f} of a uniform shuffle's); raise memory=, or run oocload convert to a "
            "store with smaller chunks",
            ShuffleQualityWarning,
            stacklevel=4,
        )
