"""Runs two ways to feed a model, each in a process of its own, and prints what each delivered and held.

Each way is a function that returns an `Outcome`. It runs in a fork of the script, after all imports, so that its peak
of memory is what it took itself: the growth of its resident set, and what its child processes have to themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import oocload

MIB = 2**20


@dataclass(frozen=True)
class Outcome:
    """What a way came to: the rows that it delivered, over all epochs, and what training ended with."""

    rows: int
    result: Any = None  # losses, mostly: what both ways must agree in where their order is the same
    seconds: float | None = None  # where only a part counts: training, say, without building the model
    shown: Mapping[str, str] = field(default_factory=dict)  # further columns of the table


@dataclass(frozen=True)
class Measured:
    """An outcome, with rows per second, and the peak of memory in bytes above what the process began with."""

    rows: int
    rows_per_s: float
    peak_nbytes: int
    result: Any
    shown: Mapping[str, str]


Way = Callable[[], Outcome]


def arguments(doc: str | None, rows: int, memory: str = "32 MiB") -> argparse.ArgumentParser:
    """Return a parser with the options that every recipe has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=rows, help=f"of the data that is made (default {rows:,})")
    parser.add_argument("--memory", default=memory, help=f"ceiling of oocload (default {memory})")
    parser.add_argument("--rounds", type=int, default=1, help="run both so many times in turn, and take medians")
    parser.add_argument("--dir", type=Path, help="keep the files there (default: a folder that is removed)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


@contextlib.contextmanager
def folder_of(args: argparse.Namespace) -> Iterator[Path]:
    """Yield the folder for the files of this run."""
    if args.dir is not None:
        args.dir.mkdir(parents=True, exist_ok=True)
        yield args.dir
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def run(main: Callable[[], None]) -> None:
    """Run a recipe; what oocload has to say of wrong input is one line, and the exit status 1."""
    try:
        main()
    except oocload.OocloadError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def orders_of(loader: oocload.Loader, epochs: int) -> list[np.ndarray]:
    """Return the row numbers of the first epochs, in the loader's order, so that an old way can be given the same."""
    orders = []
    for epoch in range(epochs):
        loader.load_state_dict(loader.state_dict(epoch=epoch, batch=0))
        orders.append(np.concatenate([loader.batch_rows(batch) for batch in range(len(loader))]))
    return orders


def n_classes_of(store: Path, field: str = "y") -> int:
    """Return how many classes a field of labels has.

    Raises
    ------
    InvalidArgumentError
        If its rows are not one whole number each, from 0.

    """
    found = oocload.stats(store, field)[field]
    if found.histogram is None or found.dtype.kind not in "iu" or found.min is None or found.min[0] < 0:
        raise oocload.InvalidArgumentError(
            f"field {field!r} must hold labels, one whole number from 0 a row, got {found.dtype} of shape {found.shape}"
            f"{'' if found.min is None else f' from {found.min.min()}'} in {store}"
        )
    return int(found.max[0]) + 1


def compare(
    old: Mapping[str, Way],
    new: Mapping[str, Way],
    args: argparse.Namespace,
    *,
    data_nbytes: int,
    same: str = "",
    prepare: Callable[[], None] = lambda: None,
) -> dict[str, Measured]:
    """Run every way, print one table, and say how the first new way stands beside the first old one.

    Parameters
    ----------
    old, new
        By the names that the table shows.
    args
        What `arguments` parsed.
    data_nbytes
        Of the rows, decoded, that both ways read.
    same
        What the `result` of each is, "losses", say, where it must be the same; else their results are not compared.
    prepare
        Called in each way's process before the measuring begins.

    Raises
    ------
    SystemExit
        The results differ.

    """
    ways = {**old, **new}
    rounds = [{name: _apart(way, prepare) for name, way in ways.items()} for _ in range(args.rounds)]
    measured = {name: _median([found[name] for found in rounds]) for name in ways}
    print(_table(measured))
    before, after = (measured[next(iter(names))] for names in (old, new))
    print(
        f"\noocload: {after.rows_per_s / before.rows_per_s:.2g} × the rows/s, {_times(after, before)} the memory; "
        f"the data is {data_nbytes / MIB:,.0f} MiB"
    )
    difference = max(_difference(before.result, m.result) for m in measured.values()) if same else None
    if difference is not None:
        of = "both" if len(ways) == 2 else "all"
        print(f"{same} of {of}: {'the same' if difference == 0 else f'they differ by {difference:.2g} at most'}")
    if args.json is not None:
        figures = {
            "data_nbytes": data_nbytes,
            "difference": difference,
            "ways": {n: vars(m) for n, m in measured.items()},
        }
        args.json.write_text(json.dumps(figures, indent=1, default=str))
    if difference is not None and not difference <= 1e-4:
        sys.exit(f"{same} must be the same in the same order, got a difference of {difference}")
    return measured


def _times(after: Measured, before: Measured) -> str:
    return f"{after.peak_nbytes / max(before.peak_nbytes, 1):.2g} ×"


def _difference(a: Any, b: Any) -> float:
    first, second = np.asarray(a, float), np.asarray(b, float)
    return float(np.abs(first - second).max()) if first.shape == second.shape else float("inf")


def _median(found: list[Measured]) -> Measured:
    last = found[-1]
    rates, peaks = ([getattr(m, name) for m in found] for name in ("rows_per_s", "peak_nbytes"))
    return Measured(last.rows, statistics.median(rates), int(statistics.median(peaks)), last.result, last.shown)


def _table(measured: Mapping[str, Measured]) -> str:
    titles = ["", "rows/s", "peak memory", *next(iter(measured.values())).shown]
    lines = [titles]
    for name, m in measured.items():
        lines.append([name, f"{m.rows_per_s:,.0f}", f"{m.peak_nbytes / MIB:,.0f} MiB", *m.shown.values()])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def _apart(way: Way, prepare: Callable[[], None]) -> Measured:
    """Run a way in a fork of this process."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    sys.stdout.flush()
    # no daemon: the way may have worker processes
    child = context.Process(target=_measured, args=(way, prepare, theirs), daemon=False)
    child.start()
    theirs.close()
    of_children = 0
    while not ours.poll(0.05):
        of_children = max(of_children, sum(map(_private_nbytes, _descendants(child.pid))))
    try:
        answer = ours.recv()
    except EOFError:
        child.join()
        sys.exit(f"the process ended with status {child.exitcode} before it was done")
    child.join()
    if isinstance(answer, BaseException):
        raise answer
    outcome, seconds, peak = answer
    rows_per_s = outcome.rows / (outcome.seconds or seconds)
    return Measured(outcome.rows, rows_per_s, peak + of_children, outcome.result, outcome.shown)


def _measured(way: Way, prepare: Callable[[], None], answer: Connection) -> None:
    try:
        prepare()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _status("VmRSS")
        start = time.perf_counter()
        outcome = way()
        answer.send((outcome, time.perf_counter() - start, _status("VmHWM") - before))
    except oocload.OocloadError as error:
        answer.send(error)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _descendants(pid: int | None) -> list[int]:
    try:
        children = [
            int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()
        ]
    except OSError:
        return []
    return children + [p for child in children for p in _descendants(child)]


def _private_nbytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Dirty", "Private_Clean")))
