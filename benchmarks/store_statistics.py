"""What does `oocload.stats` cost beside the loop that people write, and beside decoding alone?

- The loop: h5py or zarr, chunk by chunk, each chunk to float64, sums and sums of squares of each channel, range.
- The limit: locating, fetching and decoding all chunks on as many threads, and nothing done with them (`DecodeLimit`).

The page cache is warm. Means and deviations are compared before anything is timed. Run it:
``python benchmarks/store_statistics.py``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np
import zarr
from datasets import DATASETS, Dataset
from layouts import LAYOUTS
from limits import DecodeLimit
from overheads import print_header, print_row

import oocload

CASES = ("HDF5 raw chunks", "HDF5 gzip-4", "HDF5 blosc-lz4", "Zarr v3 zstd")


def by_hand(array: Any, step: int) -> tuple[np.ndarray, ...]:
    """Return mean, deviation and range of each channel, chunk by chunk, as most people write it."""
    total, squares, low, high, n = 0.0, 0.0, np.inf, -np.inf, 0
    for start in range(0, array.shape[0], step):
        values = array[start : start + step].reshape(-1, array.shape[-1])
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
        floats = values.astype(np.float64)
        total = total + floats.sum(axis=0)
        squares = squares + (floats * floats).sum(axis=0)
        n += len(values)
    mean = np.asarray(total / n)
    return mean, np.sqrt(squares / n - mean * mean), np.asarray(low), np.asarray(high)


def counted(run: Callable[[], object], n_rows: int) -> int:
    """Run something and return how many rows it went through."""
    run()
    return n_rows


def ratios(rates: Mapping[str, Sequence[float]], name: str, other: str) -> dict[str, float]:
    """Return how many times as fast one is as another, round by round."""
    return machine.spread([a / b for a, b in zip(rates[name], rates[other], strict=True)])


def measure_case(folder: Path, dataset: Dataset, name: str, n_rows: int, rounds: int) -> dict[str, Any]:
    """Time one array in one layout."""
    layout = next(one for one in LAYOUTS if one.name == name)
    path = layout.write(folder, dataset.make(n_rows), dataset)
    n_threads = machine.n_cores()
    with ExitStack() as stack:
        is_hdf5 = path.suffix == ".h5"
        array = stack.enter_context(h5py.File(path))["x"] if is_hdf5 else zarr.open_group(path, mode="r")["x"]
        limit = DecodeLimit(path, n_threads)
        stack.callback(limit.close)
        found, (mean, deviation, low, high) = oocload.stats(path)["x"], by_hand(array, dataset.chunk_rows)
        assert (found.min == low).all()
        assert (found.max == high).all()
        np.testing.assert_allclose(found.mean, mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.std, deviation, rtol=1e-9)
        runs = {
            "stats": partial(counted, partial(oocload.stats, path, threads=n_threads), n_rows),
            "by hand": partial(counted, partial(by_hand, array, dataset.chunk_rows), n_rows),
            "limit": limit.run,
        }
        rates = machine.by_round(runs, rounds)
    return {
        "layout": name,
        **dataset.facts(n_rows),
        "rows_per_s": {run: machine.spread(values) for run, values in rates.items()},
        "of_hand": ratios(rates, "stats", "by hand"),
        "of_limit": ratios(rates, "stats", "limit"),
    }


def measure(rounds: int = 9, quick: bool = False, json: str | None = None) -> list[dict[str, Any]]:
    """Time images and features in several layouts; print a row for each, and return what was measured."""
    print_header("array", "stats, GB/s", "times the loop by hand", "of the decoder's limit")
    results = []
    for dataset in (DATASETS["images"], DATASETS["features"], DATASETS["small"]):
        n_rows = dataset.quick_rows if quick else dataset.n_rows // 4
        for name in CASES:
            if all(layout.name != name for layout in LAYOUTS):
                continue
            with tempfile.TemporaryDirectory() as folder:
                result = measure_case(Path(folder), dataset, name, n_rows, rounds)
            results.append(result)
            rate = result["rows_per_s"]["stats"]["median"] * dataset.row_nbytes / 1e9
            shares = (
                f"{r['median']:.2f} ({r['low']:.2f} to {r['high']:.2f})"
                for r in (result["of_hand"], result["of_limit"])
            )
            print_row(f"{dataset.name}, {name}", f"{rate:.2f}", *shares)
    machine.save(json, {"benchmark": "store_statistics", **machine.facts("warm"), "results": results})
    return results


if __name__ == "__main__":
    measure()
