"""How fast are TFRecord files converted to Zarr, beside a loop over tf.data that parses them and writes with zarr?

The contenders of `cases`, as `convert.py` times them: "oocload", and "tf.data", which parses batches of records with
all cores, decodes the bytes of images, and appends to a Zarr array of the same chunks and codec. What both write is
compared before anything is timed. Run by itself, it times plain and GZIP files of images of 12 KiB and of 784 bytes.

Example::

    python benchmarks/source_tfrecord.py --rounds 5 --json result.json
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import machine
import numpy as np
import tensorflow as tf
import zarr
from conversions import ZSTD_LEVEL, Case, remove
from store_statistics import counted, ratios
from zarr.codecs import ZstdCodec

import oocload

_CHUNK_NBYTES = 2**19
_FORMS = {"plain": "", "GZIP": "GZIP"}
_PARSED = {"x": tf.io.FixedLenFeature([], tf.string), "y": tf.io.FixedLenFeature([], tf.int64)}

Result = dict[str, Any]


def cases(row_shape: tuple[int, ...]) -> dict[str, Case]:
    """Return question → its case."""
    return {
        f"TFRecord, {name}": Case(f"rows-{name}.tfrecord", "out.zarr", _contenders(row_shape, compression))
        for name, compression in _FORMS.items()
    }


def _contenders(row_shape: tuple[int, ...], compression: str) -> dict[str, Any]:
    height = max(1, _CHUNK_NBYTES // int(np.prod(row_shape)))

    def by_oocload(source: Path, target: Path) -> None:
        records = oocload.sources.TFRecordSource(source, features={"x": (row_shape, "uint8"), "y": "int64"})
        oocload.convert(
            records, target, codec="zstd", level=ZSTD_LEVEL, chunk_rows=height, chunks_per_shard=1, progress=False
        )

    def by_tf_data(source: Path, target: Path) -> None:
        def parse(records: Any) -> Any:
            found = tf.io.parse_example(records, _PARSED)
            return tf.reshape(tf.io.decode_raw(found["x"], tf.uint8), (-1, *row_shape)), found["y"]

        dataset = tf.data.TFRecordDataset(str(source), compression).batch(height)
        dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
        group = zarr.open_group(target, mode="w")
        options: dict[str, Any] = {"compressors": ZstdCodec(level=ZSTD_LEVEL)}
        x = group.create_array("x", shape=(0, *row_shape), dtype="u1", chunks=(height, *row_shape), **options)
        y = group.create_array("y", shape=(0,), dtype="i8", chunks=(height,), **options)
        for images, labels in dataset.as_numpy_iterator():
            x.append(images)
            y.append(labels)

    return {"oocload": by_oocload, "tf.data": by_tf_data}


def write_sources(folder: Path, rows: np.ndarray) -> None:
    """Write rows, numbered, as the sources of all cases, with TensorFlow's own writer."""
    for name, compression in _FORMS.items():
        with tf.io.TFRecordWriter(str(folder / f"rows-{name}.tfrecord"), compression) as file:
            for record in _examples(rows):
                file.write(record)


def _examples(rows: np.ndarray) -> Iterator[bytes]:
    for number, row in enumerate(rows):
        x = tf.train.Feature(bytes_list=tf.train.BytesList(value=[row.tobytes()]))
        y = tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))
        yield tf.train.Example(features=tf.train.Features(feature={"x": x, "y": y})).SerializeToString()


def measure(folder: Path, rows: np.ndarray, rounds: int) -> Result:
    """Compare what is written, then time the contenders in turn."""
    write_sources(folder, rows)
    found: Result = {}
    for question, case in cases(rows.shape[1:]).items():
        source, target = folder / case.source, folder / case.target
        for convert in case.contenders.values():
            convert(source, target)
            group = zarr.open_group(target, mode="r")
            assert np.array_equal(group["x"][:], rows)
            assert np.array_equal(group["y"][:], np.arange(len(rows)))
            remove(target)

        def clear(target: Path = target) -> None:
            remove(target)
            os.sync()

        runs = {n: partial(counted, partial(c, source, target), len(rows)) for n, c in case.contenders.items()}
        rates = machine.by_round(runs, rounds, clear)
        clear()
        remove(source)
        found[question] = {
            "mb_per_s": {n: machine.spread([r * rows[0].nbytes / 1e6 for r in v]) for n, v in rates.items()},
            "oocload_is_times_tf_data": ratios(rates, "oocload", "tf.data"),
        }
        print(question, found[question], flush=True)
    return found


def pictures(n_rows: int, row_shape: tuple[int, ...]) -> np.ndarray:
    """Return images of few brightnesses, which can be compressed."""
    return np.random.default_rng(0).integers(0, 32, (n_rows, *row_shape), dtype="uint8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nbytes", type=int, default=100_000_000, help="of each array")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--dir", help="where to put the files meanwhile")
    args = parser.parse_args()
    results: Result = {}
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        for shape in ((64, 64, 3), (28, 28)):
            rows = pictures(max(8, args.nbytes // int(np.prod(shape))), shape)
            results["x".join(map(str, shape))] = measure(Path(name), rows, args.rounds)
    machine.save(args.json, {"benchmark": "source_tfrecord", **machine.facts("warm"), "results": results})


if __name__ == "__main__":
    main()
