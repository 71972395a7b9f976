"""What does deciding the order cost: time and memory of a plan, and of one batch of it?

Three cases: 10**9 rows in 10**6 blocks; 10**12 rows in 10**6 blocks over 1,024 ranks; weighted draws and balanced
classes from 10**7 rows. Nothing is read. "one batch" is `plan.batch_rows(i)` at random places, each in a window of its
own; "the next" are batches that follow it. Memory is what NumPy and Python took at most.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import machine
import numpy as np

from oocload.plan.balance import BalancedOptions, Classes
from oocload.plan.blocks import BlockGrid
from oocload.plan.epoch import PlanOptions
from oocload.plan.quality import default_window_blocks
from oocload.plan.ranks import Share
from oocload.plan.sample import Draws
from oocload.plan.select import Selection
from oocload.plan.split import split_by_blocks
from oocload.plan.windows import Plan

BATCH = 256


def took(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of some work, and its seconds."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def memory_of(work: Callable[[], Any]) -> float:
    """Return the most MiB that some work took at once."""
    tracemalloc.start()
    kept = work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del kept
    return peak / 2**20


def batches(plan: Plan, n: int) -> dict[str, float]:
    """Return the milliseconds of a batch at a random place, and of one that follows another: medians."""
    rng = np.random.default_rng(0)
    alone, following = [], []
    for first in rng.integers(0, plan.n_batches - 2, n).tolist():
        alone.append(took(lambda first=first: plan.batch_rows(first))[1])
        following.append(took(lambda first=first: plan.batch_rows(first + 1))[1])
    return {"one_batch_ms": 1000 * statistics.median(alone), "next_ms": 1000 * statistics.median(following)}


def report(title: str, make: Callable[[], PlanOptions], n: int, rounds: int) -> dict[str, Any]:
    """Measure one case and print its line."""

    def build() -> Plan:
        plan = make().plan(0)
        plan.slab(0)
        return plan

    seconds = [took(build)[1] for _ in range(rounds)]
    found = {"case": title, "plan_s": statistics.median(seconds), "plan_mib": memory_of(build)}
    options = make()
    found |= {"window_rows": options.window_rows * options.n_streams, **batches(build(), n)}
    print(
        f"| {title} | {found['plan_s']:.2f} s | {found['plan_mib']:.0f} MiB | {found['window_rows']:,} | "
        f"{found['one_batch_ms']:.2f} ms | {found['next_ms']:.3f} ms |",
        flush=True,
    )
    return found


def ranks_cover_everything(options: PlanOptions, world_size: int) -> None:
    """Fail unless the ranks' visits are equal, disjoint and complete: their groups and bounds, rank after rank."""
    n_rows, last = 0, None
    for rank in range(world_size):
        plan = replace(options, share=Share(rank, world_size, "drop")).plan(0)
        visits = plan._streams[0].visits
        n_rows += int(visits.counts.sum())
        if last is not None and last[0] == visits.groups[0]:
            assert last[1] == visits.lows[0]
        last = int(visits.groups[-1]), int(visits.highs[-1])
    left = options.pool.n_rows - n_rows
    assert 0 <= left < world_size, left
    print(f"\n{world_size} ranks: {n_rows:,} of {options.pool.n_rows:,} rows, none twice; {left} left out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small size that shows it runs; its figures mean little")
    parser.add_argument("--json", help="where to write the result")
    args = parser.parse_args()
    scale, n, rounds, world_size = (1000, 3, 1, 16) if args.quick else (1, 200, 5, 1024)
    grid = BlockGrid(10**9 // scale, 1000)
    default = default_window_blocks(grid.n_blocks, 1000, 1024, BATCH)
    print("| case | plan | memory | rows of a window | one batch | the next |")
    print("|---|---|---|---|---|---|")
    results = []

    def plain(grid: BlockGrid, window: int, **more: Any) -> Callable[[], PlanOptions]:
        return lambda: PlanOptions(grid, Selection.of_grid(grid), BATCH, window, True, 0, **more)

    billion = "10⁹ rows in 10⁶ blocks"
    for window in (16, 64, default):
        results.append(report(f"{billion}, window of {window} blocks", plain(grid, window), n, rounds))

    def part() -> PlanOptions:
        selection = split_by_blocks(Selection.of_grid(grid), (0.8, 0.1, 0.1), 0)[0]
        return PlanOptions(grid, selection, BATCH, 16, True, 0)

    results.append(report(f"{billion}, 0.8 of them by blocks", part, n, rounds))
    results.append(report(f"{billion}, 8 streams", plain(grid, 2, share=Share(streams=8)), n, rounds))
    huge = BlockGrid(10**12 // scale, 10**6 if scale == 1 else 10**4)
    share = Share(world_size // 2, world_size, "drop")
    results.append(
        report(f"10¹² rows in 10⁶ blocks, rank {share.rank} of {world_size}", plain(huge, 1, share=share), 5, rounds)
    )
    n_rows = 10**7 // scale
    smaller = BlockGrid(n_rows, 256)
    whole = Selection.of_grid(smaller)
    draws = Draws(whole, np.random.default_rng(0).random(n_rows), 256, 0)
    weighted = PlanOptions(smaller, draws, BATCH, 64, True, 0)
    results.append(report("10⁷ rows, weighted", lambda: weighted, n, rounds))
    codes = np.random.default_rng(0).integers(0, 8, n_rows).astype(np.uint8)
    classes = Classes(whole, codes, list(range(8)), "y")
    names = ("grid", "pool", "batch_rows", "window_blocks", "shuffle", "seed")
    balanced = BalancedOptions(
        **{name: getattr(replace(weighted, pool=whole), name) for name in names}, classes=classes
    )
    results.append(report("10⁷ rows, balanced over 8 classes", lambda: balanced, n, rounds))
    ranks_cover_everything(plain(huge, 1)(), world_size)
    machine.save(args.json, {"benchmark": "plan", **machine.facts("not used"), "results": results})


if __name__ == "__main__":
    main()
