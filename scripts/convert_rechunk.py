"""Give an HDF5 file other chunks or another codec, in random order if asked, and prove that all rows are there.

The new file takes the place of the old one only with --replace, and only when it is proven.

    python scripts/convert_rechunk.py train.h5 rechunked.h5 --chunk-rows 64 --codec lzf
    python scripts/convert_rechunk.py train.h5 mixed.h5 --shuffle --seed 0 --memory "256 MiB"
    python scripts/convert_rechunk.py --example example
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import h5py
import numpy as np

import oocload

N_ROWS, SHAPE = 2000, (16, 16, 3)


def make_example(folder: Path) -> Path:
    """Write a small file whose chunks are too large, and sorted by label."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with h5py.File(folder / "sorted.h5", "w") as file:
        images = rng.integers(0, 256, (N_ROWS, *SHAPE), dtype="uint8")
        file.create_dataset("x", data=images, chunks=(N_ROWS, *SHAPE), compression="gzip")
        file["y"] = np.arange(N_ROWS) * 10 // N_ROWS
    return folder / "sorted.h5"


def rechunk(source: Path, target: Path, args: argparse.Namespace) -> bool:
    """Write the new file; return whether it has exactly the rows of the old one."""
    report = oocload.convert(
        source,
        target,
        fields=args.field,
        chunk_rows=args.chunk_rows,
        batch_size=args.batch_size,
        codec=args.codec,
        shuffle=args.shuffle,
        seed=args.seed,
        memory=args.memory,
        resume=True,
    )
    print(report)
    proof = oocload.verify(target, permutation_of=source, fields=args.field)
    print(proof)
    return proof.ok


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, help="the HDF5 file")
    parser.add_argument("target", nargs="?", type=Path, help="the new one")
    parser.add_argument("--example", metavar="FOLDER", type=Path, help="make a small file there, and rechunk that")
    parser.add_argument("--field", action="append", help="take only this field; repeatable")
    parser.add_argument("--chunk-rows", type=int, help="rows of a chunk; default: about 512 KiB of them")
    parser.add_argument("--batch-size", type=int, help="chunks that meet batches of so many rows")
    parser.add_argument("--codec", default="gzip", help="gzip, lzf, none; with hdf5plugin zstd, blosc, lz4, bitshuffle")
    parser.add_argument("--shuffle", action="store_true", help="write rows in random order, all fields together")
    parser.add_argument("--seed", type=int, help="of the order; default: one is drawn, and named")
    parser.add_argument("--memory", help="ceiling, such as '256 MiB'")
    parser.add_argument("--replace", action="store_true", help="give the new file the name of the old one in the end")
    args = parser.parse_args()
    source, target = args.source, args.target
    if args.example is not None:
        source, target = make_example(args.example), args.example / "rechunked.h5"
    if source is None or target is None:
        parser.error("SOURCE and TARGET must be given, or --example FOLDER")
    if not rechunk(source, target, args):
        sys.exit(1)
    if args.replace:
        os.replace(target, source)


if __name__ == "__main__":
    main()
