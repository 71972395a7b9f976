"""Files out of the page cache: dropping them, and seeing that they are gone."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np
from layouts import files_of

_READ_NBYTES = 8 * 2**20


def drop(path: Path) -> None:
    """Drop a store's pages from the page cache; those that a process has mapped or not yet written would stay."""
    for file in files_of(path):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def resident_share(path: Path) -> float:
    """Return which share of a store's pages is in the page cache, 0 to 1."""
    states = np.concatenate([_page_states(file) for file in files_of(path)])
    return float(np.mean(states & 1))


def read_files(path: Path) -> None:
    """Read a store's files from front to back: what the disk gives."""
    room = bytearray(_READ_NBYTES)
    for file in files_of(path):
        with file.open("rb", buffering=0) as source:
            while source.readinto(room):
                pass


def _page_states(path: Path) -> np.ndarray:
    """Return one byte per page of a file, as mincore(2) gives it."""
    nbytes = path.stat().st_size
    states = np.zeros(-(-nbytes // mmap.PAGESIZE), np.uint8)
    if nbytes:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
            address = np.frombuffer(pages, np.uint8).ctypes.data  # mapping touches no page
            arguments = ctypes.c_void_p(address), ctypes.c_size_t(nbytes), ctypes.c_void_p(states.ctypes.data)
            if ctypes.CDLL(None).mincore(*arguments):
                raise OSError(f"mincore failed on {path}")
    return states
