"""Runs two ways to feed a model, each in a process of its own, and prints what each delivered and held.

Each way is a function that returns an `Outcome`; where memory ended it, the table says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import oocload
from parts.measured import Measured, Outcome, Way, measured_apart

__all__ = ["Outcome", "arguments", "compare", "folder_of", "orders_of", "positive", "run"]

MIB = 2**20


def arguments(doc: str | None, rows: int, memory: str = "32 MiB") -> argparse.ArgumentParser:
    """Return a parser with the options that every recipe has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=positive, default=rows, help=f"of the data that is made (default {rows:,})")
    parser.add_argument("--memory", default=memory, help=f"ceiling of oocload (default {memory})")
    parser.add_argument("--rounds", type=positive, default=1, help="run both so many times in turn, and take medians")
    parser.add_argument("--dir", type=Path, help="keep the files there (default: a folder that is removed)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


def positive(text: str) -> int:
    """Return the whole number that an option is given, which must be at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, got {text!r}")
    return int(text)


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
    """Run a recipe; what is wrong with its input or its folders is one line, and the exit status 1."""
    try:
        main()
    except (oocload.OocloadError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def orders_of(loader: oocload.Loader, epochs: int) -> list[np.ndarray]:
    """Return the row numbers of the first epochs, in the loader's order, so that an old way can be given the same."""
    orders = []
    for epoch in range(epochs):
        loader.load_state_dict(loader.state_dict(epoch=epoch, batch=0))
        orders.append(np.concatenate([loader.batch_rows(batch) for batch in range(len(loader))]))
    return orders


def compare(
    old: Mapping[str, Way],
    new: Mapping[str, Way],
    args: argparse.Namespace,
    *,
    data_nbytes: int,
    same: str = "",
    prepare: Callable[[], None] | None = None,
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
        A way without one is left out: its order is another.
    prepare
        Called in each process before it is measured: starts a framework, say, whose own memory is not to count.

    Raises
    ------
    SystemExit
        The results differ.

    """
    if args.json is not None:
        args.json.touch()  # or what is wrong with the path comes out when all is measured
    ways = {**old, **new}
    rounds = [
        {n: measured_apart(way, prepare=prepare, quiet=k > 0) for n, way in ways.items()} for k in range(args.rounds)
    ]
    measured = {name: _median([found[name] for found in rounds]) for name in ways}
    print(_table(measured))
    first_old, first_new = (next(iter(names)) for names in (old, new))
    before, after = measured[first_old], measured[first_new]
    print(f"\n{_beside(before, after)}; the data is {data_nbytes / MIB:,.0f} MiB")
    compared = [m.result for m in measured.values() if m.result is not None]
    difference = _largest_difference(compared) if same and len(compared) > 1 else None
    if difference is not None:
        of = "both" if len(compared) == 2 else "all"
        print(f"{same} of {of}: {'the same' if difference == 0 else f'they differ by {difference:.2g} at most'}")
    if args.json is not None:
        figures = {
            "old": first_old,
            "new": first_new,
            "data_nbytes": data_nbytes,
            "difference": difference,
            "ways": {n: vars(m) for n, m in measured.items()},
        }
        args.json.write_text(json.dumps(figures, indent=1, default=str))
    if difference is not None and not difference <= 1e-4:
        sys.exit(f"{same} must be the same in the same order, got a difference of {difference}")
    return measured


def _beside(before: Measured, after: Measured) -> str:
    if before.rows_per_s is None or after.rows_per_s is None:
        return "there was not memory enough for all ways"
    speed, memory = after.rows_per_s / before.rows_per_s, after.peak_nbytes / max(before.peak_nbytes, 1)
    return f"oocload: {speed:.2g} × the rows/s, {memory:.2g} × the memory"


def _largest_difference(results: list[Any]) -> float:
    first, *others = (np.asarray(result, float) for result in results)
    same_shape = all(other.shape == first.shape for other in others)
    return float(np.max(np.abs(np.stack(others) - first))) if same_shape else float("inf")  # NaN where one is


def _median(found: list[Measured]) -> Measured:
    last = min(found, key=lambda m: m.rows_per_s or 0)  # one that memory ended, if there is one
    peak = int(statistics.median(m.peak_nbytes for m in found))
    rate = None if last.rows_per_s is None else statistics.median(m.rows_per_s or 0 for m in found)
    return Measured(last.rows, rate, peak, last.result, last.shown)


def _table(measured: Mapping[str, Measured]) -> str:
    further = max((m.shown for m in measured.values()), key=len)
    lines = [["", "rows/s", "peak memory", *further]]
    for name, m in measured.items():
        rate = "out of memory" if m.rows_per_s is None else f"{m.rows_per_s:,.0f}"
        lines.append([name, rate, f"{m.peak_nbytes / MIB:,.0f} MiB", *(m.shown.get(title, "") for title in further)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )
