"""What does a smaller ceiling cost, in speed and in mixing?

Shuffled batches of 256 images of 12 KiB under ceilings from 32 MiB to 1 GiB, in turn, from files in the page cache; and
with a window that only fits without read-ahead, against the same window with it. The consumer does nothing, or takes as
long for a batch as decoding one does: without read-ahead, the two add up.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import machine
from datasets import DATASETS
from layouts import LAYOUTS

import oocload

CHOSEN = ("HDF5 contiguous", "HDF5 gzip-4", "HDF5 blosc-lz4", "Zarr v3 zstd", "Zarr v3 sharded zstd")
MIB = 2**20
CEILINGS = tuple(n * MIB for n in (32, 64, 128, 256, 512, 1024))
TIGHT_LAYOUT, TIGHT_WINDOW_ROWS = "HDF5 gzip-4", 24 * 256

Result = dict[str, Any]


def epoch(loader: oocload.Loader, busy_s: float = 0.0) -> int:
    """Go through an epoch, busy for some seconds with each batch; return its rows."""
    n_rows = 0
    for batch in loader:
        n_rows += len(batch)
        if busy_s:
            time.sleep(busy_s)
    return n_rows


def by_ceiling(path: Path, rounds: int) -> list[Result]:
    """Return rows/s and entropy under each ceiling, and by how much half of it is slower, round by round."""
    with ExitStack() as stack:
        loaders = {
            nbytes: stack.enter_context(oocload.Loader(path, 256, x="x", seed=0, memory=nbytes)) for nbytes in CEILINGS
        }
        rates = machine.by_round({str(n): _of(loader) for n, loader in loaders.items()}, rounds)
        return [
            {
                "ceiling": nbytes,
                "needed": loader._runtime.fit.needed,
                "slabs": loader._runtime.fit.n_slabs,
                "tight": loader._runtime.fit.tight,
                "window_rows": loader.window_rows,
                "relative_entropy": loader._runtime.relative_entropy,
                "rows_per_s": machine.spread(rates[str(nbytes)]),
                "of_twice": _ratio(rates[str(nbytes)], rates.get(str(2 * nbytes))),
            }
            for nbytes, loader in loaders.items()
        ]


def read_ahead(path: Path, rounds: int) -> list[Result]:
    """Return rows/s with a window that just fits, and with the same window and room to read ahead."""
    how = oocload.Shuffle(window_rows=TIGHT_WINDOW_ROWS)
    with ExitStack() as stack:
        ahead = stack.enter_context(oocload.Loader(path, 256, x="x", seed=0, shuffle=how))
        tight_nbytes = ahead.min_memory() + ahead._runtime.fit.needed // 8  # and the scratch of another thread
        tight = stack.enter_context(oocload.Loader(path, 256, x="x", seed=0, shuffle=how, memory=tight_nbytes))
        epoch(ahead)
        began = time.perf_counter()
        n_rows = epoch(ahead)
        busy_s = (time.perf_counter() - began) * 256 / n_rows
        runs = {
            f"{name}, {'busy' if busy else 'idle'} consumer": _of(loader, busy)
            for busy in (0.0, busy_s)
            for name, loader in (("ahead", ahead), ("tight", tight))
        }
        rates = machine.interleaved(runs, rounds)
        return [
            {"name": name, "tight": name.startswith("tight") and tight._runtime.fit.tight, "rows_per_s": rate}
            for name, rate in rates.items()
        ]


def _ratio(rates: Sequence[float], others: Sequence[float] | None) -> dict[str, float] | None:
    return None if others is None else machine.spread([a / b for a, b in zip(rates, others, strict=True)])


def _of(loader: oocload.Loader, busy_s: float = 0.0) -> Callable[[], int]:
    return lambda: epoch(loader, busy_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="layouts whose name contains this")
    parser.add_argument("--quick", action="store_true", help="a small size that shows it runs; its figures mean little")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--dir", help="where to put the files meanwhile")
    args = parser.parse_args()
    warnings.simplefilter("ignore", oocload.ShuffleQualityWarning)
    dataset = DATASETS["images"]
    n_rows, rounds = (8 * 1024, 1) if args.quick else (dataset.n_rows * 2, args.rounds)
    array = dataset.make(n_rows)
    layouts = [x for x in LAYOUTS if x.name in CHOSEN and args.only in x.name]
    print(f"rows/s, medians of {rounds} interleaved rounds; in brackets the relative entropy of batches\n")
    print(
        f"| ceiling | {' | '.join(f'{n // MIB} MiB' for n in CEILINGS)} | 256 / 512 |\n|{'---|' * (len(CEILINGS) + 2)}"
    )
    results: list[Result] = []
    for layout in layouts:
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            path = layout.write(Path(folder), array, dataset)
            rows = by_ceiling(path, rounds)
            results.append({"layout": layout.name, "ceilings": rows})
            cells = [f"{r['rows_per_s']['median']:,.0f} ({r['relative_entropy']:.2f})" for r in rows]
            halved = next(r["of_twice"]["median"] for r in rows if r["ceiling"] == 256 * MIB)
            print(f"| {layout.name} | {' | '.join(cells)} | {halved:.2f} |", flush=True)
            if layout.name == TIGHT_LAYOUT:
                results.append({"layout": layout.name, "read_ahead": read_ahead(path, min(rounds, 5))})
    for result in results:
        for row in result.get("read_ahead", []):
            print(f"{result['layout']}, {row['name']}: {row['rows_per_s']['median']:,.0f} rows/s")
    machine.save(args.json, {"benchmark": "ceilings", **machine.facts("warm"), "n_rows": n_rows, "results": results})


if __name__ == "__main__":
    main()
