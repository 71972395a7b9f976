"""A conversion on the workers of a dask cluster: each task writes chunk files, or a file, of its own.

::

    here       ranges of rows ─► tasks ─────────────► journal ─► checksums ─► one rename
    workers                       read, encode, write under a draft's name, rename

Tasks may run twice, as they do where a worker dies: what they write is the same, and appears by a rename. The folder of
the target must be one that every worker sees under the same path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np

from oocload.convert.arrays import NewArray
from oocload.convert.buffers import Buffers
from oocload.convert.encode import Encoding
from oocload.convert.fields import Spec
from oocload.convert.journal import Records
from oocload.convert.options import Options
from oocload.convert.pipeline import make_chunk
from oocload.convert.report import Callback, ConversionReport, Reporter, peak_nbytes
from oocload.convert.session import Chunk, Session, Source
from oocload.convert.sources.parted import Description, describe, open_part
from oocload.convert.spec import FieldSpec
from oocload.convert.stream import stored_nbytes
from oocload.convert.writer import Writer, check_rows
from oocload.convert.zarr_target import ZarrTarget
from oocload.errors import ConversionError, InvalidArgumentError, OocloadError
from oocload.optional import require
from oocload.units import format_bytes

_TIMEOUT_S = 10
_TASKS_PER_THREAD = 3  # at the scheduler at a time: enough that no worker waits for us
_RETRIES = 2


@dataclass(frozen=True, slots=True)
class ZarrJob:
    """What a task must know to write chunks of a Zarr store."""

    store: Path
    drafts: Path
    zarr_format: int
    fields: Mapping[str, Spec]
    arrays: Mapping[str, NewArray]
    encoding: Encoding
    piece_nbytes: int


def write_rows(job: ZarrJob, part: Mapping[str, Any]) -> list[Chunk]:
    """Write the chunks of the rows of a part; they begin where a chunk of every array begins. Runs on a worker."""
    records = {name: Records() for name in job.arrays}
    target = ZarrTarget(job.store, job.arrays, job.encoding, 2 if job.zarr_format == 2 else 3, records, job.drafts)
    made: list[Chunk] = []

    def put(array: str, start: int, rows: Any) -> None:
        new = job.arrays[array]
        for first in range(0, len(rows), new.height):
            number = (start + first) // new.height
            chunk = make_chunk(target, array, new, number, rows[first : first + new.height])
            target.put(array, number, chunk.encoded)
            made.append(Chunk(array, number, memoryview(chunk.encoded.data).nbytes, chunk.crc, chunk.raw))
        buffers.give_back(array, rows)

    buffers = Buffers(job.fields, job.arrays)
    for name in job.arrays:
        buffers.go_on(name, part["start"], np.empty(0))
    source = open_part(part)
    with closing(target), closing_iterator(source.batches(job.piece_nbytes, n_threads=1)) as batches:
        for batch in batches:
            for name, given in check_rows(batch, job.fields).items():
                for full in buffers.add(name, given, source.owned):
                    put(*full)
        for full in buffers.rest():
            put(*full)
        target.finish_shards()
    return made


@contextmanager
def closing_iterator(iterator: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """Close an iterator where it is a generator."""
    with closing(iterator) if hasattr(iterator, "close") else nullcontext():  # type: ignore[type-var]
        yield iterator


@contextmanager
def cluster(scheduler: Any) -> Iterator[Any]:
    """Connect to a scheduler, or use the client that is given.

    Raises
    ------
    InvalidArgumentError
        If nothing answers at the address, or it is neither an address nor a client.

    """
    distributed = require("distributed", "distributed", "scheduler=")
    if isinstance(scheduler, distributed.Client):
        yield scheduler
        return
    if not isinstance(scheduler, str):
        raise InvalidArgumentError(
            f"scheduler must be the address of a dask scheduler, such as 'tcp://host:8786', or a "
            f"dask.distributed.Client, got {scheduler!r}"
        )
    try:
        client = distributed.Client(scheduler, timeout=_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as exc:
        raise InvalidArgumentError(
            f"scheduler must be the address of a running dask scheduler, got {scheduler!r}, where none answers within "
            f"{_TIMEOUT_S} s; start one with 'dask scheduler', or leave scheduler= out"
        ) from exc
    with client:
        yield client


def write_on_cluster(
    source: Any,
    fields: Any,
    dtypes: Any,
    path: Path,
    part_nbytes: int,
    options: Options,
    progress: bool | Callback | None,
    scheduler: Any,
) -> ConversionReport:
    """Write a store on a cluster: a Zarr directory by ranges of chunks, or several files, a task each."""
    described = describe(source, fields, dtypes)
    rows = described.rows
    if any(not isinstance(spec, FieldSpec) for spec in (rows.specs or {}).values()):
        raise InvalidArgumentError(
            "fields must have rows of one shape where scheduler= is given, and some are ragged or sparse; convert "
            "them without scheduler="
        )
    if not part_nbytes and options.format_of(path) == "hdf5":
        raise InvalidArgumentError(
            f"target must be a .zarr store, or several files such as 'train/part-*.h5' with part_bytes=, where "
            f"scheduler= is given, got {os.fspath(path)!r}: one HDF5 file cannot be written by several workers"
        )
    with cluster(scheduler) as client:
        if part_nbytes:
            return write_parts_on(client, described, path, part_nbytes, options, progress)
        return _write_zarr(client, described, path, options, progress)


def _write_zarr(
    client: Any, described: Description, path: Path, options: Options, progress: bool | Callback | None
) -> ConversionReport:
    rows = described.rows
    n_rows = rows.n_rows or 0
    writer = Writer(
        path.absolute(),
        rows.specs,
        options,
        n_rows=n_rows,
        source=Source(rows.identity(), rows.identity_is_proof),
        piece_nbytes=rows.least_piece_nbytes,
    )
    before = (writer.n_rows, writer.nbytes, writer.stored_nbytes)
    with writer, Reporter(path.name, n_rows, progress, *before) as reporter:
        if writer.session is not None:
            _spread(client, described, writer.session, n_rows, reporter)
            writer.conclude(n_rows)
    return ConversionReport(
        path=os.fspath(path),
        n_rows=n_rows,
        fields=tuple(writer.fields),
        nbytes=sum(spec.row_nbytes for spec in writer.fields.values() if isinstance(spec, FieldSpec)) * n_rows,
        stored_nbytes=stored_nbytes(path),
        seconds=reporter.seconds,
        n_rows_before=before[0],
        peak_nbytes=peak_nbytes(),
        codec=writer.codec,
    )


def _spread(client: Any, described: Description, session: Session, n_rows: int, reporter: Reporter) -> None:
    """Have workers write the rows that are not there."""
    order = session.order
    drafts = session.place.folder / "drafts"
    drafts.mkdir(exist_ok=True)
    number = 2 if order.format == "zarr2" else 3
    job = ZarrJob(
        session.place.store, drafts, number, order.fields, order.arrays, order.encoding, order.budget.piece_nbytes
    )
    step = lcm(*(array.shard_height for array in order.arrays.values()))
    ranges = [(start, min(n_rows, start + step)) for start in range(0, n_rows, step)]
    done = {start for start, stop in ranges if session.has(start, stop)}
    todo = ((start, (job, described.part(start, stop))) for start, stop in ranges if start not in done)
    row_nbytes = sum(array.spec.row_nbytes for array in order.arrays.values())
    reached = 0
    for start, made in run(client, write_rows, todo, where=session.place.destination):
        done.add(start)
        while reached < n_rows and reached in done:
            reached = min(n_rows, reached + step)
        session.take(made, reached)
        n_done = sum(min(n_rows, first + step) - first for first in done)
        reporter.update(n_done, n_done * row_nbytes, session.stored_nbytes)


def run(client: Any, task: Any, todo: Iterator[tuple[Any, tuple[Any, ...]]], where: Path) -> Iterator[tuple[Any, Any]]:
    """Run tasks on a cluster, some more than it has threads at a time; yield key and result as they end.

    Dask arrays in the arguments are computed on the way. A task whose worker dies is given to another one.

    Raises
    ------
    ConversionError
        If a task has failed, or its workers have died, too often.

    """
    dask = require("dask", "dask", "scheduler=")
    distributed = require("distributed", "distributed", "scheduler=")
    delayed, keys = dask.delayed(task, pure=False), {}
    running = distributed.as_completed(loop=client.loop)

    def submit() -> bool:
        for key, arguments in todo:
            future = client.compute(delayed(*arguments), retries=_RETRIES)
            keys[future] = key
            running.add(future)
            return True
        return False

    n_threads = max(1, sum(client.nthreads().values()))
    try:
        while len(keys) < _TASKS_PER_THREAD * n_threads and submit():
            pass
        for future in running:
            key = keys.pop(future)
            yield key, future.result()
            submit()
    except OocloadError:
        raise
    except (OSError, RuntimeError, distributed.client.FutureCancelledError, distributed.scheduler.KilledWorker) as exc:
        raise ConversionError(f"writing {where} on the cluster failed: {' '.join(str(exc).split())}") from exc
    finally:
        client.cancel(list(keys))
