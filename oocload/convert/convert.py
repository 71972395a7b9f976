"""The conversion: a source streamed into a writer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from oocload.convert.chunking import DEFAULT_CHUNK_NBYTES
from oocload.convert.report import Callback, ConversionReport, Reporter, peak_nbytes
from oocload.convert.session import Source
from oocload.convert.sources.base import RowSource
from oocload.convert.sources.resolve import resolve
from oocload.convert.writer import Writer, check_target, store_format
from oocload.errors import ConversionError

_PIECE_NBYTES = 8 * 2**20  # of iterables, which come in pieces of their own


def convert(
    source: Any,
    target: str | os.PathLike[str],
    *,
    fields: Sequence[str] | None = None,
    codec: str | None = None,
    level: int | None = None,
    chunk_bytes: int | str = DEFAULT_CHUNK_NBYTES,
    chunk_rows: int | None = None,
    batch_size: int | None = None,
    chunks_per_shard: int | None = None,
    zarr_format: int = 3,
    memory: int | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Callback | None = None,
) -> ConversionReport:
    """Write any source as a chunked store; nothing is read whole into memory.

    Parameters
    ----------
    source
        A path (``.npy``, ``.npz``, IDX with gzip or without, HDF5, Zarr; ``path::name`` for a part of it), a mapping
        field name → path or array, an array, a tuple ``(x, y)`` of arrays, or an iterable of batches (dicts, tuples
        ``(x, y)``, or arrays). A lone array becomes the field ``x``. Rows of several lengths are a list or an object
        array of arrays, or a pair ``(values, offsets)``, in a mapping or batch; sparse rows a CSR matrix of SciPy.
        Ragged and CSR fields of a store stay what they are; HDF5's of variable length become ragged.
    target
        Where the store will be: ``.h5`` or ``.hdf5`` for HDF5, ``.zarr`` for Zarr v3. It appears whole, or not at all.
    fields
        Of a store or ``.npz``: the fields to take; None for all.
    codec, level, chunk_bytes, chunk_rows, batch_size, chunks_per_shard, zarr_format, overwrite
        As for `oocload.create`.
    memory
        Ceiling on what is held, in bytes or such as ``"256 MiB"``; None takes a quarter of the memory that is free, at
        most 2 GiB.
    resume
        Go on with what a killed or failed conversion of the same source, with the same arguments, has left beside
        ``target``; begin where nothing was left. A source of files must be as it was. Rows of arrays in memory and of
        iterables are gone through from the first one, and compared with those that are there, not written again.
    progress
        Whether to show a progress bar: None shows one on a terminal. Or a function, called with a `Progress` after
        each piece of rows.

    Returns
    -------
    ConversionReport
        Rows, bytes, ratio, time and peak memory; print it.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, UnknownFieldError, InvalidArgumentError
        If the source is not there, damaged, or its fields do not fit together.
    TargetExistsError
        If the target exists and ``overwrite`` is False.
    ConversionError
        If writing fails, for example on a full disk, or if a source that is resumed is not what it was. What was
        written is kept beside the target, for ``resume=True``.
    MemoryCeilingError
        If chunks do not fit into ``memory``.

    Examples
    --------
    >>> import numpy as np, oocload
    >>> np.save("images.npy", np.zeros((1000, 28, 28), "uint8"))
    >>> report = oocload.convert("images.npy", "images.zarr")
    >>> report.n_rows, report.fields
    (1000, ('x',))

    """
    path = Path(target)
    store_format(path, zarr_format)
    check_target(path, overwrite or resume)
    rows = resolve(source, fields)
    if rows.n_rows == 0:
        raise ConversionError(f"source must have at least one row, got none for {os.fspath(target)!r}")
    writer = Writer(
        path,
        rows.specs,
        codec=codec,
        level=level,
        chunk_bytes=chunk_bytes,
        chunk_rows=chunk_rows,
        batch_size=batch_size,
        chunks_per_shard=chunks_per_shard,
        zarr_format=zarr_format,
        memory=memory,
        resume=resume,
        overwrite=overwrite,
        n_rows=rows.n_rows,
        source=Source(rows.identity(), rows.identity_is_proof, compared=True),
        piece_nbytes=rows.least_piece_nbytes,
    )
    before = writer.n_rows
    counted = (before, writer.nbytes, writer.stored_nbytes)
    with writer, Reporter(path.name, rows.n_rows, progress, *counted) as reporter:
        if not writer.is_whole:
            _feed(rows, writer, reporter)
        names = tuple(writer.fields)
    return ConversionReport(
        path=os.fspath(target),
        n_rows=writer.n_rows,
        fields=names,
        nbytes=writer.nbytes,
        stored_nbytes=stored_nbytes(path),
        seconds=reporter.seconds,
        n_rows_before=before,
        peak_nbytes=peak_nbytes(),
        codec=writer.codec,
    )


def _feed(rows: RowSource, writer: Writer, reporter: Reporter) -> None:
    budget = writer.budget
    piece_nbytes, n_ahead = (_PIECE_NBYTES, 0) if budget is None else (budget.piece_nbytes, budget.n_ahead)
    with closing(rows.batches(piece_nbytes, start=writer.n_rows, n_ahead=n_ahead)) as batches:
        for batch in batches:
            writer.append_batch(batch, owned=rows.owned)
            reporter.update(writer.n_rows, writer.nbytes, writer.stored_nbytes)


def stored_nbytes(path: Path) -> int:
    """Return the bytes of a file, or of all files below a directory."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
