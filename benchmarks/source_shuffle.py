"""How long does a shuffled conversion take, beside a plain one of the same store, and how fast is its proof?

The contenders of `cases`, as `convert.py` times them: "shuffled" and "plain" conversions of HDF5 gzip to HDF5 gzip and
of Zarr zstd to Zarr zstd, under one ceiling. Before anything is timed, what was shuffled is proven to have all rows, by
NumPy, and not in their order. Run by itself, it times them for images of 12 KiB and for rows of 32 bytes.

Example::

    python benchmarks/source_shuffle.py --rounds 5 --json result.json
"""

from __future__ import annotations

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import machine
import numpy as np
from conversions import Case, read_back, remove
from datasets import DATASETS
from store_statistics import counted, ratios

import oocload

CEILING = "256 MiB"
_SMALL_ROW = (8,)
_SOURCES = {
    "HDF5 gzip": ("shuffle_source.h5", "shuffled.h5", "gzip"),
    "Zarr zstd": ("shuffle_source.zarr", "shuffled.zarr", "zstd"),
}

Result = dict[str, Any]


def cases() -> dict[str, Case]:
    """Return question → its case."""
    return {
        f"shuffle, {name}": Case(source, target, _contenders(codec))
        for name, (source, target, codec) in _SOURCES.items()
    }


def _contenders(codec: str) -> dict[str, Any]:
    def convert(shuffle: bool, source: Path, target: Path) -> None:
        oocload.convert(
            source, target, codec=codec, shuffle=shuffle, seed=0 if shuffle else None, memory=CEILING, progress=False
        )

    return {"shuffled": partial(convert, True), "plain": partial(convert, False)}


def write_sources(folder: Path, rows: np.ndarray) -> None:
    """Write the rows as the sources of all cases."""
    for source, _, codec in _SOURCES.values():
        oocload.convert({"x": rows}, folder / source, codec=codec, progress=False)


def small_rows(n_rows: int) -> np.ndarray:
    """Return rows of 32 bytes."""
    return np.random.default_rng(0).normal(size=(n_rows, *_SMALL_ROW)).astype("f4")


def measure(folder: Path, rows: np.ndarray, rounds: int) -> Result:
    """Prove what is written, then time the contenders in turn."""
    write_sources(folder, rows)
    found: Result = {}
    for question, case in cases().items():
        source, target = folder / case.source, folder / case.target
        check(source, target, case, rows)

        def clear(target: Path = target) -> None:
            remove(target)
            os.sync()

        todo = {name: partial(one, source, target) for name, one in case.contenders.items()}
        runs = {name: partial(counted, one, len(rows)) for name, one in todo.items()}
        rates = machine.by_round(runs, rounds, clear)
        clear()
        case.contenders["shuffled"](source, target)
        prove = partial(oocload.verify, target, permutation_of=source, progress=False)
        proof = machine.by_round({"proof": partial(counted, prove, len(rows))}, rounds, lambda: None)
        clear()
        found[question] = {
            "mb_per_s": {n: machine.spread([r * rows[0].nbytes / 1e6 for r in v]) for n, v in (rates | proof).items()},
            "shuffled_takes_times_plain": ratios(rates, "plain", "shuffled"),
        }
        print(question, found[question], flush=True)
    for source, _, _ in _SOURCES.values():
        remove(folder / source)
    return found


def check(source: Path, target: Path, case: Case, rows: np.ndarray) -> None:
    """See that both contenders write all rows, and one of them in another order."""
    for name, convert in case.contenders.items():
        convert(source, target)
        got = read_back(target)
        assert np.array_equal(got, rows) == (name == "plain")
        assert sorted(map(bytes, got)) == sorted(map(bytes, rows))
        remove(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nbytes", type=int, default=100_000_000, help="of each array")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--dir", help="where to put the files meanwhile")
    args = parser.parse_args()
    images = DATASETS["images"]
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        results = {
            "images of 12 KiB": measure(Path(name), images.make(max(8, args.nbytes // images.row_nbytes)), args.rounds),
            "rows of 32 bytes": measure(Path(name), small_rows(max(8, args.nbytes // 32)), args.rounds),
        }
    machine.save(args.json, {"benchmark": "source_shuffle", **machine.facts("warm"), "results": results})


if __name__ == "__main__":
    main()
