"""Stored bytes of many chunks against their checksums: read in pieces of some MiB, whatever the size of a chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from oocload.chunks.fetch import Files, read_all
from oocload.errors import OocloadError
from oocload.layout import ByteRange, ChunkLocations
from oocload.stores.checksums import NEVER_WRITTEN, stored_crc32c

BUFFER_NBYTES = 4 * 2**20
_GAP_NBYTES = 64 * 1024  # read and dropped, where it saves a call: about what a call costs from the page cache

Buffer = NDArray[np.uint8]


class ToCheck(NamedTuple):
    """Chunks that follow each other, where they lie, and what they were when they were written."""

    locations: ChunkLocations
    first: int
    nbytes: NDArray[np.uint64]
    crc32c: NDArray[np.uint32]


class Wrong(NamedTuple):
    """What is wrong with one chunk; its place, where it has one."""

    chunk: int
    place: ByteRange | None
    why: str


class _Wanted(NamedTuple):
    """A chunk that is there at its right size. Sorted, they lie as in the files."""

    place: ByteRange
    chunk: int


def check_chunks(chunks: ToCheck, files: Files, buffer: Buffer) -> list[Wrong]:
    """Return what is wrong with some chunks, in their order."""
    wrong: list[Wrong] = []
    wanted = sorted(_present(chunks, wrong))
    for run in _runs(wanted):
        for one, crc in _read(run, files, buffer, wrong):
            known = int(chunks.crc32c[one.chunk - chunks.first])
            if crc != known:
                why = f"its bytes are not those that were written (CRC-32C {crc:08x}, and {known:08x} was it)"
                wrong.append(Wrong(one.chunk, one.place, why))
    return sorted(wrong, key=lambda one: one.chunk)


def _present(chunks: ToCheck, wrong: list[Wrong]) -> Iterator[_Wanted]:
    """Yield the chunks that are there at their right size, and note the others."""
    for chunk, nbytes in enumerate(chunks.nbytes.tolist(), chunks.first):
        try:
            place = chunks.locations.find(chunk)
        except (OocloadError, OSError) as exc:
            wrong.append(Wrong(chunk, None, f"it cannot be found: {exc}"))
            continue
        if place is None:
            if nbytes != NEVER_WRITTEN:
                wrong.append(Wrong(chunk, None, f"it is missing, and had {nbytes} bytes"))
        elif nbytes == NEVER_WRITTEN:
            wrong.append(Wrong(chunk, place, f"it is there, with {place.nbytes} bytes, and was never written"))
        elif place.nbytes != nbytes:
            wrong.append(Wrong(chunk, place, f"it has {place.nbytes} bytes, and had {nbytes}"))
        else:
            yield _Wanted(place, chunk)


def _runs(wanted: Sequence[_Wanted]) -> Iterator[list[_Wanted]]:
    """Yield chunks that are read by one call: neighbours that fit into the buffer together, or one alone."""
    run: list[_Wanted] = []
    end = 0
    for one in wanted:
        place = one.place
        if run:
            begin = run[0].place
            near = place.path == begin.path and place.offset - end <= _GAP_NBYTES
            if not near or place.offset + place.nbytes - begin.offset > BUFFER_NBYTES:
                yield run
                run, end = [], 0
        run.append(one)
        end = max(end, place.offset + place.nbytes)
    if run:
        yield run


def _read(run: Sequence[_Wanted], files: Files, buffer: Buffer, wrong: list[Wrong]) -> Iterator[tuple[_Wanted, int]]:
    """Yield each chunk of a run and its checksum, and note those that cannot be read."""
    if len(run) == 1:
        try:
            yield run[0], _crc_of_one(run[0].place, files, buffer)
        except OSError as exc:
            wrong.append(Wrong(run[0].chunk, run[0].place, f"it cannot be read: {exc}"))
        return
    begin = run[0].place.offset
    nbytes = max(one.place.offset + one.place.nbytes for one in run) - begin
    try:
        with files.opened(run[0].place.path) as descriptor:
            read_all(descriptor, begin, [memoryview(buffer)[:nbytes]])
    except OSError:  # a bad sector, or the file's end, which is the fault of one of them
        for one in run:
            yield from _read([one], files, buffer, wrong)
        return
    for one in run:
        start = one.place.offset - begin
        yield one, stored_crc32c(buffer[start : start + one.place.nbytes], one.place.skipped)


def _crc_of_one(place: ByteRange, files: Files, buffer: Buffer) -> int:
    """Return the checksum of a chunk of any size."""
    if place.nbytes <= len(buffer):
        with files.opened(place.path) as descriptor:
            read_all(descriptor, place.offset, [memoryview(buffer)[: place.nbytes]])
        return stored_crc32c(buffer[: place.nbytes], place.skipped)
    crc = 0
    with files.opened(place.path) as descriptor:
        for done in range(0, place.nbytes, len(buffer)):
            piece = buffer[: min(len(buffer), place.nbytes - done)]
            read_all(descriptor, place.offset + done, [memoryview(piece)])
            crc = google_crc32c.extend(crc, piece)
    return int(google_crc32c.extend(crc, place.skipped.to_bytes(4, "little")) if place.skipped else crc)
