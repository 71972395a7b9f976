"""The cases of `adapters.py`: which rows are batched, from which layout; and their files, each written once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from consumers import write_labelled
from datasets import DATASETS, Dataset
from lineup import Stored
from overheads import DIGIT_CHUNK_ROWS, DIGIT_NBYTES, make_digits

import oocload

MEMORY = "1 GiB"


@dataclass(frozen=True)
class Case:
    """Which rows are batched, and how many epochs make one measurement: more where reading is fast."""

    dataset: Dataset
    batch_rows: int
    n_epochs: int
    layout: str = "HDF5 contiguous"
    shuffle: bool = True

    def __str__(self) -> str:
        layout = "" if self.layout == "HDF5 contiguous" else f", {self.layout}"
        return f"{self.dataset.name}, {self.batch_rows}{layout}{'' if self.shuffle else ', in order'}"

    def loader(self, stored: Stored) -> oocload.Loader:
        """Return a loader of this case, equal to any other of it."""
        batch_rows = min(self.batch_rows, len(stored.array) // 2)
        return oocload.Loader(stored.path, batch_rows, shuffle=self.shuffle, seed=0, memory=MEMORY)

    def facts(self, loader: oocload.Loader) -> dict[str, int]:
        """Return what a result says about the case."""
        return {
            "n_rows": loader.epoch_rows,
            "batch_rows": loader.batch_size,
            "batch_nbytes": loader.batch_size * sum(f.row_nbytes for f in loader.fields.values()),
            "n_batches": len(loader),
            "n_epochs": self.n_epochs,
            "window_rows": loader.window_rows,
        }


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


@dataclass(frozen=True)
class Options:
    """What is measured, and how often."""

    rounds: int
    only: Sequence[str]
    quick: bool

    def chosen(self, name: str) -> bool:
        """Whether a case is to be measured."""
        return any(text in name for text in self.only)


class Stores:
    """Arrays in a layout, with the numbers of their rows as labels; made when they are first asked for, and kept."""

    def __init__(self, folder: Path, quick: bool) -> None:
        self._folder, self._quick = folder, quick
        self._arrays: dict[str, np.ndarray] = {}
        self._stored: dict[tuple[str, str], Stored] = {}

    def labelled(self, layout: str, dataset: Dataset) -> Stored:
        key = (layout, dataset.name)
        if key not in self._stored:
            folder = self._folder / " ".join(key)
            folder.mkdir()
            self._stored[key] = write_labelled(layout, dataset, self._array(dataset), folder)
        return self._stored[key]

    def _array(self, dataset: Dataset) -> np.ndarray:
        if dataset.name not in self._arrays:
            n_rows = dataset.quick_rows if self._quick else dataset.n_rows
            self._arrays[dataset.name] = dataset.make(n_rows)
        return self._arrays[dataset.name]
