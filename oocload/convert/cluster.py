"""A conversion on the workers of a dask cluster: each task writes chunk files, or a file, of its own.

::

    here       ranges of rows ─► tasks ─────────────► journal ─► checksums ─► one rename
    workers                       read, encode, write under a draft's name, rename

Tasks may run twice, as they do where a worker dies: what they write is the same, and appears by a rename. The folder of
the target must be one that every worker sees under the same path.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from oocload.convert.arrays import NewArray
from oocload.convert.buffers import Buffers
from oocload.convert.encode import Encoding
from oocload.convert.fields import Spec, parse_fields
from oocload.convert.journal import Records
from oocload.convert.options import Options
from oocload.convert.parts import PartsFolder, Size, folder_for, part_of, room_for_rows, rows_of_part, size_of
from oocload.convert.pipeline import make_chunk
from oocload.convert.report import Callback, ConversionReport, Reporter
from oocload.convert.session import Chunk, Session, Source
from oocload.convert.settle import settle_codec
from oocload.convert.sources.parted import Description, describe, open_part
from oocload.convert.spec import FieldSpec
from oocload.convert.stream import batches_for, closing_batches, least_piece, stored_nbytes
from oocload.convert.writer import Writer, check_rows
from oocload.convert.zarr_target import ZarrTarget
from oocload.errors import ConversionError, InvalidArgumentError, OocloadError
from oocload.optional import require

_TIMEOUT_S = 10
_TASKS_PER_THREAD = 3  # at the scheduler at a time: enough that no worker waits for us
_RETRIES = 2
_TASK_NBYTES = 16 * 2**20  # of rows: opening the source and the target costs a task some milliseconds


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
            some = rows[first : first + new.height]
            chunk = make_chunk(target, array, new, number, some)
            target.put(array, number, chunk.encoded, len(some))
            made.append(Chunk(array, number, memoryview(chunk.encoded.data).nbytes, chunk.crc, chunk.raw))
        buffers.give_back(array, rows)

    buffers = Buffers(job.fields, job.arrays)
    for name in job.arrays:
        buffers.go_on(name, part["start"], np.empty(0))
    source = open_part(part)
    with closing(target), closing_batches(source.batches(job.piece_nbytes, n_threads=1)) as batches:
        for batch in batches:
            for name, given in check_rows(batch, job.fields).items():
                for full in buffers.add(name, given, source.owned):
                    put(*full)
        for full in buffers.rest():
            put(*full)
        target.finish_shards()
    return made


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
        options, tried = settle_codec(rows, path, bool(part_nbytes), options)
        if part_nbytes:
            report = _write_parts(client, described, path, part_nbytes, options, progress)
        else:
            report = _write_zarr(client, described, path, options, progress)
    return replace(report, tried=tried)


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
        source=Source(rows.identity(), rows.identity_is_proof, compared=True),
        piece=least_piece(rows),
        meanings=lambda: rows.meanings,
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
        peak_nbytes=reporter.peak_nbytes,
        codec=writer.codec,
    )


def write_file(
    path: Path,
    drafts: Path,
    part: Mapping[str, Any],
    fields: Mapping[str, Spec],
    options: Options,
    n_rows: int,
    source: Source,
) -> Size:
    """Write one of several files, unless it is there. Runs on a worker."""
    if not path.exists():
        draft = drafts / secrets.token_hex(8) / path.name
        draft.parent.mkdir(parents=True)
        rows = open_part(part)
        writer = Writer(
            draft,
            fields,
            options,
            n_rows=n_rows,
            source=source,
            piece=least_piece(rows),
            meanings=lambda: rows.meanings,
        )
        with writer, batches_for(rows, writer, 0) as batches:
            for batch in batches:
                writer.append_batch(batch, owned=rows.owned)
        with suppress(OSError) if path.exists() else nullcontext():  # the same task has run elsewhere as well
            os.rename(draft, path)
    return size_of(path)


def _write_parts(
    client: Any,
    described: Description,
    path: Path,
    part_nbytes: int,
    options: Options,
    progress: bool | Callback | None,
) -> ConversionReport:
    rows, path = described.rows, path.absolute()
    n_rows, fields = rows.n_rows or 0, parse_fields(rows.specs or {})
    arrays = options.arrays_of(fields, options.format_of(path), n_rows)
    room, height = room_for_rows(part_nbytes, arrays)
    step = rows_of_part(room, sum(array.spec.row_nbytes for array in arrays.values()), height)
    folder = folder_for(rows, path, part_nbytes, options)
    try:
        with Reporter(path.name, n_rows, progress) as reporter:
            sizes = _write_files(client, described, folder, step, fields, options, reporter)
            folder.publish()
    except BaseException:
        folder.close()
        raise
    return ConversionReport(
        path=os.fspath(path),
        n_rows=sizes.n_rows,
        fields=tuple(fields),
        nbytes=sizes.nbytes,
        stored_nbytes=sizes.stored_nbytes,
        seconds=reporter.seconds,
        peak_nbytes=reporter.peak_nbytes,
        codec=str(options.encoding_for(options.format_of(path))),
    )


def _write_files(
    client: Any,
    described: Description,
    folder: PartsFolder,
    step: int,
    fields: Mapping[str, Spec],
    options: Options,
    reporter: Reporter,
) -> Size:
    """Have workers write the files that are not there; return the size of all."""
    n_rows = described.rows.n_rows or 0
    todo, total = [], Size(0, 0, 0)
    alone = replace(options, resume=False, overwrite=False)
    for number, start in enumerate(range(0, n_rows, step)):
        path = folder.path_of(number)
        if path.exists():
            total = _sum(total, size_of(path))
            continue
        part = described.part(start, min(n_rows, start + step))
        todo.append((number, (path, folder.drafts, part, fields, alone, n_rows, part_of(folder.source, start))))
    for _, size in run(client, write_file, iter(todo), folder.path_of(0).parent):
        total = _sum(total, size)
        reporter.update(*total)
    return total


def _sum(one: Size, other: Size) -> Size:
    return Size(*(a + b for a, b in zip(one, other, strict=True)))


def _spread(client: Any, described: Description, session: Session, n_rows: int, reporter: Reporter) -> None:
    """Have workers write the chunks that are not there."""
    order = session.order
    drafts = session.place.folder / "drafts"
    drafts.mkdir(exist_ok=True)
    groups = alike(order.arrays)
    done: dict[int, set[int]] = {step: set() for step in groups}
    todo = []
    for step, names in groups.items():
        job = ZarrJob(
            session.place.store,
            drafts,
            2 if order.format == "zarr2" else 3,
            {name: order.fields[name] for name in names},
            {name: order.arrays[name] for name in names},
            order.encoding,
            order.budget.piece_nbytes,
        )
        for start in range(0, n_rows, step):
            stop = min(n_rows, start + step)
            if session.has(names, start, stop):
                done[step].add(start)
            else:
                todo.append((start, step, job))
    tasks = (((n, step), (j, described.only(list(j.fields)).part(n, min(n_rows, n + step)))) for n, step, j in todo)
    for (start, step), made in run(client, write_rows, tasks, where=session.place.destination):
        done[step].add(start)
        session.take(made, min(_reached(starts, step, n_rows) for step, starts in done.items()))
        nbytes = sum(
            sum(min(n_rows, first + step) - first for first in starts) * _row_nbytes(order.arrays, groups[step])
            for step, starts in done.items()
        )
        reporter.update(nbytes // _row_nbytes(order.arrays, order.arrays), nbytes, session.stored_nbytes)


def alike(arrays: Mapping[str, NewArray]) -> dict[int, list[str]]:
    """Return rows of a task → names of the arrays that it writes: whole files of each, and not too few bytes."""
    by_height: dict[int, list[str]] = {}
    for name, array in arrays.items():
        by_height.setdefault(array.shard_height, []).append(name)
    found: dict[int, list[str]] = {}
    for height, names in by_height.items():
        step = height * max(1, _TASK_NBYTES // max(1, height * _row_nbytes(arrays, names)))
        found.setdefault(step, []).extend(names)
    return found


def _row_nbytes(arrays: Mapping[str, NewArray], names: Iterable[str]) -> int:
    return sum(arrays[name].spec.row_nbytes for name in names)


def _reached(starts: set[int], step: int, n_rows: int) -> int:
    """Return how many first rows are there, given where the ranges begin that are."""
    return next((start for start in range(0, n_rows, step) if start not in starts), n_rows)


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
