"""The questions of `convert.py` on sources that are no arrays: what is written to ask them, and who answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import source_images
import source_npy_folder
import source_shuffle
from conversions import Case, remove
from datasets import DATASETS

Prepare = Callable[[Path, bool], tuple[np.ndarray, Mapping[str, Case]]]  # (folder, quick) → rows, question → case


def npy_folder(folder: Path, quick: bool) -> tuple[np.ndarray, Mapping[str, Case]]:
    """One `.npy` file per sample, images of 12 KiB."""
    n_files = source_npy_folder.QUICK_FILES if quick else source_npy_folder.N_FILES
    return source_npy_folder.write_source(folder, n_files), source_npy_folder.cases()


def photographs(folder: Path, quick: bool) -> tuple[np.ndarray, Mapping[str, Case]]:
    """JPEG files of several sizes, a class per folder."""
    n_images = source_images.QUICK if quick else source_images.N_PHOTOGRAPHS
    rows = source_images.write_photographs(folder, n_images)
    return rows, {name: case for name, case in source_images.cases().items() if case.source == "photographs"}


def small_images(folder: Path, quick: bool) -> tuple[np.ndarray, Mapping[str, Case]]:
    """PNG files of one small size, a class per folder."""
    rows = source_images.write_small(folder, source_images.QUICK if quick else source_images.N_SMALL)
    return rows, {name: case for name, case in source_images.cases().items() if case.source == "small"}


SOURCES: dict[str, Prepare] = {"npy folder": npy_folder, "photographs": photographs, "small images": small_images}


def shuffled(folder: Path, quick: bool, rounds: int) -> dict[str, object]:
    """Measure shuffled conversions beside plain ones: images of 12 KiB, and rows of 32 bytes."""
    nbytes = 2**20 if quick else 200_000_000
    images = DATASETS["images"]
    return {
        "images": source_shuffle.measure(folder, images.make(nbytes // images.row_nbytes), rounds),
        "rows of 32 bytes": source_shuffle.measure(folder, source_shuffle.small_rows(nbytes // 32), rounds),
    }


def remove_sources(folder: Path, cases: Mapping[str, Case]) -> None:
    """Remove what was written to ask."""
    for source in {case.source for case in cases.values()}:
        remove(folder / source)
