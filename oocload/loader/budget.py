"""The memory budget: what every part holds, its peak, and how a window is fitted under a ceiling."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oocload.errors import MemoryCeilingError
from oocload.units import format_bytes

_MAX_DEFAULT_CEILING = 2 * 2**30
_LEAST_CHECKED_NBYTES = 16 * 2**20
_THREADS_ALLOWED_FOR = 4  # when the window is chosen, whatever the machine has


class Budget:
    """Counts the bytes that oocload holds, by part; thread-safe, and safe inside a finalizer.

    A finalizer may run between any two steps of a method here, in the same thread. So changes are queued, and whoever
    is settling the queue already settles them too.

    Parameters
    ----------
    ceiling
        Bytes.
    lock
        The lock of whatever else finalizers reach; a lock of its own would invite deadlock.

    """

    def __init__(self, ceiling: int, lock: AbstractContextManager[Any]) -> None:
        self.ceiling = ceiling
        self._held: dict[str, int] = {}
        self._peaks: dict[str, int] = {}
        self._total = 0
        self._total_peak = 0
        self._changes: deque[tuple[str, int]] = deque()
        self._settling = False
        self._lock = lock

    def take(self, part: str, n_bytes: int) -> None:
        """Note that a part holds more."""
        self._changes.append((part, n_bytes))
        self._settle()

    def give(self, part: str, n_bytes: int) -> None:
        """Note that a part holds less."""
        self._changes.append((part, -n_bytes))
        self._settle()

    def _settle(self) -> None:
        with self._lock:
            if self._settling:
                return
            self._settling = True
            while self._changes:
                part, change = self._changes.popleft()
                self._held[part] = self._held.get(part, 0) + change
                self._peaks[part] = max(self._peaks.get(part, 0), self._held[part])
                self._total += change
                self._total_peak = max(self._total_peak, self._total)
            self._settling = False

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._total

    @property
    def peak(self) -> int:
        """Most bytes held at once so far."""
        return self._total_peak

    def parts(self) -> dict[str, tuple[int, int]]:
        """Return part → (bytes held now, most bytes held so far)."""
        with self._lock:
            return {part: (held, self._peaks.get(part, 0)) for part, held in list(self._held.items())}

    def __repr__(self) -> str:
        parts = ", ".join(f"{p} {format_bytes(peak)}" for p, (_, peak) in self.parts().items())
        return f"peak {format_bytes(self.peak)} of {format_bytes(self.ceiling)} ({parts or 'nothing held'})"


@dataclass(frozen=True, slots=True)
class Fit:
    """What fits under a ceiling: window, whether it is dealt over two slabs, number of slabs and of threads."""

    window_blocks: int
    deal: bool
    n_slabs: int
    n_threads: int
    needed: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What the parts of a loader cost.

    ``needed = fixed + threads × per_thread + slabs × slab(window) + shuffle(window)``

    Attributes
    ----------
    fixed
        Chunk indexes, resident fields, block order.
    per_thread
        Scratch of one worker.
    slab
        Window in blocks → bytes of one slab.
    shuffle
        Window in blocks → bytes taken while its rows are permuted.
    dealt
        Window in blocks → whether its rows can be dealt over two slabs.

    """

    fixed: int
    per_thread: int
    slab: Callable[[int], int]
    shuffle: Callable[[int], int] = lambda _: 0
    dealt: Callable[[int], bool] = lambda _: False

    def needed(self, window_blocks: int, n_slabs: int, n_threads: int) -> int:
        """Return the bytes that a configuration takes."""
        held = self.fixed + n_threads * self.per_thread + n_slabs * self.slab(window_blocks)
        return held + self.shuffle(window_blocks)

    def least_needed(self, window_blocks: int, deal: bool, n_threads: int) -> int:
        """Return the bytes that a configuration takes with as few slabs as it works with.

        One is filled while the consumer has another; where rows are dealt over two, both of those are being filled.
        """
        return self.needed(window_blocks, 3 if deal and self.dealt(window_blocks) else 2, n_threads)


@dataclass(frozen=True, slots=True)
class Wish:
    """Windows in blocks: the one wished for, the smallest that mixes passably, the smallest that works at all.

    ``deal`` says whether rows must be dealt over two slabs, as a state may; None leaves it to the ceiling.
    """

    blocks: int
    passable: int
    least: int
    deal: bool | None = None


def fit(costs: Costs, ceiling: int | None, wish: Wish, n_threads: int) -> tuple[Fit, int]:
    """Choose window, slabs and threads under a ceiling; return them and the ceiling.

    The window decides the order of rows, so it follows from the ceiling alone, with room for the scratch of a fixed
    number of threads, fewer before it goes below ``wish.passable``. Its rows are dealt over two slabs, unless only
    fewer slabs fit. Then come as many threads as were asked for and fit. One more slab, where there is room, keeps
    them busy while one window ends and the consumer holds another.

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
        wished = costs.least_needed(wish.blocks, wish.deal is not False, max(n_threads, _THREADS_ALLOWED_FOR))
        ceiling = max(default_ceiling(), wished)
        if wished > (available := available_memory()):
            raise MemoryCeilingError(
                f"memory must be given where the default window needs {format_bytes(wished)}, more than the "
                f"{format_bytes(available)} available; pass memory= (at least {format_bytes(_smallest(costs, wish))}), "
                "or run oocload convert to a store with smaller chunks"
            )
    for least in (wish.passable, wish.least):
        for deal in (True, False) if wish.deal is None else (wish.deal,):
            for allowance in range(_THREADS_ALLOWED_FOR, 0, -1):
                if costs.least_needed(least, deal, allowance) <= ceiling:
                    blocks = _largest_that_fits(costs, ceiling, least, wish.blocks, deal, allowance)
                    return _fill_up(costs, ceiling, blocks, deal, n_threads), ceiling
    smallest = _smallest(costs, wish)
    raise MemoryCeilingError(
        f"memory must be at least {smallest} bytes ({format_bytes(smallest)}) for this store and batch size, "
        f"got {format_bytes(ceiling)}; raise memory=, lower batch_size or the window, or run oocload convert to a "
        "store with smaller chunks"
    )


def check_blocks(n_bytes: int, ceiling: int | None) -> None:
    """Refuse a store of so many blocks that their order alone takes more than the ceiling, before it is made."""
    most = available_memory() if ceiling is None else ceiling
    if n_bytes > max(most, _LEAST_CHECKED_NBYTES):
        raise MemoryCeilingError(
            f"memory must be at least {n_bytes} bytes ({format_bytes(n_bytes)}) for the order of this store's blocks "
            f"alone, got {format_bytes(most)}; run oocload convert to a store with larger chunks"
        )


def _smallest(costs: Costs, wish: Wish) -> int:
    return costs.least_needed(wish.least, wish.deal or False, 1)


def _fill_up(costs: Costs, ceiling: int, blocks: int, deal: bool, n_threads: int) -> Fit:
    """Return a window with as many threads as fit, and one more slab if it does."""
    threads = max([1, *(t for t in range(1, n_threads + 1) if costs.least_needed(blocks, deal, t) <= ceiling)])
    n_slabs = 3 if deal and costs.dealt(blocks) else 2
    n_slabs += costs.needed(blocks, n_slabs + 1, threads) <= ceiling
    return Fit(blocks, deal, n_slabs, threads, costs.needed(blocks, n_slabs, threads))


def _largest_that_fits(costs: Costs, ceiling: int, low: int, high: int, deal: bool, threads: int) -> int:
    if costs.least_needed(high, deal, threads) <= ceiling:  # all of a store in one window takes fewer slabs
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if costs.least_needed(middle, deal, threads) <= ceiling:
            low = middle
        else:
            high = middle - 1
    return low


def default_ceiling() -> int:
    """Return a quarter of the memory that this process may still use, at most 2 GiB."""
    return min(_MAX_DEFAULT_CEILING, available_memory() // 4)


def available_memory() -> int:
    """Return the bytes available: what the control group leaves, or what the machine has free."""
    free = _meminfo_available()
    limits = [n for n in (_cgroup_left(*names) for names in _CGROUP_FILES) if n is not None]
    return max(1, min([free, *limits]))


_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def _cgroup_left(limit_file: str, used_file: str) -> int | None:
    try:
        limit, used = Path(limit_file).read_text().strip(), Path(used_file).read_text().strip()
    except OSError:
        return None
    return None if limit == "max" else int(limit) - int(used)


def _meminfo_available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
