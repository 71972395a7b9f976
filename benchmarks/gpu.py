"""Does a GPU wait for data?

Images of bytes from an uncompressed HDF5 file are brought to the device by `to_torch(device=...)`, by `to_jax()`, and
by the usual ``DataLoader``: rows of h5py, collated by workers, pinned, copied with ``non_blocking=True``. Three steps
take the batches:

- **no-op** touches nothing: bytes per second to the device, beside a loop that copies batches of the same size out of
  as much pinned memory as the loader holds, and does nothing else.
- **small CNN** and **ResNet-50** train: the share of the time that passes in the iterator's ``next()``; and, as a GPU
  works on while the host waits, the share by which the same steps are faster on a batch that is there already. Making
  bytes into floats on the device counts as waiting in that one.

Without a GPU the same runs on the CPU, at a smaller size: it shows that the script works, and what the loader takes
from a model on the same cores. There, `to_torch` gives views of its slabs and copies nothing.

Examples::

    python benchmarks/gpu.py --json result.json --plot plot.png
    python benchmarks/gpu.py --device cpu
    python benchmarks/gpu.py --quick
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from consumers import check_rows, ratio
from gpu_feeds import MEMORY, BareCopy, Feed, PinnedLoader, Size, floats, n_workers, some, write_images
from gpu_steps import MODELS, Step, no_op, training
from overheads import print_header, print_row

import oocload

BARE, RESIDENT, NO_OP = "bare copy", "already there", "no-op"
SIZES = {
    "cuda": Size((3, 224, 224), 16_384, 256, {NO_OP: 256, "small CNN": 64, "ResNet-50": 64}),
    "cpu": Size((3, 64, 64), 8192, 64, {NO_OP: 1024, "small CNN": 16, "ResNet-50": 2}),
    "quick": Size((3, 32, 32), 128, 8, {NO_OP: 32, "small CNN": 4, "ResNet-50": 2}),
}
WARM_UP_STEPS = 3

Result = dict[str, Any]


@dataclass(frozen=True)
class Taken:
    """Some batches went through a step."""

    total_s: float
    waiting_s: float


@dataclass(frozen=True)
class Job:
    """A step, what returns when all such steps are done, and who feeds it."""

    step: Step
    finish: Callable[[], object]
    feeds: Mapping[str, Feed]


def take(batches: Iterator[Any], job: Job) -> Taken:
    """Put batches through a step; return the time until all is done, and of it that inside of ``next()``."""
    waiting_s, began = 0.0, time.perf_counter()
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waiting_s += time.perf_counter() - asked
        if batch is None:
            break
        job.step(*batch)
    job.finish()
    return Taken(time.perf_counter() - began, waiting_s)


def measure_copy(job: Job, bare: BareCopy, sync: Callable[[], object], size: Size, rounds: int) -> Result:
    """Return how fast bytes come to the device, beside the bare copy of the same round."""
    n_batches = size.n_batches[NO_OP]

    def by_bare() -> int:
        bare(n_batches)
        sync()
        return n_batches * size.batch_nbytes

    def by_feed(feed: Feed) -> int:
        take(some(partial(feed, False), n_batches), job)
        return n_batches * size.batch_nbytes

    rates = machine.by_round({BARE: by_bare, **{n: partial(by_feed, feed) for n, feed in job.feeds.items()}}, rounds)
    return {
        "step": NO_OP,
        "n_batches": n_batches,
        "bare_copy_from_nbytes": bare.nbytes,
        "bytes_per_s": {name: machine.spread(values) for name, values in rates.items()},
        "speed_of_bare_copy": {name: ratio(rates[name], rates[BARE]) for name in job.feeds},
    }


def measure_waiting(name: str, job: Job, size: Size, rounds: int) -> Result:
    """Return the share of a step's time that passes in waiting, beside the same steps on a batch that is there."""
    n_batches = size.n_batches[name]
    there = tuple(part + 0 for part in next(next(iter(job.feeds.values()))(True)))  # in memory of its own
    takers: dict[str, Callable[[], Iterator[Any]]] = {RESIDENT: lambda: iter([there] * n_batches)}
    for taker, feed in job.feeds.items():
        takers[taker] = partial(some, partial(feed, True), n_batches)
    for batches in takers.values():
        deque(batches(), maxlen=0)  # so that workers run; their fork makes the next steps slow
    take(iter([there] * WARM_UP_STEPS), job)
    taken: dict[str, list[Taken]] = {taker: [] for taker in takers}
    for _ in range(rounds):
        for taker, batches in takers.items():
            taken[taker].append(take(batches(), job))
    n_rows, resident = n_batches * size.batch_rows, taken[RESIDENT]
    return {
        "step": name,
        "n_batches": n_batches,
        "rows_per_s": {k: machine.spread([n_rows / t.total_s for t in v]) for k, v in taken.items()},
        "share_in_next": {k: machine.spread([t.waiting_s / t.total_s for t in taken[k]]) for k in job.feeds},
        "share_waiting": {
            k: machine.spread([1 - r.total_s / t.total_s for r, t in zip(resident, taken[k], strict=True)])
            for k in job.feeds
        },
    }


def measure_torch(path: Path, images: np.ndarray, device: Any, size: Size, rounds: int) -> list[Result]:
    """Compare `to_torch()` with the usual loader, through all steps."""
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    with oocload.Loader(path, size.batch_rows, seed=0, memory=MEMORY, drop_last=True) as loader:
        ours = ours_of(loader.to_torch, device)
        check_rows(on_host(ours(False)), images)

        def job(step: Step, n_batches: int) -> Job:
            usual = PinnedLoader(path, size, n_batches, device)
            return Job(step, sync, {"to_torch": ours, "DataLoader": usual})

        moving = job(no_op, size.n_batches[NO_OP])
        check_rows(on_host(moving.feeds["DataLoader"](False)), images)
        bare = BareCopy(loader.stats.memory.peak, size.batch_nbytes, device)
        results = [measure_copy(moving, bare, sync, size, rounds)]
        print_copy("PyTorch", results[0])
        for name, model in MODELS.items():
            results.append(measure_waiting(name, job(training(model(), device), size.n_batches[name]), size, rounds))
            print_waiting("PyTorch", results[-1])
        check_rows(on_host(ours(False)), images)  # again: workers were forked while the slabs were pinned
        return [{"framework": "PyTorch", **result} for result in results]


def measure_jax(path: Path, images: np.ndarray, device: Any, size: Size, rounds: int) -> list[Result]:
    """Put `to_jax()` through those of the steps that are easy to write."""
    if find_spec("jax") is None:
        print("\nleft out, as jax is not installed: to_jax", flush=True)
        return []
    import jax_steps

    if (target := jax_steps.device_like(device.type)) is None:
        print("\nleft out, as this JAX has no GPU support: to_jax", flush=True)
        return []
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    with oocload.Loader(path, size.batch_rows, seed=0, memory=MEMORY, drop_last=True) as loader:
        feeds = {"to_jax": ours_of(loader.to_jax, target)}
        check_rows(feeds["to_jax"](False), images)
        bare = BareCopy(loader.stats.memory.peak, size.batch_nbytes, device)
        copy = measure_copy(Job(jax_steps.wait_for, lambda: None, feeds), bare, sync, size, rounds)
        print_copy("JAX", copy)
        cnn = jax_steps.SmallCnn(target)
        waiting = measure_waiting("small CNN", Job(cnn, cnn.finish, feeds), size, rounds)
        print_waiting("JAX", waiting)
        return [{"framework": "JAX", **result} for result in (copy, waiting)]


MEASURES = {"PyTorch": measure_torch, "JAX": measure_jax}  # JAX after all forks


def ours_of(adapter: Callable[..., Any], device: Any) -> Feed:
    """Return the batches of an adapter; both kinds come from one loader, each by a dataset that is made once."""
    kinds = {False: adapter(device=device), True: adapter(device=device, floats=floats())}
    return lambda as_floats: iter(kinds[as_floats])


def on_host(batches: Iterator[Any]) -> Iterator[Any]:
    return ((x.cpu(), y.cpu()) for x, y in batches)


def print_copy(framework: str, result: Result) -> None:
    print_header(f"{framework}, {NO_OP}", "GB/s to the device", "of the bare copy's")
    for name, rate in result["bytes_per_s"].items():
        share = result["speed_of_bare_copy"].get(name)
        print_row(name, f"{rate['median'] / 1e9:.2f}", "-" if share is None else f"{share['median']:.2f}")


def print_waiting(framework: str, result: Result) -> None:
    print_header(
        f"{framework}, {result['step']}", "rows/s", "of the time in next()", "of the time, beside a batch that is there"
    )
    for name, rate in result["rows_per_s"].items():
        shares = [result[key].get(name) for key in ("share_in_next", "share_waiting")]
        cells = ("-" if share is None else f"{100 * share['median']:.1f} %" for share in shares)
        print_row(name, f"{rate['median']:,.0f}", *cells)


def device_facts(device: Any) -> Result:
    """Return what a result says about the device."""
    facts: Result = {"type": device.type, "torch": torch.__version__, "cuda": torch.version.cuda}
    if device.type != "cuda":
        reason = "--device asks for the CPU" if torch.cuda.is_available() else f"PyTorch {torch.__version__} sees none"
        return {**facts, "note": f"no CUDA device: {reason}; this is the CPU part, at a smaller size"}
    name, memory = torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
    return {**facts, "name": name, "memory_nbytes": memory, "driver": _driver()}


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def plot(result: Result, path: str) -> None:
    """Draw bytes per second to the device, and the share of each step's time that is waiting."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    copies = [r for r in result["results"] if r["step"] == NO_OP]
    rates = {name: rate for r in reversed(copies) for name, rate in r["bytes_per_s"].items()}
    left.bar(list(rates), [rate["median"] / 1e9 for rate in rates.values()])
    left.set(ylabel="GB/s to the device", title="no-op step")
    waits = [r for r in result["results"] if r["step"] != NO_OP]
    bars = {f"{r['step']}\n{name}": share for r in waits for name, share in r["share_waiting"].items()}
    right.bar(list(bars), [100 * share["median"] for share in bars.values()])
    right.set(ylabel="% of the time spent waiting for data", title="training steps")
    right.tick_params("x", labelsize=8)
    for axes in (left, right):
        axes.grid(axis="y", alpha=0.3)
    device, size = result["device"], " × ".join(map(str, result["row_shape"]))
    where = f"{device['name']}, CUDA {device['cuda']}" if "name" in device else "no CUDA device: on the CPU"
    figure.suptitle(
        f"{where}; {result['cpu']}, {result['cores']} cores; images of {size}, {result['batch_rows']} a batch"
    )
    figure.savefig(path, dpi=110)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=MEASURES, help="one framework, so that nothing of the other is loaded before")
    parser.add_argument("--device", help="cuda or cpu; the GPU where there is one")
    parser.add_argument("--quick", action="store_true", help="a small size that shows it runs; its figures mean little")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--plot", help="where to write a picture (PNG); needs matplotlib")
    parser.add_argument("--dir", help="where to put the file meanwhile: up to 3 GB")
    args = parser.parse_args()
    args.rounds = 1 if args.quick else args.rounds
    return args


def main() -> None:
    args = parse()
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    size = SIZES["quick" if args.quick else device.type]
    described, workers = device_facts(device), n_workers(size.batch_nbytes)
    warnings.simplefilter("ignore", oocload.ShuffleQualityWarning)
    torch.backends.cudnn.benchmark = True
    if args.quick:
        torch.set_num_threads(1)  # two that wait for each other take long beside other programs
    print(described.get("note") or f"on {described['name']}, driver {described['driver']}, CUDA {described['cuda']}")
    print(
        f"medians of {args.rounds} interleaved rounds, warm page cache; DataLoader with {workers} workers", flush=True
    )
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        path = Path(folder) / "images.h5"
        images = write_images(path, size)
        chosen = [args.only] if args.only else list(MEASURES)
        results = [r for name in chosen for r in MEASURES[name](path, images, device, size, args.rounds)]
    result = {
        "benchmark": "gpu",
        **machine.facts("warm"),
        "device": described,
        "row_shape": size.row_shape,
        "n_rows": size.n_rows,
        "batch_rows": size.batch_rows,
        "n_workers": workers,
        "results": results,
    }
    machine.save(args.json, result)
    if args.plot:
        plot(result, args.plot)


if __name__ == "__main__":
    main()
