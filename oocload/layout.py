"""Frozen facts about a store: fields, shapes, dtypes, chunks, codecs, and where chunks lie.

Integers and names only; nothing here opens a file or touches array data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Literal, NamedTuple, Protocol

import numpy as np

ReadPath = Literal["direct", "h5py", "zarr", "numpy", "none"]

CHECKSUMS = {"crc32c", "fletcher32"}
FILTERS = {"shuffle", "delta"}
COMPRESSORS = {
    "deflate", "zlib", "gzip", "lzf", "zstd", "blosc", "blosc2", "lz4", "lz4h5", "bitshuffle", "bzip2", "bz2", "lzma"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Codec:
    """One encoding step, named as its format names it.

    Attributes
    ----------
    name
        Registered name, ``"deflate"``.
    level
        Compression level, where the store keeps it.
    item_bytes
        Bytes of the items that a shuffle takes apart.
    variant
        What else decoding needs: of ``bitshuffle`` the compressor of its blocks (``""``, ``"lz4"``, ``"zstd"``), of
        ``delta`` its two dtypes (``"<i2:<i4"``: stored and decoded).
    block_items
        Items of one block of ``bitshuffle`` without compressor; 0 for its default.

    """

    name: str
    level: int | None = None
    item_bytes: int = 1
    variant: str = ""
    block_items: int = 0

    def __str__(self) -> str:
        name = {"lz4h5": "lz4", "bitshuffle": f"bitshuffle-{self.variant}".rstrip("-")}.get(self.name, self.name)
        return name if self.level is None else f"{name}-{self.level}"


def reason_against(codecs: tuple[Codec, ...]) -> str:
    """Return why a chain of codecs is not decoded by our own code; empty when it is."""
    seen: set[str] = set()
    for codec in codecs:
        if codec.name not in CHECKSUMS | FILTERS | COMPRESSORS:
            return f"codec {codec.name}"
        if codec.name in FILTERS and (codec.name in seen or seen & COMPRESSORS):
            return f"{codec.name} in an unusual place"
        if codec.name in COMPRESSORS and seen & COMPRESSORS:
            return "several compressors"
        seen.add(codec.name)
    return ""


class Segment(NamedTuple):
    """Rows of a field that lie in one piece of storage, cut into chunks of one height.

    Attributes
    ----------
    start, stop
        Rows of the field.
    height
        Rows of a chunk that must be decoded whole; 0 where any range of rows can be read.
    origin
        Row of the field, perhaps before ``start``, at which a chunk begins.

    """

    start: int
    stop: int
    height: int
    origin: int


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the values of a field stand for, as far as the store says so in attributes of it.

    Attributes
    ----------
    vocabulary
        Of whole numbers: what each counts as, ``vocabulary[value]``; negative numbers stand for nothing.
    content
        Of ragged bytes: ``"text"`` (UTF-8) or ``"image"`` (a file such as PNG or JPEG); else empty.
    shape
        Of images: height, width and channels to which they are decoded while loading; ``()`` where none was named.

    """

    vocabulary: tuple[str, ...] = ()
    content: Literal["", "text", "image"] = ""
    shape: tuple[int, ...] = ()


NO_MEANING = Meaning()


@dataclass(frozen=True, slots=True)
class RaggedLayout:
    """Where rows of several lengths lie: one after the other in other arrays of the store.

    ::

        offsets   0     3  4        8        row i has the items from offsets[i] to offsets[i + 1]
        values    a b c d e f g h            of CSR, with the column of each beside it

    Attributes
    ----------
    values
        The items of all rows; axis 0 counts items.
    offsets
        Whole numbers, one more than there are rows.
    columns
        Of CSR: the column of each item, from 0; None for plain ragged rows.
    n_columns
        Of CSR: the length of a dense row; else 0.

    """

    values: FieldLayout
    offsets: FieldLayout
    columns: FieldLayout | None = None
    n_columns: int = 0

    @property
    def items_nbytes(self) -> int:
        """Bytes of all items, decoded, with their columns."""
        return self.values.nbytes + (self.columns.nbytes if self.columns is not None else 0)


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """What a store says about one field.

    Attributes
    ----------
    name
        Path of the field inside the store, ``"group/images"``.
    shape
        Shape of the array; axis 0 counts rows.
    dtype
        Dtype of delivered rows, in native byte order.
    stored_dtype
        Dtype of the decoded bytes on disk.
    chunks
        Shape of one chunk, or None where the rows lie in one piece (HDF5 contiguous).
    codecs
        Encoding steps in the order in which they were applied when writing.
    read_path
        ``"direct"``, or the library that reads the field.
    reason
        Why the field is not read directly; empty when it is.
    fill
        Bytes of one item of a chunk that was never written, in ``stored_dtype``.
    shards
        Shape of one Zarr shard, or None.
    axes
        The array's axes in the order in which the items of a chunk vary, slowest first; None for C order.
    pieces
        Where the rows lie in several pieces of storage (files joined, virtual datasets), each with chunks of its own.
    payload_nbytes
        Of items that are Python objects (text or arrays of variable length): bytes behind one of them, on average.
    inline
        Whether the rows lie in the file's metadata (HDF5 compact); they are held in memory.
    ragged
        Where the rows lie in other arrays of the store, one after the other: in which; else None.
    meaning
        What the values stand for.

    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    stored_dtype: np.dtype[np.generic]
    chunks: tuple[int, ...] | None
    codecs: tuple[Codec, ...] = ()
    read_path: ReadPath = "direct"
    reason: str = ""
    fill: bytes = b""
    shards: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None
    pieces: tuple[Segment, ...] = ()
    payload_nbytes: int = 0
    inline: bool = False
    ragged: RaggedLayout | None = None
    meaning: Meaning = NO_MEANING

    @property
    def n_rows(self) -> int:
        """Length of axis 0."""
        return self.shape[0] if self.shape else 0

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @property
    def row_nbytes(self) -> int:
        """Bytes of one delivered row; of ragged and sparse rows, of what is stored of one on average, at least 1."""
        if self.ragged is not None:
            return max(1, self.ragged.items_nbytes // max(1, self.n_rows))
        return prod(self.row_shape) * (self.dtype.itemsize + self.payload_nbytes)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole field, decoded; of ragged and sparse rows, of the arrays that hold them."""
        if self.ragged is not None:
            return self.ragged.items_nbytes + self.ragged.offsets.nbytes
        return self.n_rows * self.row_nbytes

    @property
    def chunk_rows(self) -> int:
        """Rows of one chunk; the whole field where it is not chunked."""
        return self.chunks[0] if self.chunks else max(1, self.n_rows)

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of one decoded chunk; 0 where the field is not chunked."""
        return prod(self.chunks) * self.stored_dtype.itemsize if self.chunks else 0

    @property
    def whole_rows(self) -> bool:
        """Whether the bytes of a chunk are rows one after the other: neither cut nor wider than they are."""
        return self.axes is None and (self.chunks is None or self.chunks[1:] == self.row_shape)

    @property
    def rigid(self) -> bool:
        """Whether a chunk must be decoded whole to get at any of its rows."""
        if self.read_path != "direct":
            return self.chunks is not None
        return bool(self.codecs) or not self.whole_rows

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The pieces of storage; one where the field is not made of several."""
        return self.pieces or (Segment(0, self.n_rows, self.chunk_rows if self.rigid else 0, 0),)

    @property
    def decoder(self) -> str:
        """The codecs as one word for people: ``"shuffle+deflate-4"`` or ``"raw"``."""
        return "+".join(map(str, self.codecs)) or "raw"


class ChunkGrid:
    """Index arithmetic of a regular chunk grid.

    Chunks are numbered in C order over the grid::

        shape (10, 6), chunks (4, 3)        rows 0..3   | 0 | 1 |
                                            rows 4..7   | 2 | 3 |
                                            rows 8..9   | 4 | 5 |   <- edge chunks, cut at row 10
    """

    __slots__ = ("chunks", "counts", "per_band", "shape")

    def __init__(self, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
        self.shape = shape
        self.chunks = chunks
        self.counts = tuple(-(-n // max(1, c)) for n, c in zip(shape, chunks, strict=True))
        self.per_band = prod(self.counts[1:])

    @property
    def n_chunks(self) -> int:
        """Number of chunks in the grid."""
        return prod(self.counts)

    def bands(self, start: int, stop: int) -> range:
        """Return the indices along axis 0 of the chunks that hold rows ``start`` to ``stop``."""
        height = self.chunks[0]
        return range(start // height, -(-stop // height) if stop > start else start // height)

    def band(self, index: int) -> Iterator[tuple[int, tuple[slice, ...]]]:
        """Yield (chunk number, its place in a row) for each chunk at ``index`` along axis 0."""
        for inner, corner in enumerate(product(*map(range, self.counts[1:]))):
            place = tuple(
                slice(i * c, min(n, (i + 1) * c))
                for i, c, n in zip(corner, self.chunks[1:], self.shape[1:], strict=True)
            )
            yield index * self.per_band + inner, place

    def corner(self, chunk: int) -> tuple[int, ...]:
        """Return the grid index of a chunk number."""
        return tuple(int(i) for i in np.unravel_index(chunk, self.counts))


class FileStamp(NamedTuple):
    """What tells that a file is still the one that was opened: its size, the time of its last change, its inode."""

    nbytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """Return the stamp in what `os.stat` or `os.fstat` says."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


class ByteRange(NamedTuple):
    """Where the stored bytes of one chunk lie."""

    path: str
    offset: int
    nbytes: int
    skipped: int = 0  # HDF5 filter mask: bit i set means that codec i was not applied


class ChunkLocations(Protocol):
    """Tells where chunks lie; the answer for a chunk that was never written is None."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the index holds."""
        ...

    @property
    def max_stored_nbytes(self) -> int | None:
        """Size of the largest stored chunk, or None where only the files can tell."""
        ...

    @property
    def path(self) -> str | None:
        """The one file that holds all chunks, or None where they have files of their own."""
        ...

    @property
    def stamp(self) -> FileStamp | None:
        """The stamp of that file, where there is one."""
        ...

    def find(self, chunk: int) -> ByteRange | None:
        """Return where a chunk's bytes lie. Thread-safe."""
        ...
