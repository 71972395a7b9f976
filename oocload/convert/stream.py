"""Rows of a source streamed into one store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oocload.convert.options import Options
from oocload.convert.report import Callback, ConversionReport, Reporter
from oocload.convert.session import Source
from oocload.convert.sources.base import RowSource
from oocload.convert.writer import Piece, Writer

_PIECE_NBYTES = 8 * 2**20  # of iterables, which come in pieces of their own


def write_whole(rows: RowSource, path: Path, options: Options, progress: bool | Callback | None) -> ConversionReport:
    """Write all rows of a source as one store."""
    writer = Writer(
        path,
        rows.specs,
        options,
        n_rows=rows.n_rows,
        source=Source(rows.identity(), rows.identity_is_proof, compared=True),
        piece=least_piece(rows),
        meanings=lambda: rows.meanings,
    )
    before = writer.n_rows
    with writer, Reporter(path.name, rows.n_rows, progress, before, writer.nbytes, writer.stored_nbytes) as reporter:
        if not writer.is_whole:
            with batches_for(rows, writer, writer.n_rows) as batches:
                for batch in batches:
                    writer.append_batch(batch, owned=rows.owned)
                    reporter.update(writer.n_rows, writer.nbytes, writer.stored_nbytes)
    return ConversionReport(
        path=os.fspath(path),
        n_rows=writer.n_rows,
        fields=tuple(writer.fields),
        nbytes=writer.nbytes,
        stored_nbytes=stored_nbytes(path),
        seconds=reporter.seconds,
        n_rows_before=before,
        peak_nbytes=reporter.peak_nbytes,
        codec=writer.codec,
    )


def least_piece(rows: RowSource) -> Piece:
    """Return the smallest piece of a source, and what serves it best."""
    return Piece(rows.least_piece_nbytes, rows.least_piece_reason, rows.wanted_piece_nbytes)


@contextmanager
def batches_for(rows: RowSource, writer: Writer, start: int) -> Iterator[Iterator[Mapping[str, Any]]]:
    """Read rows from one on, in pieces such as a writer has room for."""
    budget = writer.budget
    if budget is None:
        batches = rows.batches(_PIECE_NBYTES, start)
    else:
        batches = rows.batches(budget.piece_nbytes, start, n_ahead=budget.n_ahead, n_threads=budget.n_threads)
    with closing_batches(batches):
        yield batches


@contextmanager
def closing_batches(batches: Iterator[Mapping[str, Any]]) -> Iterator[Iterator[Mapping[str, Any]]]:
    """End the threads that read batches ahead, where there are any."""
    try:
        yield batches
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()


def stored_nbytes(path: Path) -> int:
    """Return the bytes of a file, or of all files below a directory."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
