"""``codec="auto"``: a few chunks are tried with each codec, and the smallest is taken that no reader will wait for.

Measuring (`choose_codec`) is apart from deciding (`pick`), which looks at numbers alone.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.codecs import decode
from oocload.chunks.scratch import Scratch, aligned_empty
from oocload.convert.chunking import DEFAULT_CHUNK_NBYTES
from oocload.convert.encode import Encoding, TargetFormat, codecs_of, encoder_for
from oocload.layout import Codec

_CANDIDATES = {
    # Those that any h5py reads without a plugin.
    "hdf5": [("none", None), ("lzf", None), ("gzip", 1), ("gzip", 4), ("gzip", 9)],
    "zarr": [("none", None), ("blosc", 5), ("zstd", 1), ("zstd", 3), ("zstd", 9), ("gzip", 6)],
}
_N_CHUNKS = 4
_LEAST_SAVING = 0.05  # less is not worth a codec
_NEARLY = 0.01  # as small: then the one that encodes faster
_ROUNDS = 3
_ROUND_NBYTES = 8 * 2**20  # decoded by each thread in a round, at least
_FILE_NBYTES = 64 * 2**20
_PIECE_NBYTES = 2**20


@dataclass(frozen=True, slots=True)
class Candidate:
    """What was measured of one codec.

    Attributes
    ----------
    encoding
        The codec and its level.
    ratio
        Decoded bytes per stored byte.
    encode_rate, decode_rate
        Decoded bytes a second, on all threads.

    """

    encoding: Encoding
    ratio: float
    encode_rate: float
    decode_rate: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The codec taken, and why; print it.

    Attributes
    ----------
    encoding
        What was taken.
    disk_rate
        Bytes a second that the disk reads.
    table
        Each candidate with the verdict on it.

    """

    encoding: Encoding
    disk_rate: float
    table: tuple[tuple[Candidate, str], ...]

    def __str__(self) -> str:
        lines = [f"codec {self.encoding}; the disk reads {self.disk_rate / 1e9:.2f} GB/s"]
        lines.append(f"{'codec':<8} {'ratio':>6} {'encode GB/s':>12} {'decode GB/s':>12}  verdict")
        for one, verdict in self.table:
            rates = (f"{rate / 1e9:>12.2f}" if rate < float("inf") else f"{'-':>12}" for rate in _rates(one))
            lines.append(f"{one.encoding!s:<8} {one.ratio:>6.2f} {' '.join(rates)}  {verdict}")
        return "\n".join(lines)


def pick(candidates: Sequence[Candidate], disk_rate: float) -> tuple[Candidate, list[str]]:
    """Return the candidate to take, and a verdict on each.

    Taken is the smallest of those that decode at least as fast as the disk reads raw rows, and save 5 % at least; of
    those within 1 % of it, the one that encodes fastest. Without any, the first candidate, which must be "none".

    Parameters
    ----------
    candidates
        What was measured of each; the first encodes nothing.
    disk_rate
        Bytes a second.

    """
    none, *others = candidates
    saving = [one for one in others if 1 / one.ratio <= 1 - _LEAST_SAVING]
    keeping_up = [one for one in saving if one.decode_rate >= disk_rate]
    taken = none
    if keeping_up:
        best = max(one.ratio for one in keeping_up)
        taken = max((one for one in keeping_up if one.ratio >= best * (1 - _NEARLY)), key=lambda one: one.encode_rate)

    def verdict(one: Candidate) -> str:
        if one is taken:
            return "taken"
        if one is none:
            return "larger"
        if one not in saving:
            return f"saves less than {_LEAST_SAVING:.0%}"
        if one not in keeping_up:
            return "decodes slower than the disk reads"
        return "larger" if one.ratio < taken.ratio else "encodes slower, and is hardly smaller"

    return taken, [verdict(one) for one in candidates]


def choose_codec(
    target_format: TargetFormat,
    samples: Mapping[str, NDArray[Any]],
    folder: Path,
    threads: int,
    heights: Mapping[str, int] | None = None,
) -> Choice:
    """Try the codecs of a format on this machine, and choose one.

    What is chosen depends on the processor, on the disk, and on what else they do at that moment: two machines, or two
    runs, may choose otherwise. The disk's rate is that of a temporary file of 64 MiB, dropped from the page cache and
    read by all threads, the fastest of three times. In a folder in memory (tmpfs), where nothing can be dropped, it is
    the memory's, with which few codecs keep up.

    Parameters
    ----------
    target_format
        Of the store to be.
    samples
        Array → all or some of its rows, also of a memory-mapped file: four chunks of them are taken, spread over them.
    folder
        Where the store will be read: its disk is measured.
    threads
        That encode and decode.
    heights
        Array → rows of a chunk; None for chunks of the default size.

    Returns
    -------
    Choice
        The encoding, and a table of what was measured.

    Raises
    ------
    OSError
        If the folder has no room for the file, or cannot be written.

    """
    names = candidates_of(target_format)
    chunks = [chunk for name, rows in samples.items() for chunk in sample_chunks(rows, (heights or {}).get(name))]
    if not any(chunk.nbytes for chunk in chunks):
        names = names[:1]
    with ThreadPoolExecutor(threads, thread_name_prefix="oocload-auto") as pool:
        rate = disk_rate(folder, pool, threads)
        candidates = [_measure(target_format, name, chunks, pool, threads) for name in names]
    taken, verdicts = pick(candidates, rate)
    return Choice(taken.encoding, rate, tuple(zip(candidates, verdicts, strict=True)))


def candidates_of(target_format: TargetFormat) -> list[Encoding]:
    """Return the codecs that are tried for a format."""
    return [Encoding(*name) for name in _CANDIDATES["hdf5" if target_format == "hdf5" else "zarr"]]


def sample_chunks(rows: NDArray[Any], height: int | None = None) -> list[NDArray[Any]]:
    """Return chunks worth trying, spread over rows; of fewer rows than a chunk has, all of them."""
    if not len(rows):
        return []
    if height is None:
        height = max(1, DEFAULT_CHUNK_NBYTES // max(1, rows[:1].nbytes))
    return [np.ascontiguousarray(rows[start : start + height]) for start in sample_starts(len(rows), height)]


def sample_starts(n_rows: int, height: int, n_chunks: int = _N_CHUNKS) -> list[int]:
    """Return the rows at which chunks worth trying begin: whole ones, spread over an array; of a short one, row 0."""
    whole = n_rows // height
    if whole <= n_chunks:
        return [chunk * height for chunk in range(max(1, whole))]
    return [(2 * i + 1) * whole // (2 * n_chunks) * height for i in range(n_chunks)]


def disk_rate(folder: Path, pool: ThreadPoolExecutor, threads: int, nbytes: int = _FILE_NBYTES) -> float:
    """Return the bytes a second at which all threads together read a file that is not in the page cache."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        fd = file.fileno()
        random = np.random.default_rng(0)  # nothing that a file system compresses
        for at in range(0, nbytes, _PIECE_NBYTES):
            os.pwrite(fd, random.bytes(_PIECE_NBYTES), at)
        os.fdatasync(fd)

        def read(thread: int) -> None:
            room = aligned_empty(_PIECE_NBYTES)
            for at in range(thread * _PIECE_NBYTES, nbytes, threads * _PIECE_NBYTES):
                os.preadv(fd, [room], at)

        took = []
        for _ in range(_ROUNDS):
            os.posix_fadvise(fd, 0, nbytes, os.POSIX_FADV_DONTNEED)
            took.append(_seconds(pool, [partial(read, thread) for thread in range(threads)]))
        return nbytes / min(took)


def _rates(one: Candidate) -> tuple[float, float]:
    return one.encode_rate, one.decode_rate


def _measure(
    target_format: TargetFormat,
    encoding: Encoding,
    chunks: Sequence[NDArray[Any]],
    pool: ThreadPoolExecutor,
    threads: int,
) -> Candidate:
    if encoding.codec == "none":
        return Candidate(encoding, 1.0, float("inf"), float("inf"))
    nbytes = sum(chunk.nbytes for chunk in chunks)
    encoders = {(c.dtype, c.shape): encoder_for(target_format, encoding, c.dtype, c.shape) for c in chunks}
    began = time.perf_counter()
    encoded = list(pool.map(lambda chunk: encoders[chunk.dtype, chunk.shape](chunk), chunks))
    encode_rate = nbytes / (time.perf_counter() - began)
    tasks = [
        (np.frombuffer(e.data, np.uint8), _applied(codecs_of(target_format, encoding, c.dtype), e.skipped), c.nbytes)
        for c, e in zip(chunks, encoded, strict=True)
    ]
    repeats = max(1, -(-_ROUND_NBYTES // nbytes))
    work = [partial(_decode_all, tasks * repeats)] * threads
    seconds = min(_seconds(pool, work) for _ in range(_ROUNDS))
    stored = sum(len(e.data) for e in encoded)
    return Candidate(encoding, nbytes / stored, encode_rate, nbytes * repeats * threads / seconds)


def _applied(codecs: tuple[Codec, ...], skipped: int) -> tuple[Codec, ...]:
    return tuple(codec for i, codec in enumerate(codecs) if not skipped >> i & 1)


def _decode_all(tasks: Iterable[tuple[NDArray[np.uint8], tuple[Codec, ...], int]]) -> None:
    scratch = Scratch()
    for data, codecs, nbytes in tasks:
        decode(data, codecs, scratch.get("decoded", nbytes), scratch)


def _seconds(pool: ThreadPoolExecutor, work: Sequence[Callable[[], object]]) -> float:
    """Run one piece of work on each thread; return how long all of them took."""
    began = time.perf_counter()
    for done in [pool.submit(one) for one in work]:
        done.result()
    return time.perf_counter() - began
