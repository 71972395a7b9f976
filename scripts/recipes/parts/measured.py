"""Runs a way to feed a model in a fork of this process: how many rows/s it delivers, and what it holds at most.

The peak of memory is what the way took itself, above what the process has after all imports: the growth of the resident
set, and what child processes have to themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import oocload


@dataclass(frozen=True)
class Outcome:
    """What a way came to: the rows that it delivered, over all epochs, and what training ended with."""

    rows: int
    result: Any = None  # losses, mostly: what both ways must agree in where their order is the same
    seconds: float | None = None  # where only a part counts: training, say, without building the model
    shown: Mapping[str, str] = field(default_factory=dict)  # further columns of the table


@dataclass(frozen=True)
class Measured:
    """An outcome, with rows per second and the peak of memory in bytes; of a way that memory ended, none of these."""

    rows: int
    rows_per_s: float | None
    peak_nbytes: int
    result: Any
    shown: Mapping[str, str]


Way = Callable[[], Outcome]

_MADV_POPULATE_READ = 22  # of Linux 5.14 and newer; others refuse it, and nothing is lost but some MiB of precision


def measured_apart(way: Way, prepare: Callable[[], None] | None = None, quiet: bool = False) -> Measured:
    """Run a way in a fork of this process.

    Parameters
    ----------
    way
        Returns its outcome, or raises MemoryError; the kernel may kill it too, for want of memory.
    prepare
        Called there before anything is measured.
    quiet
        Whether what it prints is left out.

    Raises
    ------
    OocloadError
        As the way raised it.
    SystemExit
        The way ended in anything else; its traceback was printed.

    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    sys.stdout.flush()
    # no daemon: the way may have worker processes
    child = context.Process(target=_measure, args=(way, prepare, quiet, theirs), daemon=False)
    child.start()
    theirs.close()
    at_fork, pause_s = _status("RssAnon"), 0.05
    of_children = of_child = 0
    seen: dict[int, int] = {}  # memory of its processes; first the one that was looked at longest ago
    while not ours.poll(pause_s):
        start = time.perf_counter()
        of_child = max(of_child, _status("RssAnon", child.pid) - at_fork)
        alive = _descendants(child.pid)
        if not child.is_alive():  # and yet a process that it left may hold the pipe open
            break
        seen = {pid: nbytes for pid, nbytes in seen.items() if pid in alive}
        due = next((pid for pid in alive if pid not in seen), next(iter(seen), None))
        if due is not None:  # one at a time: the kernel takes 10 ms and more for a process with a framework
            seen[due] = max(seen.pop(due, 0), _private_nbytes(due))
            of_children = max(of_children, sum(seen.values()))
        pause_s = max(0.05, 10 * (time.perf_counter() - start))
    try:
        answer = ours.recv() if ours.poll() else None
    except EOFError:
        answer = None
    child.join()
    if answer is None:
        for pid in seen:  # which it left behind
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if isinstance(answer, oocload.OocloadError):
        raise answer
    if isinstance(answer, MemoryError) or child.exitcode == -signal.SIGKILL:
        return Measured(0, None, of_child + of_children, None, {})
    if answer is None:
        sys.exit(f"the process ended with status {child.exitcode} before it was done")
    outcome, seconds, peak = answer
    rows_per_s = outcome.rows / (outcome.seconds or seconds)
    return Measured(outcome.rows, rows_per_s, peak + of_children, outcome.result, outcome.shown)


def _measure(way: Way, prepare: Callable[[], None] | None, quiet: bool, answer: Connection) -> None:
    try:
        if prepare is not None:
            prepare()
        _map_libraries()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _status("VmRSS")
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere if quiet else sys.stdout):
            start = time.perf_counter()
            outcome = way()
            seconds = time.perf_counter() - start
        answer.send((outcome, seconds, _status("VmHWM") - before))
    except (oocload.OocloadError, MemoryError) as error:
        answer.send(error)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _map_libraries() -> None:
    """Take all pages of libraries into the resident set. A fork has few of them, and those it uses are not its data."""
    populate = ctypes.CDLL(None, use_errno=True).madvise
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, access, _, _, inode, *path = line.split(maxsplit=5)
        if inode != "0" and access.startswith("r") and path and ".so" in path[0]:
            start, end = (int(address, 16) for address in addresses.split("-"))
            populate(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_POPULATE_READ)


def _status(name: str, pid: int | str | None = "self") -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)  # none of one that ended


def _descendants(pid: int | None) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(p) for task in tasks for p in (task / "children").read_text().split()]
    except OSError:
        return []
    return children + [p for child in children for p in _descendants(child)]


def _private_nbytes(pid: int | None) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Dirty", "Private_Clean")))
