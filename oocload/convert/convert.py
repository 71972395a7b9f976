"""The conversion: a source streamed into a writer."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike

from oocload.convert.chunking import DEFAULT_CHUNK_NBYTES
from oocload.convert.options import Options
from oocload.convert.parts import check_parts, write_parts
from oocload.convert.report import Callback, ConversionReport
from oocload.convert.settle import settle_codec
from oocload.convert.sources.cast import Cast
from oocload.convert.sources.records import OnError, RecordSource, check_on_error
from oocload.convert.sources.resolve import resolve
from oocload.convert.sources.shuffled import ShuffledSource, check_shuffle, settle_seed
from oocload.convert.stream import write_whole
from oocload.convert.workplace import check_target, scratch_of
from oocload.errors import ConversionError, InvalidArgumentError
from oocload.units import whole_number


def convert(
    source: Any,
    target: str | os.PathLike[str],
    *,
    fields: Sequence[str] | None = None,
    dtypes: Mapping[str, DTypeLike] | DTypeLike | None = None,
    codec: str | None = None,
    level: int | None = None,
    chunk_bytes: int | str = DEFAULT_CHUNK_NBYTES,
    chunk_rows: int | None = None,
    batch_size: int | None = None,
    chunks_per_shard: int | None = None,
    zarr_format: int = 3,
    part_bytes: int | str | None = None,
    memory: int | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Callback | None = None,
    scheduler: Any = None,
    on_error: OnError | None = None,
    shuffle: bool = False,
    seed: int | None = None,
) -> ConversionReport:
    """Write any source as a chunked store; nothing is read whole into memory.

    Parameters
    ----------
    source
        A path (``.npy``, ``.npz``, IDX with gzip or without, HDF5, Zarr; ``path::name`` for a part of it; a glob or a
        list of stores to join), a mapping field name → path or array, an array or dask array, a tuple ``(x, y)`` of
        arrays, or an iterable of batches (dicts, tuples ``(x, y)``, or arrays). A lone array becomes the field ``x``.
        Rows of several lengths are a list or an object array of arrays, or a pair ``(values, offsets)``, in a mapping
        or batch; sparse rows a CSR matrix of SciPy. Ragged and CSR fields of a store stay what they are; HDF5's of
        variable length become ragged.
    target
        Where the store will be: ``.h5`` or ``.hdf5`` for HDF5, ``.zarr`` for Zarr. It appears whole, or not at all.
        With ``part_bytes`` several files in a folder of their own, ``"train/part-*.h5"``: the folder appears whole.
    fields
        Of a store or ``.npz``: the fields to take; None for all.
    dtypes
        Field → dtype that its rows are cast to, or one dtype for all. Whole numbers must fit; floats may lose digits,
        but not become infinite.
    codec, level, chunk_bytes, chunk_rows, batch_size, chunks_per_shard, zarr_format, overwrite
        As for `oocload.create`.
    part_bytes
        The most that each of several files may have, in bytes or such as ``"2 GiB"``; the number of the file takes the
        place of the star in ``target``, and the same text opens them all.
    memory
        Ceiling on what is held, in bytes or such as ``"256 MiB"``; None takes a quarter of the memory that is free, at
        most 2 GiB.
    resume
        Go on with what a killed or failed conversion of the same source, with the same arguments, has left beside
        ``target``; begin where nothing was left. A source of files must be as it was. Rows of arrays in memory and of
        iterables are gone through from the first one, and compared with those that are there, not written again; but
        not with files of ``part_bytes`` that are whole.
    progress
        Whether to show a progress bar: None shows one on a terminal. Or a function, called with a `Progress` after
        each piece of rows.
    scheduler
        Address of a dask scheduler, ``"tcp://host:8786"``, or a ``dask.distributed.Client``, on whose workers the
        conversion runs: of files that all see under the same paths, arrays or dask arrays, to a Zarr store or to
        several files. A worker that dies costs its piece.
    on_error
        What becomes of records that cannot be read, such as damaged images: ``"raise"`` (default), or ``"skip"``, which
        lists them in the report. None leaves it as a source of `oocload.sources` has it.
    shuffle
        Whether rows are written in a uniformly random order, all fields together. All are first written to files beside
        ``target``, which takes as much disk as they have bytes. The order depends on ``seed`` and the order of the
        source alone, not on ``memory``.
    seed
        Of the shuffle, a whole number from 0. None draws one, which the report names.

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
    options = Options.checked(
        codec,
        level,
        chunk_bytes,
        chunk_rows,
        batch_size,
        chunks_per_shard,
        zarr_format,
        memory,
        resume,
        overwrite,
    )
    if not isinstance(target, str | os.PathLike):
        raise InvalidArgumentError(f"target must be a path, got {target!r}; pass a str or a pathlib.Path")
    if isinstance(fields, str):
        raise InvalidArgumentError(f"fields must be a list of names, got {fields!r}; pass [{fields!r}]")
    path = Path(target)
    options.encoding_for(options.format_of(path))
    part_nbytes = check_parts(path, part_bytes)
    if seed is not None:
        seed = whole_number("seed", seed, 0, 2**64 - 1)
    check_shuffle(shuffle, seed, scheduler)
    destination = path.parent if part_nbytes else path
    if scheduler is not None:
        check_target(destination, overwrite or resume)
        from oocload.convert.cluster import write_on_cluster

        return write_on_cluster(source, fields, dtypes, path, part_nbytes, options, progress, scheduler)
    if on_error is not None:
        check_on_error(on_error)
    rows = resolve(source, fields, on_error)
    records = rows if isinstance(rows, RecordSource) else None
    if dtypes is not None:
        rows = Cast(rows, dtypes)
    _ = rows.specs  # what was asked of the source is wrong, or right, whatever lies at the target
    check_target(destination, overwrite or resume)
    if rows.n_rows == 0:
        raise ConversionError(f"source must have at least one row, got none for {os.fspath(target)!r}")
    options, tried = settle_codec(rows, path, bool(part_nbytes), options)
    write = partial(write_parts, part_nbytes=part_nbytes) if part_nbytes else write_whole
    if not shuffle:
        report = write(rows, path, options=options, progress=progress)
        return replace(report, tried=tried, skipped=() if records is None else records.skipped)
    scratch = scratch_of(destination)
    seed = settle_seed(seed, scratch, resume)
    shows = progress if progress is None else progress is True
    with ShuffledSource(rows, seed, scratch, options.memory, resume, shows, records) as shuffled:
        began = time.perf_counter()
        report = write(shuffled, path, options=options, progress=progress)
        seconds = time.perf_counter() - began  # the first pass may have been made before anything was written
        peak = max(report.peak_nbytes, shuffled.peak_nbytes)
        skipped = shuffled.skipped
        return replace(report, tried=tried, skipped=skipped, seed=seed, seconds=seconds, peak_nbytes=peak)
