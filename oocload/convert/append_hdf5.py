"""Appending to the datasets of an HDF5 file, in place: each step is a commit of a `CrashSafeFile`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from oocload.chunks.codecs import DecodeError, decode
from oocload.chunks.scratch import Scratch, as_bytes
from oocload.convert.crashsafe import CrashSafeFile
from oocload.convert.growth import Addition
from oocload.convert.own_chunks import Encoder, encode_ahead, hdf5_encoder, last_chunks
from oocload.errors import ChunkError, InvalidArgumentError
from oocload.layout import ChunkGrid, FieldLayout
from oocload.stores.checksums import (
    PREFIX,
    ArrayChecksums,
    ChecksumBuilder,
    decode_segment,
    join_segments,
    stored_crc32c,
    write_checksums_hdf5,
)
from oocload.stores.recovery import recover_store, redo_of

_SHAPE_ATTRIBUTES = ("shape", "h5sparse_shape")  # of sparse matrices: of anndata, and of anndata before 0.7


class _Session(NamedTuple):
    raw: CrashSafeFile
    file: h5py.File
    checksums: dict[str, ChecksumBuilder | None]


class Hdf5Growth:
    """Appends rows to datasets of a file.

    The file stays open between steps, so that HDF5 puts the last chunk, which grows, where it was before.

    Parameters
    ----------
    path
        The file, which the caller has locked.
    group
        Group that the names of arrays start from.

    """

    def __init__(self, path: str, group: str) -> None:
        self._path = path
        self._group = group.strip("/")
        self._session: _Session | None = None

    def check(self, arrays: list[FieldLayout]) -> None:
        """Raise where a dataset is not in chunks, may not grow, or is there twice."""
        seen: dict[Any, str] = {}
        for array in arrays:
            try:
                dataset = self._dataset(array.name)
            except KeyError as exc:  # HDF5 follows no link to another file from where its own is no plain file
                raise InvalidArgumentError(
                    f"field {array.name!r} of {self._path} must be in that file to append to it, and is linked from "
                    "another one; append to that"
                ) from exc
            info, here = h5py.h5o.get_info(dataset.id), h5py.h5o.get_info(self._opened().file.id)
            problem = ""
            if dataset.is_virtual or info.fileno != here.fileno:
                problem = "lies in another file"
            elif dataset.chunks is None:
                problem = "is not in chunks"
            elif dataset.maxshape[0] is not None:
                problem = f"has a length of at most {dataset.maxshape[0]} rows"
            if problem:
                raise InvalidArgumentError(
                    f"field {array.name!r} of {self._path} must be in chunks and of unlimited length to append to it, "
                    f"and {problem}; run oocload convert first"
                )
            if info.addr in seen:
                raise InvalidArgumentError(
                    f"fields must be datasets of their own to append to them, and {seen[info.addr]!r} and "
                    f"{array.name!r} of {self._path} are links to one; run oocload convert first"
                )
            seen[info.addr] = array.name

    def last_offset(self, offsets: FieldLayout) -> int:
        """Return the last number of an array of offsets."""
        return int(self._dataset(offsets.name)[-1])

    def grow(self, additions: list[Addition], sparse: Mapping[str, int]) -> None:
        """Append rows to datasets as one step."""
        session = self._opened()
        for addition in additions:
            dataset = self._dataset(addition.layout.name)
            builder = self._checksums(addition.layout, dataset)
            dataset.resize(addition.n_rows, axis=0)
            encode = hdf5_encoder(addition.layout, filter_values(dataset))
            if encode is not None:
                _write_chunks(dataset, addition, encode, builder, session.raw)
            else:
                dataset[addition.layout.n_rows :] = addition.rows
                session.raw.check()
                if builder is not None:
                    session.file.flush()
                    _add_stored(dataset, addition, builder)
            if builder is not None:
                write_checksums_hdf5(dataset, builder.build(dataset.shape), builder.from_segment)
        for name, n_rows in sparse.items():
            _note_rows(self._root()[name] if name in self._root() else self._root(), n_rows)
        session.file.flush()
        self._commit(session)

    def close(self) -> None:
        """Close the file, as it is on disk."""
        session, self._session = self._session, None
        if session is not None:
            session.raw.abandon()
            session.file.close()
            session.raw.close()

    def _commit(self, session: _Session) -> None:
        try:
            session.raw.commit()
        except OSError:
            if not recover_store(self._path):  # the log was not there yet: nothing has happened
                raise
            self.close()
            return
        redo_of(self._path).unlink()  # so that nobody looks for an append to finish

    def _opened(self) -> _Session:
        if self._session is None:
            raw = CrashSafeFile(self._path, redo_of(self._path))
            try:
                self._session = _Session(raw, h5py.File(raw, "r+"), {})
            except BaseException:
                raw.close()
                raise
        return self._session

    def _root(self) -> h5py.Group:
        file = self._opened().file
        return file[self._group] if self._group else file

    def _dataset(self, name: str) -> h5py.Dataset:
        root = self._root()
        return root[name]

    def _checksums(self, array: FieldLayout, dataset: h5py.Dataset) -> ChecksumBuilder | None:
        """Return what collects the checksums of an array that has some."""
        known = self._opened().checksums
        if array.name not in known:
            read = _read_checksums(dataset, f"{self._path}, field {array.name!r}")
            known[array.name] = None if read is None else ChecksumBuilder(read)
        return known[array.name]


def _write_chunks(
    dataset: h5py.Dataset, addition: Addition, encode: Encoder, builder: ChecksumBuilder | None, raw: CrashSafeFile
) -> None:
    """Encode chunks on all cores, and write them in order."""
    array = addition.layout
    old_rows = partial(_decoded, dataset, array)
    for number, (data, skipped) in encode_ahead(last_chunks(addition, old_rows), encode):
        corner = (number * array.chunk_rows, *(0 for _ in array.row_shape))
        dataset.id.write_direct_chunk(corner, data, filter_mask=skipped)
        raw.check()
        if builder is not None:
            builder.add(number, memoryview(data).nbytes, stored_crc32c(np.frombuffer(data, np.uint8), skipped))


def _decoded(dataset: h5py.Dataset, array: FieldLayout, start: int, stop: int) -> NDArray[Any]:
    """Return rows from the begin of a chunk, decoded by our own code: HDF5 may not have the filter."""
    rows = np.empty((array.chunk_rows, *array.row_shape), array.stored_dtype)
    info = dataset.id.get_chunk_info_by_coord((start, *(0 for _ in array.row_shape)))
    if info.byte_offset is None:  # never written
        rows[...] = np.frombuffer(array.fill, array.stored_dtype)[0]
        return rows[: stop - start]
    skipped, stored = dataset.id.read_direct_chunk((start, *(0 for _ in array.row_shape)))
    codecs = [codec for i, codec in enumerate(array.codecs) if not skipped >> i & 1]
    try:
        decode(np.frombuffer(stored, np.uint8), codecs, as_bytes(rows), Scratch())
    except DecodeError as exc:
        raise ChunkError(f"{dataset.name}, rows {start} to {stop}, which an append goes on with: {exc}") from exc
    return rows[: stop - start]


def filter_values(dataset: h5py.Dataset) -> tuple[int, ...]:
    """Return what the last filter of a dataset keeps of itself."""
    plist = dataset.id.get_create_plist()
    n_filters = plist.get_nfilters()
    return tuple(plist.get_filter(n_filters - 1)[2]) if n_filters else ()


def _add_stored(dataset: h5py.Dataset, addition: Addition, builder: ChecksumBuilder) -> None:
    """Note the checksums of chunks that HDF5 has encoded."""
    grid = ChunkGrid(dataset.shape, dataset.chunks)
    height = dataset.chunks[0]
    for band in grid.bands(addition.layout.n_rows // height * height, addition.n_rows):
        for chunk, _ in grid.band(band):
            corner = tuple(i * c for i, c in zip(grid.corner(chunk), dataset.chunks, strict=True))
            skipped, data = dataset.id.read_direct_chunk(corner)
            builder.add(chunk, len(data), stored_crc32c(bytes(data), skipped))


def _read_checksums(dataset: h5py.Dataset, where: str) -> ArrayChecksums | None:
    names = [name for name in dataset.attrs if name.startswith(PREFIX)]
    if not names:
        return None
    blobs = {name: np.asarray(dataset.attrs[name], np.uint8).tobytes() for name in names}
    return join_segments({n: decode_segment(blob, f"{where}, {n}") for n, blob in blobs.items()}, where)


def _note_rows(group: h5py.Group, n_rows: int) -> None:
    for name in _SHAPE_ATTRIBUTES:
        if name in group.attrs:
            shape = np.array(group.attrs[name])
            shape[0] = n_rows
            group.attrs.modify(name, shape)
