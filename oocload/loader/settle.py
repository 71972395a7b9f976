"""What a loader chooses at construction: blocks, window, slabs and threads under the ceiling."""

from __future__ import annotations

from dataclasses import replace

from oocload.errors import (
    InvalidArgumentError,
    MemoryCeilingError,
)
from oocload.loader.arena import Arenas, measure
from oocload.loader.assemble import batch_nbytes
from oocload.loader.buckets import Buckets
from oocload.loader.cautions import warn_of_amplification, warn_of_ceiling, warn_of_small_window
from oocload.loader.costs import costs_of, order_nbytes
from oocload.loader.fit import Costs, Wish, check_blocks, fit, smallest
from oocload.loader.labels import warn_of_runs
from oocload.loader.options import Setup, multiples_near
from oocload.loader.ragged import references, tallied
from oocload.loader.runtime import Runtime
from oocload.loader.tally import Tally
from oocload.plan.balance import BalancedOptions, Classes
from oocload.plan.blocks import BlockGrid, FieldRows, lay_blocks
from oocload.plan.epoch import PlanOptions
from oocload.plan.quality import (
    MIN_WINDOW_BLOCKS,
    default_window_blocks,
    smallest_window_blocks,
)
from oocload.plan.ranks import blocks_of_rank
from oocload.plan.sample import Draws
from oocload.plan.select import Selection
from oocload.plan.shuffle import Shuffle
from oocload.plan.visits import Pool
from oocload.stores.base import Store
from oocload.units import format_bytes

_UNSHUFFLED_WINDOW_NBYTES = 32 * 2**20


def settle(store: Store, setup: Setup, tally: Tally) -> Runtime:
    """Choose blocks, window, slabs and threads, and open what is needed to read.

    Raises
    ------
    InvalidArgumentError
        If there is no full batch, and others are to be left out.
    MemoryCeilingError
        If the ceiling is below the smallest that works.

    """
    feeds = tallied(setup.feeds, tally)
    grid, resident = lay_blocks(
        setup.store_rows,
        {name: FieldRows(f.read_row_nbytes, f.layout.segments, f.together) for name, f in feeds.items()},
    )
    check_blocks(order_nbytes(grid.n_blocks, bool(setup.shuffle)), setup.ceiling)
    selection = setup.selection or Selection.of_grid(grid)
    _check_batch(setup, selection)
    readers = {name: feed.open(store) for name, feed in feeds.items()}
    buckets = None
    try:
        options = _plan_options(setup, grid, selection)
        arenas = _arenas(store, setup, options, selection)
        if setup.bucket is not None:
            ragged = references(setup.feeds)[setup.bucket]
            buckets = Buckets(store, ragged.field, ragged.kept, setup.seed)
        costs = costs_of(setup, options, readers, resident, arenas, buckets)
        wish = _wish(setup, options.pool, _may_deal(setup, resident) and not arenas.of)
        _check_rows(setup, options, arenas, costs, wish)
        fitted, ceiling = fit(costs, setup.ceiling, wish, setup.threads)
        options = replace(options, window_blocks=fitted.window_blocks, deal=fitted.deal)
        for name in resident:
            readers[name].close()
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
        warn_of_ceiling(setup.ceiling, fitted, least)
        warn_of_amplification(setup, resident, grid)
        if not warn_of_runs(setup, options, runtime.window_blocks, readers):
            warn_of_small_window(runtime, setup)
    return runtime


def _check_batch(setup: Setup, selection: Selection) -> None:
    """Refuse epochs that would have no batch at all.

    Raises
    ------
    InvalidArgumentError
        If there is no full batch, and others are to be left out.

    """
    most = setup.share.n_rows(selection.n_rows)
    if setup.drop_last and setup.batch_size > most and setup.balance is None:
        whose = "the store" if selection.whole else "the selection"
        whose = whose if setup.share.world_size == 1 else f"one of {setup.share.world_size} ranks"
        raise InvalidArgumentError(
            f"batch_size must be at most the rows of {whose}, {most}, where drop_last leaves out what fills no batch, "
            f"got {setup.batch_size}; lower batch_size, or pass drop_last=False"
        )


def _plan_options(setup: Setup, grid: BlockGrid, selection: Selection) -> PlanOptions:
    """Return the options of every epoch's order; the window is chosen later."""
    s = setup
    pool: Pool = selection
    if s.weights is not None:
        pool = Draws(selection, s.weights, selection.block_rows, s.seed)
    plain = PlanOptions(grid, pool, s.batch_size, 1, bool(s.shuffle), s.seed, s.drop_last, s.share)
    if s.balance is None:  # where there are fewer rows than a batch has, they are the only one
        return replace(plain, batch_rows=min(s.batch_size, plain.n_rows))
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


def _arenas(store: Store, setup: Setup, options: PlanOptions, selection: Selection) -> Arenas:
    """Return what the items of ragged fields need that lie in slabs as they are read."""
    fields = references(setup.feeds)
    if fields and (setup.weights is not None or setup.balance is not None):
        raise InvalidArgumentError(
            f"ragged must pad to one length where weights or balanced draw rows, for {', '.join(map(repr, fields))}: "
            "which are drawn decides how much memory their items take; pass ragged=oocload.Pad(maxlen=...)"
        )
    groups = (selection.starts, selection.stops, selection.counts)
    return Arenas({name: measure(store, f.field, f.kept, groups, options.batch_rows) for name, f in fields.items()})


def _check_rows(setup: Setup, options: PlanOptions, arenas: Arenas, costs: Costs, wish: Wish) -> None:
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
        row, batch = arena.nbytes(longest), batch_nbytes(alone, setup.rules, options.batch_rows)
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
