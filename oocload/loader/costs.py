"""What the parts of a loader cost in bytes, given its options: slabs, copies, order, scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from operator import itemgetter

from oocload.chunks.read import FieldReader, most_needs
from oocload.loader.arena import Arenas
from oocload.loader.assemble import batch_nbytes
from oocload.loader.buckets import Buckets
from oocload.loader.fit import Costs
from oocload.loader.options import Setup
from oocload.loader.slabs import slab_nbytes
from oocload.plan import bucket
from oocload.plan.balance import BalancedOptions
from oocload.plan.epoch import PLAN_NBYTES, PlanOptions
from oocload.plan.room import visits_again
from oocload.plan.shuffle import WORKSPACE_NBYTES

INDEX_NBYTES = 8  # where a row goes
BLOCK_NBYTES = 3 * 8  # where it begins and ends, and how many of its rows are taken


def costs_of(
    setup: Setup,
    options: PlanOptions,
    readers: Mapping[str, FieldReader],
    resident: frozenset[str],
    arenas: Arenas,
    buckets: Buckets | None,
) -> Costs:
    """Return what each part of a loader costs."""
    held = sum(setup.feeds[n].resident_nbytes if n in resident else r.held_nbytes for n, r in readers.items())
    order = order_nbytes(options.pool.most_visits, options.shuffle)
    fixed = held + order + chosen_nbytes(setup, options) + arenas.held_nbytes
    fixed += batch_nbytes(arenas, setup.rules, options.batch_rows)
    fixed += 0 if buckets is None else buckets.held_nbytes
    once = [sum(readers[name].scratch_needs.values()) for name in resident]  # while resident fields are read

    def at(blocks: int, deal: bool) -> PlanOptions:
        return replace(options, window_blocks=blocks, deal=deal)

    return Costs(
        fixed=fixed,
        opening=fixed + max(*once, arenas.measuring_nbytes, 0),
        per_thread=scratch_nbytes(setup, readers, resident),
        batch=lambda *window: _copy_nbytes(setup, at(*window), arenas),
        slab=lambda *window: slab_nbytes_of(setup, at(*window), arenas),
        left_over=lambda *window: int(at(*window).leaves_over),
        shuffle=lambda *window: permuting_nbytes(at(*window), buckets),
        dealt=lambda *window: at(*window).dealt,
        largest_chunk=_largest_chunk(setup),
    )


def scratch_nbytes(setup: Setup, readers: Mapping[str, FieldReader], resident: frozenset[str]) -> int:
    """Return the bytes of scratch that one thread needs."""
    feeds = setup.feeds
    needs = [feeds[n].resident_needs if n in resident else r.scratch_needs for n, r in readers.items()]
    return sum(most_needs(needs).values())


def slab_nbytes_of(setup: Setup, options: PlanOptions, arenas: Arenas) -> int:
    """Return the bytes of a slab."""
    items_nbytes = arenas.nbytes(items_of_slab(options, arenas))
    return slab_nbytes(setup.fields, options.slab_rows, options.most_read if options.indexed else 0, items_nbytes)


def items_of_slab(options: PlanOptions, arenas: Arenas) -> dict[str, int]:
    """Return how many items of each ragged field a slab has room for."""
    again = visits_again(options.share, options.pool.n_rows, options.pool.most_rows)
    return arenas.of_slab(options.most_read, again, left_over_rows(options))


def left_over_rows(options: PlanOptions) -> int:
    """Return the most rows that a slab begins with from the one before."""
    return copy_rows(options) if options.leaves_over else 0


def _copy_nbytes(setup: Setup, options: PlanOptions, arenas: Arenas) -> int:
    """Return the bytes of a copy of rows of a slab."""
    n_rows = copy_rows(options)
    return slab_nbytes(setup.fields, n_rows, 0, arenas.nbytes(arenas.left_over(n_rows)))


def copy_rows(options: PlanOptions) -> int:
    """Return the most rows that are ever copied out of a slab: those of a batch, or what is left over."""
    return max(options.batch_rows, options.slab_rows - options.most_read)


def permuting_nbytes(options: PlanOptions, buckets: Buckets | None) -> int:
    """Return the bytes taken while a window's rows are permuted and chosen, beside their places in the slab."""
    own = WORKSPACE_NBYTES * options.indexed
    if buckets is not None:
        own = max(own, bucket.WORKSPACE_NBYTES)
    looked_up = 0 if buckets is None else buckets.scratch_nbytes
    return (own + options.picks_nbytes) * options.most_read + looked_up


def _largest_chunk(setup: Setup) -> tuple[str, int] | None:
    """Return name and bytes of the largest chunk that is decoded whole, or row of chunks where rows are cut."""
    heights = {n: max((s.height for s in f.segments), default=0) for n, f in setup.fields.items()}
    decoded = {n: height * setup.feeds[n].read_row_nbytes for n, height in heights.items()}
    return max(decoded.items(), key=itemgetter(1), default=None)


def order_nbytes(n_visits: int, shuffle: bool) -> int:
    """Return the bytes of the blocks and their order, and what making it takes; one epoch ends as the next begins."""
    return (BLOCK_NBYTES + 2 * PLAN_NBYTES + WORKSPACE_NBYTES * shuffle) * n_visits


def chosen_nbytes(setup: Setup, options: PlanOptions) -> int:
    """Return the bytes of what says which rows are taken: selection, weights, classes."""
    held = 0 if setup.selection is None else setup.selection.held_nbytes
    if setup.weights is not None:
        held += setup.weights.nbytes + 3 * 8 * options.pool.n_groups
    if isinstance(options, BalancedOptions):
        held += options.classes.held_nbytes
    return held
