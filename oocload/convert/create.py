"""Stores that are written row by row: the public function, and what its arguments mean."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from oocload.convert.chunking import DEFAULT_CHUNK_NBYTES
from oocload.convert.fields import parse_fields
from oocload.convert.options import Options
from oocload.convert.writer import Writer
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning


def create(
    path: str | os.PathLike[str],
    fields: Mapping[str, Any] | None = None,
    *,
    vocabulary: Mapping[str, Sequence[str]] | None = None,
    codec: str | None = None,
    level: int | None = None,
    chunk_bytes: int | str = DEFAULT_CHUNK_NBYTES,
    chunk_rows: int | None = None,
    batch_size: int | None = None,
    chunks_per_shard: int | None = None,
    zarr_format: int = 3,
    memory: int | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Writer:
    """Begin a new HDF5 or Zarr store, to which rows are appended.

    The store appears under its name when it is whole, by one rename. Until then it is made in ``.NAME.oocload`` beside
    it, which stays if the process is killed, the disk fills or an exception ends the block: see ``resume``. To append
    to a store that is there, see `oocload.open`.

    Parameters
    ----------
    path
        Where the store will be; ``.h5`` or ``.hdf5`` for HDF5, ``.zarr`` for Zarr.
    fields
        Name → ``(row_shape, dtype)``, or a dtype where rows are scalars. ``(None, dtype)`` is for rows of any length,
        ``((None, 3), dtype)`` for rows of any number of items of shape ``(3,)``. None takes them from the first rows,
        or from the run that is resumed.
    vocabulary
        Field of whole numbers → what each number stands for, such as the names of classes; kept in the store as
        ``store.field(name).meaning.vocabulary``. A field ``split`` whose numbers stand for names of sets of rows is
        what ``Loader(split=...)`` looks at.
    codec
        HDF5: ``"gzip"`` (default), ``"lzf"``, ``"none"``; with a plugin for other readers also ``"zstd"``, ``"blosc"``,
        ``"lz4"``, ``"bitshuffle"``. Zarr: ``"zstd"`` (default), ``"blosc"`` (LZ4), ``"gzip"``, ``"none"``. ``"auto"``
        tries them on the first rows, and takes the smallest that is decoded as fast as this machine's disk reads.
    level
        Of the codec; None takes gzip 4, zstd 3, blosc 5.
    chunk_bytes
        Decoded bytes of one chunk of the largest field, about. All large fields get the same height. The items of
        ragged and sparse rows get chunks of an eighth of it, 4 KiB at least.
    chunk_rows
        Rows per chunk of large fields, instead of ``chunk_bytes``; not of the items of ragged and sparse rows.
    batch_size
        Rows of the batches that will be read: chunk heights become the multiple or divisor of it that is nearest to
        ``chunk_bytes``.
    chunks_per_shard
        Zarr v3 only: chunks in one file; of the items of ragged and sparse rows, eight times as many. None takes one
        where a store has few chunks, and shards of 64 where it has many or an unknown number.
    zarr_format
        3, or 2 for readers that know no other.
    memory
        Ceiling on what is held, in bytes or such as ``"256 MiB"``; None takes a quarter of the memory that is free, at
        most 2 GiB, of which less than 200 MiB are used unless chunks are large.
    resume
        Go on with what a killed or failed run has left beside ``path``: ``n_rows`` of the writer says with which row.
        Where nothing was left, begin.
    overwrite
        Replace what is at ``path``; it stays until the new store is whole.

    Returns
    -------
    Writer
        A context manager.

    Raises
    ------
    TargetExistsError
        If the destination exists and ``overwrite`` is False.
    InvalidArgumentError
        If an argument breaks its rule, or what is resumed was begun with other arguments.
    MemoryCeilingError
        If chunks do not fit into ``memory``.
    ConversionError
        If another process is writing to the same destination, or its folder cannot be written.

    Examples
    --------
    >>> import numpy as np, oocload
    >>> with oocload.create("digits.h5", fields={"x": ((8, 8), "uint8"), "y": "int64"}) as w:
    ...     w.append(x=np.zeros((100, 8, 8), "uint8"), y=np.arange(100))
    >>> oocload.open("digits.h5").fields["x"].shape
    (100, 8, 8)

    """
    options = Options.checked(
        codec,
        level,
        chunk_bytes,
        chunk_rows,
        batch_size,
        chunks_per_shard,
        zarr_format,
        memory,
        resume,
        overwrite,
    )
    meanings = {name: Meaning(_words(name, words, fields or {})) for name, words in (vocabulary or {}).items()}
    return Writer(path, fields, options, meanings=lambda: meanings)


def _words(name: str, words: Any, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the vocabulary of a field.

    Raises
    ------
    InvalidArgumentError
        If it is no list of texts, a text is there twice, or the field is none of whole numbers.

    """
    if name not in fields or parse_fields({name: fields[name]})[name].dtype.kind not in "iu":
        raise InvalidArgumentError(f"vocabulary must be given for fields of whole numbers in fields=, got {name!r}")
    found = tuple(words) if isinstance(words, Sequence) and not isinstance(words, str) else ()
    if not found or not all(isinstance(word, str) for word in found) or len(set(found)) < len(found):
        raise InvalidArgumentError(
            f"vocabulary of field {name!r} must be a list of texts, each of them once, got {words!r}"
        )
    return found
