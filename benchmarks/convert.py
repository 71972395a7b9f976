"""How fast are conversions, beside what people write with h5py, zarr and dask, and how much memory do they take?

- **npy to HDF5 gzip**: `oocload.convert` beside h5py, chunk by chunk into ``create_dataset(compression="gzip")``.
- **npy to Zarr zstd**: beside ``dask.array.to_zarr`` and zarr-python, chunk by chunk and as one assignment.
- **HDF5 gzip to Zarr zstd**: beside dask.
- **proof**: with journal and checksums, and with neither.
- **npy folder**, **photographs**, **small images**: one file per sample, beside loops of `np.load` and Pillow.
- **CSV**: beside pyarrow's own reading of the same files.
- **shuffle**: a uniformly random order, beside a plain conversion of the same store.
- **memory**: the peak RSS above imports of conversions under several ceilings, each in a process of its own.

Chunks, levels and filters are the same for all. What each contender writes is read back with h5py or zarr and compared
before anything is timed; the page cache is warm. Nothing waits for the disk to have it all, so what was written is
flushed between the runs.

Examples::

    python benchmarks/convert.py --json result.json
    python benchmarks/convert.py --only memory --dir /data
    python benchmarks/convert.py --quick
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import machine
import numpy as np
import source_csv
from conversion_memory import measure_memory
from conversions import Case, cases, read_back, remove, stored_nbytes, write_sources
from datasets import DATASETS, Dataset
from overheads import as_range, print_header, print_row
from source_questions import SOURCES, remove_sources, shuffled
from store_statistics import counted, ratios

MEMORY, CSV, SHUFFLE = "memory", "CSV", "shuffle"
QUESTIONS = ("npy to HDF5 gzip", "npy to Zarr zstd", "HDF5 gzip to Zarr zstd", "proof, HDF5 gzip", "proof, Zarr zstd")

EVERYTHING = [*QUESTIONS, *SOURCES, CSV, SHUFFLE, MEMORY]

Result = dict[str, Any]


def measure_case(folder: Path, case: Case, rows: np.ndarray, rounds: int) -> Result:
    """Compare what the contenders of one question write, then time them in turn."""
    source, target = folder / case.source, folder / case.target
    nbytes = {}
    for name, convert in case.contenders.items():
        convert(source, target)
        np.testing.assert_array_equal(read_back(target), rows, err_msg=name)
        nbytes[name] = stored_nbytes(target)
        remove(target)

    def clear() -> None:
        remove(target)
        os.sync()

    runs = {name: partial(counted, partial(one, source, target), len(rows)) for name, one in case.contenders.items()}
    rates = machine.by_round(runs, rounds, clear)
    clear()
    first = next(iter(rates))
    return {
        "rows_per_s": {name: machine.spread(values) for name, values in rates.items()},
        "gb_per_s": {name: machine.spread([r * rows[0].nbytes / 1e9 for r in v]) for name, v in rates.items()},
        "stored_nbytes": nbytes,
        f"times_of_{first}": {name: ratios(rates, first, name) for name in list(rates)[1:]},
    }


def measure_speed(folder: Path, dataset: Dataset, args: argparse.Namespace) -> Mapping[str, Result]:
    chosen = [name for name in args.only if name in QUESTIONS]
    if not chosen:
        return {}
    rows = dataset.make(dataset.quick_rows // 4 if args.quick else args.rows or dataset.n_rows // 2)
    write_sources(folder, dataset, rows)
    known = cases(dataset)
    results = {}
    for name in chosen:
        results[name] = {"dataset": dataset.name, **dataset.facts(len(rows))}
        results[name] |= measure_case(folder, known[name], rows, args.rounds)
        show(f"{name}, {dataset.name}", results[name])
    for file in ("rows.npy", "rows.h5"):
        remove(folder / file)
    return results


def measure_sources(folder: Path, args: argparse.Namespace) -> Mapping[str, Result]:
    results: dict[str, Result] = {}
    for name in (n for n in args.only if n in SOURCES):
        rows, known = SOURCES[name](folder, args.quick)
        for question, case in known.items():
            results[question] = {"n_rows": len(rows), **measure_case(folder, case, rows, args.rounds)}
            show(question, results[question])
        remove_sources(folder, known)
    if CSV in args.only:
        results[CSV] = source_csv.measure(folder, 10**6 if args.quick else 10**8, args.rounds)
        for case in source_csv.cases().values():
            remove(folder / case.source)
    if SHUFFLE in args.only:
        results[SHUFFLE] = shuffled(folder, args.quick, args.rounds)
    return results


def show(title: str, result: Result) -> None:
    print_header(title, "GB/s", "MiB on disk", "times as long as the first")
    longer = next(values for name, values in result.items() if name.startswith("times_of_"))
    for name, rate in result["gb_per_s"].items():
        size = f"{result['stored_nbytes'][name] / 2**20:,.1f}"
        print_row(name, f"{rate['median']:.3f}", size, as_range(longer[name]) if name in longer else "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=EVERYTHING, nargs="+", default=EVERYTHING)
    parser.add_argument("--data", choices=DATASETS, nargs="+", default=["images"])
    parser.add_argument("--rows", type=int, help="rows of each array; default: about 200 MB of it")
    parser.add_argument("--quick", action="store_true", help="small arrays, one round; its figures mean little")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--dir", help="where to put the files meanwhile: up to 2 GB")
    args = parser.parse_args()
    args.rounds = 1 if args.quick else args.rounds
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        results: Result = {"speed": {data: measure_speed(folder, DATASETS[data], args) for data in args.data}}
        results["sources"] = measure_sources(folder, args)
        if MEMORY in args.only:
            results[MEMORY] = measure_memory(folder, args.quick)
    machine.save(args.json, {"benchmark": "convert", **machine.facts("warm"), "results": results})


if __name__ == "__main__":
    main()
