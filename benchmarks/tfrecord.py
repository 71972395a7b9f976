"""Rows in TFRecord files as an expert reads them: shards interleaved, shuffled and parsed in parallel."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import machine
import numpy as np
import tensorflow as tf
from batch_cases import IMAGES, Options, Stores
from consumers import Runs, check_rows, ratio
from lineup import Stored
from overheads import print_header, print_row
from tf_loops import IN_FUNCTION, WAYS, both_ways

import oocload

N_SHARDS = 16
COMPRESSION = {"HDF5 contiguous": "", "HDF5 gzip-4": "GZIP"}  # of a layout's counterpart
WINDOW_ROWS = 8192  # of 12 KiB: 96 MiB
_CYCLE = 8  # shards that are read at a time
_LEVEL = 4  # of gzip, as in HDF5
_FORM = {"x": tf.io.FixedLenFeature([], tf.string), "y": tf.io.FixedLenFeature([], tf.int64)}


def write_shards(folder: Path, array: np.ndarray, compression: str) -> list[str]:
    """Write rows, and their numbers as labels, to `N_SHARDS` files."""
    options = tf.io.TFRecordOptions(compression_type=compression, compression_level=_LEVEL if compression else None)
    paths = [str(folder / f"{i:02}.tfrecord") for i in range(N_SHARDS)]
    for path, numbers in zip(paths, np.array_split(np.arange(len(array)), N_SHARDS), strict=True):
        with tf.io.TFRecordWriter(path, options) as file:
            for number in numbers:
                file.write(_example(array[number], int(number)))
    return paths


def _example(row: np.ndarray, label: int) -> bytes:
    x = tf.train.Feature(bytes_list=tf.train.BytesList(value=[row.tobytes()]))
    y = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    return tf.train.Example(features=tf.train.Features(feature={"x": x, "y": y})).SerializeToString()


class Shards:
    """Written shards.

    Parameters
    ----------
    array
        What was written; gives the shape and type of a row.
    shuffle_rows
        Rows of the shuffle buffer.

    """

    def __init__(
        self, paths: Sequence[str], compression: str, array: np.ndarray, batch_rows: int, shuffle_rows: int
    ) -> None:
        self._paths, self._compression = list(paths), compression
        self._row_shape, self._dtype = array.shape[1:], tf.as_dtype(array.dtype)
        self._batch_rows, self._shuffle_rows = batch_rows, shuffle_rows

    def parsed_after_batching(self) -> Any:
        """Return batches of which each is parsed by one call."""

        def parse(records: Any) -> tuple[Any, Any]:
            fields = tf.io.parse_example(records, _FORM)
            rows = tf.io.decode_raw(fields["x"], self._dtype)
            return tf.reshape(rows, (-1, *self._row_shape)), fields["y"]

        batches = self._records().batch(self._batch_rows)
        return batches.map(parse, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def parsed_before_batching(self) -> Any:
        """Return batches of rows that were parsed one by one."""

        def parse(record: Any) -> tuple[Any, Any]:
            fields = tf.io.parse_single_example(record, _FORM)
            return tf.reshape(tf.io.decode_raw(fields["x"], self._dtype), self._row_shape), fields["y"]

        rows = self._records().map(parse, tf.data.AUTOTUNE)
        return rows.batch(self._batch_rows, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def _records(self) -> Any:
        files = tf.data.Dataset.from_tensor_slices(self._paths).shuffle(len(self._paths), seed=0)
        records = files.interleave(self._open, _CYCLE, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        options = tf.data.Options()
        options.deterministic = False
        return records.shuffle(self._shuffle_rows, seed=0).with_options(options)

    def _open(self, path: Any) -> Any:
        return tf.data.TFRecordDataset(path, self._compression)


PIPELINES: dict[str, Callable[[Shards], Any]] = {
    "parsed after batching": Shards.parsed_after_batching,
    "parsed before batching": Shards.parsed_before_batching,
}


def measure(stores: Stores, options: Options) -> list[dict[str, Any]]:
    chosen = [layout for layout in COMPRESSION if options.chosen(f"TFRecord, {layout}")]
    titles = [name + way for way in WAYS for name in ("to_tf", *PIPELINES)]
    if chosen:
        print_header("rows/s", *titles, "to_tf / faster TFRecord", "the same" + IN_FUNCTION)
    results = []
    for layout in chosen:
        results.append(tfrecord_cost(stores.labelled(layout, IMAGES), options.rounds))
        speeds, shares = results[-1]["rows_per_s"], results[-1]["speed_of_faster"].values()
        cells = (f"{speeds[title]['median']:,.0f}" for title in titles)
        print_row(layout, *cells, *(f"{share['median']:.2f}" for share in shares))
    return results


def tfrecord_cost(stored: Stored, rounds: int) -> dict[str, Any]:
    """Compare `to_tf()` with TFRecord files of the same rows, through shuffles of as many rows."""
    array, batch_rows = stored.array, stored.dataset.batch_rows
    compression = COMPRESSION[stored.layout.name]
    window = oocload.Shuffle(window_rows=min(WINDOW_ROWS, len(array) // 4))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=stored.path.parent))
        paths = write_shards(Path(folder), array, compression)
        loader = oocload.Loader(stored.path, batch_rows, seed=0, shuffle=window, memory="1 GiB")
        stack.enter_context(loader)
        shards = Shards(paths, compression, array, batch_rows, loader.window_rows)
        datasets = {"to_tf": loader.to_tf(), **{name: pipeline(shards) for name, pipeline in PIPELINES.items()}}
        runs: Runs = {}
        for name, dataset in datasets.items():
            check_rows(dataset, array)
            runs |= both_ways(name, dataset, len(array))
        rates = machine.by_round(runs, rounds)
        window_rows = loader.window_rows
        stored_nbytes = {"to_tf": stored.path.stat().st_size, "TFRecord": sum(map(os.path.getsize, paths))}
    speeds = {name: machine.spread(values) for name, values in rates.items()}
    faster = {way: max(PIPELINES, key=lambda name: speeds[name + way]["median"]) for way in WAYS}
    return {
        "what": f"TFRecord, {stored.layout.name}",
        "n_rows": len(array),
        "window_rows": window_rows,
        "stored_nbytes": stored_nbytes,
        "rows_per_s": speeds,
        "faster": {"plain": faster[""], "in a function": faster[IN_FUNCTION]},
        "speed_of_faster": {"to_tf" + way: ratio(rates["to_tf" + way], rates[faster[way] + way]) for way in WAYS},
    }
