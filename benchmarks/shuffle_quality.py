"""How well does a window mix, for how much memory, and which way of filling slabs mixes best in the same memory?

No file is read: orders of rows are made and looked at. The first table is of the loader's own plan. The second compares
ways of dealing rows to slabs where all slabs together hold equally many blocks: each batch's blocks, and what a batch
that is asked for alone costs. A dealt block is decoded once and gives an equal part of its rows to each of some slabs
that follow each other; while the consumer has one slab, all of those are being filled, so dealing over n slabs takes
n + 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import machine
import numpy as np

from oocload.plan.blocks import BlockGrid
from oocload.plan.epoch import PlanOptions
from oocload.plan.measure import measure
from oocload.plan.quality import batch_entropy, entropy_of_counts
from oocload.plan.select import Selection

BATCH = 256


def windows_table(n_blocks: int, block_rows: int) -> list[dict[str, Any]]:
    """Measure the loader's plan over windows."""
    grid = BlockGrid(n_blocks * block_rows, block_rows)
    whole = Selection.of_grid(grid)
    rows = []
    print(f"\n{n_blocks} blocks of {block_rows} rows, batches of {BATCH}; slabs as many as are needed at least\n")
    print(
        "| window | slabs hold | blocks in a batch | relative entropy | not dealt | rank correlation | displacement |"
    )
    print("|---|---|---|---|---|---|---|")
    for window in [1, 4, 16, 64, 128, 192, n_blocks]:
        if window > n_blocks:
            continue
        found = measure(PlanOptions(grid, whole, BATCH, window, True, 0), whole, 0)
        plain = measure(PlanOptions(grid, whole, BATCH, window, True, 0, deal=False), whole, 0)
        held = 2 * window if window == n_blocks else 3 * window
        rows.append({"window": window, "held": held, "dealt": found.relative_entropy, "plain": plain.relative_entropy})
        print(
            f"| {window} | {held} | {found.blocks_per_batch:.0f} | {found.relative_entropy:.2f} | "
            f"{plain.relative_entropy:.2f} | {found.rank_correlation:+.2f} | {found.relative_displacement:.2f} |"
        )
    return rows


def dealt(order: np.ndarray, block_rows: int, window: int, n_slabs: int, rng: np.random.Generator) -> np.ndarray:
    """Return the block of each row of an epoch where rows are dealt over some slabs."""
    n_windows = -(-len(order) // window)
    parts = np.array_split(np.arange(block_rows), n_slabs)
    slabs: list[list[np.ndarray]] = [[] for _ in range(n_windows + n_slabs - 1)]
    for number in range(n_windows):
        blocks = order[number * window : (number + 1) * window]
        for later, part in enumerate(parts):
            slabs[number + later].append(np.repeat(blocks, len(part)))
    return np.concatenate([rng.permutation(np.concatenate(slab)) for slab in slabs])


def buffered(order: np.ndarray, block_rows: int, held: int, rng: np.random.Generator) -> np.ndarray:
    """Return the block of each row of an epoch that passes through a shuffle buffer: each row leaves at random."""
    source = np.repeat(order, block_rows)
    n_rows, size = len(source), min(len(source), held * block_rows)
    buffer, out = source[:size].copy(), np.empty(n_rows, source.dtype)
    chosen = rng.integers(0, size, n_rows - size)
    for at, place in enumerate(chosen.tolist()):
        out[at] = buffer[place]
        buffer[place] = source[size + at]
    out[n_rows - size :] = rng.permutation(buffer)
    return out


def relative_entropy(blocks: np.ndarray, n_blocks: int) -> float:
    """Return the mean entropy of blocks in a batch relative to a uniform shuffle's."""
    batches = blocks[: len(blocks) // BATCH * BATCH].reshape(-1, BATCH)
    found = [entropy_of_counts(np.bincount(batch)) for batch in batches]
    return float(np.mean(found)) / batch_entropy(BATCH, n_blocks)


def schemes(held: int) -> Iterator[tuple[str, int, int, int]]:
    """Yield (name, window, slabs that rows are dealt over, blocks decoded for one batch alone)."""
    yield "disjoint windows, 2 slabs", held // 2, 1, held // 2
    yield "disjoint windows, 3 slabs", held // 3, 1, held // 3
    yield "dealt over 2, 3 slabs", held // 3, 2, 2 * (held // 3)
    yield "dealt over 2, 4 slabs", held // 4, 2, 2 * (held // 4)
    yield "dealt over 3, 4 slabs", held // 4, 3, 3 * (held // 4)
    yield "dealt over 5, 6 slabs", held // 6, 5, 5 * (held // 6)


def schemes_table(n_blocks: int, block_rows: int, memories: list[int]) -> list[dict[str, Any]]:
    """Compare schemes at equal memory."""
    rng = np.random.default_rng(0)
    print(f"\n{n_blocks} blocks of {block_rows} rows, batches of {BATCH}: relative entropy, by blocks held in memory\n")
    print("| scheme | " + " | ".join(f"{held} blocks" for held in memories) + " | blocks decoded for one batch |")
    print("|---|" + "---|" * (len(memories) + 1))
    results = []
    for number, (name, *_) in enumerate(schemes(memories[0])):
        found, alone = [], []
        for held in memories:
            _, window, n_slabs, n_decoded = list(schemes(held))[number]
            blocks = dealt(rng.permutation(n_blocks), block_rows, window, n_slabs, rng)
            found.append(relative_entropy(blocks, n_blocks))
            alone.append(n_decoded)
        results.append({"scheme": name, "held": memories, "relative_entropy": found, "decoded": alone})
        print(f"| {name} | " + " | ".join(f"{e:.2f}" for e in found) + f" | {', '.join(map(str, alone))} |")
    found = [
        relative_entropy(buffered(rng.permutation(n_blocks), block_rows, held, rng), n_blocks) for held in memories
    ]
    print("| shuffle buffer, row by row | " + " | ".join(f"{e:.2f}" for e in found) + " | all before it |")
    results.append({"scheme": "shuffle buffer", "held": memories, "relative_entropy": found})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small size that shows it runs")
    parser.add_argument("--json", help="where to write the result")
    args = parser.parse_args()
    sizes = [(32, 64)] if args.quick else [(256, 256), (4096, 256)]
    results: dict[str, Any] = {"windows": {}, "schemes": {}}
    for n_blocks, block_rows in sizes:
        results["windows"][n_blocks] = windows_table(n_blocks, block_rows)
        memories = [12] if args.quick else [48, 96, 192] if n_blocks < 1000 else [48, 192, 768]
        results["schemes"][n_blocks] = schemes_table(n_blocks, block_rows, memories)
    machine.save(args.json, {"benchmark": "shuffle_quality", **machine.facts("not used"), **results})


if __name__ == "__main__":
    main()
