"""What a loader warns of when it is made: a ceiling above memory, chunks that are read twice, poor mixing."""

from __future__ import annotations

from oocload.available import available_memory, total_memory
from oocload.errors import (
    MemoryCeilingWarning,
    ReadAmplificationWarning,
    ShuffleQualityWarning,
    warn,
)
from oocload.loader.fit import Fit
from oocload.loader.options import Setup
from oocload.loader.runtime import Runtime
from oocload.plan.blocks import BlockGrid, amplification
from oocload.plan.quality import (
    MIN_WINDOW_BLOCKS,
    POOR_ENTROPY,
)
from oocload.plan.shuffle import Shuffle
from oocload.units import counted, format_bytes

_WARN_AMPLIFICATION = 1.2


def warn_of_ceiling(ceiling: int | None, fitted: Fit, least: int) -> None:
    """Warn where a process cannot have as much memory as its ceiling says."""
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


def warn_of_amplification(setup: Setup, resident: frozenset[str], grid: BlockGrid) -> None:
    """Warn where chunks that do not fit blocks are decoded again and again."""
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


def warn_of_small_window(runtime: Runtime, setup: Setup) -> None:
    """Warn where the ceiling leaves room for few blocks only."""
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
