"""Does anything grow over a hundred epochs and a thousand abandoned iterators?

Each way of reading runs in a process of its own, over a store of 32 MiB with a window of 4 MiB: epochs to their end,
then iterators that are left after their first batch. After each (after every ten iterators) RSS, threads and
descriptors are looked at, as the system counts them; the slope of RSS is that of a line through all but the first
fifth.

Examples::

    python benchmarks/soak.py --json result.json
    python benchmarks/soak.py --quick
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import machine
import numpy as np

import oocload

ROW_SHAPE = (32, 32, 3)
N_ROWS, WINDOW_ROWS, CHUNK_ROWS, BATCH_ROWS = 10_923, 1365, 100, 64
MIB = 2**20
_ABANDONED_AT_ONCE = 10
_SETTLING = 0.2  # share of the samples in which caches fill
_NEEDS = {"to_tf": "tensorflow", "to_keras": "keras"}


def write_store(path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        rows = rng.integers(0, 8, (N_ROWS, *ROW_SHAPE), "u1")
        file.create_dataset("x", data=rows, chunks=(CHUNK_ROWS, *ROW_SHAPE), compression="gzip", compression_opts=1)
        file.create_dataset("y", data=np.arange(N_ROWS), chunks=(CHUNK_ROWS,))


def _iterator(loader: oocload.Loader) -> Callable[[], Iterator[Any]]:
    return lambda: iter(loader)


def _by_number(loader: oocload.Loader) -> Callable[[], Iterator[Any]]:
    first = itertools.cycle((0, len(loader) - 1))  # so that each begins in another slab than the one before
    return lambda: (loader[number] for number in (next(first), *range(0, len(loader), 10)))


def _to_tf(loader: oocload.Loader) -> Callable[[], Iterator[Any]]:
    dataset = loader.to_tf()  # once: of each dataset that is made, TensorFlow keeps some KiB
    return lambda: iter(dataset)


def _to_keras(loader: oocload.Loader) -> Callable[[], Iterator[Any]]:
    data = loader.to_keras()
    return lambda: (data[number] for number in range(len(data)))


READERS: dict[str, Callable[[oocload.Loader], Callable[[], Iterator[Any]]]] = {
    "iterator": _iterator,
    "by number": _by_number,
    "to_tf": _to_tf,
    "to_keras": _to_keras,
}


def status() -> tuple[int, int, int]:
    """Return RSS in bytes, threads and descriptors of this process."""
    gc.collect()
    return machine.status("VmRSS"), machine.status("Threads"), len(os.listdir("/proc/self/fd"))


def soak(name: str, path: Path, n_epochs: int, n_abandoned: int) -> dict[str, Any]:
    """Read in one way; return what was seen."""
    warnings.simplefilter("ignore", oocload.ShuffleQualityWarning)
    epochs, abandoned = [], []
    with oocload.Loader(path, BATCH_ROWS, shuffle=oocload.Shuffle(window_rows=WINDOW_ROWS), seed=0) as loader:
        read = READERS[name](loader)
        for _ in range(n_epochs):
            for _ in read():
                pass
            epochs.append(status())
        for n in range(n_abandoned):
            next(read())
            if (n + 1) % _ABANDONED_AT_ONCE == 0:
                abandoned.append(status())
    return {
        "reader": name,
        "epochs": n_epochs,
        "rss_per_epoch": slope(epochs),
        "abandoned": n_abandoned,
        "rss_per_abandoned": slope(abandoned) / _ABANDONED_AT_ONCE,
        "threads": changes(epochs, abandoned, 1),
        "descriptors": changes(epochs, abandoned, 2),
    }


def slope(samples: list[tuple[int, int, int]]) -> float:
    """Return the bytes of RSS per sample, once things have settled."""
    rss = [s[0] for s in samples[int(len(samples) * _SETTLING) :]]
    return float(np.polyfit(np.arange(len(rss)), rss, 1)[0]) if len(rss) > 1 else 0.0


def changes(epochs: list[Any], abandoned: list[Any], which: int) -> list[int]:
    """Return the distinct numbers seen once things have settled."""
    settled = epochs[int(len(epochs) * _SETTLING) :] + abandoned[int(len(abandoned) * _SETTLING) :]
    return sorted({s[which] for s in settled})


def shown(result: dict[str, Any]) -> str:
    cells = [
        result["reader"],
        f"{result['rss_per_epoch'] / MIB:+.4f}",
        f"{result['rss_per_abandoned'] / MIB:+.5f}",
        ", ".join(map(str, result["threads"])),
        ", ".join(map(str, result["descriptors"])),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--abandoned", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="a small size that shows it runs; its figures mean little")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--dir", help="where to put the file meanwhile")
    parser.add_argument("--child", nargs=2, metavar=("READER", "PATH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.epochs, args.abandoned = 2, 20
    if args.child:
        print(json.dumps(soak(args.child[0], Path(args.child[1]), args.epochs, args.abandoned)))
        return
    print(f"{args.epochs} epochs, then {args.abandoned} abandoned iterators\n")
    print("| | MiB of RSS an epoch | MiB an abandoned iterator | threads | descriptors |\n|---|---|---|---|---|")
    results = []
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        path = Path(folder) / "soak.h5"
        write_store(path)
        for name in READERS:
            if find_spec(_NEEDS.get(name, "numpy")) is None:
                continue
            numbers = ["--epochs", str(args.epochs), "--abandoned", str(args.abandoned)]
            command = [sys.executable, __file__, *numbers, "--child", name, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(shown(results[-1]), flush=True)
    machine.save(args.json, {"benchmark": "soak", **machine.facts("warm"), "results": results})


if __name__ == "__main__":
    main()
