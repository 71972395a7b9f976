"""The manifest of a store: of every chunk of an array its stored size and its CRC-32C.

It lies inside the store, in blobs of some thousand chunks each beside the array that they speak of: in HDF5 attributes
of the dataset, in Zarr files of the array's folder. The root says which arrays have one. Format: docs/writing.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import google_crc32c
import h5py
import numpy as np
from numpy.typing import NDArray

from oocload.errors import StoreFormatError
from oocload.layout import ChunkGrid, FieldLayout
from oocload.stores.base import Store

SEGMENT_CHUNKS = 4096
NEVER_WRITTEN = 2**64 - 1  # stands for the size of a chunk that is not there
PREFIX = "oocload_checksums_"
LIST_NAME = "oocload_checksums"  # the root's attribute that lists the arrays with checksums
VERSION = 1
_MAGIC = b"oocload checksums\n"
_CRC_NBYTES = 4


@dataclass(frozen=True, slots=True)
class Segment:
    """The checksums of chunks that follow each other.

    Attributes
    ----------
    first
        Number of the first chunk; chunks are numbered in C order of the chunk grid (`oocload.layout.ChunkGrid`).
    nbytes
        Stored bytes of each; `NEVER_WRITTEN` for a chunk that is not there.
    crc32c
        Of each, as `stored_crc32c` gives it; 0 for a chunk that is not there.

    """

    first: int
    nbytes: NDArray[np.uint64]
    crc32c: NDArray[np.uint32]


@dataclass
class ArrayChecksums:
    """What the manifest says about one array.

    Attributes
    ----------
    shape, dtype, chunks
        Of the array, as stored; the dtype as `dtype_text` gives it.
    codecs
        Its encoding steps, as `codec_texts` gives them.
    conversion
        Digest of the conversion that wrote it, or empty.
    segments
        Of `SEGMENT_CHUNKS` chunks each, the last perhaps of fewer; together they cover the chunk grid.

    """

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    codecs: tuple[str, ...]
    conversion: str = ""
    segments: list[Segment] = field(default_factory=list)

    @classmethod
    def describing(cls, layout: FieldLayout, conversion: str = "") -> ArrayChecksums:
        """Return the facts about an array, without segments."""
        assert layout.chunks is not None
        return cls(layout.shape, dtype_text(layout.stored_dtype), layout.chunks, codec_texts(layout), conversion)

    @property
    def n_chunks(self) -> int:
        """Chunks of the grid."""
        return ChunkGrid(self.shape, self.chunks).n_chunks


def dtype_text(dtype: np.dtype[Any]) -> str:
    """Return a dtype as text that tells it from others: ``"<u2"``, ``"bfloat16"``, the fields of a structure."""
    if dtype.names is not None:
        return repr(dtype.descr)
    return dtype.name if dtype.kind == "V" and dtype.type is not np.void else dtype.str


def codec_texts(layout: FieldLayout) -> tuple[str, ...]:
    """Return the encoding steps of an array, in the order in which they are applied: ``("shuffle:2", "deflate-4")``."""
    axes = () if layout.axes is None else (f"transpose:{','.join(map(str, layout.axes))}",)
    steps = (f"{c}:{c.item_bytes}" if c.item_bytes != 1 else str(c) for c in layout.codecs)
    return (*axes, *steps)


def stored_crc32c(stored: bytes | NDArray[np.uint8], skipped: int = 0) -> int:
    """Return the CRC-32C (Castagnoli, RFC 3720) of a chunk's stored bytes, as the manifest keeps it.

    Parameters
    ----------
    stored
        `bytes`, or a contiguous array of them; neither is copied, and the GIL is released.
    skipped
        HDF5's filter mask. Where it is not 0, the checksum goes on over it, as 4 bytes, little-endian.

    """
    crc = google_crc32c.value(stored)
    return int(google_crc32c.extend(crc, skipped.to_bytes(4, "little")) if skipped else crc)


def written(nbytes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the stored bytes of chunks, 0 for those that were never written."""
    return np.where(nbytes == NEVER_WRITTEN, np.uint64(0), nbytes)


class ChecksumBuilder:
    """Collects the checksums of chunks, in any order.

    Parameters
    ----------
    known
        Facts about the array, with the segments that it has already, if any.

    """

    def __init__(self, known: ArrayChecksums) -> None:
        self._known = known
        n_known = sum(len(s.nbytes) for s in known.segments)
        self._nbytes = np.full(max(n_known, 64), NEVER_WRITTEN, np.uint64)
        self._crc = np.zeros(len(self._nbytes), np.uint32)
        for segment in known.segments:
            part = slice(segment.first, segment.first + len(segment.nbytes))
            self._nbytes[part], self._crc[part] = segment.nbytes, segment.crc32c
        self._first_changed = n_known

    def add(self, chunk: int, nbytes: int, crc32c: int) -> None:
        """Note a chunk that was written, for the first time or again."""
        if chunk >= len(self._nbytes):
            self._grow(chunk + 1)
        self._nbytes[chunk], self._crc[chunk] = nbytes, crc32c
        self._first_changed = min(self._first_changed, chunk)

    def build(self, shape: Sequence[int]) -> ArrayChecksums:
        """Return the checksums of all chunks of the array, which has this shape by now."""
        built = replace(self._known, shape=tuple(shape), segments=[])
        n_chunks = built.n_chunks
        if n_chunks > len(self._nbytes):
            self._grow(n_chunks)
        for first in range(0, max(1, n_chunks), SEGMENT_CHUNKS):  # an array without rows has checksums too: of none
            part = slice(first, min(n_chunks, first + SEGMENT_CHUNKS))
            built.segments.append(Segment(first, self._nbytes[part].copy(), self._crc[part].copy()))
        return built

    @property
    def from_segment(self) -> int:
        """The first segment that differs from those that were known, for `write_checksums_hdf5` and its like."""
        n_known = len(self._known.segments)
        return min(self._first_changed // SEGMENT_CHUNKS, max(0, n_known - 1))  # the last one has the shape

    def _grow(self, at_least: int) -> None:
        more = max(at_least, 2 * len(self._nbytes)) - len(self._nbytes)
        self._nbytes = np.concatenate([self._nbytes, np.full(more, NEVER_WRITTEN, np.uint64)])
        self._crc = np.concatenate([self._crc, np.zeros(more, np.uint32)])


def encode_segment(checksums: ArrayChecksums, segment: Segment) -> bytes:
    """Return the blob of one segment; equal facts give equal bytes."""
    facts = {
        "version": VERSION,
        "first": segment.first,
        "count": len(segment.nbytes),
        "shape": checksums.shape,
        "dtype": checksums.dtype,
        "chunks": checksums.chunks,
        "codecs": checksums.codecs,
        "conversion": checksums.conversion,
    }
    line = json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
    body = b"".join(
        (_MAGIC, line, b"\n", segment.nbytes.astype("<u8").tobytes(), segment.crc32c.astype("<u4").tobytes())
    )
    return body + stored_crc32c(body).to_bytes(_CRC_NBYTES, "little")


def decode_segment(blob: bytes, where: str = "a segment of checksums") -> ArrayChecksums:
    """Return what a blob says: the facts about its array, and one segment.

    Raises
    ------
    StoreFormatError
        If it is damaged, or of a later version.

    """
    body, crc = blob[:-_CRC_NBYTES], blob[-_CRC_NBYTES:]
    if not body.startswith(_MAGIC) or stored_crc32c(body) != int.from_bytes(crc, "little"):
        raise StoreFormatError(f"{where} must be as it was written, and is damaged: it fails its own checksum")
    line, _, numbers = body[len(_MAGIC) :].partition(b"\n")
    facts = json.loads(line)
    if facts["version"] != VERSION:
        raise StoreFormatError(
            f"{where} must be of version {VERSION}, got {facts['version']}; a later oocload wrote it: update this one"
        )
    count = facts["count"]
    nbytes = np.frombuffer(numbers, "<u8", count).astype(np.uint64)
    crc32c = np.frombuffer(numbers, "<u4", count, 8 * count).astype(np.uint32)
    return ArrayChecksums(
        shape=tuple(facts["shape"]),
        dtype=facts["dtype"],
        chunks=tuple(facts["chunks"]),
        codecs=tuple(facts["codecs"]),
        conversion=facts["conversion"],
        segments=[Segment(facts["first"], nbytes, crc32c)],
    )


def segment_name(number: int) -> str:
    """Return the name of a segment's attribute or file."""
    return f"{PREFIX}{number:03d}"


def write_checksums_hdf5(dataset: h5py.Dataset, checksums: ArrayChecksums, from_segment: int = 0) -> None:
    """Write the segments from one on as attributes of a dataset, and remove those that are no more."""
    for number, segment in enumerate(checksums.segments[from_segment:], from_segment):
        blob = np.empty((), object)  # the only form in which h5py takes a scalar of variable length
        blob[()] = np.frombuffer(encode_segment(checksums, segment), np.uint8)
        dataset.attrs.create(segment_name(number), blob, dtype=h5py.vlen_dtype(np.uint8))
    for name in _surplus(dataset.attrs, checksums):
        del dataset.attrs[name]


def write_checksums_zarr(folder: Path, checksums: ArrayChecksums, from_segment: int = 0) -> None:
    """Write the segments from one on as files of an array's folder, each whole or not at all; remove those no more."""
    for number, segment in enumerate(checksums.segments[from_segment:], from_segment):
        part = folder / f".{segment_name(number)}.part"
        part.write_bytes(encode_segment(checksums, segment))
        os.replace(part, folder / segment_name(number))
    for name in _surplus(os.listdir(folder), checksums):
        (folder / name).unlink()


def write_list(attributes: Any, arrays: Iterable[str], ragged: Mapping[str, int] = MappingProxyType({})) -> None:
    """Note in the attributes of the root what has checksums, so that what is lost is missed.

    Parameters
    ----------
    attributes
        Of the root group, of h5py or zarr.
    arrays
        Names of the arrays that have checksums.
    ragged
        Name → number of columns of the groups that are one sparse field; 0 of those that are one ragged field.

    """
    said = {"arrays": sorted(arrays), "ragged": dict(ragged)}
    attributes[LIST_NAME] = json.dumps(said, sort_keys=True, separators=(",", ":"))


def _surplus(names: Iterable[str], checksums: ArrayChecksums) -> list[str]:
    kept = {segment_name(number) for number in range(len(checksums.segments))}
    return [name for name in names if name.startswith(PREFIX) and name not in kept]


def read_checksums(store: Store, array_name: str) -> ArrayChecksums | None:
    """Return the checksums of an array, or None where it has none.

    Raises
    ------
    StoreFormatError
        If a segment is damaged, or one is missing.

    """
    blobs = store.notes(array_name, PREFIX)
    if not blobs:
        return None
    where = f"{store.address}, field {array_name!r}"
    read = {name: decode_segment(blob, f"{where}, {name}") for name, blob in blobs.items()}
    return join_segments(read, where)


def join_segments(read: Mapping[str, ArrayChecksums], where: str) -> ArrayChecksums:
    """Return the segments of one array together; the last was written last, and has the shape of the array.

    Raises
    ------
    StoreFormatError
        If they do not cover the chunk grid, or speak of different arrays.

    """
    ordered = [read[name] for name in sorted(read, key=lambda name: (len(name), name))]
    last = ordered[-1]
    joined = replace(last, segments=[s for each in ordered for s in each.segments])
    ends = 0
    for number, segment in enumerate(joined.segments):
        if segment.first != number * SEGMENT_CHUNKS:
            raise StoreFormatError(f"{where} must have all segments of its checksums, and lacks {segment_name(number)}")
        ends = segment.first + len(segment.nbytes)
    if ends != last.n_chunks:
        raise StoreFormatError(
            f"{where} must have checksums for {last.n_chunks} chunks, and has them for {ends}; a segment is missing"
        )
    if any((e.dtype, e.chunks, e.codecs) != (last.dtype, last.chunks, last.codecs) for e in ordered):
        raise StoreFormatError(f"{where} must have checksums of one array, and its segments speak of several")
    return joined
