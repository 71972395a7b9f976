"""One field's rows, from wherever they lie, to their places in a slab.

Three readers of one shape: `DirectReader` (own code), `LibraryReader` (h5py or zarr) and `ResidentReader` (memory).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.codecs import DecodeError, codec_workspace_nbytes, decode
from oocload.chunks.fetch import Files
from oocload.chunks.scratch import Bytes, Scratch, as_bytes
from oocload.errors import ChunkError
from oocload.layout import ByteRange, ChunkGrid, FieldLayout
from oocload.stores.base import Store

# From this many bytes a row, the kernel's own scatter (one preadv with a buffer per row) beats reading into
# scratch and scattering from there (benchmarks/read.py, raw layouts).
_KERNEL_SCATTER_ROW_NBYTES = 4096
_STORED_OVERHEAD = 64 * 1024  # how far an incompressible chunk may outgrow its decoded size
_MIN_ITEMS_WITHOUT_GIL = 500  # NPY_BEGIN_THREADS_THRESHOLDED in NumPy's ndarraytypes.h
_RAW_PIECE_NBYTES = 2**17  # raw rows that need scratch pass through it in pieces of this size


class Target:
    """Where rows go: a field's part of a slab, and each row's place in it.

    Parameters
    ----------
    field
        C-contiguous array of shape (rows, *row shape).
    index
        Place of each row that will be put, or None for consecutive places.
    first
        Place of the first row where ``index`` is None.

    """

    __slots__ = ("field", "first", "index")

    def __init__(self, field: NDArray[Any], index: NDArray[np.int64] | None = None, first: int = 0) -> None:
        self.field = field
        self.index = index
        self.first = first

    def put(self, at: int, rows: NDArray[Any]) -> None:
        """Copy C-contiguous rows to the places numbered from ``at``; converts the byte order if need be."""
        if self.index is None:
            place = self.field[self.first + at : self.first + at + len(rows)]
            if rows.dtype == place.dtype:
                as_bytes(place)[:] = as_bytes(rows)
            else:
                place[...] = rows
            return
        index = self.index[at : at + len(rows)]
        if rows.dtype != self.field.dtype:
            self.field[index] = rows
            return
        # NumPy lets go of the GIL for over 500 items only: few large rows must count as many small items.
        view = as_items if len(rows) > _MIN_ITEMS_WITHOUT_GIL else as_words
        view(self.field)[index] = view(rows)

    def span(self, at: int, n_rows: int) -> NDArray[Any] | None:
        """Return the places themselves where they are consecutive, to be written directly."""
        if self.index is not None:
            return None
        return self.field[self.first + at : self.first + at + n_rows]

    def row_buffers(self, at: int, n_rows: int) -> list[Bytes]:
        """Return the bytes of each place."""
        rows = as_bytes(self.field).reshape(len(self.field), -1)
        assert self.index is not None
        return [rows[i] for i in self.index[at : at + n_rows].tolist()]


def as_items(rows: NDArray[Any]) -> NDArray[Any]:
    """Return a C-contiguous array as a 1-D one with one item per row; scatters small rows fastest."""
    nbytes = rows[:1].nbytes
    if nbytes == 0:
        return rows
    flat = rows.reshape(-1)
    if nbytes in (1, 2, 4, 8):
        return flat.view(f"u{nbytes}")
    return flat.view(f"V{nbytes}")


def as_words(rows: NDArray[Any]) -> NDArray[Any]:
    """Return a C-contiguous array as a 2-D one, each row as words of 8 bytes or as bytes."""
    nbytes = rows[:1].nbytes
    if nbytes == 0:
        return rows
    return rows.reshape(-1).view("u8" if nbytes % 8 == 0 else "u1").reshape(len(rows), -1)


class FieldReader(Protocol):
    """Reads ranges of rows of one field."""

    def read(self, start: int, stop: int, target: Target, scratch: Scratch) -> int:
        """Put rows ``start`` to ``stop`` into a target; return the bytes that were decoded for it."""
        ...

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Bytes that one thread needs beside the target, by buffer."""
        ...

    @property
    def held_nbytes(self) -> int:
        """Bytes that the reader itself holds."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class DirectReader:
    """Locates, fetches, decodes and scatters chunks without any library's lock.

    Parameters
    ----------
    store
        Tells where the chunks lie.
    field
        The field's layout; its read path is "direct".

    """

    def __init__(self, store: Store, field: FieldLayout) -> None:
        self._where = f"{store.address}, field {field.name!r}"
        self._field = field
        self._locations = store.locate(field.name)
        self._grid = ChunkGrid(field.shape, field.chunks or field.shape)
        self._files = Files(keep_open=self._locations.max_stored_nbytes is not None)
        self._whole_rows = self._grid.per_band == 1
        self._raw = not field.codecs and self._whole_rows
        self._native = field.stored_dtype == field.dtype
        self._fill = np.frombuffer(field.fill, field.stored_dtype)

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Bytes for one stored chunk, one decoded chunk, and a band of chunks where rows are cut."""
        row_nbytes = self._field.row_nbytes
        if self._raw:
            return {"raw": min(self._field.nbytes, max(_RAW_PIECE_NBYTES, row_nbytes))}
        decoded = self._field.chunk_nbytes
        stored = self._locations.max_stored_nbytes
        return {
            "raw": decoded + _STORED_OVERHEAD if stored is None else stored,
            "decoded": decoded,
            "band": 0 if self._whole_rows else self._field.chunk_rows * row_nbytes,
            "codec": codec_workspace_nbytes(self._field.codecs, decoded),
        }

    @property
    def held_nbytes(self) -> int:
        """Bytes of the chunk index."""
        return self._locations.nbytes

    def read(self, start: int, stop: int, target: Target, scratch: Scratch) -> int:
        """Put rows ``start`` to ``stop`` into a target; return the bytes that were decoded for it.

        Raises
        ------
        ChunkError
            If a chunk cannot be read or decoded; names path, field and chunk.

        """
        one_band = self._raw_band if self._raw else self._whole_band if self._whole_rows else self._cut_band
        decoded = 0
        for band in self._grid.bands(start, stop):
            first = band * self._field.chunk_rows
            low, high = max(start, first), min(stop, first + self._field.chunk_rows)
            decoded += one_band(band, low - first, high - first, low - start, target, scratch)
        return decoded

    def close(self) -> None:
        """Close the descriptors."""
        self._files.close()

    def _raw_band(self, chunk: int, low: int, high: int, at: int, target: Target, scratch: Scratch) -> int:
        """Read rows ``low`` to ``high`` of an uncompressed chunk: at best straight to their places."""
        row_nbytes, n_rows = self._field.row_nbytes, high - low
        place = self._locations.find(chunk)
        if place is None:
            self._put_fill(n_rows, at, target)
            return 0
        if place.nbytes < high * row_nbytes:
            raise self._error(chunk, f"it has {place.nbytes} bytes, where {high * row_nbytes} belong")
        offset = place.offset + low * row_nbytes
        span = target.span(at, n_rows)
        if self._native and span is not None:
            self._fetch_into(chunk, place.path, offset, [as_bytes(span)])
        elif self._native and row_nbytes >= _KERNEL_SCATTER_ROW_NBYTES:
            self._fetch_into(chunk, place.path, offset, target.row_buffers(at, n_rows))
        else:
            step = max(1, _RAW_PIECE_NBYTES // row_nbytes)
            for done in range(0, n_rows, step):
                raw = scratch.get("raw", min(step, n_rows - done) * row_nbytes)
                self._fetch_into(chunk, place.path, offset + done * row_nbytes, [raw])
                target.put(at + done, self._as_rows(raw))
        return n_rows * row_nbytes

    def _whole_band(self, chunk: int, low: int, high: int, at: int, target: Target, scratch: Scratch) -> int:
        """Decode a chunk that holds whole rows; straight to its place where nothing moves."""
        n_rows, height = high - low, self._field.chunk_rows
        place = self._locations.find(chunk)
        if place is None:
            self._put_fill(n_rows, at, target)
            return 0
        span = target.span(at, n_rows) if self._native and n_rows == height else None
        if span is not None:
            self._decode_into(chunk, place, as_bytes(span), scratch)
        else:
            decoded = scratch.get("decoded", self._field.chunk_nbytes)
            self._decode_into(chunk, place, decoded, scratch)
            target.put(at, self._as_rows(decoded)[low:high])
        return self._field.chunk_nbytes

    def _cut_band(self, band: int, low: int, high: int, at: int, target: Target, scratch: Scratch) -> int:
        """Decode the chunks that rows are cut into, join the rows, and put them."""
        height, field = self._field.chunk_rows, self._field
        assert field.chunks is not None
        joined = scratch.get("band", height * self._field.row_nbytes).view(field.stored_dtype)
        rows = joined.reshape(height, *field.row_shape)
        total = 0
        for chunk, inner in self._grid.band(band):
            part = rows[(slice(low, high), *inner)]
            place = self._locations.find(chunk)
            if place is None:
                part[...] = self._fill
                continue
            decoded = scratch.get("decoded", field.chunk_nbytes)
            self._decode_into(chunk, place, decoded, scratch)
            cut = tuple(slice(0, n) for n in part.shape[1:])
            part[...] = decoded.view(field.stored_dtype).reshape(field.chunks)[(slice(low, high), *cut)]
            total += field.chunk_nbytes
        target.put(at, rows[low:high])
        return total

    def _decode_into(self, chunk: int, place: ByteRange, out: Bytes, scratch: Scratch) -> None:
        codecs = self._field.codecs
        if place.skipped:
            codecs = tuple(c for i, c in enumerate(codecs) if not place.skipped >> i & 1)
        if not codecs and place.nbytes == len(out):
            self._fetch_into(chunk, place.path, place.offset, [out])
            return
        raw = scratch.get("raw", place.nbytes)
        self._fetch_into(chunk, place.path, place.offset, [raw])
        try:
            decode(raw, codecs, out, scratch)
        except DecodeError as exc:
            raise self._error(chunk, str(exc)) from exc

    def _fetch_into(self, chunk: int, path: str, offset: int, buffers: list[Bytes]) -> None:
        try:
            self._files.read(path, offset, buffers)
        except OSError as exc:
            raise self._error(chunk, f"cannot read {path}: {exc}") from exc

    def _put_fill(self, n_rows: int, at: int, target: Target) -> None:
        target.put(at, np.full((n_rows, *self._field.row_shape), self._fill, self._field.dtype))

    def _as_rows(self, decoded: Bytes) -> NDArray[Any]:
        return decoded.view(self._field.stored_dtype).reshape(-1, *self._field.row_shape)

    def _error(self, chunk: int, what: str) -> ChunkError:
        return ChunkError(f"{self._where}, chunk {self._grid.corner(chunk)}: {what}")


class LibraryReader:
    """Reads rows through h5py or zarr, for what the direct path does not know."""

    def __init__(self, store: Store, field: FieldLayout) -> None:
        self._store = store
        self._field = field

    held_nbytes = 0

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Bytes of one decoded chunk band, and as much for what the library holds meanwhile."""
        if not self._field.chunks:
            return {}
        return {"library": 2 * min(self._field.nbytes, self._field.chunk_rows * self._field.row_nbytes)}

    def read(self, start: int, stop: int, target: Target, scratch: Scratch) -> int:
        """Put rows ``start`` to ``stop`` into a target; return the bytes that were decoded for it."""
        height = self._field.chunk_rows
        step = height if self._field.chunks else stop - start
        decoded = 0
        while start < stop:
            end = min(stop, (start // step + 1) * step) if self._field.chunks else stop
            rows = np.ascontiguousarray(self._store.read_rows(self._field.name, start, end))
            target.put(decoded, rows)
            decoded += end - start
            start = end
        return decoded * self._field.row_nbytes

    def close(self) -> None:
        """Nothing of its own is open."""


class ResidentReader:
    """Copies rows from a field that is held in memory whole.

    Parameters
    ----------
    reader
        Reads the field, once.
    field
        Its layout.

    """

    def __init__(self, reader: FieldReader, field: FieldLayout) -> None:
        self._rows = np.empty(field.shape, field.dtype)
        reader.read(0, field.n_rows, Target(self._rows), Scratch())
        reader.close()

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Nothing is needed."""
        return {}

    @property
    def held_nbytes(self) -> int:
        """Bytes of the field."""
        return self._rows.nbytes

    def read(self, start: int, stop: int, target: Target, scratch: Scratch) -> int:
        """Put rows ``start`` to ``stop`` into a target; decodes nothing."""
        target.put(0, self._rows[start:stop])
        return 0

    def close(self) -> None:
        """Nothing is open."""


def open_reader(store: Store, field: FieldLayout, resident: bool = False) -> FieldReader:
    """Return the reader for a field."""
    reader: FieldReader
    reader = DirectReader(store, field) if field.read_path == "direct" else LibraryReader(store, field)
    return ResidentReader(reader, field) if resident else reader
