"""How fast are rows read from each layout, shuffled and not, and how far is that from the limit and from others?

Arrays of large, middling and short rows are written in every layout, by h5py, zarr and NumPy themselves. Each layout is
read by, in one run and in turn (a column takes the faster where a library has two ways):

- ``library``      h5py, zarr or NumPy in order: chunk by chunk; for zarr also windows of 16 chunks;
- ``random rows``  the naive loop, one random row at a time, for a moment;
- ``zarrs``        zarr with the codecs of zarrs, in the same two ways;
- ``TensorStore``  in order: windows of 16 chunks, or one chunk per read with a read in flight per core;
- ``memmap``       ``np.memmap``, each batch gathered from anywhere in the file (rows in one piece only);
- ``in memory``    ``np.take`` for each batch, from the whole array in memory;
- ``limit``        locate + pread + decode on all cores, rows thrown away; for raw layouts memcpy on all cores;
- ``sequential``   oocload, ``shuffle=False``;
- ``shuffled``     oocload, ``shuffle=True``, default window, whose relative entropy stands in the last column.

The page cache is warm. ``--cold`` drops each raw layout's pages before every run instead, and compares memmap, oocload
and a plain reading of the files on all cores. memmap's first batch stands for a file far larger than memory: later ones
find what the kernel read ahead for it. Every reader's bytes are checked before anything is timed.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cold
import machine
import numpy as np
from contenders import check
from datasets import DATASETS, Dataset
from layouts import LAYOUTS, files_of
from lineup import Stored, cold_contenders, warm_contenders

import oocload

# Column → the contenders of which it shows the fastest.
WARM = {
    "library": ("library", "library windows"),
    "random rows": ("random",),
    "zarrs": ("zarrs", "zarrs windows"),
    "TensorStore": ("tensorstore", "tensorstore windows"),
    "memmap": ("memmap", "memmap take"),
    "in memory": ("memory",),
    "limit": ("limit",),
    "oocload sequential": ("sequential",),
    "oocload shuffled": ("shuffled",),
}
WARM_RATIOS = ("limit", "library", "TensorStore", "memmap")
COLD = {
    "plain reading": ("files",),
    "memmap": ("memmap",),
    "its first batch": ("memmap first batch",),
    "oocload sequential": ("sequential",),
    "oocload shuffled": ("shuffled",),
}
COLD_RATIOS = ("plain reading", "memmap", "its first batch")


@dataclass(frozen=True)
class Effort:
    """How much is run."""

    rounds: int
    naive_s: float  # for the naive loop
    cold_s: float  # for gathering from a file that is not in the page cache


def measure_warm(stored: Stored, effort: Effort) -> dict[str, Any]:
    with ExitStack() as stack:
        contenders = warm_contenders(stored, effort.naive_s, stack)
        for contender in contenders.values():
            check(contender, stored.array)
        rates = machine.interleaved({name: c.run for name, c in contenders.items()}, effort.rounds)
        return {**facts(stored, contenders["shuffled"].loader), "rows_per_s": rates}


def measure_cold(stored: Stored, effort: Effort) -> dict[str, Any]:
    left: list[float] = []

    def drop() -> None:
        cold.drop(stored.path)
        left.append(cold.resident_share(stored.path))

    def read_files() -> int:
        cold.read_files(stored.path, machine.n_cores())
        return len(stored.array)

    with ExitStack() as stack:
        contenders = cold_contenders(stored, effort.cold_s, stack)
        for contender in contenders.values():
            check(contender, stored.array)
        runs = {"files": read_files, **{name: c.run for name, c in contenders.items()}}
        rates = machine.interleaved(runs, effort.rounds, before=drop)
        return {**facts(stored, contenders["shuffled"].loader), "resident_share": max(left), "rows_per_s": rates}


def facts(stored: Stored, shuffled: oocload.Loader) -> dict[str, Any]:
    return {
        "data": stored.dataset.name,
        "layout": stored.layout.name,
        "path": shuffled.stats.paths["x"],
        "raw": stored.layout.raw,
        "stored_share": sum(file.stat().st_size for file in files_of(stored.path)) / stored.array.nbytes,
        "window_rows": shuffled.window_rows,
        "relative_entropy": shuffled._runtime.relative_entropy,
    }


def header(columns: dict[str, tuple[str, ...]], ratios: tuple[str, ...]) -> str:
    titles = ["layout", *columns, *(f"shuffled / {column}" for column in ratios), "entropy"]
    return f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|"


def as_row(
    result: dict[str, Any], columns: dict[str, tuple[str, ...]], ratios: tuple[str, ...], row_nbytes: int
) -> str:
    measured = {name: rate["median"] for name, rate in result["rows_per_s"].items()}
    best = {
        column: max((measured[n] for n in names if n in measured), default=0.0) for column, names in columns.items()
    }
    cells = [f"{rate:,.0f} ({rate * row_nbytes / 1e9:.2f})" if rate else "-" for rate in best.values()]
    cells += [f"{best['oocload shuffled'] / best[column]:.2f}" if best[column] else "-" for column in ratios]
    return f"| {' | '.join([result['layout'], *cells, format(result['relative_entropy'], '.2f')])} |"


def measure_all(args: argparse.Namespace, dataset: Dataset, array: np.ndarray, effort: Effort) -> list[dict[str, Any]]:
    """Measure one array in every chosen layout; print a table."""
    shown, measure = ((COLD, COLD_RATIOS), measure_cold) if args.cold else ((WARM, WARM_RATIOS), measure_warm)
    print(f"\n{dataset.name}: {len(array):,} rows of {dataset}\n\n{header(*shown)}", flush=True)
    results = []
    for layout in LAYOUTS:
        if args.only not in layout.name or (args.cold and not layout.raw):
            continue
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            stored = Stored(dataset, layout, layout.write(Path(folder), array, dataset), array)
            results.append(measure(stored, effort))
        print(as_row(results[-1], *shown, dataset.row_nbytes), flush=True)
    return results


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=",".join(DATASETS), help="which arrays, by name, with commas between")
    parser.add_argument("--rows", type=int, help="rows of each array; default: those of about 400 MB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="raw layouts, not in the page cache")
    parser.add_argument("--quick", action="store_true", help="a small size that shows it runs; its figures mean little")
    parser.add_argument("--only", default="", help="layouts whose name contains this")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--dir", help="where to put the files meanwhile")
    args = parser.parse_args()
    args.data = args.data.split(",")
    if unknown := set(args.data) - set(DATASETS):
        parser.error(f"--data must be some of {', '.join(DATASETS)}, got {', '.join(sorted(unknown))}")
    return args


def main() -> None:
    args = parse()
    effort = Effort(1, 0.05, 0.2) if args.quick else Effort(args.rounds, 0.5, 10.0)
    cache = "cold" if args.cold else "warm"
    print(f"rows/s (GB/s of decoded bytes), median of {effort.rounds} interleaved rounds, {cache} page cache")
    data, results = {}, []
    for name in args.data:
        dataset = DATASETS[name]
        array = dataset.make(dataset.quick_rows if args.quick else args.rows or dataset.n_rows)
        data[name] = dataset.facts(len(array))
        results += measure_all(args, dataset, array, effort)
    machine.save(args.json, {"benchmark": "read", **machine.facts(cache), "data": data, "results": results})


if __name__ == "__main__":
    main()
