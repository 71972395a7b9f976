"""How large should a block of raw rows be, and a chunk of encoded ones?

Smaller ones mix better in the same memory, larger ones cost less to ask for. For each size: rows/s of a shuffled epoch
(window of 64 MiB, two slabs), and the entropy of source blocks in a batch relative to a uniform shuffle that such a
window gives. Raw rows lie in a contiguous HDF5 dataset, encoded ones in gzip and Zarr zstd chunks.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np
from contenders import LoaderReader
from datasets import make_images

import oocload
from oocload.plan import blocks
from oocload.plan.quality import epoch_entropy

KIB = 1024
BATCH = 256


def raw_loaders(path: Path, sizes: list[int], window_nbytes: int) -> dict[str, oocload.Loader]:
    """Return a loader per block size; the size is no option of the public API."""
    chosen, loaders = blocks.FLEXIBLE_BLOCK_NBYTES, {}
    row_nbytes = oocload.open(path).fields["x"].row_nbytes
    for size in sizes:
        blocks.FLEXIBLE_BLOCK_NBYTES = size
        how = oocload.Shuffle(window_rows=window_nbytes // row_nbytes)
        loaders[f"{size // KIB} KiB"] = oocload.Loader(path, BATCH, x="x", shuffle=how, seed=0)
    blocks.FLEXIBLE_BLOCK_NBYTES = chosen
    return loaders


def chunk_loaders(
    folder: Path, images: np.ndarray, suffix: str, sizes: list[int], window_nbytes: int
) -> dict[str, oocload.Loader]:
    """Return a loader per chunk size."""
    loaders = {}
    for size in sizes:
        path = folder / f"{size}{suffix}"
        oocload.convert({"x": images}, path, chunk_bytes=size)
        how = oocload.Shuffle(window_rows=window_nbytes // images[0].nbytes)
        loaders[f"{size // KIB} KiB"] = oocload.Loader(path, BATCH, x="x", shuffle=how, seed=0)
    return loaders


def measure(title: str, loaders: dict[str, oocload.Loader], n_rows: int, rounds: int) -> dict[str, Any]:
    rates = machine.interleaved({size: LoaderReader(loader).run for size, loader in loaders.items()}, rounds)
    result: dict[str, Any] = {"layout": title, "sizes": {}}
    for size, loader in loaders.items():
        grid = loader._runtime.options.grid
        options = loader._runtime.options
        window = options.window_blocks
        entropy = epoch_entropy(BATCH, window, 10**6, options.dealt)  # of a store far larger than the window
        result["sizes"][size] = {"rows_per_s": rates[size], "block_rows": grid.block_rows, "relative_entropy": entropy}
        median = rates[size]["median"]
        print(f"| {title} | {size} | {grid.block_rows} | {window} | {median:,.0f} | {entropy:.2f} |", flush=True)
        loader.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=24576, help="images (12 KiB each)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a small size that shows it runs; its figures mean little")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--dir", help="where to put the files meanwhile")
    args = parser.parse_args()
    n_rows, rounds, window = (1024, 1, 2**21) if args.quick else (args.rows, args.rounds, 2**26)
    images = make_images(n_rows)
    small = images.reshape(-1, 768)
    print("| layout | block or chunk | rows of it | blocks per window | rows/s | relative entropy |")
    print("|---|---|---|---|---|---|")
    results = []
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        for title, rows in (("raw, rows of 12 KiB", images), ("raw, rows of 768 bytes", small)):
            path = folder / "raw.h5"
            with h5py.File(path, "w") as file:
                file["x"] = rows
            sizes = [64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, 1024 * KIB]
            results.append(measure(title, raw_loaders(path, sizes, window), len(rows), rounds))
        for title, suffix in (("HDF5 gzip", ".h5"), ("Zarr zstd", ".zarr")):
            sizes = [128 * KIB, 256 * KIB, 512 * KIB, 1024 * KIB, 2048 * KIB]
            loaders = chunk_loaders(folder, images, suffix, sizes, window)
            results.append(measure(f"{title}, rows of 12 KiB", loaders, n_rows, rounds))
    machine.save(args.json, {"benchmark": "granularity", **machine.facts("warm"), "n_rows": n_rows, "results": results})


if __name__ == "__main__":
    main()
