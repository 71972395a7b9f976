"""Facts about the machine and the run, kept beside every result."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "numpy",
    "h5py",
    "hdf5plugin",
    "zarr",
    "numcodecs",
    "zarrs",
    "tensorstore",
    "imagecodecs",
    "dask",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "torch",
    "jax",
)


def facts(cache: str) -> dict[str, Any]:
    """Return date, commit, processor, cores, versions and the state of the page cache."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": n_cores(),
        "python": platform.python_version(),
        "versions": {p: v for p in _PACKAGES if (v := _version(p))},
        "cache": cache,
    }


def status(key: str) -> int:
    """Return a line of this process's /proc/self/status: bytes, or a number."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * (1024 if value.endswith("kB") else 1)
    raise KeyError(key)


def n_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def interleaved(
    contenders: Mapping[str, Callable[[], int]], rounds: int, before: Callable[[], object] = lambda: None
) -> dict[str, dict[str, float]]:
    """Run contenders in turn, round after round; each returns how many rows it delivered.

    Before each run, and outside the time taken, ``before`` is called.

    Returns
    -------
    dict
        Contender → median, lowest and highest rows per second.

    """
    return {name: spread(r) for name, r in by_round(contenders, rounds, before).items()}


def by_round(
    contenders: Mapping[str, Callable[[], int]], rounds: int, before: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Run contenders as `interleaved` does; return contender → rows per second of each round."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            before()
            began = time.perf_counter()
            n_rows = run()
            rates[name].append(n_rows / (time.perf_counter() - began))
    return rates


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median of repeated measurements, the lowest, the highest, and how many there are."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "runs": len(values)}


def save(path: str | None, result: Mapping[str, Any]) -> None:
    """Write a result as JSON where a path is given."""
    if path is not None:
        Path(path).write_text(json.dumps(result, indent=1) + "\n")


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
