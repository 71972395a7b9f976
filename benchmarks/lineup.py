"""Who reads an array in one layout: its own library, others of the same format, gathering, oocload, and the limit."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from operator import getitem
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np
import zarr
from contenders import (
    HAS_TENSORSTORE,
    HAS_ZARRS,
    ArrayReader,
    Contender,
    Gather,
    LoaderReader,
    NpyReader,
    RandomRows,
    TensorStoreReader,
    ZarrsReader,
)
from datasets import WINDOW_CHUNKS, Dataset
from layouts import Layout, map_rows
from limits import CopyLimit, DecodeLimit

import oocload

_take = partial(np.take, axis=0)


@dataclass(frozen=True)
class Stored:
    """An array in one layout on disk."""

    dataset: Dataset
    layout: Layout
    path: Path
    array: np.ndarray

    @property
    def chunk_rows(self) -> int:
        return self.dataset.chunk_rows

    def loader(self, shuffle: bool) -> oocload.Loader:
        return oocload.Loader(self.path, self.dataset.batch_rows, x="x", shuffle=shuffle, seed=0)


def _open_array(stored: Stored, stack: ExitStack) -> Any:
    """Open the array by the library of its format."""
    if stored.path.suffix == ".h5":
        return stack.enter_context(h5py.File(stored.path))["x"]
    return map_rows(stored.path) if stored.path.suffix == ".npy" else zarr.open_group(stored.path, mode="r")["x"]


def _library_readers(stored: Stored, array: Any) -> dict[str, Contender]:
    """Return what reads the array in order through its own library, and through others of the same format."""
    if stored.path.suffix == ".npy":
        return {"library": NpyReader(stored.path, stored.chunk_rows)}
    readers: dict[str, Contender] = {"library": ArrayReader(array, stored.chunk_rows)}
    if (version := stored.layout.zarr_format) is None:
        return readers
    window_rows = WINDOW_CHUNKS * stored.chunk_rows
    readers["library windows"] = ArrayReader(array, window_rows)
    if HAS_ZARRS:
        readers["zarrs"] = ZarrsReader(stored.path, stored.chunk_rows)
        readers["zarrs windows"] = ZarrsReader(stored.path, window_rows)
    if HAS_TENSORSTORE:
        in_flight = machine.n_cores()
        readers["tensorstore"] = TensorStoreReader(stored.path, version, stored.chunk_rows, in_flight)
        readers["tensorstore windows"] = TensorStoreReader(stored.path, version, window_rows, 1)
    return readers


def _gatherers(stored: Stored) -> dict[str, Contender]:
    """Return what gathers batches from anywhere: of the file where it can be mapped, and of memory."""
    batch_rows, mapped = stored.dataset.batch_rows, map_rows(stored.path)
    readers: dict[str, Contender] = {"memory": Gather(lambda: stored.array, batch_rows, _take)}
    if mapped is not None:
        # Mapped once, as over many epochs: the page faults of the first pass are not in the figures.
        readers["memmap"] = Gather(lambda: mapped, batch_rows, getitem)
        readers["memmap take"] = Gather(lambda: mapped, batch_rows, _take)
    return readers


def _limit(stored: Stored, loader: oocload.Loader) -> dict[str, Contender]:
    """Return the bound; a field that oocload leaves to a library has none."""
    field, n_threads = loader.fields["x"], machine.n_cores()
    if field.read_path != "direct":
        return {}
    if field.codecs:
        return {"limit": DecodeLimit(stored.path, n_threads)}
    return {"limit": CopyLimit(stored.array, stored.chunk_rows, n_threads)}


def warm_contenders(stored: Stored, naive_s: float, stack: ExitStack) -> dict[str, Contender]:
    """Return all contenders on a file in the page cache; the stack closes what they hold."""
    sequential, shuffled = (stack.enter_context(stored.loader(shuffle)) for shuffle in (False, True))
    array = _open_array(stored, stack)
    contenders = {
        **_library_readers(stored, array),
        "random": RandomRows(array, naive_s),
        **_gatherers(stored),
        **_limit(stored, shuffled),
        "sequential": LoaderReader(sequential),
        "shuffled": LoaderReader(shuffled),
    }
    for contender in contenders.values():
        stack.callback(contender.close)
    return contenders


def cold_contenders(stored: Stored, gather_s: float, stack: ExitStack) -> dict[str, Contender]:
    """Return the contenders on a file that is not in the page cache."""
    contenders: dict[str, Contender] = {}
    if map_rows(stored.path) is not None:
        # Mapped anew in each pass: pages that are mapped cannot be dropped.
        opened, batch_rows = partial(map_rows, stored.path), stored.dataset.batch_rows
        contenders["memmap"] = Gather(opened, batch_rows, getitem, gather_s)
        # Later batches find pages that the kernel read ahead; in a file far larger than memory they would be gone.
        contenders["memmap first batch"] = Gather(opened, batch_rows, getitem, seconds=0)
    for name, shuffle in (("sequential", False), ("shuffled", True)):
        contenders[name] = LoaderReader(stack.enter_context(stored.loader(shuffle)))
    return contenders
