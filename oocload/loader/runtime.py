"""What a loader settles at construction: readers, blocks, window, slabs and threads under the ceiling."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from operator import itemgetter

from oocload.available import available_memory, total_memory
from oocload.chunks.read import FieldReader, most_needs
from oocload.errors import (
    InvalidArgumentError,
    MemoryCeilingError,
    MemoryCeilingWarning,
    ReadAmplificationWarning,
    ShuffleQualityWarning,
    warn,
)
from oocload.loader.arena import Arenas, measure
from oocload.loader.assemble import batch_nbytes
from oocload.loader.board import MOST_SLOTS
from oocload.loader.buckets import Buckets
from oocload.loader.budget import Budget
from oocload.loader.fit import Costs, Fit, Wish, check_blocks, fit, smallest
from oocload.loader.labels import warn_of_runs
from oocload.loader.options import Setup, multiples_near
from oocload.loader.pipeline import Part, Pipeline, Resources
from oocload.loader.ragged import references, tallied
from oocload.loader.room import Room
from oocload.loader.slabs import BatchCopies, KeptBatches, Prepare, SlabPool, slab_nbytes
from oocload.loader.stats import Stats
from oocload.loader.tally import Tally
from oocload.loader.transforming import Means, Transforming
from oocload.plan.balance import BalancedOptions, Classes
from oocload.plan.blocks import BlockGrid, FieldRows, amplification, lay_blocks
from oocload.plan.epoch import PLAN_NBYTES, PlanOptions
from oocload.plan.quality import (
    MIN_WINDOW_BLOCKS,
    POOR_ENTROPY,
    default_window_blocks,
    epoch_entropy,
    smallest_window_blocks,
)
from oocload.plan.ranks import blocks_of_rank
from oocload.plan.room import visits_again
from oocload.plan.sample import Draws
from oocload.plan.select import Selection
from oocload.plan.shuffle import WORKSPACE_NBYTES, Shuffle
from oocload.plan.visits import Pool
from oocload.plan.windows import Plan
from oocload.stores.base import Store
from oocload.units import counted, format_bytes

_UNSHUFFLED_WINDOW_NBYTES = 32 * 2**20
_WARN_AMPLIFICATION = 1.2
_INDEX_NBYTES = 8  # where a row goes
_BLOCK_NBYTES = 3 * 8  # where it begins and ends, and how many of its rows are taken


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
        self.copies = BatchCopies(fields, _copy_rows(options), n_copies, self.budget, condition, kept, arenas)
        self._slabs = SlabPool(_slab_nbytes(setup, options, arenas), fitted.n_slabs, self.budget, condition)
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
            permuting_nbytes=_permuting_nbytes(options),
            scratch_nbytes=_scratch_nbytes(setup, readers, resident),
            spare_nbytes=ceiling - fitted.needed,
            buckets=buckets,
            arenas=arenas,
            items=_items_of_slab(options, arenas),
            left_over=arenas.left_over(_left_over_rows(options)),
        )
        self.budget.take("order", _order_nbytes(options.pool.most_visits, options.shuffle))
        self.budget.take("selection", chosen_nbytes(setup, options))
        self.budget.take("index", arenas.held_nbytes)
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
        each = self._held_nbytes + r.permuting_nbytes + o.most_read * _INDEX_NBYTES * o.indexed
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
        self.budget.give("order", order - _BLOCK_NBYTES * self.options.pool.most_visits)


def _give_rest(budget: Budget, pid: int) -> None:
    """Note that a closed runtime is forgotten; in a forked child its lock may be held for ever."""
    if pid == os.getpid():
        _give_all(budget, ("order", "selection"))


def _give_all(budget: Budget, parts: Collection[str]) -> None:
    for part, (held, _) in budget.parts().items():
        if part in parts:
            budget.give(part, held)


def settle(store: Store, setup: Setup, tally: Tally) -> Runtime:
    """Choose blocks, window, slabs and threads, and open what is needed to read.

    Raises
    ------
    InvalidArgumentError
        If a batch is larger than the store.
    MemoryCeilingError
        If the ceiling is below the smallest that works.

    """
    feeds = tallied(setup.feeds, tally)
    grid, resident = lay_blocks(
        setup.store_rows,
        {name: FieldRows(f.read_row_nbytes, f.layout.segments, f.together) for name, f in feeds.items()},
    )
    check_blocks(_order_nbytes(grid.n_blocks, bool(setup.shuffle)), setup.ceiling)
    selection = setup.selection or Selection.of_grid(grid)
    most = setup.share.n_rows(selection.n_rows)
    if setup.batch_size > most and setup.balance is None:
        whose = "the store" if selection.whole else "the selection"
        whose = whose if setup.share.world_size == 1 else f"one of {setup.share.world_size} ranks"
        raise InvalidArgumentError(
            f"batch_size must be at most the rows of {whose}, {most}, got {setup.batch_size}; lower batch_size"
        )
    readers = {name: feed.open(store) for name, feed in feeds.items()}
    buckets = None
    try:
        options = _plan_options(setup, grid, selection)
        arenas = _arenas(store, setup, selection)
        if setup.bucket is not None:
            buckets = Buckets(store, arenas.of[setup.bucket].field, setup.seed)
        costs = _costs(setup, options, readers, resident, arenas)
        wish = _wish(setup, options.pool, _may_deal(setup, resident) and not arenas.of)
        _check_rows(setup, arenas, costs, wish)
        fitted, ceiling = fit(costs, setup.ceiling, wish, setup.threads)
        options = replace(options, window_blocks=fitted.window_blocks, deal=fitted.deal)
        for name in resident:
            readers[name] = feeds[name].open(store, resident=True)
    except BaseException:
        for reader in readers.values():
            reader.close()
        if buckets is not None:
            buckets.close()
        raise
    least = smallest(costs, wish)
    runtime = Runtime(
        options, fitted, ceiling, least, setup, selection, resident, readers, store, arenas, buckets, tally
    )
    if setup.selection is None and setup.window_blocks is None:  # parts of a loader that warned do not warn again
        _warn_of_ceiling(setup.ceiling, fitted, least)
        _warn_of_amplification(setup, resident, grid)
        if not warn_of_runs(setup, options, runtime.window_blocks, readers):
            _warn_of_small_window(runtime, setup)
    return runtime


def _plan_options(setup: Setup, grid: BlockGrid, selection: Selection) -> PlanOptions:
    """Return the options of every epoch's order; the window is chosen later."""
    s = setup
    pool: Pool = selection
    if s.weights is not None:
        pool = Draws(selection, s.weights, selection.block_rows, s.seed)
    plain = PlanOptions(grid, pool, s.batch_size, 1, bool(s.shuffle), s.seed, s.drop_last, s.share)
    if s.balance is None:
        return plain
    classes = Classes(selection, s.balance.codes, s.balance.labels, s.balance.field)
    parts = len(s.share.own) * classes.n_classes
    if s.batch_size % parts:
        streams = f" and {len(s.share.own)} streams" if len(s.share.own) > 1 else ""
        raise InvalidArgumentError(
            f"batch_size must be a multiple of the {classes.n_classes} classes of {s.balance.field!r}{streams}, got "
            f"{s.batch_size}; use {multiples_near(s.batch_size, parts)}"
        )
    names = ("grid", "pool", "batch_rows", "window_blocks", "shuffle", "seed", "drop_last", "share")
    return BalancedOptions(**{name: getattr(plain, name) for name in names}, classes=classes)


def _arenas(store: Store, setup: Setup, selection: Selection) -> Arenas:
    """Return what the items of ragged fields need that lie in slabs as they are read."""
    fields = references(setup.feeds)
    if fields and (setup.weights is not None or setup.balance is not None):
        raise InvalidArgumentError(
            f"ragged must pad to one length where weights or balanced draw rows, for {', '.join(map(repr, fields))}: "
            "which are drawn decides how much memory their items take; pass ragged=oocload.Pad(maxlen=...)"
        )
    groups = (selection.starts, selection.stops, selection.counts)
    return Arenas({name: measure(store, field, groups, setup.batch_size) for name, field in fields.items()})


def _check_rows(setup: Setup, arenas: Arenas, costs: Costs, wish: Wish) -> None:
    """Refuse rows that are longer than the ceiling allows.

    Raises
    ------
    MemoryCeilingError
        If a row, or a batch of rows padded to it, is larger than the ceiling.

    """
    if setup.ceiling is None:
        return
    for name, arena in arenas.of.items():
        longest, alone = arena.of_rows(1), Arenas({name: arena})
        row, batch = arena.nbytes(longest), batch_nbytes(alone, setup.rules, setup.batch_size)
        if max(row, batch) > setup.ceiling:
            least = smallest(costs, wish)
            raise MemoryCeilingError(
                f"memory must be at least {least} bytes ({format_bytes(least)}) where the longest row of field "
                f"{name!r} has {longest:,} items ({format_bytes(row)}), and a batch with it {format_bytes(batch)}, got "
                f"{format_bytes(setup.ceiling)}; pass ragged=oocload.Pad(maxlen=...), or raise memory="
            )


def _may_deal(setup: Setup, resident: frozenset[str]) -> bool:
    """Whether rows of a block may go to two slabs.

    Where nothing is decoded whole, blocks are as small as one likes, and halves of them would only cost: 0.65 to 0.8
    of the speed (benchmarks/README.md, granularity).
    """
    rigid = any(s.height for name, f in setup.fields.items() if name not in resident for s in f.segments)
    return rigid and setup.balance is None


def _wish(setup: Setup, pool: Pool, may_deal: bool) -> Wish:
    """Return the window to wish for and the smallest that will do, in blocks of one stream."""
    deal = setup.deal if may_deal else False
    share = setup.share
    if share.streams is None:
        n_blocks, batch_rows, n_streams = blocks_of_rank(share, pool.n_groups), setup.batch_size, 1
    else:  # the same for any number of ranks
        n_blocks, n_streams = pool.n_groups, share.n_streams
        batch_rows = setup.batch_size * share.world_size
    row_nbytes = max(setup.read_row_nbytes if setup.shuffle else 0, setup.row_nbytes)

    def of_stream(blocks: int) -> int:
        return -(-blocks // n_streams)

    least = smallest_window_blocks(n_blocks, pool.block_rows, batch_rows)
    asked = setup.window_blocks
    if asked is None and isinstance(setup.shuffle, Shuffle) and setup.shuffle.window_rows is not None:
        asked = of_stream(min(n_blocks, max(least, -(-setup.shuffle.window_rows // pool.block_rows))))
    if asked is not None:
        return Wish(asked, asked, asked, deal)
    if setup.shuffle:
        wished = default_window_blocks(n_blocks, pool.block_rows, row_nbytes, batch_rows, may_deal)
        passable = max(least, min(wished, MIN_WINDOW_BLOCKS))
        return Wish(of_stream(wished), of_stream(passable), of_stream(least), deal)
    blocks = _UNSHUFFLED_WINDOW_NBYTES // max(1, pool.block_rows * row_nbytes)
    return Wish(of_stream(min(n_blocks, max(least, blocks))), of_stream(least), of_stream(least), False)


def _costs(
    setup: Setup,
    options: PlanOptions,
    readers: Mapping[str, FieldReader],
    resident: frozenset[str],
    arenas: Arenas,
) -> Costs:
    held = sum(setup.feeds[n].resident_nbytes if n in resident else r.held_nbytes for n, r in readers.items())
    order = _order_nbytes(options.pool.most_visits, options.shuffle)
    fixed = held + order + chosen_nbytes(setup, options) + arenas.held_nbytes
    fixed += batch_nbytes(arenas, setup.rules, setup.batch_size)
    once = [sum(readers[name].scratch_needs.values()) for name in resident]  # while resident fields are read

    def at(blocks: int, deal: bool) -> PlanOptions:
        return replace(options, window_blocks=blocks, deal=deal)

    return Costs(
        fixed=fixed,
        opening=fixed + max(once, default=0),
        per_thread=_scratch_nbytes(setup, readers, resident),
        batch=lambda *window: _copy_nbytes(setup, at(*window), arenas),
        slab=lambda *window: _slab_nbytes(setup, at(*window), arenas),
        left_over=lambda *window: int(at(*window).leaves_over),
        shuffle=lambda *window: _permuting_nbytes(at(*window)),
        dealt=lambda *window: at(*window).dealt,
        largest_chunk=_largest_chunk(setup),
    )


def _scratch_nbytes(setup: Setup, readers: Mapping[str, FieldReader], resident: frozenset[str]) -> int:
    feeds = setup.feeds
    needs = [feeds[n].resident_needs if n in resident else r.scratch_needs for n, r in readers.items()]
    return sum(most_needs(needs).values())


def _slab_nbytes(setup: Setup, options: PlanOptions, arenas: Arenas) -> int:
    items_nbytes = arenas.nbytes(_items_of_slab(options, arenas))
    return slab_nbytes(setup.fields, options.slab_rows, options.most_read if options.indexed else 0, items_nbytes)


def _items_of_slab(options: PlanOptions, arenas: Arenas) -> dict[str, int]:
    """Return how many items of each ragged field a slab has room for."""
    again = visits_again(options.share, options.pool.n_rows, options.pool.most_rows)
    return arenas.of_slab(options.most_read, again, _left_over_rows(options))


def _left_over_rows(options: PlanOptions) -> int:
    """Return the most rows that a slab begins with from the one before."""
    return _copy_rows(options) if options.leaves_over else 0


def _copy_nbytes(setup: Setup, options: PlanOptions, arenas: Arenas) -> int:
    """Return the bytes of a copy of rows of a slab."""
    n_rows = _copy_rows(options)
    return slab_nbytes(setup.fields, n_rows, 0, arenas.nbytes(arenas.left_over(n_rows)))


def _copy_rows(options: PlanOptions) -> int:
    """Return the most rows that are ever copied out of a slab: those of a batch, or what is left over."""
    return max(options.batch_rows, options.slab_rows - options.most_read)


def _permuting_nbytes(options: PlanOptions) -> int:
    """Return the bytes taken while a window's rows are permuted and chosen, beside their places in the slab."""
    return (WORKSPACE_NBYTES * options.indexed + options.picks_nbytes) * options.most_read


def _largest_chunk(setup: Setup) -> tuple[str, int] | None:
    """Return name and bytes of the largest chunk that is decoded whole, or row of chunks where rows are cut."""
    heights = {n: max((s.height for s in f.segments), default=0) for n, f in setup.fields.items()}
    decoded = {n: height * setup.feeds[n].read_row_nbytes for n, height in heights.items()}
    return max(decoded.items(), key=itemgetter(1), default=None)


def _order_nbytes(n_visits: int, shuffle: bool) -> int:
    """Return the bytes of the blocks and their order, and what making it takes; one epoch ends as the next begins."""
    return (_BLOCK_NBYTES + 2 * PLAN_NBYTES + WORKSPACE_NBYTES * shuffle) * n_visits


def chosen_nbytes(setup: Setup, options: PlanOptions) -> int:
    """Return the bytes of what says which rows are taken: selection, weights, classes."""
    held = 0 if setup.selection is None else setup.selection.held_nbytes
    if setup.weights is not None:
        held += setup.weights.nbytes + 3 * 8 * options.pool.n_groups
    if isinstance(options, BalancedOptions):
        held += options.classes.held_nbytes
    return held


def _warn_of_ceiling(ceiling: int | None, fitted: Fit, least: int) -> None:
    if ceiling is None:
        return
    total, available = total_memory(), available_memory()
    if ceiling > total:
        has = f"memory is {format_bytes(ceiling)}, and this process can have {format_bytes(total)} at most"
    elif fitted.needed > available:
        has = f"of memory {format_bytes(fitted.needed)} are needed, and {format_bytes(available)} are available"
    else:
        return
    remedy = f"pass memory= from {least} ({format_bytes(least)}) to {available} bytes ({format_bytes(available)})"
    if least > available:
        remedy = (
            f"even the least that works, {format_bytes(least)}, is more than the {format_bytes(available)} available; "
            "lower batch_size or the window, or run oocload convert to a store with smaller chunks"
        )
    warn(
        f"{has}: it may be killed before it reaches its ceiling; {remedy}",
        MemoryCeilingWarning,
    )


def _warn_of_amplification(setup: Setup, resident: frozenset[str], grid: BlockGrid) -> None:
    fields = setup.fields
    nbytes = {name: feed.read_row_nbytes * grid.n_rows for name, feed in setup.feeds.items()}
    factors = {
        name: amplification(grid, f.segments)
        for name, f in fields.items()
        if any(s.height for s in f.segments) and name not in resident and nbytes[name]
    }
    more = sum((factor - 1) * nbytes[name] for name, factor in factors.items())
    if more > (_WARN_AMPLIFICATION - 1) * sum(nbytes.values()):
        name = max(factors, key=lambda n: (factors[n] - 1) * nbytes[n])
        height = max(s.height for s in fields[name].segments)
        warn(
            f"field {name!r} has chunks of {height} rows, which do not fit blocks of "
            f"{grid.block_rows} rows: each is decoded {factors[name]:.1f} times an epoch; oocload convert gives all "
            "fields chunks that fit",
            ReadAmplificationWarning,
        )


def _warn_of_small_window(runtime: Runtime, setup: Setup) -> None:
    options = runtime.options
    blocks = runtime.window_blocks
    explicit = setup.window_blocks is not None or (isinstance(setup.shuffle, Shuffle) and setup.shuffle.window_rows)
    if (
        setup.shuffle
        and setup.balance is None
        and not explicit
        and blocks * (1 + options.dealt) < min(MIN_WINDOW_BLOCKS, runtime.n_blocks)
        and runtime.relative_entropy < POOR_ENTROPY
    ):
        nbytes = blocks * options.pool.block_rows * setup.row_nbytes
        warn(
            f"the window has {counted(blocks, 'block')} only ({format_bytes(nbytes)}), so rows mix poorly (batch "
            f"entropy {runtime.relative_entropy:.2f} of a uniform shuffle's); raise memory=, or run oocload convert "
            "to a store with smaller chunks",
            ShuffleQualityWarning,
        )
