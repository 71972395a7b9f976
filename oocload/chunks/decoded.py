"""Chunks that must be decoded whole, or that rows are cut into."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby, islice
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.codecs import DecodeError, codec_workspace_nbytes, decode, most_nbytes
from oocload.chunks.fetch import read_all
from oocload.chunks.located import LocatedField
from oocload.chunks.scratch import Bytes, Scratch
from oocload.chunks.target import Ranges, Target
from oocload.errors import OocloadError
from oocload.layout import ByteRange, FieldLayout
from oocload.stores.base import Store

_MOST_ANNOUNCED = 256  # chunks at once
_STORED_OVERHEAD = 64 * 1024  # how far an incompressible chunk may outgrow its decoded size
_STORED_FACTOR = 2  # what is larger still is damage, and is not read into memory


class ChunkReader(LocatedField):
    """Fetches, decodes and scatters whole chunks without any library's lock.

    Parameters
    ----------
    store
        Tells where the chunks lie.
    field
        The field's layout.
    keep_open
        How many files stay open between reads.

    """

    def __init__(self, store: Store, field: FieldLayout, keep_open: int = 1) -> None:
        super().__init__(store, field, keep_open)
        self._most_nbytes = most_nbytes(field.codecs, field.chunk_nbytes)

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Bytes for one stored chunk, one decoded chunk, and a band of chunks where rows are cut."""
        decoded = self.layout.chunk_nbytes
        stored = self.locations.max_stored_nbytes
        stored = self._most_nbytes + _STORED_OVERHEAD if stored is None else stored
        return {
            "raw": stored,
            "decoded": decoded,
            "band": 0 if self.layout.whole_rows else self.layout.chunk_rows * self.layout.row_nbytes,
            "codec": codec_workspace_nbytes(self.layout.codecs, decoded, stored),
        }

    def read(self, ranges: Ranges, target: Target, scratch: Scratch) -> int:
        """Put ranges of rows into a target, one after the other; return the bytes that were decoded for it.

        Raises
        ------
        ChunkError
            If a chunk cannot be read or decoded; names path, field and chunk.

        """
        if self.locations.path is None:
            return self._read(ranges, target, scratch, None)
        with self.opened(
            self.locations.path, ranges[0][0] // self.layout.chunk_rows * self.grid.per_band
        ) as descriptor:
            return self._read(ranges, target, scratch, descriptor)

    announces = True

    def announce(self, ranges: Ranges) -> None:
        """Let the kernel fetch the chunks of ranges from disk, while others are decoded."""
        if not self.files.from_disk:
            return
        chunks = (c for start, stop in ranges for band in self.grid.bands(start, stop) for c, _ in self.grid.band(band))
        places = filter(None, map(self.locations.find, islice(chunks, _MOST_ANNOUNCED)))
        with suppress(OocloadError, OSError):  # whoever reads the chunk says what is wrong with it
            for path, together in groupby(places, key=_PATH):
                self.files.announce(path, ((place.offset, place.nbytes) for place in together))

    def _read(self, ranges: Ranges, target: Target, scratch: Scratch, descriptor: int | None) -> int:
        one_band = self._whole_band if self.layout.whole_rows else self._cut_band
        height, decoded, at = self.layout.chunk_rows, 0, 0
        for start, stop in ranges:
            for band in self.grid.bands(start, stop):
                low, high = max(start - band * height, 0), min(stop - band * height, height)
                decoded += one_band(band, low, high, at, target, scratch, descriptor)
                at += high - low
        return decoded

    def _whole_band(
        self, chunk: int, low: int, high: int, at: int, target: Target, scratch: Scratch, descriptor: int | None
    ) -> int:
        """Decode a chunk that holds whole rows; straight to its place where nothing moves."""
        n_rows, height = high - low, self.layout.chunk_rows
        place = self.locations.find(chunk)
        if place is None:
            target.fill(at, n_rows, self.fill_item)
            return 0
        span = target.span(at, n_rows) if self.native and n_rows == height else None
        if span is not None:
            self._decode_into(chunk, place, span, scratch, descriptor)
        else:
            decoded = scratch.get("decoded", self.layout.chunk_nbytes)
            self._decode_into(chunk, place, decoded, scratch, descriptor)
            target.put(at, self.as_rows(decoded)[low:high])
        return self.layout.chunk_nbytes

    def _cut_band(
        self, band: int, low: int, high: int, at: int, target: Target, scratch: Scratch, descriptor: int | None
    ) -> int:
        """Decode the chunks that rows are cut into, and join the rows; at their places where those are consecutive."""
        field, n_rows = self.layout, high - low
        span = target.span(at, n_rows) if self.native else None
        rows = self.as_rows(scratch.get("band", n_rows * field.row_nbytes) if span is None else span)
        total = 0
        for chunk, inner in self.grid.band(band):
            part = rows[(slice(None), *inner)]
            place = self.locations.find(chunk)
            if place is None:
                part[...] = self.fill_item
                continue
            decoded = scratch.get("decoded", field.chunk_nbytes)
            self._decode_into(chunk, place, decoded, scratch, descriptor)
            cut = tuple(slice(0, n) for n in part.shape[1:])
            part[...] = self._as_chunk(decoded)[(slice(low, high), *cut)]
            total += field.chunk_nbytes
        if span is None:
            target.put(at, rows)
        return total

    def _as_chunk(self, decoded: Bytes) -> NDArray[Any]:
        """Return a decoded chunk by the array's axes, in whatever order its items lie."""
        chunks, axes = self.layout.chunks, self.layout.axes
        assert chunks is not None
        items = decoded.view(self.layout.stored_dtype)
        if axes is None:
            return items.reshape(chunks)
        return items.reshape([chunks[axis] for axis in axes]).transpose(np.argsort(axes))

    def _decode_into(self, chunk: int, place: ByteRange, out: Bytes, scratch: Scratch, descriptor: int | None) -> None:
        codecs = self.layout.codecs
        if place.skipped:
            codecs = tuple(c for i, c in enumerate(codecs) if not place.skipped >> i & 1)
        if not codecs and place.nbytes == len(out):
            self._fetch(chunk, place, out, descriptor)
            return
        if place.nbytes > _STORED_FACTOR * self._most_nbytes + _STORED_OVERHEAD:
            raise self.error(chunk, f"it has {place.nbytes} bytes, more than any codec makes of {len(out)}")
        raw = scratch.get("raw", place.nbytes)
        self._fetch(chunk, place, raw, descriptor)
        try:
            decode(raw, codecs, out, scratch)
        except DecodeError as exc:
            raise self.error(chunk, str(exc)) from exc

    def _fetch(self, chunk: int, place: ByteRange, buffer: Bytes, descriptor: int | None) -> None:
        if descriptor is None:
            with self.opened(place.path, chunk) as own:
                self._fetch(chunk, place, buffer, own)
            return
        began = time.perf_counter()
        try:
            read_all(descriptor, place.offset, [buffer])
        except OSError as exc:
            raise self.error(chunk, f"cannot read {place.path}: {exc}") from exc
        self.files.note(len(buffer), time.perf_counter() - began)


_PATH = attrgetter("path")
