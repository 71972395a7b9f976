"""What whole epochs of batches cost in a loop that only waits for each, beside the plain iterator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import machine
from batch_cases import BATCHES, Case, Options, Stores
from consumers import ratio
from lineup import Stored
from overheads import print_header, print_row

Result = dict[str, Any]

_SHARES = ("speed_of_iterator", "speed_of_iterator_after_first_batch")


def _there(batch: Any) -> None:
    """Do nothing: a batch in the host's memory is there when it is given."""


class Epochs:
    """Takes some epochs, waits for each batch and lets go of it; notes how long the first of each epoch took.

    Parameters
    ----------
    batches
        Each pass over it is an epoch.
    ready
        Called with each batch; returns when it is there.

    """

    def __init__(
        self, batches: Iterable[Any], n_rows: int, n_epochs: int, ready: Callable[[Any], object] = _there
    ) -> None:
        self._batches, self._ready = batches, ready
        self._n_rows, self._n_epochs = n_rows, n_epochs
        self.first_s: list[float] = []

    def __call__(self) -> int:
        for _ in range(self._n_epochs):
            began = time.perf_counter()
            batches = iter(self._batches)
            self._ready(next(batches))
            self.first_s.append(time.perf_counter() - began)
            for batch in batches:
                self._ready(batch)
            batch = batches = None  # as the next epoch finds it, so that workers end within the time
        return self._n_epochs * self._n_rows


def costs_of_epochs(runs: Mapping[str, Epochs], rounds: int, facts: Mapping[str, int]) -> dict[str, Any]:
    """Time some epochs of each in turn; return what one costs, and beside the one called ``iterator``.

    ``facts`` has the rows (``n_rows``) and batches (``n_batches``) of an epoch, and the epochs of a run (``n_epochs``).
    """
    n_rows, n_epochs = facts["n_rows"], facts["n_epochs"]
    rates = machine.by_round(runs, rounds)
    epoch_s = {name: [n_rows / rate for rate in values] for name, values in rates.items()}
    further_s = {name: _after_first(epoch_s[name], run.first_s, n_epochs) for name, run in runs.items()}
    others = [name for name in runs if name != "iterator"]
    return {
        "us_per_batch": {n: machine.spread([1e6 * t / facts["n_batches"] for t in epoch_s[n]]) for n in runs},
        "rows_per_s": {name: machine.spread(values) for name, values in rates.items()},
        "ms_to_first_batch": {name: machine.spread([1e3 * t for t in run.first_s]) for name, run in runs.items()},
        "speed_of_iterator": {name: ratio(epoch_s["iterator"], epoch_s[name]) for name in others},
        "speed_of_iterator_after_first_batch": {name: ratio(further_s["iterator"], further_s[name]) for name in others},
    }


def _after_first(epoch_s: list[float], first_s: list[float], n_epochs: int) -> list[float]:
    """Return what epochs take after their first batch, round by round."""
    firsts = [sum(first_s[i : i + n_epochs]) / n_epochs for i in range(0, len(first_s), n_epochs)]
    return [epoch - first for epoch, first in zip(epoch_s, firsts, strict=True)]


def print_costs_header(framework: str) -> None:
    print_header(framework, "rows/s", "speed of the iterator's", "after the first batch", "ms to the first batch")


def print_costs(name: str, result: Mapping[str, Any]) -> None:
    """Print a row of a table for each who takes the batches of a case."""
    for taker, rate in result["rows_per_s"].items():
        shares = ("-" if taker == "iterator" else f"{result[key][taker]['median']:.2f}" for key in _SHARES)
        print_row(
            f"{name}: {taker}",
            f"{rate['median']:,.0f}",
            *shares,
            f"{result['ms_to_first_batch'][taker]['median']:.1f}",
        )


def costs_of_cases(
    framework: str, stores: Stores, options: Options, cost: Callable[[Case, Stored, int], Result]
) -> list[Result]:
    """Return what the chosen cases cost, and print each."""
    chosen = [case for case in BATCHES if options.chosen(f"{framework}, {case}")]
    if chosen:
        print_costs_header(framework)
    results = []
    for case in chosen:
        results.append(cost(case, stores.labelled(case.layout, case.dataset), options.rounds))
        print_costs(str(case), results[-1])
    return results
