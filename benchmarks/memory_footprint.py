"""How much memory does reading take, as the store grows, and who survives a limit of 512 MiB?

Each contender reads shuffled (or, chunk by chunk, in order) batches of 256 images of 12 KiB in a process of its own,
for one epoch or some seconds, from files that were dropped from the page cache. Its peak is the peak RSS of the
process, and what its workers have to themselves, above what it had when everything was imported. Pages of a mapped
file count, as the kernel counts them, though it may take them back; ``--limit`` shows whether it does: there, each
contender also runs in a memory control group, in which imports and page cache count too.

Examples::

    python benchmarks/memory_footprint.py --json result.json --plot plot.png
    python benchmarks/memory_footprint.py --limit --json limit.json
    python benchmarks/memory_footprint.py --only to_torch to_jax --seconds 3
    python benchmarks/memory_footprint.py --quick
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cold
import machine
from footprint_reader import READERS, file_of
from footprint_stores import rows_of, write_stores

MIB, GIB = 2**20, 2**30
SIZES = tuple(n * GIB // 2 for n in (1, 2, 4, 8, 16))
CEILINGS = (64 * MIB, 256 * MIB, GIB)
LIMIT = 512 * MIB
_NEEDS = {
    "DataLoader": "torch",
    "to_torch": "torch",
    "to_jax": "jax",
    "tf.data": "tensorflow",
    "to_tf": "tensorflow",
    "to_keras": "keras",
}
_CGROUPS = Path("/sys/fs/cgroup/memory")

Result = dict[str, Any]


def contenders(only: Sequence[str]) -> list[tuple[str, str, int]]:
    """Return (title, reader, ceiling) of those whose packages are installed and whose titles have one of some texts."""
    found = []
    for name in READERS:
        ceilings = {f"{name} ({n // MIB} MiB)": n for n in CEILINGS} if name.startswith("oocload") else {name: 0}
        chosen = [(title, name, n) for title, n in ceilings.items() if any(text in title for text in only)]
        if chosen and any(part in name and find_spec(package) is None for part, package in _NEEDS.items()):
            print(f"left out, as its package is not installed: {name}", flush=True)
            continue
        found += chosen
    return found


def files_of(chosen: Sequence[tuple[str, str, int]]) -> set[str]:
    return {file_of(reader) for _, reader, _ in chosen}


def run(reader: str, folder: Path, seconds: float, ceiling: int, group: Path | None = None) -> Result:
    """Run one contender on files that are not in the page cache; say so where it was killed."""
    for file in folder.iterdir():
        cold.drop(file)
    script = Path(__file__).with_name("footprint_reader.py")
    command = [sys.executable, str(script), reader, str(folder), str(seconds), str(ceiling)]
    environment = {**os.environ, **({} if group is None else {"FOOTPRINT_CONTROL_GROUP": str(group)})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == -9:
        return {"killed": True}
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def measure_footprint(args: argparse.Namespace) -> list[Result]:
    """Measure every contender at every size; print a table."""
    results: list[Result] = []
    chosen = contenders(args.only)
    for nbytes in args.sizes:
        with tempfile.TemporaryDirectory(dir=args.dir) as name:
            folder, n_rows = Path(name), rows_of(nbytes)
            write_stores(folder, n_rows, files_of(chosen))
            for title, reader, ceiling in chosen:
                result = run(reader, folder, args.seconds, ceiling)
                results.append({"title": title, "ceiling": ceiling, "store": nbytes, "n_rows": n_rows, **result})
                print(f"{nbytes / GIB:6.2f} GiB  {title:40} {shown(result)}", flush=True)
    print_footprint(results, args.sizes)
    return results


def shown(result: Result) -> str:
    if "killed" in result:
        return "killed"
    if "failed" in result:
        return f"failed: {result['failed']}"
    return f"{result['peak_above_imports'] / MIB:8,.0f} MiB {result['rows_per_s']:10,.0f} rows/s"


def print_footprint(results: list[Result], sizes: tuple[int, ...]) -> None:
    titles = [f"{nbytes / GIB:g} GiB" for nbytes in sizes]
    print(f"\nPeak RSS above imports, MiB; rows/s of the largest store\n\n| | {' | '.join(titles)} | rows/s |")
    print(f"|{'---|' * (len(titles) + 2)}")
    for title in dict.fromkeys(r["title"] for r in results):
        own = {r["store"]: r for r in results if r["title"] == title}
        cells = [f"{own[s]['peak_above_imports'] / MIB:,.0f}" if "rows" in own[s] else "-" for s in sizes]
        last = own[sizes[-1]]
        cells.append(f"{last['rows_per_s']:,.0f}" if "rows" in last else shown(last))
        print(f"| {title} | {' | '.join(cells)} |")


def measure_limit(args: argparse.Namespace) -> list[Result]:
    """Run every contender on the largest store, with and without the limit, in turn; print a table."""
    results = []
    chosen = contenders(args.only)
    with tempfile.TemporaryDirectory(dir=args.dir) as name, control_group(LIMIT) as group:
        folder = Path(name)
        write_stores(folder, rows_of(args.sizes[-1]), files_of(chosen))
        print(f"\n| {args.sizes[-1] / GIB:g} GiB | rows/s | in {LIMIT // MIB} MiB | ratio |\n|---|---|---|---|")
        for title, reader, ceiling in chosen:
            if ceiling > LIMIT:
                continue
            free, limited = [], []
            for _ in range(args.rounds):
                free.append(run(reader, folder, args.seconds, ceiling))
                limited.append(run(reader, folder, args.seconds, ceiling, group) if group else {"failed": "no group"})
            row = {"title": title, "ceiling": ceiling, "free": free, "limited": limited}
            results.append(row)
            print(as_limited(row), flush=True)
    return results


def as_limited(row: Result) -> str:
    failed = [r for r in row["limited"] if "rows" not in r]
    rates = {k: [r["rows_per_s"] for r in row[k] if "rows" in r] for k in ("free", "limited")}
    free = f"{statistics.median(rates['free']):,.0f}" if rates["free"] else shown(row["free"][0])
    if failed:
        return f"| {row['title']} | {free} | {shown(failed[0])} | - |"
    limited = statistics.median(rates["limited"])
    return f"| {row['title']} | {free} | {limited:,.0f} | {limited / statistics.median(rates['free']):.2f} |"


@contextmanager
def control_group(limit: int) -> Iterator[Path | None]:
    """Make a memory control group (v1), or say that none can be made."""
    group = _CGROUPS / f"oocload-footprint-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError as exc:
        print(f"no memory control group can be made here ({exc}): running without the limit", flush=True)
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def plot(results: list[Result], path: str) -> None:
    """Draw peak memory against the size of the store."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    titles = list(dict.fromkeys(r["title"] for r in results if r["title"] != "zarr chunk by chunk"))
    for title in titles:
        ours = title.startswith("oocload")
        if ours and not title.startswith("oocload ("):
            continue  # the adapters lie on the same lines
        points = [
            (r["store"] / GIB, r["peak_above_imports"] / MIB) for r in results if r["title"] == title and "rows" in r
        ]
        axes.plot(*zip(*points, strict=True), marker="o", lw=2.5 if ours else 1, ls="-" if ours else "--", label=title)
    axes.set(xscale="log", yscale="log", xlabel="store, GiB", ylabel="peak RSS above imports, MiB")
    sizes = sorted({r["store"] / GIB for r in results})
    axes.set_xticks(sizes, [f"{s:g}" for s in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", action="store_true", help="the largest store, with and without a limit of 512 MiB")
    parser.add_argument("--rounds", type=int, default=3, help="with --limit: runs of each contender")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run, unless its epoch ends before")
    parser.add_argument("--quick", action="store_true", help="a small size that shows it runs; its figures mean little")
    parser.add_argument("--only", nargs="+", default=[""], help="contenders whose title contains one of these")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--plot", help="where to write a picture (PNG); needs matplotlib")
    parser.add_argument("--dir", help="where to put the files meanwhile: up to 18 GB")
    args = parser.parse_args()
    args.sizes = (32 * MIB, 64 * MIB) if args.quick else SIZES
    if args.quick:
        args.seconds, args.rounds = 0.5, 1
    return args


def main() -> None:
    args = parse()
    print(f"one epoch, or {args.seconds:g} s of it, from files that are not in the page cache")
    results = measure_limit(args) if args.limit else measure_footprint(args)
    what = "limit" if args.limit else "footprint"
    machine.save(
        args.json, {"benchmark": "memory_footprint", "what": what, **machine.facts("cold"), "results": results}
    )
    if args.plot and not args.limit:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
