"""The conversion: a source streamed into a writer."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from oocload.convert.chunking import DEFAULT_CHUNK_NBYTES
from oocload.convert.sources.resolve import resolve
from oocload.convert.writer import Writer, check_target, target_format
from oocload.errors import ConversionError
from oocload.units import format_bytes

_PIECE_NBYTES = 8 * 2**20  # read from the source at a time, over all fields


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion did.

    Attributes
    ----------
    path
        The new store.
    n_rows
        Rows written.
    fields
        Names of its fields.
    nbytes
        Bytes of its arrays, decoded.
    stored_nbytes
        Bytes on disk.
    seconds
        Wall time.

    """

    path: str
    n_rows: int
    fields: tuple[str, ...]
    nbytes: int
    stored_nbytes: int
    seconds: float

    @property
    def ratio(self) -> float:
        """Decoded bytes per byte on disk."""
        return self.nbytes / self.stored_nbytes if self.stored_nbytes else 0.0

    def __str__(self) -> str:
        return (
            f"wrote {self.path}: {self.n_rows:,} rows of {', '.join(self.fields)}; {format_bytes(self.nbytes)} in "
            f"{format_bytes(self.stored_nbytes)} on disk (ratio {self.ratio:.1f}), {self.seconds:.1f} s"
        )


def convert(
    source: Any,
    target: str | os.PathLike[str],
    *,
    fields: Sequence[str] | None = None,
    codec: str | None = None,
    level: int | None = None,
    chunk_bytes: int | str = DEFAULT_CHUNK_NBYTES,
    chunk_rows: int | None = None,
    chunks_per_shard: int = 1,
    overwrite: bool = False,
    progress: bool | None = None,
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
    codec, level, chunk_bytes, chunk_rows, chunks_per_shard, overwrite
        As for `oocload.create`.
    progress
        Whether to show a progress bar; None shows one on a terminal.

    Returns
    -------
    ConversionReport
        Rows, bytes, ratio and time; print it.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, UnknownFieldError, InvalidArgumentError
        If the source is not there, damaged, or its fields do not fit together.
    TargetExistsError
        If the target exists and ``overwrite`` is False.
    ConversionError
        If writing fails, for example on a full disk.

    Examples
    --------
    >>> import numpy as np, oocload
    >>> np.save("images.npy", np.zeros((1000, 28, 28), "uint8"))
    >>> report = oocload.convert("images.npy", "images.zarr")
    >>> report.n_rows, report.fields
    (1000, ('x',))

    """
    path = Path(target)
    target_format(path)
    check_target(path, overwrite)
    rows = resolve(source, fields)
    began = time.perf_counter()
    names: tuple[str, ...] = ()
    if rows.n_rows == 0:
        raise ConversionError(f"source must have at least one row, got none for {os.fspath(target)!r}")
    with (
        Writer(
            path,
            rows.specs,
            codec=codec,
            level=level,
            chunk_bytes=chunk_bytes,
            chunk_rows=chunk_rows,
            chunks_per_shard=chunks_per_shard,
            n_rows=rows.n_rows,
            overwrite=overwrite,
        ) as writer,
        tqdm(
            total=rows.n_rows,
            unit=" rows",
            unit_scale=True,
            desc=path.name,
            disable=None if progress is None else not progress,
        ) as bar,
    ):
        for batch in rows.batches(_PIECE_NBYTES):
            before = writer.n_rows
            writer.append_batch(batch)
            names = tuple(batch)
            bar.update(writer.n_rows - before)
    return ConversionReport(
        path=os.fspath(target),
        n_rows=writer.n_rows,
        fields=names,
        nbytes=writer.nbytes,
        stored_nbytes=stored_nbytes(path),
        seconds=time.perf_counter() - began,
    )


def stored_nbytes(path: Path) -> int:
    """Return the bytes of a file, or of all files below a directory."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
