"""One contender of the footprint in a process of its own: reads for a while, and says how much memory that took.

``python footprint_reader.py CONTENDER FOLDER SECONDS CEILING`` prints one line of JSON. It joins the control group that
the variable FOOTPRINT_CONTROL_GROUP names.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if "FOOTPRINT_CONTROL_GROUP" in os.environ:  # before anything is imported, so that it is all counted
    Path(os.environ["FOOTPRINT_CONTROL_GROUP"], "cgroup.procs").write_text(str(os.getpid()))

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import h5py
import machine
import numpy as np
import zarr

BATCH_ROWS = 256
SEED = 0

Batches = Iterator[Any]
Reader = Callable[[Path, int], Batches]  # (folder, ceiling) → batches


def memory(folder: Path, _: int) -> Batches:
    images = np.load(folder / "images.npy")
    yield from _gathered(images)


def memmap(folder: Path, _: int) -> Batches:
    yield from _gathered(np.load(folder / "images.npy", mmap_mode="r"))


def _gathered(images: np.ndarray) -> Batches:
    order = np.random.default_rng(SEED).permutation(len(images))
    for start in range(0, len(images), BATCH_ROWS):
        yield images[order[start : start + BATCH_ROWS]]


def h5py_fancy(folder: Path, _: int) -> Batches:
    with h5py.File(folder / "images.h5") as file:
        images = file["x"]
        order = np.random.default_rng(SEED).permutation(len(images))
        for start in range(0, len(images), BATCH_ROWS):
            yield images[np.sort(order[start : start + BATCH_ROWS])]


def h5py_chunks(folder: Path, _: int) -> Batches:
    with h5py.File(folder / "images.h5") as file:
        yield from _sliced(file["x"])


def zarr_chunks(folder: Path, _: int) -> Batches:
    yield from _sliced(zarr.open_group(folder / "images.zarr", mode="r")["x"])


def _sliced(images: Any) -> Batches:
    for start in range(0, images.shape[0], BATCH_ROWS):
        yield images[start : start + BATCH_ROWS]


class Rows:
    """What users write for a ``DataLoader``: rows of an HDF5 file that each worker opens when it first needs it."""

    def __init__(self, path: Path) -> None:
        self._path, self._images = path, None
        with h5py.File(path) as file:
            self._n_rows = len(file["x"])

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, row: int) -> np.ndarray:
        if self._images is None:
            self._images = h5py.File(self._path)["x"]
        return self._images[row]


def _torch(n_workers: int) -> Reader:
    def read(folder: Path, _: int) -> Batches:
        from torch.utils.data import DataLoader

        # forked with few threads alive; torch's own are not used by then
        return iter(DataLoader(Rows(folder / "images.h5"), BATCH_ROWS, shuffle=True, num_workers=n_workers))

    return read


def tf_generator(folder: Path, ceiling: int) -> Batches:
    import tensorflow as tf

    spec = tf.TensorSpec((None, 64, 64, 3), tf.uint8)
    data = tf.data.Dataset.from_generator(lambda: h5py_chunks(folder, ceiling), output_signature=spec)
    return iter(data.prefetch(2))


def _oocload(file: str, adapter: str) -> Reader:
    def read(folder: Path, ceiling: int) -> Batches:
        import oocload

        warnings.simplefilter("ignore", oocload.ShuffleQualityWarning)
        with oocload.Loader(folder / file, BATCH_ROWS, x="x", seed=SEED, memory=ceiling) as loader:
            if adapter == "iterator":
                yield from loader
            elif adapter == "to_keras":
                data = loader.to_keras()
                for number in range(len(data)):
                    yield data[number]
            else:
                yield from getattr(loader, adapter)()

    return read


READERS: dict[str, Reader] = {
    "whole array in memory": memory,
    "np.memmap": memmap,
    "h5py fancy index": h5py_fancy,
    "h5py chunk by chunk": h5py_chunks,
    "zarr chunk by chunk": zarr_chunks,
    "DataLoader over h5py": _torch(0),
    "DataLoader over h5py, 2 workers": _torch(2),
    "tf.data from a generator": tf_generator,
    "oocload": _oocload("images.h5", "iterator"),
    "oocload, Zarr": _oocload("images.zarr", "iterator"),
    "oocload to_keras": _oocload("images.h5", "to_keras"),
    "oocload to_tf": _oocload("images.h5", "to_tf"),
    "oocload to_torch": _oocload("images.h5", "to_torch"),
    "oocload to_jax": _oocload("images.h5", "to_jax"),
}


_FILES = {
    "whole array in memory": "images.npy",
    "np.memmap": "images.npy",
    "zarr chunk by chunk": "images.zarr",
    "oocload, Zarr": "images.zarr",
}


def file_of(name: str) -> str:
    """Return which file a contender reads."""
    return _FILES.get(name, "images.h5")


def warm_up(name: str) -> None:
    """Import what a contender needs, and have frameworks make the threads and buffers that they make once."""
    import imagecodecs

    import oocload  # noqa: F401

    for codec in ("deflate", "zstd"):
        encode, decode = (getattr(imagecodecs, f"{codec}_{what}") for what in ("encode", "decode"))
        decode(encode(b"x" * 100), out=bytearray(100))
    if "to_tf" in name or "tf.data" in name or "to_keras" in name:
        import keras  # noqa: F401
        import tensorflow as tf

        for _ in tf.data.Dataset.range(3).map(lambda i: tf.py_function(lambda j: j, [i], tf.int64)).prefetch(1):
            pass
    if "DataLoader" in name or "to_torch" in name:
        import torch

        torch.zeros(3).sum()
    if "to_jax" in name:
        import jax

        jax.numpy.zeros(3).sum().block_until_ready()


class Workers(threading.Thread):
    """Watches the memory of child processes that is theirs alone, ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._done = threading.Event()

    def run(self) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        while not self._done.wait(0.1):
            self.peak = max(self.peak, sum(map(self._own, children.read_text().split())))

    def _own(self, pid: str) -> int:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Dirty", "Private_Clean")))

    def stop(self) -> int:
        self._done.set()
        self.join()
        return self.peak


def main() -> None:
    name, folder, seconds, ceiling = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    warm_up(name)
    imports = machine.status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far
    watcher = Workers()
    if "workers" in name:
        watcher.start()
    batches = READERS[name](folder, ceiling)
    n_rows, began = 0, time.perf_counter()
    for batch in batches:
        n_rows += len(batch)
        if time.perf_counter() - began > seconds:
            break
    elapsed = time.perf_counter() - began
    del batch, batches
    others = watcher.stop() if watcher.is_alive() else 0
    result = {
        "rows": n_rows,
        "rows_per_s": n_rows / elapsed,
        "imports": imports,
        "peak_above_imports": machine.status("VmHWM") - imports + others,
    }
    print(json.dumps(result), flush=True)
    os._exit(0)  # some frameworks take seconds to leave


if __name__ == "__main__":
    main()
