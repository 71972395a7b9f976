"""Files out of the page cache: dropping them, and seeing that they are gone."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from functools import partial
from pathlib import Path

import numpy as np
from layouts import files_of
from limits import on_all_cores

_READ_NBYTES = 4 * 2**20


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


def read_files(path: Path, n_threads: int) -> None:
    """Read a store's files piece by piece on all cores, where each thread reads over what it read before."""
    descriptors = {file: os.open(file, os.O_RDONLY) for file in files_of(path)}
    local = threading.local()

    def read(descriptor: int, offset: int) -> None:
        if not hasattr(local, "room"):
            local.room = bytearray(_READ_NBYTES)
        os.preadv(descriptor, [local.room], offset)

    try:
        pieces = [
            partial(read, descriptor, offset)
            for file, descriptor in descriptors.items()
            for offset in range(0, file.stat().st_size, _READ_NBYTES)
        ]
        on_all_cores(pieces, n_threads)
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


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
