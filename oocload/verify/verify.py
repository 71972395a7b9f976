"""The check of stores against their own checksums."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from tqdm import tqdm

from oocload.chunks.fetch import Files
from oocload.errors import InvalidArgumentError, StoreFormatError
from oocload.stores import ZARR_SUFFIXES, Paths, Store, expand, format_of
from oocload.stores import open as open_store
from oocload.stores.checksums import written
from oocload.stores.zarr import is_zarr_directory
from oocload.units import counted, whole_number
from oocload.verify.arrays import CheckedArray, find_arrays
from oocload.verify.chunks import BUFFER_NBYTES, Buffer, ToCheck, check_chunks
from oocload.verify.permutation import difference
from oocload.verify.report import BadChunk, VerifyReport

_JOB_NBYTES = 2 * BUFFER_NBYTES
_JOB_CHUNKS = 1024
_JOBS_PER_THREAD = 2


def verify(
    path: Paths,
    *,
    fields: Sequence[str] | None = None,
    threads: int | None = None,
    progress: bool | None = None,
    permutation_of: Any = None,
) -> VerifyReport:
    """Check the stored bytes of a store against the checksums that were kept in it when it was written.

    Every chunk is read, on all cores, and none is decoded. What a store holds beside its arrays, such as attributes of
    your own, has no checksums.

    Parameters
    ----------
    path
        What `oocload.open` takes; of several files each is checked by itself.
    fields
        Names of fields, of groups of them, or of the arrays of ragged and sparse ones; None for all.
    threads
        How many read; None for one per core. Each holds 4 MiB.
    progress
        Whether to show a progress bar; None shows one on a terminal.
    permutation_of
        A source, as `oocload.convert` takes it, of which the store is to hold exactly the rows, in any order: all
        fields of a row together, bit by bit. Both are then read and decoded too, once, in some 4 MiB for each thread
        and piece, and digests of their rows are added up and compared: see `oocload.verify.digest` for how sure that
        is. ``fields`` chooses those of both.

    Returns
    -------
    VerifyReport
        What is wrong, chunk by chunk, and what has no checksums. Print it.

    Raises
    ------
    StoreNotFoundError, StoreFormatError
        If there is no such store. One that is there and cannot be opened is in the report.
    UnknownFieldError
        If there is no such field.
    InvalidArgumentError
        If an argument breaks its rule, nothing that was asked for has checksums, or ``permutation_of`` has other
        fields, shapes or dtypes than the store.

    Examples
    --------
    >>> import numpy as np, oocload
    >>> _ = oocload.convert({"x": np.arange(1000)}, "numbers.h5")
    >>> oocload.verify("numbers.h5").ok
    True

    """
    n_threads = len(os.sched_getaffinity(0)) if threads is None else whole_number("threads", threads, 1)
    if fields is not None and (isinstance(fields, str) or not fields):
        raise InvalidArgumentError(f"fields must be a list of at least one name, got {fields!r}; leave it out for all")
    paths = expand(path)
    began = time.perf_counter()
    arrays: list[CheckedArray] = []
    bad: list[BadChunk] = []
    unchecked: list[str] = []
    with ExitStack() as stack:
        stores: list[Store] = []
        for one in paths:
            store = _open(one, bad)
            if store is not None:
                stores.append(stack.enter_context(store))
                found = find_arrays(store, fields)
                arrays += found.arrays
                bad += found.bad
                unchecked += found.unchecked
        if not arrays and not bad and permutation_of is None:
            raise InvalidArgumentError(
                f"store must have checksums, and {', '.join(paths)} has none: it was not written by oocload, or by one "
                f"that did not keep them yet; run oocload convert {paths[0]} to a new store, which will have them"
            )
        bad += _check(arrays, n_threads, progress, Path(paths[0]).name)
        if bad:
            for store in stores:
                store.check_unchanged()
    said = "" if permutation_of is None else _shown(permutation_of)
    differs = ""
    if said and len(stores) == len(paths):
        differs = difference(path, permutation_of, fields, n_threads, progress, Path(paths[0]).name)
    elif said:
        differs = "it cannot be opened, so its rows were not compared"
    return VerifyReport(
        path=paths[0] if len(paths) == 1 else f"{paths[0]} and {counted(len(paths) - 1, 'other')}",
        n_chunks=sum(_n_checked(array) for array in arrays),
        nbytes=sum(array.expected.nbytes for array in arrays),
        seconds=time.perf_counter() - began,
        bad=tuple(bad),
        unchecked=tuple(unchecked),
        permutation_of=said,
        difference=differs,
    )


def _shown(source: Any) -> str:
    """Return what a source is called."""
    return ", ".join(expand(source)) if isinstance(source, str | os.PathLike) else f"a {type(source).__name__}"


def _open(path: str, bad: list[BadChunk]) -> Store | None:
    """Open a store; note one that is there, and that HDF5 or zarr cannot open any more."""
    kind = format_of(path)
    try:
        return open_store(path)
    except StoreFormatError as exc:
        file = path.partition("::")[0]
        named = file.lower().rstrip("/").endswith(ZARR_SUFFIXES)
        if kind == "zarr" and not named and not is_zarr_directory(Path(file)):
            raise  # any folder
        bad.append(BadChunk("", None, None, file, None, f"it cannot be opened any more: {exc}"))
        return None


def _n_checked(array: CheckedArray) -> int:
    return sum(len(segment.nbytes) for segment in array.expected.segments)


def _check(arrays: Sequence[CheckedArray], n_threads: int, progress: bool | None, title: str) -> list[BadChunk]:
    """Check all chunks in threads, a few jobs ahead; return the bad ones in order."""
    bad: list[BadChunk] = []
    files = Files(keep_open=n_threads)
    buffers: SimpleQueue[Buffer] = SimpleQueue()
    for _ in range(n_threads):
        buffers.put(np.empty(BUFFER_NBYTES, np.uint8))
    pending: deque[tuple[int, Future[list[BadChunk]]]] = deque()
    with (
        ThreadPoolExecutor(n_threads, thread_name_prefix="oocload-verify") as pool,
        tqdm(
            total=sum(array.expected.nbytes for array in arrays),
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            desc=title,
            disable=None if progress is None else not progress,
        ) as bar,
    ):

        def take_oldest() -> None:
            nbytes, done = pending.popleft()
            bad.extend(done.result())
            bar.update(nbytes)

        try:
            for array in arrays:
                for chunks in _jobs(array):
                    pending.append(
                        (int(written(chunks.nbytes).sum()), pool.submit(_run, array, chunks, files, buffers))
                    )
                    if len(pending) > _JOBS_PER_THREAD * n_threads:
                        take_oldest()
            while pending:
                take_oldest()
        finally:
            pool.shutdown(cancel_futures=True)
            files.close()
    return bad


def _run(array: CheckedArray, chunks: ToCheck, files: Files, buffers: SimpleQueue[Buffer]) -> list[BadChunk]:
    buffer = buffers.get()
    try:
        return [
            array.bad(chunk, None if place is None else place.path, None if place is None else place.offset, why)
            for chunk, place, why in check_chunks(chunks, files, buffer)
        ]
    finally:
        buffers.put(buffer)


def _jobs(array: CheckedArray) -> Iterator[ToCheck]:
    """Yield chunks that follow each other, about 8 MiB of them at a time."""
    for segment in array.expected.segments:
        n_chunks = max(0, min(len(segment.nbytes), array.n_chunks - segment.first))
        ends = np.cumsum(written(segment.nbytes[:n_chunks]), dtype=np.uint64)
        start = 0
        while start < n_chunks:
            before = int(ends[start - 1]) if start else 0
            stop = int(np.searchsorted(ends, before + _JOB_NBYTES, side="right"))
            stop = min(max(stop, start + 1), start + _JOB_CHUNKS, n_chunks)
            part = slice(start, stop)
            yield ToCheck(array.locations, segment.first + start, segment.nbytes[part], segment.crc32c[part])
            start = stop
