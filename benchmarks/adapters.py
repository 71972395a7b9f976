"""What does a framework's way of taking batches cost?

- **batches**: `to_tf()` against `tf.data.Dataset.from_generator` over an equal loader, and against the plain iterator;
  uncompressed HDF5, images of 12 KiB in batches of 3 and 12 MiB, rows of 784 bytes in batches of 24 KiB and 1.1 MiB; of
  the batches of 3 MiB, in the order of the file as well, and from gzip.
- **TFRecord**: `to_tf()` against TFRecord files of the same images, read as an expert does, with as many rows in the
  shuffle buffer as in the loader's window; both uncompressed, then both gzip.
- **Keras**: how often ``model.fit(shuffle=True)`` over `to_keras()` has each row decoded per epoch, by 1 and 4 workers.

A dataset is consumed by a Python loop that touches nothing, and by a loop inside a ``tf.function``. TensorFlow takes
tens of milliseconds to make an iterator, however long the epoch is. So what a further batch takes is the difference
between some epochs by one iterator (``dataset.repeat``) and one epoch. The page cache is warm; what is delivered is
checked before anything is timed.

Examples::

    python benchmarks/adapters.py --json result.json
    python benchmarks/adapters.py --only "digits, 32"
    python benchmarks/adapters.py --quick
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import machine
import numpy as np
import tensorflow as tf
from consumers import IN_FUNCTION, WAYS, Runs, both_ways, check_rows, equal_batches, plain_epoch, ratio, write_labelled
from datasets import DATASETS, Dataset
from lineup import Stored
from overheads import DIGIT_CHUNK_ROWS, DIGIT_NBYTES, make_digits, print_header, print_row
from tfrecord import COMPRESSION, PIPELINES, tfrecord_cost

import oocload


@dataclass(frozen=True)
class Case:
    """Which rows are batched, and how many epochs one iterator goes through: more where reading is fast."""

    dataset: Dataset
    batch_rows: int
    n_epochs: int
    layout: str = "HDF5 contiguous"
    shuffle: bool = True

    def __str__(self) -> str:
        layout = "" if self.layout == "HDF5 contiguous" else f", {self.layout}"
        return f"{self.dataset.name}, {self.batch_rows}{layout}{'' if self.shuffle else ', in order'}"


IMAGES = DATASETS["images"]
DIGITS = Dataset("digits", (DIGIT_NBYTES,), np.dtype("u1"), DIGIT_CHUNK_ROWS, 32, 262_144, 10_000, make_digits)
BATCHES = (
    Case(IMAGES, 256, 9),
    Case(IMAGES, 256, 9, shuffle=False),
    Case(IMAGES, 256, 3, layout="HDF5 gzip-4"),
    Case(IMAGES, 1024, 9),
    Case(DIGITS, 32, 2),
    Case(DIGITS, 1500, 9),
)
MEMORY = "1 GiB"
WORKERS = (1, 4)
N_EPOCHS = 10

Result = dict[str, Any]
ByRound = dict[str, list[float]]


def make(dataset: Dataset, quick: bool) -> np.ndarray:
    return dataset.make(dataset.quick_rows if quick else dataset.n_rows)


def from_generator(loader: oocload.Loader) -> Any:
    signature = tuple(tf.TensorSpec((None, *f.row_shape), f.dtype) for f in loader.fields.values())
    return tf.data.Dataset.from_generator(lambda: iter(loader), output_signature=signature)


def batch_cost(case: Case, stored: Stored, rounds: int) -> Result:
    """Compare who takes the same batches, each from a loader of its own: one epoch, and several by one iterator."""
    n_rows = len(stored.array)
    batch_rows = min(case.batch_rows, n_rows // 2)
    with ExitStack() as stack:
        plain, ours, other = (
            stack.enter_context(oocload.Loader(stored.path, batch_rows, shuffle=case.shuffle, seed=0, memory=MEMORY))
            for _ in range(3)
        )
        datasets = {"to_tf": ours.to_tf(), "from_generator": from_generator(other)}
        check_rows(equal_batches(plain, datasets), stored.array)
        one, several = (consumers(plain, datasets, n) for n in (1, case.n_epochs))
        rates = machine.by_round(one | {f"{name}, several": run for name, run in several.items()}, rounds)
        facts = {
            "n_rows": n_rows,
            "batch_rows": batch_rows,
            "batch_nbytes": batch_rows * sum(f.row_nbytes for f in plain.fields.values()),
            "n_batches": len(plain),
            "n_epochs": case.n_epochs,
            "window_rows": plain.window_rows,
        }
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


def measure_batches(folder: Path, args: argparse.Namespace) -> list[Result]:
    shares = ("time of from_generator's", "speed of the iterator's")
    print_header("", "µs per further batch", "rows/s of these", *shares, "ms to begin", "rows/s of an epoch", *shares)
    results = []
    for case in BATCHES:
        if args.only not in f"batches, {case}":
            continue
        with tempfile.TemporaryDirectory(dir=folder) as inner:
            stored = write_labelled(case.layout, case.dataset, make(case.dataset, args.quick), Path(inner))
            results.append(batch_cost(case, stored, args.rounds))
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


def measure_tfrecord(folder: Path, args: argparse.Namespace) -> list[Result]:
    titles = [name + way for way in WAYS for name in ("to_tf", *PIPELINES)]
    print_header("rows/s", *titles, "to_tf / faster TFRecord", "the same" + IN_FUNCTION)
    results = []
    for layout in COMPRESSION:
        if args.only not in f"TFRecord, {layout}":
            continue
        with tempfile.TemporaryDirectory(dir=folder) as inner:
            stored = write_labelled(layout, IMAGES, make(IMAGES, args.quick), Path(inner))
            results.append(tfrecord_cost(stored, args.rounds))
        speeds, shares = results[-1]["rows_per_s"], results[-1]["speed_of_faster"].values()
        print_row(layout, *(f"{speeds[title]['median']:,.0f}" for title in titles), *map(shown, shares))
    return results


def measure_keras(folder: Path, args: argparse.Namespace) -> list[Result]:
    print_header(f"{N_EPOCHS} epochs of fit(shuffle=True)", "times each row is decoded per epoch")
    chosen = [n for n in WORKERS if args.only in f"Keras, workers={n}"]
    if not chosen:
        return []
    stored = write_labelled("HDF5 gzip-4", IMAGES, make(IMAGES, args.quick), folder)
    results = []
    for n_workers in chosen:
        results.append(decoded_by_fit(stored, n_workers))
        print_row(f"workers={n_workers}", f"{results[-1]['decoded_per_epoch']:.3f}")
    return results


def decoded_by_fit(stored: Stored, n_workers: int) -> Result:
    """Train for some epochs; return how often rows were decoded per epoch, and by the end of each."""
    with oocload.Loader(stored.path, stored.dataset.batch_rows, seed=0, memory=MEMORY) as loader:
        epoch_nbytes = len(stored.array) * sum(f.row_nbytes for f in loader.fields.values())

        def decoded() -> float:
            return loader.stats.decoded_bytes / epoch_nbytes

        by_end: list[float] = []
        notes = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: by_end.append(decoded()))
        data = loader.to_keras(workers=n_workers)
        small_model().fit(data, epochs=N_EPOCHS, shuffle=True, verbose=0, callbacks=[notes])
        return {
            "what": f"Keras, workers={n_workers}",
            "n_rows": len(stored.array),
            "window_rows": loader.window_rows,
            "epochs": N_EPOCHS,
            "decoded_by_epoch_end": by_end,
            "decoded_per_epoch": decoded() / N_EPOCHS,
        }


def small_model() -> keras.Model:
    layers = keras.layers
    images = keras.Input(IMAGES.row_shape, dtype="uint8")
    model = keras.Sequential([images, layers.Rescaling(1 / 255), layers.GlobalAveragePooling2D(), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


PARTS: dict[str, Callable[[Path, argparse.Namespace], list[Result]]] = {
    "batches": measure_batches,
    "TFRecord": measure_tfrecord,
    "Keras": measure_keras,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help='cases whose name contains this: "digits, 32", "gzip", "Keras"')
    parser.add_argument("--quick", action="store_true", help="a small size that shows it runs; its figures mean little")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--dir", help="where to put the files meanwhile: up to 1 GB")
    args = parser.parse_args()
    if args.quick:
        args.rounds = 1
    warnings.simplefilter("ignore", oocload.ShuffleQualityWarning)
    warnings.filterwarnings("ignore", "`shuffle=True` was passed", UserWarning)
    print(f"medians of {args.rounds} interleaved rounds, warm page cache", flush=True)
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        results = {name: measure(Path(folder), args) for name, measure in PARTS.items()}
    facts = machine.facts("warm")
    facts["versions"]["tensorflow"] = tf.__version__  # its package may have another name
    machine.save(args.json, {"benchmark": "adapters", **facts, "results": results})


if __name__ == "__main__":
    main()
