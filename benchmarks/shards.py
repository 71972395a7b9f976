"""What does a Zarr chunk cost that has a file of its own, and what one that shares a shard?

Stores of some hundred to many thousand chunks of images: a file for each chunk in folders of its own (``c/7/0/0/0``, as
zarr-python names it), a file for each in one folder (``c.7.0.0.0``), or shards of 16, 64 and 256. Taken per chunk:
writing the files, without encoding; opening with oocload; listing and removing; reading every chunk with oocload, in
order and shuffled, and a sample of them with zarr-python. Chunks are small, so that it is the files that cost.

Run it: ``python benchmarks/shards.py``.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import google_crc32c
import machine
import numpy as np
import zarr
from overheads import print_header, print_row

import oocload
from oocload.convert.encode import Encoding, encoder_for, zarr_codecs

HEIGHT, ROW = 16, (8, 8, 8)  # of a chunk of 8 KiB
SAMPLE = 500  # chunks that zarr-python reads
COUNTS = (100, 1_000, 10_000, 100_000)
LAYOUTS = {"a file each": (1, "/"), "a file each, flat": (1, "."), "16": (16, "/"), "64": (64, "/"), "256": (256, "/")}
STEPS = ("write", "open", "list", "in order", "shuffled", "zarr-python", "remove")


def write(path: Path, rows: np.ndarray, per_shard: int, separator: str) -> float:
    """Write a store of one array; return the seconds that its chunk files took."""
    encoding = Encoding("zstd", 1)
    zarr.open_group(path, mode="w-", zarr_format=3).create_array(
        "x",
        shape=rows.shape,
        dtype=rows.dtype,
        chunks=(HEIGHT, *ROW),
        shards=None if per_shard == 1 else (HEIGHT * per_shard, *ROW),
        chunk_key_encoding={"name": "default", "separator": separator},
        **zarr_codecs(encoding, rows.dtype, 3),
    )
    encode = encoder_for("zarr3", encoding, rows.dtype, (HEIGHT, *ROW))
    chunks = [bytes(encode(rows[start : start + HEIGHT]).data) for start in range(0, len(rows), HEIGHT)]
    began = time.perf_counter()
    for number in range(0, len(chunks), per_shard):
        place = path / "x" / separator.join(["c", str(number // per_shard), *("0" for _ in ROW)])
        if separator == "/":
            place.parent.mkdir(parents=True)
        with open(place, "wb", buffering=0) as file:
            if per_shard == 1:
                file.write(chunks[number])
            else:
                write_shard(file, chunks[number : number + per_shard], per_shard)
    return time.perf_counter() - began


def write_shard(file: Any, chunks: list[bytes], per_shard: int) -> None:
    """Write chunks one after the other, and the index with its checksum (Zarr v3, codec "sharding_indexed")."""
    at, index = 0, b""
    for chunk in chunks:
        file.write(chunk)
        index += struct.pack("<2Q", at, len(chunk))
        at += len(chunk)
    index += b"\xff" * (16 * (per_shard - len(chunks)))
    file.write(index + struct.pack("<I", google_crc32c.value(index)))


def read_all(path: Path, shuffle: bool) -> int:
    """Read every row with oocload; return their sum, so that it is known that they are right."""
    with oocload.Loader(path, batch_size=1024, x="x", shuffle=shuffle, seed=0) as loader:
        return sum(int(batch.sum(dtype=np.int64)) for batch in loader)


def read_sample(path: Path, starts: np.ndarray) -> int:
    """Read some chunks with zarr-python; return their sum."""
    array: Any = zarr.open_group(path, mode="r")["x"]
    return sum(int(array[start : start + HEIGHT].sum(dtype=np.int64)) for start in starts)


def timed(run: Callable[[], int], expected: int | None = None) -> float:
    began = time.perf_counter()
    got = run()
    took = time.perf_counter() - began
    assert expected is None or got == expected
    return took


def measure_store(folder: Path, n_chunks: int, name: str) -> dict[str, Any]:
    """Return microseconds per chunk of each step."""
    rows = np.random.default_rng(0).integers(0, 16, (n_chunks * HEIGHT, *ROW), np.uint8)
    path = folder / "x.zarr"
    sample = np.random.default_rng(1).integers(0, n_chunks, min(SAMPLE, n_chunks)) * HEIGHT
    total = int(rows.sum(dtype=np.int64))
    part = sum(int(rows[start : start + HEIGHT].sum(dtype=np.int64)) for start in sample)
    seconds = {"write": write(path, rows, *LAYOUTS[name])}
    seconds["open"] = timed(lambda: len(oocload.open(path).fields), 1)
    seconds["list"] = timed(lambda: sum(len(files) for _, _, files in os.walk(path)))
    seconds["in order"] = timed(lambda: read_all(path, False), total)
    seconds["shuffled"] = timed(lambda: read_all(path, True), total)
    seconds["zarr-python"] = timed(lambda: read_sample(path, sample), part) * n_chunks / len(sample)
    files, used = usage(path)
    seconds["remove"] = timed(lambda: shutil.rmtree(path) or 0)
    return {
        "n_chunks": n_chunks,
        "layout": name,
        "chunk_nbytes": HEIGHT * prod(ROW),
        "inodes": files,
        "disk_nbytes": used,
        "us_per_chunk": {step: took / n_chunks * 1e6 for step, took in seconds.items()},
    }


def usage(path: Path) -> tuple[int, int]:
    """Return the files and folders of a store, and the bytes that they take on the disk."""
    found = [os.stat(p) for p in walk(path)]
    return len(found), sum(status.st_blocks * 512 for status in found)


def walk(path: Path) -> Iterator[str]:
    for folder, _, files in os.walk(path):
        yield folder
        yield from (os.path.join(folder, name) for name in files)


def measure(
    folder: str | None = None, rounds: int = 3, quick: bool = False, json: str | None = None
) -> list[dict[str, Any]]:
    """Measure all stores; print a row for each, and return what was measured, the fastest of some rounds."""
    print_header("chunks, in a shard", *(f"{step}, µs" for step in STEPS), "inodes", "MiB on disk")
    results = []
    for n_chunks in COUNTS[:1] if quick else COUNTS:
        for name, (per_shard, _) in LAYOUTS.items():
            if per_shard > n_chunks:
                continue
            tries = []
            for _ in range(1 if quick or n_chunks > 10_000 else rounds):
                with tempfile.TemporaryDirectory(dir=folder) as own:
                    tries.append(measure_store(Path(own), n_chunks, name))
            best = {step: min(t["us_per_chunk"][step] for t in tries) for step in STEPS}
            result = {**tries[0], "us_per_chunk": best}
            results.append(result)
            shown = (f"{best[step]:.1f}" for step in STEPS)
            print_row(f"{n_chunks:,}, {name}", *shown, f"{result['inodes']:,}", f"{result['disk_nbytes'] / 2**20:.1f}")
    machine.save(json, {"benchmark": "shards", **machine.facts("warm"), "results": results})
    return results


if __name__ == "__main__":
    measure()
