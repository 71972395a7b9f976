"""Convert TFRecord files of tf.train.Example to a Zarr or HDF5 store; TensorFlow is not needed.

Features are found by looking at the first records, or named: NAME=DTYPE for one number, NAME=SHAPE:DTYPE for a fixed
shape (numbers, or the bytes that tf.io.decode_raw reads), NAME=*:DTYPE for any length, NAME=text, image or bytes.

    python scripts/convert_tfrecord.py "train-*.tfrecord" train.zarr
    python scripts/convert_tfrecord.py "train-*.tfrecord" train.zarr -f image=28,28:uint8 -f label=int64
    python scripts/convert_tfrecord.py --example example
"""

from __future__ import annotations

import argparse
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

import oocload

N_FILES, N_RECORDS, SHAPE = 4, 250, (28, 28)


def make_example(folder: Path) -> str:
    """Write a few small files, such as tf.io.TFRecordWriter writes, of images, labels and tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(N_FILES):
        with open(folder / f"train-{number:05d}-of-{N_FILES:05d}.tfrecord", "wb") as file:
            for label in rng.integers(0, 10, N_RECORDS).tolist():
                image = rng.integers(0, 256, SHAPE, dtype="uint8").tobytes()
                tokens = rng.integers(0, 128, rng.integers(1, 9)).astype("uint8").tobytes()  # each one byte as a varint
                features = {"image": part(1, part(1, image)), "label": part(3, part(1, bytes([label])))}
                features["tokens"] = part(3, part(1, tokens))
                entries = [part(1, part(1, name.encode()) + part(2, value)) for name, value in features.items()]
                data = part(1, b"".join(entries))
                length = struct.pack("<Q", len(data))
                file.write(length + masked_crc(length) + data + masked_crc(data))
    return str(folder / "train-*.tfrecord")


def part(number: int, data: bytes) -> bytes:
    """Encode a field of a protocol buffer that has a length."""
    size, length = len(data), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + data


def masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def feature(said: str) -> tuple[str, Any]:
    """Read NAME=SHAPE:DTYPE."""
    name, _, what = said.partition("=")
    shape, _, dtype = what.rpartition(":")
    axes = tuple(None if n == "*" else int(n) for n in shape.split(",") if n)
    return name, (axes, dtype) if shape else dtype


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", help="a file, or a glob in quotes")
    parser.add_argument("target", nargs="?", help="the store: .zarr or .h5")
    parser.add_argument("--example", metavar="FOLDER", type=Path, help="make small files there, and convert those")
    parser.add_argument("-f", "--feature", type=feature, action="append", help="take this feature; repeatable")
    parser.add_argument("--on-error", choices=["raise", "skip"], default="raise", help="what damaged records become")
    parser.add_argument("--memory", help="ceiling, such as '256 MiB'")
    args = parser.parse_args()
    source, target, features = args.source, args.target, dict(args.feature or ()) or None
    if args.example is not None:
        source, target = make_example(args.example), str(args.example / "train.zarr")
        features = features or {"image": (SHAPE, "uint8"), "label": "int64", "tokens": (None, "int64")}
    if source is None or target is None:
        parser.error("SOURCE and TARGET must be given, or --example FOLDER")
    records = oocload.sources.TFRecordSource(source, features=features, on_error=args.on_error)
    report = oocload.convert(records, target, memory=args.memory, resume=True)
    print(report)
    for where, reason in report.skipped:
        print(f"skipped {where}: {reason}")
    print(oocload.open(target))


if __name__ == "__main__":
    main()
