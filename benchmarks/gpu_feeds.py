"""Who brings batches of images to a device for `gpu.py`, beside the loader: the usual way, and a bare copy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np
import torch
from hdf5_rows import Hdf5Rows
from torch.utils.data import DataLoader, RandomSampler

import oocload

MEMORY = "2 GiB"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOST_WORKERS = 8
_N_IMAGES = 64  # that differ in more than brightness
_PREFETCH = 2  # batches of each worker; PyTorch's default

Feed = Callable[[bool], Iterator[Any]]  # whether images become floats → batches of one epoch


@dataclass(frozen=True)
class Size:
    """The images, and how many batches each step is given."""

    row_shape: tuple[int, int, int]
    n_rows: int
    batch_rows: int
    n_batches: dict[str, int]

    @property
    def batch_nbytes(self) -> int:
        return self.batch_rows * int(np.prod(self.row_shape))


def write_images(path: Path, size: Size) -> np.ndarray:
    """Write images of random bytes, no two alike, and their numbers as labels; return the images."""
    first = np.random.default_rng(0).integers(0, 256, (_N_IMAGES, *size.row_shape), np.uint8)
    assert size.n_rows <= _N_IMAGES * 256, f"there are {_N_IMAGES * 256} such images"
    images = np.empty((size.n_rows, *size.row_shape), np.uint8)
    for start in range(0, size.n_rows, _N_IMAGES):
        piece = images[start : start + _N_IMAGES]
        np.add(first[: len(piece)], np.uint8(start // _N_IMAGES), out=piece)
    with h5py.File(path, "w") as file:
        file["x"] = images
        file["y"] = np.arange(size.n_rows, dtype=np.int32)
    return images


def floats() -> oocload.Floats:
    """Return the usual normalisation, of rows of (3, height, width)."""
    return oocload.Floats(mean=np.reshape(MEAN, (3, 1, 1)), std=np.reshape(STD, (3, 1, 1)))


def some(epoch: Callable[[], Iterable[Any]], n_batches: int) -> Iterator[Any]:
    """Yield so many batches, of as many epochs as that takes."""
    return islice(chain.from_iterable(run() for run in repeat(epoch)), n_batches)


def n_workers(batch_nbytes: int) -> int:
    """Return the workers that a `DataLoader` gets: one a core, of which all batches under way fit into /dev/shm."""
    free = os.statvfs("/dev/shm")
    most = free.f_bavail * free.f_frsize // (batch_nbytes * (_PREFETCH + 1))
    return int(min(machine.n_cores(), MOST_WORKERS, most))


class PinnedLoader:
    """The usual loader: rows of h5py, collated by workers that live on, pinned, and copied without waiting."""

    def __init__(self, path: Path, size: Size, n_batches: int, device: Any) -> None:
        rows: Any = Hdf5Rows(path)
        workers = n_workers(size.batch_nbytes)
        self._device = device
        self._data = DataLoader(
            rows,
            size.batch_rows,
            sampler=RandomSampler(rows, num_samples=min(n_batches * size.batch_rows, size.n_rows)),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )
        self._numbers = tuple(torch.tensor(v, device=device).reshape(3, 1, 1) for v in (MEAN, STD))

    def __call__(self, as_floats: bool) -> Iterator[Any]:
        mean, std = self._numbers
        for x, y in self._data:
            x, y = (part.to(self._device, non_blocking=True) for part in (x, y))
            yield (x.float().div_(255).sub_(mean).div_(std) if as_floats else x), y


class BareCopy:
    """Copies batches out of as much memory as the loader's, pinned for a GPU, to batches that are there already."""

    def __init__(self, nbytes: int, batch_nbytes: int, device: Any) -> None:
        on_gpu = device.type == "cuda"
        n_sources = max(1, nbytes // batch_nbytes)
        self.nbytes = n_sources * batch_nbytes
        self._sources = [torch.ones(batch_nbytes, dtype=torch.uint8, pin_memory=on_gpu) for _ in range(n_sources)]
        self._targets = [torch.zeros(batch_nbytes, dtype=torch.uint8, device=device) for _ in range(3)]

    def __call__(self, n_batches: int) -> None:
        for number in range(n_batches):
            source = self._sources[number % len(self._sources)]
            self._targets[number % len(self._targets)].copy_(source, non_blocking=True)
