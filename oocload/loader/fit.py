"""How a loader is fitted under its ceiling: window, slabs and threads, and the smallest ceiling that works.

::

    ceiling  |-- fixed --|- scratch -|-- slab --|-- slab --|-- slab --|- permuting -|   with as many slabs as overlap
             |-- fixed --|- scratch -|-- slab --|- copies -|- permuting -|              one and a part, where those
                                                                                        do not fit
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oocload.available import available_memory, default_ceiling
from oocload.errors import MemoryCeilingError
from oocload.units import format_bytes

_LEAST_CHECKED_NBYTES = 16 * 2**20
_THREADS_ALLOWED_FOR = 4  # when the window is chosen, whatever the machine has
_THREADS_AT_LEAST = 2  # while a smaller window than one that mixes passably works with them
_COPIES_IF_TIGHT = 2  # the last batch of a slab, and that of the slab before, which may be in use yet


@dataclass(frozen=True, slots=True)
class Fit:
    """What fits under a ceiling.

    Attributes
    ----------
    window_blocks
        Blocks of a window.
    deal
        Whether its rows may be dealt over two slabs.
    tight
        Whether there is one slab less than reading ahead takes: the next window is read into a slab when the consumer
        has let go of its batches, of which the last is handed out as a copy.
    n_slabs, n_threads
        How many there are.
    n_copies
        Batches of which copies are held beside the slabs.
    needed
        Bytes that all this takes.

    """

    window_blocks: int
    deal: bool
    tight: bool
    n_slabs: int
    n_threads: int
    n_copies: int
    needed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What the parts of a loader cost, in bytes.

    ``needed = fixed + threads × per_thread + slabs × slab(window) + copies × batch + shuffle(window)``, or ``opening``
    where that is more.

    Attributes
    ----------
    fixed
        Chunk indexes, resident fields, block order, what says which rows are taken.
    opening
        What is held at most while the loader is made, when there are no slabs yet.
    per_thread
        Scratch of one worker.
    slab
        Window in blocks, and whether it may be dealt → bytes of one slab.
    batch
        The same → a copy of one batch, or of what a slab leaves over where that is more.
    left_over
        The same → copies of what a slab leaves over for the next: 1, or 0 where that is never anything.
    shuffle
        The same → bytes taken while its rows are permuted.
    dealt
        The same → whether its rows are dealt over two slabs.
    largest_chunk
        Name and bytes of the field whose chunks are largest, of those that are decoded whole.

    """

    fixed: int
    per_thread: int
    batch: Callable[[int, bool], int]
    slab: Callable[[int, bool], int]
    left_over: Callable[[int, bool], int]
    shuffle: Callable[[int, bool], int]
    dealt: Callable[[int, bool], bool]
    opening: int = 0
    largest_chunk: tuple[str, int] | None = None

    def fit(self, blocks: int, deal: bool, tight: bool, n_threads: int, more_slabs: int = 0) -> Fit:
        """Return a configuration with as few slabs as it works with, or some more.

        One slab is filled while the consumer has another; where rows are dealt over two, both of those are being
        filled. A tight one makes do with one less.
        """
        n_slabs = 2 + self.dealt(blocks, deal) - tight + more_slabs
        n_copies = self.left_over(blocks, deal) + _COPIES_IF_TIGHT * tight
        held = (
            self.fixed
            + n_threads * self.per_thread
            + n_slabs * self.slab(blocks, deal)
            + n_copies * self.batch(blocks, deal)
        )
        needed = max(self.opening, held + self.shuffle(blocks, deal))
        return Fit(blocks, deal, tight, n_slabs, n_threads, n_copies, needed)


@dataclass(frozen=True, slots=True)
class Wish:
    """Windows in blocks: the one wished for, the smallest that mixes passably, the smallest that works at all.

    Where rows are dealt over two slabs, half a window mixes as well. ``deal`` says whether they must be, as a state
    may; None leaves it to the ceiling.
    """

    blocks: int
    passable: int
    least: int
    deal: bool | None = None

    @property
    def deals(self) -> tuple[bool, ...]:
        """Whether to deal, best first."""
        return (True, False) if self.deal is None else (self.deal,)


def fit(costs: Costs, ceiling: int | None, wish: Wish, n_threads: int) -> tuple[Fit, int]:
    """Choose window, slabs and threads under a ceiling; return them and the ceiling.

    The window decides the order of rows, so it follows from the ceiling alone, with room for the scratch of a fixed
    number of threads, fewer before it goes below ``wish.passable``. Its rows are dealt over two slabs, unless fewer
    and larger ones mix more. Where nothing is left to read ahead into, windows are read one after the other. Then come
    as many threads as were asked for and fit. One more slab, where there is room, keeps them busy while one window ends
    and the consumer holds another.

    Parameters
    ----------
    costs
        What the parts cost.
    ceiling
        Bytes, or None for the default (see `default_ceiling`), which grows to what the wished window needs: the
        order of rows must not depend on the machine.
    wish
        Windows wished for, and the smallest that will do.
    n_threads
        Worker threads wished for.

    Raises
    ------
    MemoryCeilingError
        If the ceiling is below the smallest that works, which the message names.

    """
    if ceiling is None:
        wished = costs.fit(wish.blocks, wish.deal is not False, False, max(n_threads, _THREADS_ALLOWED_FOR)).needed
        ceiling = max(default_ceiling(), wished)
        if wished > (available := available_memory()):
            raise MemoryCeilingError(
                f"memory must be given where the default window needs {format_bytes(wished)}, more than the "
                f"{format_bytes(available)} available; pass memory= (at least {format_bytes(smallest(costs, wish))}), "
                "or run oocload convert to a store with smaller chunks"
            )
    few = range(_THREADS_AT_LEAST, 0, -1)
    for passable, tight, allowances, deals in (
        (True, False, range(_THREADS_ALLOWED_FOR, 0, -1), wish.deals),
        (False, False, few, wish.deals),
        (False, True, few, wish.deals[-1:]),
    ):
        found = []
        for deal in deals:
            least = max(wish.least, -(-wish.passable // (1 + deal))) if passable else wish.least
            n = next((n for n in allowances if costs.fit(least, deal, tight, n).needed <= ceiling), None)
            if n is not None:
                found.append((_largest_that_fits(costs, ceiling, least, wish.blocks, deal, tight, n), deal))
        if found:
            blocks, deal = max(found, key=lambda window: window[0] * (1 + costs.dealt(*window)))  # that mixes the most
            return _fill_up(costs, ceiling, blocks, deal, tight, n_threads), ceiling
    raise _too_small(costs, ceiling, smallest(costs, wish))


def smallest(costs: Costs, wish: Wish) -> int:
    """Return the smallest ceiling that works; with slabs of a batch or two, copies may cost more than a slab."""
    return min(costs.fit(wish.least, wish.deals[-1], tight, 1).needed for tight in (True, False))


def check_blocks(n_bytes: int, ceiling: int | None) -> None:
    """Refuse a store of so many blocks that their order alone takes more than the ceiling, before it is made."""
    most = available_memory() if ceiling is None else ceiling
    if n_bytes > max(most, _LEAST_CHECKED_NBYTES):
        raise MemoryCeilingError(
            f"memory must be at least {n_bytes} bytes ({format_bytes(n_bytes)}) for the order of this store's blocks "
            f"alone, got {format_bytes(most)}; run oocload convert to a store with larger chunks"
        )


def _too_small(costs: Costs, ceiling: int, least: int) -> MemoryCeilingError:
    remedy = "raise memory=, lower batch_size or the window, or run oocload convert to a store with smaller chunks"
    what = "for this store and batch size"
    if costs.largest_chunk is not None and costs.largest_chunk[1] > ceiling:
        name, nbytes = costs.largest_chunk
        what = f"where field {name!r} has chunks of {format_bytes(nbytes)}, which are decoded whole"
        remedy = "run oocload convert to a store with smaller chunks, or raise memory="
    return MemoryCeilingError(
        f"memory must be at least {least} bytes ({format_bytes(least)}) {what}, got {format_bytes(ceiling)}; {remedy}"
    )


def _fill_up(costs: Costs, ceiling: int, blocks: int, deal: bool, tight: bool, n_threads: int) -> Fit:
    """Return a window with as many threads as fit, and one more slab if it does."""
    with_threads = (costs.fit(blocks, deal, tight, n) for n in range(n_threads, 1, -1))
    found = next((f for f in with_threads if f.needed <= ceiling), costs.fit(blocks, deal, tight, 1))
    with_slab = costs.fit(blocks, deal, tight, found.n_threads, more_slabs=1)
    return with_slab if not tight and with_slab.needed <= ceiling else found


def _largest_that_fits(costs: Costs, ceiling: int, low: int, high: int, deal: bool, tight: bool, n_threads: int) -> int:
    if costs.fit(high, deal, tight, n_threads).needed <= ceiling:  # all of a store in one window takes fewer slabs
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if costs.fit(middle, deal, tight, n_threads).needed <= ceiling:
            low = middle
        else:
            high = middle - 1
    return low
