"""How fast are rows read from each layout, shuffled and not, and how far is that from the limit?

The same array of images (64 × 64 × 3, uint8) is written in every layout, by h5py and zarr themselves. Each layout is
read by, in one run and in turn:

- ``library``     h5py or zarr, chunk by chunk, in order;
- ``random``      the naive loop, one random row at a time (a second of it);
- ``sequential``  oocload, ``shuffle=False``;
- ``shuffled``    oocload, ``shuffle=True``, default window;
- ``limit``       locate + pread + decode on all cores, rows thrown away; for raw layouts memcpy on all cores.

The page cache is warm. Every reader's bytes are checked before anything is timed.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import machine
import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

import oocload
from oocload.chunks.codecs import decode
from oocload.chunks.fetch import Files
from oocload.chunks.scratch import Scratch
from oocload.layout import ChunkGrid

ROW_SHAPE = (64, 64, 3)
CHUNK_ROWS = 256
BATCH = 256


@dataclass(frozen=True)
class Layout:
    """A way to store the images."""

    name: str
    suffix: str
    options: dict[str, Any]

    def write(self, path: Path, images: np.ndarray) -> None:
        chunks = (CHUNK_ROWS, *ROW_SHAPE)
        if self.suffix == ".h5":
            with h5py.File(path, "w") as file:
                options = {} if self.name.endswith("contiguous") else {"chunks": chunks}
                file.create_dataset("x", data=images, **options, **self.options)
            return
        options = dict(self.options)
        group = zarr.open_group(path, mode="w", zarr_format=options.pop("zarr_format", 3))
        array = group.create_array("x", shape=images.shape, dtype=images.dtype, chunks=chunks, **options)
        step = CHUNK_ROWS * 16
        for start in range(0, len(images), step):
            array[start : start + step] = images[start : start + step]


LAYOUTS = [
    Layout("HDF5 contiguous", ".h5", {}),
    Layout("HDF5 raw chunks", ".h5", {}),
    Layout("HDF5 gzip-4", ".h5", {"compression": "gzip"}),
    Layout("HDF5 shuffle+gzip-4", ".h5", {"compression": "gzip", "shuffle": True}),
    Layout("HDF5 lzf", ".h5", {"compression": "lzf"}),
    Layout("Zarr v2 raw", ".zarr", {"zarr_format": 2, "compressors": None}),
    Layout("Zarr v2 zstd", ".zarr", {"zarr_format": 2, "compressors": numcodecs.Zstd(1)}),
    Layout(
        "Zarr v2 blosc-lz4",
        ".zarr",
        {"zarr_format": 2, "compressors": numcodecs.Blosc("lz4", shuffle=numcodecs.Blosc.BITSHUFFLE)},
    ),
    Layout("Zarr v2 gzip", ".zarr", {"zarr_format": 2, "compressors": numcodecs.GZip(4)}),
    Layout("Zarr v3 raw", ".zarr", {"compressors": None}),
    Layout("Zarr v3 zstd", ".zarr", {"compressors": ZstdCodec(level=1)}),
    Layout(
        "Zarr v3 blosc-lz4",
        ".zarr",
        {"compressors": BloscCodec(cname="lz4", typesize=1, shuffle="bitshuffle")},
    ),
    Layout("Zarr v3 gzip", ".zarr", {"compressors": GzipCodec(level=4)}),
    Layout(
        "Zarr v3 sharded zstd",
        ".zarr",
        {"compressors": ZstdCodec(level=1), "shards": (16 * CHUNK_ROWS, *ROW_SHAPE)},
    ),
]


def make_images(n_rows: int) -> np.ndarray:
    """Return smooth images with some noise, which compress about as photographs do, losslessly."""
    rng = np.random.default_rng(0)
    images = np.empty((n_rows, *ROW_SHAPE), np.uint8)
    ramp = np.linspace(0, 2 * np.pi, 64)
    for i in range(n_rows):
        a, b, c, d = rng.uniform(0.3, 2, 4)
        plane = 110 + 70 * np.sin(a * ramp + 6 * c)[:, None] * np.cos(b * ramp + 6 * d)[None]
        images[i] = plane[..., None] + np.array([0, 10, 20]) + rng.integers(0, 5, ROW_SHAPE)
    return images


def open_array(path: Path) -> Any:
    return h5py.File(path)["x"] if path.suffix == ".h5" else zarr.open_group(path, mode="r")["x"]


def read_library(array: Any) -> int:
    for start in range(0, array.shape[0], CHUNK_ROWS):
        array[start : start + CHUNK_ROWS]
    return int(array.shape[0])


def read_random(array: Any, seconds: float) -> int:
    order = np.random.default_rng(0).permutation(array.shape[0])
    began = time.perf_counter()
    for n, row in enumerate(order, 1):
        array[int(row)]
        if time.perf_counter() - began > seconds:
            return n
    return len(order)


def read_loader(loader: oocload.Loader) -> int:
    n = 0
    for x in loader:
        n += len(x)
    return n


def on_all_cores(jobs: list[Callable[[], None]], n_threads: int) -> None:
    """Run jobs on threads, each taking the next one that is left."""
    left: Iterator[Callable[[], None]] = iter(jobs)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                job = next(left, None)
            if job is None:
                return
            job()

    threads = [threading.Thread(target=work) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class DecodeLimit:
    """Locate, fetch and decode every chunk on all cores; nothing is done with the rows."""

    def __init__(self, path: Path, n_threads: int) -> None:
        store = oocload.open(path)
        field = store.field("x")
        locations = store.locate("x")
        self._field = field
        self._places = [locations.find(i) for i in range(ChunkGrid(field.shape, field.chunks).n_chunks)]
        self._files = Files(keep_open=True)
        self._n_threads = n_threads
        self._local = threading.local()

    def __call__(self) -> int:
        order = np.random.default_rng(0).permutation(len(self._places))
        step = max(1, len(order) // 64)
        groups = [order[i : i + step] for i in range(0, len(order), step)]
        on_all_cores([partial(self._run, group) for group in groups], self._n_threads)
        return self._field.n_rows

    def _run(self, chunks: np.ndarray) -> None:
        if not hasattr(self._local, "scratch"):
            self._local.scratch = Scratch()
        scratch = self._local.scratch
        for chunk in chunks:
            place = self._places[chunk]
            raw = scratch.get("raw", place.nbytes)
            self._files.read(place.path, place.offset, [raw])
            decode(raw, self._field.codecs, scratch.get("out", self._field.chunk_nbytes), scratch)


class CopyLimit:
    """Copy every row once on all cores, from memory to memory."""

    def __init__(self, images: np.ndarray, n_threads: int) -> None:
        self._images = images
        self._copy = np.zeros_like(images[: 16 * CHUNK_ROWS])
        self._n_threads = n_threads

    def __call__(self) -> int:
        step, room = CHUNK_ROWS, len(self._copy)
        jobs = [
            partial(np.copyto, self._copy[i % room : i % room + len(p)], p)
            for i in range(0, len(self._images), step)
            if len(p := self._images[i : i + step]) <= room - i % room
        ]
        on_all_cores(jobs, self._n_threads)
        return len(self._images)


def check(path: Path, images: np.ndarray, loaders: dict[str, oocload.Loader]) -> None:
    """Compare what every reader delivers with the images themselves."""
    array = open_array(path)
    for start in range(0, len(images), 16 * CHUNK_ROWS):
        assert np.array_equal(array[start : start + 16 * CHUNK_ROWS], images[start : start + 16 * CHUNK_ROWS])
    for name, loader in loaders.items():
        rows = [(loader.batch_rows(i), np.array(x)) for i, x in enumerate(loader)]
        for numbers, x in rows:
            assert np.array_equal(x, images[numbers]), (path, name)
        assert np.array_equal(np.sort(np.concatenate([n for n, _ in rows])), np.arange(len(images)))


def measure(layout: Layout, folder: Path, images: np.ndarray, rounds: int, seconds: float) -> dict[str, Any]:
    path = folder / f"images{layout.suffix}"
    layout.write(path, images)
    n_threads = machine.facts("warm")["cores"]
    with (
        oocload.Loader(path, BATCH, x="x", shuffle=False) as sequential,
        oocload.Loader(path, BATCH, x="x", shuffle=True, seed=0) as shuffled,
    ):
        check(path, images, {"sequential": sequential, "shuffled": shuffled})
        raw = not sequential.fields["x"].codecs
        array = open_array(path)
        rates = machine.interleaved(
            {
                "library": partial(read_library, array),
                "random": partial(read_random, array, seconds),
                "sequential": partial(read_loader, sequential),
                "shuffled": partial(read_loader, shuffled),
                "limit": CopyLimit(images, n_threads) if raw else DecodeLimit(path, n_threads),
            },
            rounds,
        )
        facts = {"path": shuffled.stats.paths["x"], "window_rows": shuffled.window_rows, "raw": raw}
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return {"layout": layout.name, **facts, "rows_per_s": rates}


HEADER = (
    "| layout | library | random rows | oocload sequential | oocload shuffled | limit "
    "| shuffled / limit | shuffled / library |\n|---|---|---|---|---|---|---|---|"
)


def as_row(result: dict[str, Any]) -> str:
    rows = {name: r["median"] for name, r in result["rows_per_s"].items()}
    nbytes = int(np.prod(ROW_SHAPE))
    cells = [f"{v:,.0f} ({v * nbytes / 1e9:.2f})" for v in rows.values()]
    ratios = f"{rows['shuffled'] / rows['limit']:.2f} | {rows['shuffled'] / rows['library']:.1f}"
    return f"| {result['layout']} | {' | '.join(cells)} | {ratios} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32768, help="images (12 KiB each)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small size that shows it runs; its figures mean little")
    parser.add_argument("--only", default="", help="layouts whose name contains this")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--dir", help="where to put the files meanwhile")
    args = parser.parse_args()
    n_rows, rounds, seconds = (1000, 1, 0.05) if args.quick else (args.rows, args.rounds, 1.0)
    images = make_images(n_rows)
    print(f"{n_rows:,} images of 64 × 64 × 3 uint8, chunks of {CHUNK_ROWS} rows, batches of {BATCH}")
    print(f"rows/s (GB/s of decoded bytes), median of {rounds} interleaved rounds, warm page cache\n")
    print(HEADER)
    results = []
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        for layout in LAYOUTS:
            if args.only in layout.name:
                results.append(measure(layout, Path(folder), images, rounds, seconds))
                print(as_row(results[-1]), flush=True)
    machine.save(args.json, {"benchmark": "read", **machine.facts("warm"), "n_rows": n_rows, "results": results})


if __name__ == "__main__":
    main()
