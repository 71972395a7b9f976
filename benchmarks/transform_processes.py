"""How many batches a second pass through a transform: in the consumer's thread, in threads, in one process and in two?

`compare` is called by a script; it measures what is asked for in turn, round after round, and checks the rows first.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import machine
import numpy as np
from consumers import ratio
from epochs import Epochs

import oocload

Result = dict[str, Any]

WORKERS: Mapping[str, int | str | None] = {
    "consumer": 0,
    "thread": None,
    "threads": "threads",
    "one process": 1,
    "two processes": 2,
}
PURE_PYTHON_S = 0.005
_ROWS, _WIDTH, _BATCH_ROWS = 12_800, 784, 128
_TRIES = 20


def compare(folder: Path, rounds: int, quick: bool = False) -> dict[str, Result]:
    """Return case → what `compare_case` says.

    Parameters
    ----------
    folder
        Where a store of rows of 784 bytes is written.
    rounds
        Of which medians are taken.
    quick
        Whether only to show that it runs.

    """
    n_rows = _ROWS // (10 if quick else 1)
    path = folder / "transforms.h5"
    x = np.random.default_rng(0).integers(0, 256, (n_rows, _WIDTH), "u1")
    oocload.convert({"x": x, "y": np.arange(n_rows)}, path)
    python = pure_python(PURE_PYTHON_S / (5 if quick else 1))
    return {
        "5 ms of Python": compare_case(path, python, rounds, WORKERS, partial(python, None)),
        "NumPy": compare_case(path, in_numpy, rounds, {"consumer": 0, "thread": None, "threads": "threads"}),
    }


def compare_case(
    path: Path,
    transform: Callable[[Any], Any],
    rounds: int,
    workers: Mapping[str, Any],
    bare: Callable[[], object] | None = None,
) -> Result:
    """Return batches a second of each, and how many times as many as in the consumer's thread and as in one process.

    ``bare`` is the same work without batches, for one and two processes that do nothing else.
    """
    loaders = {
        name: oocload.Loader(path, _BATCH_ROWS, seed=0, transform=transform, transform_workers=n)
        for name, n in workers.items()
    }
    try:
        _check(loaders)
        n_batches = len(next(iter(loaders.values())))
        runs: dict[str, Callable[[], int]] = {n: Epochs(loader, n_batches, 1) for n, loader in loaders.items()}
        if bare is not None:
            runs |= {f"bare, {n}": partial(_alone, bare, n_batches, n) for n in (1, 2)}
        rates = machine.by_round(runs, rounds)
    finally:
        for loader in loaders.values():
            loader.close()
    result: Result = {"batches_per_s": {name: machine.spread(values) for name, values in rates.items()}}
    for base in ("consumer", "one process", "bare, 1"):
        if base in rates:
            result[f"times_{base}".replace(" ", "_")] = {
                name: ratio(values, rates[base]) for name, values in rates.items() if name != base
            }
    return result


def _alone(step: Callable[[], object], n_steps: int, n_processes: int) -> int:
    """Take steps in processes that do nothing else: what the machine has to give."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_steps, args=(step, n_steps // n_processes)) for _ in range(n_processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return n_steps // n_processes * n_processes


def _steps(step: Callable[[], object], n_steps: int) -> None:
    for _ in range(n_steps):
        step()


def pure_python(seconds: float) -> Callable[[Any], Any]:
    """Return a transform of so many seconds of Python that holds the GIL, on a core of its own."""
    n_steps = 20_000
    took_s = min(_timed(n_steps) for _ in range(_TRIES))
    n_steps = int(n_steps * seconds / took_s)

    def transform(batch: Any) -> Any:
        _count(n_steps)
        return batch

    return transform


def in_numpy(batch: Any) -> Any:
    """Return a batch scaled and normed, by functions that release the GIL."""
    x, y = batch
    values = x.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    np.sqrt(np.abs(values), out=values)
    return np.tanh(values), y


def _count(n_steps: int) -> int:
    total = 0
    for i in range(n_steps):
        total += i * i
    return total


def _timed(n_steps: int) -> float:
    began = time.perf_counter()
    _count(n_steps)
    return time.perf_counter() - began


def _check(loaders: Mapping[str, oocload.Loader]) -> None:
    """Fail unless all give the same bytes; starts their processes."""
    streams = {name: [(x.tobytes(), y.tobytes()) for x, y in loader] for name, loader in loaders.items()}
    first = next(iter(streams.values()))
    if any(stream != first for stream in streams.values()):
        raise AssertionError("transforms must give the same batches wherever they run")
