"""`to_tf()` against ``from_generator`` over an equal loader, and against the plain iterator."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import machine
import tensorflow as tf
from batch_cases import BATCHES, Case, Options, Stores
from consumers import Runs, check_rows, equal_batches, plain_epoch, ratio
from lineup import Stored
from overheads import print_header, print_row
from tf_loops import WAYS, both_ways

import oocload

Result = dict[str, Any]
ByRound = dict[str, list[float]]


def from_generator(loader: oocload.Loader) -> Any:
    signature = tuple(tf.TensorSpec((None, *f.row_shape), f.dtype) for f in loader.fields.values())
    return tf.data.Dataset.from_generator(lambda: iter(loader), output_signature=signature)


def batch_cost(case: Case, stored: Stored, rounds: int) -> Result:
    """Compare who takes the same batches, each from a loader of its own: one epoch, and several by one iterator."""
    with ExitStack() as stack:
        plain, ours, other = (stack.enter_context(case.loader(stored)) for _ in range(3))
        datasets = {"to_tf": ours.to_tf(), "from_generator": from_generator(other)}
        check_rows(equal_batches(plain, datasets), stored.array)
        one, several = (consumers(plain, datasets, n) for n in (1, case.n_epochs))
        rates = machine.by_round(one | {f"{name}, several": run for name, run in several.items()}, rounds)
        facts = case.facts(plain)
    n_rows = facts["n_rows"]
    one_s = {name: [n_rows / rate for rate in rates[name]] for name in one}
    several_s = {name: [case.n_epochs * n_rows / rate for rate in rates[f"{name}, several"]] for name in one}
    return {"what": f"batches, {case}", **facts, **parts(one_s, several_s, facts)}


def parts(one_s: ByRound, several_s: ByRound, facts: Result) -> Result:
    """Return what an epoch costs, what one costs that needs no new iterator, and the difference."""
    further_s = {name: further(one_s[name], several_s[name], facts["n_epochs"]) for name in one_s}
    begin_ms = {name: [1e3 * (a - b) for a, b in zip(one_s[name], further_s[name], strict=True)] for name in one_s}
    return {
        "further": costs(further_s, facts),
        "epoch": costs(one_s, facts),
        "ms_to_begin": {name: machine.spread(values) for name, values in begin_ms.items()},
    }


def consumers(plain: oocload.Loader, datasets: dict[str, Any], n_epochs: int) -> Runs:
    """Return who goes through some epochs by one iterator, by name."""
    n_rows = n_epochs * plain.epoch_rows
    runs: Runs = {"iterator": partial(plain_epoch, plain, n_rows, n_epochs)}
    for name, dataset in datasets.items():
        runs |= both_ways(name, dataset.repeat(n_epochs), n_rows)
    return runs


def further(one_s: list[float], several_s: list[float], n_epochs: int) -> list[float]:
    """Return what each epoch takes after the first, round by round."""
    return [(several - one) / (n_epochs - 1) for one, several in zip(one_s, several_s, strict=True)]


def costs(epoch_s: ByRound, facts: Result) -> Result:
    """Return what epochs of such durations cost, what share of from_generator's time and of the iterator's speed."""
    n_rows, n_batches = facts["n_rows"], facts["n_batches"]
    return {
        "us_per_batch": {name: machine.spread([1e6 * t / n_batches for t in times]) for name, times in epoch_s.items()},
        "rows_per_s": {name: machine.spread([n_rows / t for t in times]) for name, times in epoch_s.items()},
        "time_of_from_generator": {
            f"to_tf{way}": ratio(epoch_s[f"to_tf{way}"], epoch_s[f"from_generator{way}"]) for way in WAYS
        },
        "speed_of_iterator": {
            name: ratio(epoch_s["iterator"], times) for name, times in epoch_s.items() if name != "iterator"
        },
    }


def measure(stores: Stores, options: Options) -> list[Result]:
    chosen = [case for case in BATCHES if options.chosen(f"batches, {case}")]
    shares = ("time of from_generator's", "speed of the iterator's")
    titles = ("µs per further batch", "rows/s of these", *shares, "ms to begin", "rows/s of an epoch", *shares)
    if chosen:
        print_header("TensorFlow", *titles)
    results = []
    for case in chosen:
        results.append(batch_cost(case, stores.labelled(case.layout, case.dataset), options.rounds))
        print_batches(results[-1])
    return results


def print_batches(result: Result) -> None:
    size = f"{result['what'].removeprefix('batches, ')} ({result['batch_nbytes'] / 2**20:.2g} MiB)"
    for name, us in result["further"]["us_per_batch"].items():
        print_row(
            f"{size}: {name}",
            f"{us['median']:,.0f}",
            *speed_and_shares(result["further"], name),
            f"{result['ms_to_begin'][name]['median']:.0f}",
            *speed_and_shares(result["epoch"], name),
        )


def speed_and_shares(part: Result, name: str) -> list[str]:
    shares = (part["time_of_from_generator"].get(name), part["speed_of_iterator"].get(name))
    return [f"{part['rows_per_s'][name]['median']:,.0f}", *map(shown, shares)]


def shown(share: dict[str, float] | None) -> str:
    return "-" if share is None else f"{share['median']:.2f}"
