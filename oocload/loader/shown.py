"""What a loader says of itself when it is printed."""

from __future__ import annotations

from oocload.loader.options import Setup
from oocload.loader.runtime import Runtime
from oocload.loader.transform import Stages
from oocload.units import counted, format_bytes


def shown(address: str, r: Runtime, setup: Setup, stages: Stages) -> str:
    """Return a few lines: rows, batches and their order, window, memory, transforms, and how each field is read."""
    o = r.options
    order = f"shuffled with seed {o.seed}" if o.shuffle else "in order"
    window = f"{r.window_blocks} of {r.n_blocks} blocks of {o.pool.block_rows} rows"
    if o.shuffle:
        nbytes = min(o.n_rows, r.window_blocks * o.pool.block_rows) * setup.row_nbytes
        window += f", {format_bytes(nbytes)}; batch entropy {r.relative_entropy:.2f} of a uniform shuffle's"
    batches = f"{o.n_batches:,} {'batch' if o.n_batches == 1 else 'batches'} of {o.batch_rows}"
    ranks = f", rank {o.share.rank} of {o.share.world_size}" if o.share.world_size > 1 else ""
    ahead = ", no room to read ahead" if r.fit.tight else ""
    lines = [
        f"Loader({address!r}): {o.n_rows:,} rows in {batches}, {order}{ranks}",
        f"  window: {window}",
        f"  memory: ceiling {format_bytes(r.budget.ceiling)}, of which {format_bytes(r.fit.needed)} are needed "
        f"({counted(r.fit.n_slabs, 'slab')}, {counted(r.fit.n_threads, 'thread')}{ahead})",
        *([f"  transforms: {', '.join(stage.name for stage in stages)}"] if stages else []),
        *(f"  field {name!r}: {path}" for name, path in r.stats.paths.items()),
    ]
    return "\n".join(lines)
