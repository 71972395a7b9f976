"""What does reading cost beside the bytes: per batch, per chunk of a file that is opened, and before the first batch?

- Each batch: how much longer an epoch in batches of 32 takes than the same epoch in batches of 1024, per further batch,
  of 784-byte rows.
- Opening: `oocload.open` and finding the chunks of an HDF5 file with a million of them, without an index cache, with an
  empty one and with a filled one; beside it h5py's bare walk over the chunk index. Memory per chunk: what the index
  holds, and the peak while it is made.
- The first batch: from ``iter(loader)`` to the first batch, against decoding one window's chunks on the same threads.

The page cache is warm. What is delivered is checked before anything is timed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np
from contenders import LoaderReader, check
from datasets import DATASETS
from layouts import LAYOUTS
from limits import DecodeLimit

import oocload

SMALL_BATCH, LARGE_BATCH = 32, 1024
DIGIT_NBYTES = 784
DIGIT_CHUNK_ROWS = 668  # 512 KiB
FIRST_BATCH_LAYOUTS = ("HDF5 gzip-4", "Zarr v3 zstd")


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def print_header(*titles: str) -> None:
    print(f"\n| {' | '.join(titles)} |\n{'|---' * len(titles)}|", flush=True)


def print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def as_range(values: dict[str, float]) -> str:
    return f"{values['median']:.3g} ({values['low']:.3g} to {values['high']:.3g})"


def make_digits(n_rows: int) -> np.ndarray:
    """Return rows of which four bytes in five are zero, about as many as in a scanned digit."""
    digits = np.random.default_rng(0).integers(0, 256, (n_rows, DIGIT_NBYTES), np.uint8)
    digits[digits < 205] = 0
    return digits


def measure_batches(folder: Path, n_rows: int, rounds: int) -> list[dict[str, Any]]:
    print_header("layout", f"rows/s, batches of {SMALL_BATCH}", f"batches of {LARGE_BATCH}", "µs per further batch")
    digits, results = make_digits(n_rows), []
    for layout, options in (
        ("HDF5 contiguous", {}),
        ("HDF5 lzf", {"chunks": (DIGIT_CHUNK_ROWS, DIGIT_NBYTES), "compression": "lzf"}),
    ):
        path = folder / f"{layout}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=digits, **options)
        results.append({"layout": layout, **batch_cost(path, digits, rounds)})
        rates = (f"{results[-1]['rows_per_s'][str(size)]['median']:,.0f}" for size in (SMALL_BATCH, LARGE_BATCH))
        print_row(layout, *rates, as_range(results[-1]["us_per_batch"]))
        path.unlink()
    return results


def batch_cost(path: Path, digits: np.ndarray, rounds: int) -> dict[str, Any]:
    """Compare small with large batches from windows of the same rows: the default window depends on the batch."""
    with oocload.Loader(path, LARGE_BATCH, x="x", seed=0) as large:
        window = oocload.Shuffle(window_rows=large.window_rows)
        with oocload.Loader(path, SMALL_BATCH, x="x", seed=0, shuffle=window) as small:
            readers = {SMALL_BATCH: LoaderReader(small), LARGE_BATCH: LoaderReader(large)}
            for reader in readers.values():
                check(reader, digits)
            times = [{size: seconds(reader.run) for size, reader in readers.items()} for _ in range(rounds)]
            further = len(small) - len(large)
            window_rows = large.window_rows
    return {
        "n_rows": len(digits),
        "window_rows": window_rows,
        "us_per_batch": machine.spread([1e6 * (t[SMALL_BATCH] - t[LARGE_BATCH]) / further for t in times]),
        "rows_per_s": {str(size): machine.spread([len(digits) / t[size] for t in times]) for size in readers},
    }


def write_many_chunks(path: Path, rows: np.ndarray, version: str) -> None:
    """Write a dataset of which each row is a chunk."""
    with h5py.File(path, "w", libver=version) as file:
        dataset = file.create_dataset("x", shape=rows.shape, dtype=rows.dtype, chunks=(1, *rows.shape[1:])).id
        for i, row in enumerate(rows):
            dataset.write_direct_chunk((i, 0), row.tobytes())


def measure_opening(folder: Path, n_chunks: int, rounds: int) -> list[dict[str, Any]]:
    print_header(
        "chunk index", "chunks", "h5py's walk, s", "open + locate, s", "filling a cache, s", "from a cache, s",
        "bytes held per chunk", "peak bytes per chunk",
    )  # fmt: skip
    rows = np.random.default_rng(0).integers(0, 256, (n_chunks, 4), np.uint8)
    results = []
    for version, index in (("earliest", "v1 B-tree"), ("latest", "fixed array")):
        path = folder / f"{version}.h5"
        write_many_chunks(path, rows, version)
        check_locations(path, rows)
        results.append({"index": index, "n_chunks": n_chunks, **opening_cost(path, n_chunks, rounds)})
        times, memory = results[-1]["seconds"], results[-1]["bytes_per_chunk"]
        print_row(index, f"{n_chunks:,}", *map(as_range, times.values()), *(f"{v:.0f}" for v in memory.values()))
        path.unlink()
    return results


def check_locations(path: Path, rows: np.ndarray) -> None:
    with oocload.open(path) as store, path.open("rb") as file:
        locations = store.locate("x")
        for chunk in np.random.default_rng(0).integers(0, len(rows), 1000):
            place = locations.find(int(chunk))
            file.seek(place.offset)
            assert file.read(place.nbytes) == rows[chunk].tobytes(), f"chunk {chunk} lies elsewhere"


def opening_cost(path: Path, n_chunks: int, rounds: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {"h5py": [], "open": [], "fill cache": [], "cached": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=path.parent) as cache:
            times["h5py"].append(seconds(partial(walk_chunks, path)))
            times["open"].append(seconds(partial(locate, path)))
            times["fill cache"].append(seconds(partial(locate, path, cache)))
            times["cached"].append(seconds(partial(locate, path, cache)))
    tracemalloc.start()
    held = locate(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "seconds": {name: machine.spread(values) for name, values in times.items()},
        "bytes_per_chunk": {"held": held / n_chunks, "peak": peak / n_chunks},
    }


def locate(path: Path, index_cache: str | None = None) -> int:
    """Open a store and find its chunks; return the bytes that their index holds."""
    with oocload.open(path, index_cache=index_cache) as store:
        return store.locate("x").nbytes


def walk_chunks(path: Path) -> None:
    with h5py.File(path) as file:
        file["x"].id.chunk_iter(lambda info: None)


def measure_first_batch(folder: Path, n_rows: int, rounds: int) -> list[dict[str, Any]]:
    print_header("layout", "chunks of a window", "decoding them, ms", "first batch, ms", "of a later epoch, ms",
                 "first / decoding", "later / decoding")  # fmt: skip
    dataset = DATASETS["images"]
    images, results = dataset.make(n_rows), []
    for layout in (layout for layout in LAYOUTS if layout.name in FIRST_BATCH_LAYOUTS):
        with tempfile.TemporaryDirectory(dir=folder) as inner:
            path = layout.write(Path(inner), images, dataset)
            results.append({"layout": layout.name, "n_rows": n_rows, **first_batch_cost(path, images, rounds)})
        result = results[-1]
        shares = (as_range(result[name]) for name in ("first_share", "later_share"))
        times = (as_range(values) for values in result["ms"].values())
        print_row(layout.name, str(result["window_chunks"]), *times, *shares)
    return results


def first_batch_cost(path: Path, images: np.ndarray, rounds: int) -> dict[str, Any]:
    """Time first batches of loaders that are new, so that their slabs are too, and of their second epochs."""
    batch_rows, n_threads = DATASETS["images"].batch_rows, machine.n_cores()
    with oocload.Loader(path, batch_rows, x="x", seed=0, threads=n_threads) as loader:
        check(LoaderReader(loader), images)
        window_chunks = -(-loader.window_rows // DATASETS["images"].chunk_rows)
    limit = DecodeLimit(path, n_threads, window_chunks)
    check(limit, images)
    times: dict[str, list[float]] = {"decode": [], "first": [], "later": []}
    for _ in range(rounds):
        times["decode"].append(1e3 * seconds(limit.run))
        with oocload.Loader(path, batch_rows, x="x", seed=0, threads=n_threads) as loader:
            times["first"].append(1e3 * first_batch_s(loader))
            times["later"].append(1e3 * first_batch_s(loader))
    limit.close()
    return {
        "window_chunks": window_chunks,
        "ms": {name: machine.spread(values) for name, values in times.items()},
        "first_share": machine.spread(_shares(times["first"], times["decode"])),
        "later_share": machine.spread(_shares(times["later"], times["decode"])),
    }


def first_batch_s(loader: oocload.Loader) -> float:
    began = time.perf_counter()
    batches = iter(loader)
    next(batches)
    elapsed = time.perf_counter() - began
    batches.close()
    return elapsed


def _shares(parts: Sequence[float], wholes: Sequence[float]) -> list[float]:
    return [part / whole for part, whole in zip(parts, wholes, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a small size that shows it runs; its figures mean little")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--dir", help="where to put the files meanwhile")
    args = parser.parse_args()
    rounds = 1 if args.quick else args.rounds
    n_digits, n_chunks, n_images = (20_000, 10_000, 1500) if args.quick else (262_144, 1_000_000, 32_768)
    print(f"median (lowest to highest) of {rounds} rounds, warm page cache", flush=True)
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        results = {
            "batches": measure_batches(folder, n_digits, rounds),
            "opening": measure_opening(folder, n_chunks, rounds),
            "first batch": measure_first_batch(folder, n_images, rounds),
        }
    machine.save(args.json, {"benchmark": "overheads", **machine.facts("warm"), "results": results})


if __name__ == "__main__":
    main()
