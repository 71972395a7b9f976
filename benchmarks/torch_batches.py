"""`to_torch()` against the plain iterator, and against a ``DataLoader`` over rows of h5py.

A `DataLoader` over `to_torch()` starts its workers anew in each epoch, as it does by default: that is in its figures,
and *after the first batch* is without.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import machine
import torch
from batch_cases import IMAGES, Case, Options, Stores
from consumers import check_rows, equal_batches, labelled_rows, ratio
from epochs import Epochs, costs_of_cases, costs_of_epochs
from hdf5_rows import Hdf5Rows
from lineup import Stored
from overheads import print_header, print_row
from torch.utils.data import DataLoader

N_WORKERS = 2
ROWS_LAYOUT = "HDF5 gzip-4"
ROWS_CASE = Case(IMAGES, 256, 1, layout=ROWS_LAYOUT)
N_TIMED = 6  # batches of the loader of rows; a multiple of its workers, which finish theirs at the same time
QUICK_BATCH_ROWS = 32

Result = dict[str, Any]


def measure(stores: Stores, options: Options) -> list[Result]:
    return costs_of_cases("PyTorch", stores, options, batch_cost)


def batch_cost(case: Case, stored: Stored, rounds: int) -> Result:
    """Compare who takes the same batches, each from a loader of its own."""
    with ExitStack() as stack:
        plain, ours, alone, shared = (stack.enter_context(case.loader(stored)) for _ in range(4))
        datasets = {
            "to_torch": ours.to_torch(),
            "DataLoader": DataLoader(alone.to_torch(), batch_size=None),
            f"DataLoader, {N_WORKERS} workers": DataLoader(shared.to_torch(), batch_size=None, num_workers=N_WORKERS),
        }
        check_rows(equal_batches(plain, datasets), stored.array)
        facts = case.facts(plain)
        takers = {"iterator": plain, **datasets}
        runs = {name: Epochs(batches, facts["n_rows"], case.n_epochs) for name, batches in takers.items()}
        return {"what": f"PyTorch, {case}", **facts, **costs_of_epochs(runs, rounds, facts)}


def measure_rows(stores: Stores, options: Options) -> list[Result]:
    """Compare with the usual loader; as it is slow, of it some batches alone are timed, in up to three rounds."""
    what = f"PyTorch, rows of {ROWS_LAYOUT}"
    if not options.chosen(what):
        return []
    stored = stores.labelled(ROWS_LAYOUT, IMAGES)
    rounds = min(options.rounds, 3)
    batch_rows = QUICK_BATCH_ROWS if options.quick else ROWS_CASE.batch_rows
    by_row = partial(rows_per_s_by_row, stored, batch_rows)
    rates: dict[str, list[float]] = {"to_torch": [], "DataLoader by row": []}
    with ROWS_CASE.loader(stored) as loader:
        ours = Epochs(loader.to_torch(), loader.epoch_rows, ROWS_CASE.n_epochs)
        check_rows(loader.to_torch(), stored.array)
        for _ in range(rounds):
            rates["to_torch"].append(machine.by_round({"": ours}, 1)[""][0])
            rates["DataLoader by row"].append(by_row())
    speed = ratio(rates["to_torch"], rates["DataLoader by row"])
    titles = ("to_torch, rows/s", f"DataLoader by row, {N_WORKERS} workers, {N_TIMED} batches", "ratio")
    print_header("PyTorch", *titles)
    speeds = {name: machine.spread(values) for name, values in rates.items()}
    print_row(ROWS_LAYOUT, *(f"{s['median']:,.0f}" for s in speeds.values()), f"{speed['median']:.0f}")
    return [
        {
            "what": what,
            "n_rows": len(stored.array),
            "batch_rows": {"to_torch": loader.batch_size, "DataLoader by row": batch_rows},
            "n_workers_by_row": N_WORKERS,
            "n_batches_timed_by_row": N_TIMED,
            "rows_per_s": speeds,
            "speed_of_rows": speed,
        }
    ]


def rows_per_s_by_row(stored: Stored, batch_rows: int) -> float:
    """Return the speed of a shuffled `DataLoader` over rows of h5py, once each worker has given a batch.

    The batches before that are checked.
    """
    torch.manual_seed(0)
    data = DataLoader(Hdf5Rows(stored.path), batch_rows, shuffle=True, num_workers=N_WORKERS)
    batches = iter(data)
    for _ in range(N_WORKERS):
        labelled_rows(next(batches), stored.array)
    began = time.perf_counter()
    for _ in range(N_TIMED):
        next(batches)
    return N_TIMED * batch_rows / (time.perf_counter() - began)
