"""Appending to the arrays of a Zarr directory: new files beside the store, then all of them into it as one step.

The last chunk, or shard, of each array is written anew with the old rows and the new ones; others are not touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.array import AsyncArray
from zarr.storage import MemoryStore, StorePath

from oocload.convert.encoders import Encoded
from oocload.convert.growth import Addition
from oocload.convert.own_chunks import encode_ahead, last_chunks, zarr_encoder
from oocload.convert.shard_index import shard_index
from oocload.convert.zarr_documents import Documents
from oocload.errors import InvalidArgumentError
from oocload.layout import ByteRange, ChunkGrid, FieldLayout
from oocload.stores.checksums import ChecksumBuilder, encode_segment, read_checksums, segment_name, stored_crc32c
from oocload.stores.moves import LIST, Move, apply_moves, write_moves
from oocload.stores.recovery import redo_of
from oocload.stores.zarr import ZarrStore
from oocload.stores.zarr_chunks import DirectoryObjects
from oocload.stores.zarr_fields import config_of

_BLOCK_NBYTES = 64 * 2**20  # of rows given to zarr-python at a time


class ZarrGrowth:
    """Appends rows to arrays of a directory.

    Parameters
    ----------
    path
        The directory, which the caller has locked.
    group
        Group that the names of arrays start from.

    """

    def __init__(self, path: str, group: str) -> None:
        self._root = Path(os.path.realpath(path))
        self._group = group
        self._work = redo_of(path)
        self._store: ZarrStore | None = None

    def check(self, arrays: list[FieldLayout]) -> None:
        """Raise where zarr-python cannot write an array."""
        for array in arrays:
            if array.read_path == "none":
                raise InvalidArgumentError(f"array {array.name!r} of {self._root} cannot be written: {array.reason}")

    def last_offset(self, offsets: FieldLayout) -> int:
        """Return the last number of an array of offsets."""
        return int(self._opened().read_rows(offsets.name, offsets.n_rows - 1, offsets.n_rows)[0])

    def grow(self, additions: list[Addition], sparse: Mapping[str, int]) -> None:
        """Append rows to arrays as one step."""
        shutil.rmtree(self._work, ignore_errors=True)  # of a process that died before its step
        self._work.mkdir()
        try:
            documents = Documents(self._root)
            moves: list[Move] = []
            for number, addition in enumerate(additions):
                path = self._opened().member(addition.layout.name).path
                moves += self._write(str(number), path, addition)
                documents.set_length(path, addition.n_rows)
            for name, n_rows in sparse.items():
                group = self._root / self._group / name
                documents.set_sparse_rows(str(group if group.is_dir() else group.parent), n_rows)
            moves += self._write_documents(documents)
            write_moves(self._work, moves)
        except BaseException:
            shutil.rmtree(self._work, ignore_errors=True)
            raise
        self.close()
        apply_moves(self._root, self._work, moves)
        (self._work / LIST).unlink()
        shutil.rmtree(self._work, ignore_errors=True)

    def close(self) -> None:
        """Let go of the store."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _opened(self) -> ZarrStore:
        if self._store is None:
            self._store = ZarrStore(self._root, self._group)
        return self._store

    def _write(self, name: str, path: str, addition: Addition) -> list[Move]:
        """Write the chunks or shards of an array from the last one on, and its checksums; return where they belong."""
        folder = self._work / name
        folder.mkdir()
        moves = []
        for key, content in self._contents(addition):
            file = folder / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            moves.append(Move(f"{name}/{key}", os.path.join(path, key)))
        known = read_checksums(self._opened(), addition.layout.name)
        if known is None:
            return moves
        builder = ChecksumBuilder(known)
        longer = replace(addition.layout, shape=(addition.n_rows, *addition.layout.row_shape))
        self._add_stored(folder, addition.layout.n_rows, longer, builder)
        checksums = builder.build(longer.shape)
        for number, segment in enumerate(checksums.segments[builder.from_segment :], builder.from_segment):
            (folder / segment_name(number)).write_bytes(encode_segment(checksums, segment))
            moves.append(Move(f"{name}/{segment_name(number)}", os.path.join(path, segment_name(number))))
        return moves

    def _contents(self, addition: Addition) -> Iterator[tuple[str, Any]]:
        """Yield the names and contents of files, from the last one that is there on."""
        array = addition.layout
        metadata: Any = self._opened().member(array.name).array
        encode = zarr_encoder(array, metadata.metadata)
        if encode is None or (array.shards is not None and not has_usual_index(metadata.metadata)):
            yield from self._encoded_by_zarr(addition)
            return

        def old_rows(start: int, stop: int) -> NDArray[Any]:
            return self._opened().read_rows(array.name, start, stop)

        def key(number: int) -> str:
            return str(metadata.metadata.encode_chunk_key((number, *(0 for _ in array.row_shape))))

        chunks = encode_ahead(last_chunks(addition, old_rows), encode)
        if array.shards is None:
            for number, encoded in chunks:
                yield key(number), encoded.data
            return
        per_shard = array.shards[0] // array.chunk_rows
        for shard, pieces in groupby(self._from_shard_begin(array, chunks, per_shard), lambda c: c[0] // per_shard):
            yield key(shard), shard_of(per_shard, {number % per_shard: data for number, data in pieces})

    def _from_shard_begin(
        self, array: FieldLayout, chunks: Iterator[tuple[int, Encoded]], per_shard: int
    ) -> Iterator[tuple[int, Any]]:
        """Yield chunks, and before them, as they are stored, those that share a shard with the first."""
        first = array.n_rows // array.chunk_rows
        locations = self._opened().locate(array.name)
        for number in range(first // per_shard * per_shard, first):
            place = locations.find(number)
            if place is not None:
                yield number, _stored(place)
        for number, encoded in chunks:
            yield number, encoded.data

    def _encoded_by_zarr(self, addition: Addition) -> Iterator[tuple[str, Any]]:
        """Yield the names and contents of chunks or shards, which zarr-python writes to an array in memory."""
        array, n_rows = addition.layout, addition.layout.n_rows
        member = self._opened().member(array.name)
        assert member.array is not None
        metadata = replace(member.array.metadata, shape=(addition.n_rows, *array.row_shape))
        config: Any = {"order": "C", "write_empty_chunks": True}  # or what a shorter array left would stay
        unit = array.shards[0] if array.shards is not None else array.chunk_rows
        step = unit * max(1, _BLOCK_NBYTES // max(1, unit * array.row_nbytes))
        for first in range(n_rows // unit * unit, addition.n_rows, step):
            last = min(first + step, addition.n_rows)
            rows = addition.rows[max(0, first - n_rows) : last - n_rows]
            if first < n_rows:
                before = self._opened().read_rows(array.name, first, n_rows)
                rows = np.concatenate([before.astype(array.stored_dtype), rows])
            objects: dict[str, Any] = {}
            target: Any = zarr.Array(AsyncArray(metadata, StorePath(MemoryStore(objects)), config=config))
            target[first:last] = rows if member.dtype is None else rows.view(f"u{rows.itemsize}")
            for key in sorted(objects):
                yield key, objects.pop(key).as_buffer_like()

    def _add_stored(self, folder: Path, n_before: int, longer: FieldLayout, builder: ChecksumBuilder) -> None:
        """Note the checksums of the chunks in a folder."""
        assert longer.chunks is not None
        unit = longer.shards[0] if longer.shards is not None else longer.chunk_rows
        grid = ChunkGrid(longer.shape, longer.chunks)
        locations = self._opened().locate_among(DirectoryObjects(str(folder)), longer)
        for band in grid.bands(n_before // unit * unit, longer.n_rows):
            for chunk, _ in grid.band(band):
                place = locations.find(chunk)
                if place is not None:
                    stored = _stored(place)
                    builder.add(chunk, len(stored), stored_crc32c(stored))

    def _write_documents(self, documents: Documents) -> list[Move]:
        moves = []
        for number, (path, before, after) in enumerate(documents.changed()):
            source = f"document-{number}"
            (self._work / source).write_bytes(after)
            target = os.path.relpath(path, self._root)
            moves.append(Move(source, target, google_crc32c.value(before), google_crc32c.value(after)))
        return moves


def has_usual_index(metadata: Any) -> bool:
    """Whether the index of shards is where, and encoded as, almost all are: at the end, with a CRC-32C."""
    config = config_of(metadata.to_dict()["codecs"][0])["configuration"]
    names = [config_of(codec) for codec in config["index_codecs"]]
    is_little = not str(names[0].get("configuration", {}).get("endian")).endswith("big")
    is_checked = [name["name"] for name in names] == ["bytes", "crc32c"]
    return is_little and is_checked and str(config["index_location"]).endswith("end")


def shard_of(n_chunks: int, chunks: Mapping[int, Any]) -> bytes:
    """Return a shard: its chunks one after the other, then the index."""
    places, end = {}, 0
    for number, data in chunks.items():
        places[number] = (end, memoryview(data).nbytes)
        end += memoryview(data).nbytes
    return b"".join([*chunks.values(), shard_index(n_chunks, places)])


def _stored(place: ByteRange) -> bytes:
    with open(place.path, "rb", buffering=0) as file:
        return os.pread(file.fileno(), place.nbytes, place.offset)
