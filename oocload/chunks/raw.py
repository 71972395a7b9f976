"""Rows stored as they are: the kernel copies them straight to their places, or through a little scratch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from oocload.chunks.fetch import read_all
from oocload.chunks.located import LocatedField
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Ranges, Target
from oocload.layout import FieldLayout
from oocload.stores.base import Store

# From this many bytes a row, the kernel's own scatter (one preadv with a buffer per row) beats reading into
# scratch and scattering from there (benchmarks/README.md).
_KERNEL_SCATTER_ROW_NBYTES = 4096
_PIECE_NBYTES = 2**18  # rows that need scratch pass through it in pieces of this size, which stays in cache


class RawReader(LocatedField):
    """Reads any range of rows of an uncompressed field whose chunks hold whole rows.

    Parameters
    ----------
    store
        Tells where the chunks lie.
    field
        The field's layout.
    keep_open
        How many files stay open between reads.

    """

    def __init__(self, store: Store, field: FieldLayout, keep_open: int = 1) -> None:
        super().__init__(store, field, keep_open)
        self._row_nbytes = field.row_nbytes
        self._height = field.chunk_rows
        self._only = None if field.chunks else self.locations.find(0)  # the one range of a contiguous field
        self._scatters = self.native and field.row_nbytes >= _KERNEL_SCATTER_ROW_NBYTES

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Bytes of one piece."""
        return {"raw": min(self.layout.nbytes, max(_PIECE_NBYTES, self._row_nbytes))}

    def read(self, ranges: Ranges, target: Target, scratch: Scratch) -> int:
        """Put ranges of rows into a target, one after the other; return the bytes that were read for it.

        Raises
        ------
        ChunkError
            If a chunk cannot be read; names path, field and chunk.

        """
        runs, n_rows = self._runs(ranges)
        buffers = target.row_buffers() if self._scatters and target.takes_all and not target.in_order else None
        for path, group in groupby(runs, key=_PATH):
            together = list(group)
            if path is None:
                for run in together:
                    target.fill(run.at, run.n_rows, self.fill_item)
                continue
            with self.opened(path, together[0].chunk) as descriptor:
                began = time.perf_counter()
                if self.files.from_disk and not target.in_order:
                    self.files.announce(path, ((run.offset, run.n_rows * self._row_nbytes) for run in together))
                if buffers is not None:
                    for run in together:
                        self._read_run(descriptor, run, run.offset, buffers[run.at : run.at + run.n_rows])
                elif target.in_order and self.native:
                    for run in together:
                        self._read_run(descriptor, run, run.offset, [target.span(run.at, run.n_rows)])
                else:
                    began += self._through_scratch(descriptor, together, target, scratch)
                nbytes = sum(run.n_rows for run in together) * self._row_nbytes
                self.files.note(nbytes, time.perf_counter() - began)
        return n_rows * self._row_nbytes

    announces = False

    def announce(self, ranges: Ranges) -> None:
        """Nothing is decoded, so there is nothing to do meanwhile: `read` announces what it reads."""

    def _runs(self, ranges: Ranges) -> tuple[list[_Run], int]:
        """Return where ranges of rows lie, chunk by chunk, and how many rows they are."""
        runs, at, height = [], 0, self._height
        for start, stop in ranges:
            while start < stop:
                chunk = start // height
                low = start - chunk * height
                n_rows = min(stop - start, height - low)
                runs.append(self._find(chunk, low, n_rows, at))
                start += n_rows
                at += n_rows
        return runs, at

    def _find(self, chunk: int, low: int, n_rows: int, at: int) -> _Run:
        """Return where rows of a chunk lie, from its row ``low``; no path where it was never written."""
        place = self._only or self.locations.find(chunk)
        if place is None:
            return _Run(None, 0, chunk, n_rows, at)
        path, offset, nbytes, _ = place
        row_nbytes = self._row_nbytes
        if nbytes < (low + n_rows) * row_nbytes:
            raise self.error(chunk, f"it has {nbytes} bytes, where {(low + n_rows) * row_nbytes} belong")
        return _Run(path, offset + low * row_nbytes, chunk, n_rows, at)

    def _through_scratch(self, descriptor: int, runs: Sequence[_Run], target: Target, scratch: Scratch) -> float:
        """Read rows that follow each other in the target, a piece at a time, and put them to their places.

        Returns
        -------
        float
            Seconds that putting took, in which nothing was read.

        """
        putting = 0.0
        row_nbytes = self._row_nbytes
        step = max(1, _PIECE_NBYTES // row_nbytes)
        piece = scratch.get("raw", min(step, sum(run.n_rows for run in runs)) * row_nbytes)
        view, held, first = memoryview(piece), 0, runs[0].at
        for run in runs:
            done = 0
            while done < run.n_rows:
                n_rows = min(run.n_rows - done, step - held)
                part = view[held * row_nbytes : (held + n_rows) * row_nbytes]
                self._read_run(descriptor, run, run.offset + done * row_nbytes, [part])
                done, held = done + n_rows, held + n_rows
                if held == step:
                    began = time.perf_counter()
                    target.put(first, self.as_rows(piece))
                    putting += time.perf_counter() - began
                    first, held = first + held, 0
        if held:
            began = time.perf_counter()
            target.put(first, self.as_rows(piece[: held * row_nbytes]))
            putting += time.perf_counter() - began
        return putting

    def _read_run(self, descriptor: int, run: _Run, offset: int, buffers: Sequence[Any]) -> None:
        try:
            read_all(descriptor, offset, buffers)
        except OSError as exc:
            raise self.error(run.chunk, f"cannot read {run.path}: {exc}") from exc


class _Run(NamedTuple):
    """Rows that lie side by side in a file, and the number of the first one's place."""

    path: str | None
    offset: int
    chunk: int
    n_rows: int
    at: int


_PATH = itemgetter(0)
