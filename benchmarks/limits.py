"""What no reader can beat: the decoder alone for encoded layouts, memcpy for raw ones, on all cores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from contenders import Contender, slices

import oocload
from oocload.chunks.codecs import decode
from oocload.chunks.fetch import Files, read_all
from oocload.chunks.scratch import Scratch
from oocload.layout import ChunkGrid

_COPY_ROOM_NBYTES = 48 * 2**20  # more than a cache holds, as the slabs of a loader are


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


class DecodeLimit(Contender):
    """Locate, fetch and decode chunks on all cores; nothing is done with the rows.

    Parameters
    ----------
    n_chunks
        Decode so many chunks, drawn at random; None decodes all.

    """

    def __init__(self, path: Path, n_threads: int, n_chunks: int | None = None) -> None:
        with oocload.open(path) as store:
            self._field = store.field("x")
            locations = store.locate("x")
            total = ChunkGrid(self._field.shape, self._field.chunks).n_chunks
            self._places = [locations.find(i) for i in range(total)]
        self._chosen = np.random.default_rng(0).permutation(total)[:n_chunks]
        self._files = Files(keep_open=1)
        self._n_threads = n_threads
        self._local = threading.local()

    def rows(self) -> Iterator[slice]:
        return slices(self._field.n_rows, self._field.chunk_rows)

    def batches(self) -> Iterator[np.ndarray]:
        for chunk, rows in enumerate(self.rows()):
            decoded = self._decode(chunk).view(self._field.dtype).reshape(self._field.chunks)
            yield decoded[: rows.stop - rows.start]

    def run(self) -> int:
        step = max(1, len(self._chosen) // 64)
        groups = [self._chosen[i : i + step] for i in range(0, len(self._chosen), step)]
        on_all_cores([partial(self._run, group) for group in groups], self._n_threads)
        return min(self._field.n_rows, len(self._chosen) * self._field.chunk_rows)

    def close(self) -> None:
        self._files.close()

    def _run(self, chunks: np.ndarray) -> None:
        for chunk in chunks:
            self._decode(chunk)

    def _decode(self, chunk: int) -> np.ndarray:
        if not hasattr(self._local, "scratch"):
            self._local.scratch = Scratch()
        scratch, place = self._local.scratch, self._places[chunk]
        raw = scratch.get("raw", place.nbytes)
        with self._files.opened(place.path) as descriptor:
            read_all(descriptor, place.offset, [raw])
        out = scratch.get("out", self._field.chunk_nbytes)
        decode(raw, self._field.codecs, out, scratch)
        return out


class CopyLimit(Contender):
    """Copy every row once on all cores, from memory to memory, in pieces of a chunk."""

    def __init__(self, array: np.ndarray, chunk_rows: int, n_threads: int) -> None:
        self._array, self._chunk_rows, self._n_threads = array, chunk_rows, n_threads
        n_pieces = max(1, _COPY_ROOM_NBYTES // (chunk_rows * array[0].nbytes))
        self._room = np.zeros((n_pieces, chunk_rows, *array.shape[1:]), array.dtype)

    def rows(self) -> Iterator[slice]:
        return slices(len(self._array), self._chunk_rows)

    def batches(self) -> Iterator[np.ndarray]:
        for number, rows in enumerate(self.rows()):
            yield self._copy(number, rows)

    def run(self) -> int:
        jobs = [partial(self._copy, number, rows) for number, rows in enumerate(self.rows())]
        on_all_cores(jobs, self._n_threads)
        return len(self._array)

    def _copy(self, number: int, rows: slice) -> np.ndarray:
        place = self._room[number % len(self._room), : rows.stop - rows.start]
        np.copyto(place, self._array[rows])
        return place
