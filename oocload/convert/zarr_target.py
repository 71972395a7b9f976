"""A new Zarr directory: metadata by zarr-python, chunk files and shards by our own code.

A chunk file is written by the thread that encoded it. A shard is one file to which its chunks are appended in order;
its index comes last (Zarr v3 specification, codec "sharding_indexed", version 1.0).
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, Literal

import zarr
from numpy.typing import NDArray

from oocload.convert.arrays import NewArray
from oocload.convert.encode import Encoding, encoder_for, zarr_codecs
from oocload.convert.encoders import Encoded
from oocload.convert.journal import Records
from oocload.convert.shard_index import shard_index
from oocload.stores.checksums import ArrayChecksums, write_checksums_zarr, write_list
from oocload.stores.ragged import columns_of
from oocload.stores.redo import write_at

_METADATA = {2: ".zarray", 3: "zarr.json"}
# Dots and not slashes: a folder for each chunk costs more than compressing it (benchmarks/README.md), and four inodes.
_KEYS: dict[int, Any] = {
    2: {"name": "v2", "separator": "."},
    3: {"name": "default", "separator": "."},
}
_PARTIAL = re.compile(r".+\.[0-9a-f]{32}\.partial")


class ZarrTarget:
    """Writes a Zarr directory.

    Parameters
    ----------
    path
        The directory; if it exists, it is gone on with.
    arrays
        Name → what it is.
    encoding
        Of every array.
    zarr_format
        2 or 3; 2 has no shards.
    records
        Array → the chunks that are there.
    drafts
        Folder in which files are written before they get their names, where several processes may write the same.

    """

    def __init__(
        self,
        path: Path,
        arrays: Mapping[str, NewArray],
        encoding: Encoding,
        zarr_format: Literal[2, 3],
        records: Mapping[str, Records],
        drafts: Path | None = None,
    ) -> None:
        if drafts is None:
            _remove_partial(path, arrays)
        self._path = path
        self._format = zarr_format
        self._new = arrays
        self._arrays = {
            name: _ArrayFiles(path / name, _made(path, name, new, encoding, zarr_format), new, records[name], drafts)
            for name, new in arrays.items()
        }
        self._ragged: dict[str, int] = {}
        self._encoders: dict[str, Callable[[NDArray[Any]], Encoded]] = {
            name: encoder_for("zarr2" if zarr_format == 2 else "zarr3", encoding, new.spec.dtype, new.chunk_shape)
            for name, new in arrays.items()
        }

    def encode(self, array: str, chunk: int, rows: NDArray[Any]) -> Encoded:
        """Encode the rows of a whole chunk, and write its file if it has one."""
        encoded = self._encoders[array](rows)
        self._arrays[array].write(chunk, encoded.data)
        return encoded

    def put(self, array: str, chunk: int, encoded: Encoded, n_rows: int) -> None:
        """Append a chunk to its shard."""
        self._arrays[array].append(chunk, encoded.data)

    def flush(self) -> None:
        """Files have all that was written to them."""

    def commit(self, note: bytes) -> None:
        """The journal alone says what counts."""

    def finish(self, lengths: Mapping[str, int], attributes: Mapping[str, Mapping[str, Any]]) -> None:
        """Close the last shards, and write what metadata say of lengths and groups."""
        self._ragged = columns_of(attributes)
        group = zarr.open_group(self._path, mode="a", zarr_format=self._format)
        for said_of, said in attributes.items():
            (group[said_of] if said_of in self._new else group.require_group(said_of)).attrs.update(said)
        self.finish_shards()
        for name in self._arrays:
            shape = (lengths[name], *self._new[name].spec.row_shape)
            set_shape(self._path / name / _METADATA[self._format], shape)

    def finish_shards(self) -> None:
        """Write the index of open shards."""
        for files in self._arrays.values():
            files.finish()

    def prove(self, checksums: Mapping[str, ArrayChecksums]) -> None:
        """Write the checksums."""
        for name, known in checksums.items():
            write_checksums_zarr(self._path / name, known)
        write_list(zarr.open_group(self._path, mode="a", zarr_format=self._format).attrs, checksums, self._ragged)

    def close(self) -> None:
        """Close; what was not committed is written once more."""
        for files in self._arrays.values():
            files.close()


class _ArrayFiles:
    """The chunk files, or the shards, of one array."""

    def __init__(
        self,
        folder: Path,
        key: Callable[[int], str],
        new: NewArray,
        records: Records,
        drafts: Path | None = None,
    ) -> None:
        self._folder = folder
        self._key = key
        self._drafts = drafts
        self._per_shard = new.chunks_per_shard
        self._made: set[str] = set()
        self._shard = -1
        self._path = self._draft = ""
        self._file = -1
        self._places: list[tuple[int, int]] = []  # offset and bytes of each chunk of the open shard
        self._end = 0
        if self._per_shard > 1 and records.n_chunks % self._per_shard:
            self._reopen(records)

    def write(self, chunk: int, data: Any) -> None:
        """Write the file of a chunk, unless it belongs into a shard."""
        if self._per_shard == 1:
            path, draft = self._paths(chunk)
            descriptor = _create(draft)
            try:
                write_at(descriptor, data, 0)
            finally:
                os.close(descriptor)
            if draft != path:
                os.replace(draft, path)

    def append(self, chunk: int, data: Any) -> None:
        """Append a chunk to its shard, which is finished with its last one."""
        if self._per_shard == 1:
            return
        if self._shard != chunk // self._per_shard:
            self.finish()
            self._shard = chunk // self._per_shard
            self._path, self._draft = self._paths(self._shard)
            self._file, self._end, self._places = _create(self._draft), 0, []
        write_at(self._file, data, self._end)
        nbytes = memoryview(data).nbytes
        self._places.append((self._end, nbytes))
        self._end += nbytes
        if len(self._places) == self._per_shard:
            self.finish()

    def finish(self) -> None:
        """Write the index of the open shard."""
        if self._shard < 0:
            return
        index = shard_index(self._per_shard, dict(enumerate(self._places)))
        write_at(self._file, index, self._end)
        os.ftruncate(self._file, self._end + len(index))
        self.close()
        if self._draft != self._path:
            os.replace(self._draft, self._path)

    def close(self) -> None:
        """Close the open shard as it is."""
        if self._file >= 0:
            os.close(self._file)
        self._shard = self._file = -1

    def _reopen(self, records: Records) -> None:
        """Go on with the shard that was being written; its index, if it has one, is written over."""
        self._shard = records.n_chunks // self._per_shard
        self._path = self._draft = self._paths(self._shard)[0]
        self._file = _create(self._path, truncate=False)
        for nbytes in records.nbytes[self._shard * self._per_shard :].tolist():
            self._places.append((self._end, nbytes))
            self._end += nbytes

    def _paths(self, number: int) -> tuple[str, str]:
        """Return the path of a file, and where it is written before it gets there."""
        path = os.path.join(self._folder, self._key(number))
        if (parent := os.path.dirname(path)) not in self._made:
            os.makedirs(parent, exist_ok=True)
            if len(self._made) > 64:  # one folder for all chunks, or one for each
                self._made.clear()
            self._made.add(parent)
        return path, path if self._drafts is None else os.path.join(self._drafts, secrets.token_hex(8))


def _create(path: str, truncate: bool = True) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if truncate else 0), 0o666)


def show_written(path: Path, arrays: Mapping[str, NewArray], records: Mapping[str, Records]) -> None:
    """Let a store in the making be read as far as it is written: its lengths, and the index of its last shards."""
    for name, new in arrays.items():
        array: Any = zarr.open_array(path / name, mode="r")
        shape = (records[name].n_chunks * new.height, *new.spec.row_shape)
        _ArrayFiles(path / name, _keys_of(array, new), new, records[name]).finish()
        set_shape(path / name / _METADATA[array.metadata.zarr_format], shape)


def set_shape(metadata: Path, shape: tuple[int, ...]) -> None:
    """Write the shape of an array into its metadata file, which is whole at any time.

    zarr's own ``resize`` lists every chunk there is, twice, in sets of tuples.
    """
    said = json.loads(metadata.read_text())
    said["shape"] = list(shape)
    draft = metadata.with_name(f".{metadata.name}.new")
    draft.write_text(json.dumps(said, indent=2))
    os.replace(draft, metadata)


def _made(path: Path, name: str, new: NewArray, encoding: Encoding, zarr_format: Literal[2, 3]) -> Callable[[int], str]:
    """Make an array, unless it is there; return how the keys of its files follow from their numbers."""
    group = zarr.open_group(path, mode="a", zarr_format=zarr_format)
    if name not in group:
        height, *row_shape = (max(1, n) for n in new.chunk_shape)  # newer zarr takes none of 0
        group.create_array(
            name,
            shape=(0, *new.spec.row_shape),
            chunks=(height, *row_shape),
            shards=None if new.chunks_per_shard == 1 else (new.shard_height, *row_shape),
            dtype=new.spec.dtype,
            chunk_key_encoding=_KEYS[zarr_format],
            **zarr_codecs(encoding, new.spec.dtype, zarr_format),
        )
    array: Any = group[name]  # read again: zarr writes some dtypes that it cannot read
    if not (path / name / _METADATA[zarr_format]).is_file():
        raise ValueError(f"zarr keeps {name!r} under another name")
    return _keys_of(array, new)


def _remove_partial(path: Path, arrays: Iterable[str]) -> None:
    """Remove what a kill has left of metadata files that zarr-python was writing; it would warn of them forever."""
    for folder in {path / part for name in arrays for part in (PurePath(name), *PurePath(name).parents)}:
        for file in folder.glob("*.partial"):
            if _PARTIAL.fullmatch(file.name) and file.is_file():
                file.unlink()


def _keys_of(array: Any, new: NewArray) -> Callable[[int], str]:
    encode = array.metadata.encode_chunk_key
    return lambda number: str(encode((number, *(0 for _ in new.spec.row_shape))))
