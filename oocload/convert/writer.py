"""The writer: rows in, a complete store out, or nothing at its name."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from oocload.convert.arrays import plan_arrays
from oocload.convert.buffers import Buffers, Rows
from oocload.convert.chunking import DEFAULT_CHUNK_NBYTES
from oocload.convert.encode import choose_encoding
from oocload.convert.fields import Spec, parse_fields, spec_of
from oocload.convert.targets import Hdf5Target, Target, ZarrTarget
from oocload.errors import (
    ClosedError,
    ConversionError,
    InvalidArgumentError,
    OocloadError,
    TargetExistsError,
)
from oocload.units import parse_bytes

_FORMATS = {".h5": "hdf5", ".hdf5": "hdf5", ".zarr": "zarr"}


class Writer:
    """Writes a store row by row, in chunks; made by `create`.

    Use it as a context manager: the store appears under its name when the block ends, whole, by one rename. If the
    block raises, nothing is left. Not thread-safe.

    Attributes
    ----------
    n_rows
        Rows appended so far.
    nbytes
        Bytes of them in the arrays of the store, decoded.

    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fields: Mapping[str, Any] | None = None,
        *,
        codec: str | None = None,
        level: int | None = None,
        chunk_bytes: int | str = DEFAULT_CHUNK_NBYTES,
        chunk_rows: int | None = None,
        chunks_per_shard: int = 1,
        n_rows: int | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.n_rows = 0
        self.nbytes = 0
        self._format = target_format(self.path)
        self._encoding = choose_encoding(self._format, codec, level)
        self._chunk_nbytes = parse_bytes(chunk_bytes, "chunk_bytes")
        self._chunk_rows = _check_count("chunk_rows", chunk_rows)
        self._per_shard = _check_count("chunks_per_shard", chunks_per_shard) or 1
        if self._per_shard > 1 and self._format == "hdf5":
            raise InvalidArgumentError("chunks_per_shard must be 1 for HDF5, which has no shards; write a .zarr store")
        self._n_rows_expected = n_rows
        self._overwrite = overwrite
        check_target(self.path, overwrite)
        self._partial = self.path.with_name(f".{self.path.name}.partial-{secrets.token_hex(4)}")
        self._target: Target | None = None
        self._buffers: Buffers | None = None
        self._closed = False
        self._fields = None if fields is None else parse_fields(fields)
        if self._fields is not None:
            self._guarded(self._start, self._fields)

    def append(self, **rows: Any) -> None:
        """Append rows: one array per field, all of the same length; copied before this returns.

        Rows of several lengths are a list (or an object array) of arrays or lists, or a tuple ``(values, offsets)``:
        row i is ``values[offsets[i]:offsets[i + 1]]``. Sparse rows are a SciPy matrix or array in CSR format.

        Raises
        ------
        InvalidArgumentError
            If a field is missing or unknown, or rows have another shape, length or dtype.
        ConversionError
            If the disk is full or cannot be written; nothing is left at the destination's name.

        """
        self.append_batch(rows)

    def append_batch(self, rows: Mapping[str, Any]) -> None:
        """Append rows as `append` does, given as a mapping; for field names that are no Python names."""
        if self._closed:
            raise ClosedError("writer must be open, and it was closed; create a new store")
        if self._fields is None:
            specs = {name: spec_of(name, given) for name, given in rows.items()}
            self._fields = parse_fields(specs)
            self._guarded(self._start, self._fields)
        self._guarded(self._append, _check_rows(rows, self._fields))

    def close(self) -> None:
        """Finish: the store appears under its name. A second call does nothing.

        Raises
        ------
        ConversionError
            If no row was appended, or the disk is full.
        TargetExistsError
            If something appeared at the destination meanwhile.

        """
        if self._closed:
            return
        if self.n_rows == 0:
            self.abort()
            raise ConversionError(f"a store must have at least one row, and none was appended to {self.path}")
        self._guarded(self._finish)
        self._closed = True

    def abort(self) -> None:
        """Stop and remove what was written; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._buffers is not None:
            self._buffers.clear()
        if self._target is not None:
            self._target.abort()
        _remove(self._partial)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is None:
            self.close()
        else:
            self.abort()

    def _start(self, fields: dict[str, Spec]) -> None:
        arrays = plan_arrays(
            fields,
            self._chunk_nbytes,
            self._chunk_rows,
            self._n_rows_expected,
            self._per_shard,
            has_shards=self._format == "zarr",
        )
        make = Hdf5Target if self._format == "hdf5" else ZarrTarget
        try:
            self._target = make(os.fspath(self._partial), arrays, self._encoding)
        except OSError:
            raise
        except Exception as exc:  # what a format cannot store, h5py and zarr say in many ways
            shown = ", ".join(f"{name!r}: {spec}" for name, spec in fields.items())
            reason = " ".join(str(exc).split())
            raise InvalidArgumentError(
                f"fields must be such as {self.path.suffix} can hold, got {shown} ({reason}); "
                "rename or convert what does not fit, or choose another target"
            ) from exc
        self._buffers = Buffers(fields, arrays)

    def _append(self, rows: dict[str, Rows]) -> None:
        assert self._target is not None
        assert self._buffers is not None
        for name, given in rows.items():
            for full in self._buffers.add(name, given):
                self._target.write(*full)
        self.n_rows += len(next(iter(rows.values())))
        self.nbytes = self._buffers.nbytes

    def _finish(self) -> None:
        assert self._target is not None
        assert self._buffers is not None
        for full in self._buffers.rest():
            self._target.write(*full)
        self._target.finish(self._buffers.lengths, self._buffers.attributes(self.n_rows))
        check_target(self.path, self._overwrite)
        _move_into_place(self._partial, self.path)

    def _guarded(self, step: Any, *args: Any) -> None:
        """Run a step; whatever goes wrong, nothing is left, and what the disk says becomes one clear error."""
        try:
            step(*args)
        except OocloadError:
            self.abort()
            raise
        except (OSError, RuntimeError) as exc:
            self.abort()
            raise ConversionError(_what_failed(exc, self.path)) from exc
        except BaseException:
            self.abort()
            raise


def create(
    path: str | os.PathLike[str],
    fields: Mapping[str, Any] | None = None,
    *,
    codec: str | None = None,
    level: int | None = None,
    chunk_bytes: int | str = DEFAULT_CHUNK_NBYTES,
    chunk_rows: int | None = None,
    chunks_per_shard: int = 1,
    overwrite: bool = False,
) -> Writer:
    """Begin a new HDF5 or Zarr store, to which rows are appended.

    Parameters
    ----------
    path
        Where the store will be; ``.h5`` or ``.hdf5`` for HDF5, ``.zarr`` for Zarr v3.
    fields
        Name → ``(row_shape, dtype)``, or a dtype where rows are scalars. ``(None, dtype)`` is for rows of any length,
        ``((None, 3), dtype)`` for rows of any number of items of shape ``(3,)``. None takes them from the first rows.
    codec
        HDF5: ``"gzip"`` (default), ``"lzf"``, ``"none"``. Zarr: ``"zstd"`` (default), ``"blosc"`` (LZ4), ``"gzip"``,
        ``"none"``.
    level
        Of the codec; None takes gzip 4, zstd 3, blosc 5.
    chunk_bytes
        Decoded bytes of one chunk of the largest field, about. All large fields get the same height. The items of
        ragged and sparse rows get chunks of an eighth of it, 4 KiB at least.
    chunk_rows
        Rows per chunk of large fields, instead of ``chunk_bytes``; not of the items of ragged and sparse rows.
    chunks_per_shard
        Zarr only: chunks in one file; of the items of ragged and sparse rows, eight times as many.
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
        If an argument breaks its rule.

    Examples
    --------
    >>> import numpy as np, oocload
    >>> with oocload.create("digits.h5", fields={"x": ((8, 8), "uint8"), "y": "int64"}) as w:
    ...     w.append(x=np.zeros((100, 8, 8), "uint8"), y=np.arange(100))
    >>> oocload.open("digits.h5").fields["x"].shape
    (100, 8, 8)

    """
    return Writer(
        path,
        fields,
        codec=codec,
        level=level,
        chunk_bytes=chunk_bytes,
        chunk_rows=chunk_rows,
        chunks_per_shard=chunks_per_shard,
        overwrite=overwrite,
    )


def target_format(path: Path) -> str:
    """Return "hdf5" or "zarr" by the suffix.

    Raises
    ------
    InvalidArgumentError
        If the suffix is another one.

    """
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(_FORMATS)
        raise InvalidArgumentError(f"target must end in one of {known}, got {os.fspath(path)!r}") from None


def check_target(path: Path, overwrite: bool) -> None:
    """Raise where the destination is taken, or its folder is not there."""
    if path.exists() and not overwrite:
        raise TargetExistsError(
            f"target must not exist, got {os.fspath(path)!r}; pass overwrite=True (--overwrite) to replace it"
        )
    if not path.parent.is_dir():
        raise ConversionError(f"target's folder must exist, got {os.fspath(path.parent)!r}; make it first")


def _check_count(name: str, value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise InvalidArgumentError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value


def _check_rows(rows: Mapping[str, Any], fields: dict[str, Spec]) -> dict[str, Rows]:
    if rows.keys() != fields.keys():
        raise InvalidArgumentError(f"rows must be given for fields {sorted(fields)}, got {sorted(rows)}")
    checked: dict[str, Rows] = {name: spec.check(name, rows[name]) for name, spec in fields.items()}
    lengths = {name: len(given) for name, given in checked.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name!r} has {n}" for name, n in lengths.items())
        raise InvalidArgumentError(f"fields must be appended in equal numbers of rows: {shown}")
    return checked


def _what_failed(exc: BaseException, path: Path) -> str:
    text = " ".join(str(exc).split())
    full = getattr(exc, "errno", None) == errno.ENOSPC or "No space left" in text or "errno = 28" in text
    cause = "the disk is full; free some space or choose another place" if full else text
    return f"writing {path} failed: {cause}; nothing was left at that name"


def _move_into_place(partial: Path, path: Path) -> None:
    """Give a finished store its name by one rename; what it replaces goes after that."""
    if not path.is_dir() and not (path.exists() and partial.is_dir()):
        os.replace(partial, path)  # one step for a file, and for a directory where nothing stands
        return
    replaced = path.with_name(f".{path.name}.replaced-{secrets.token_hex(4)}")
    os.rename(path, replaced)
    try:
        os.rename(partial, path)
    except BaseException:
        os.rename(replaced, path)
        raise
    _remove(replaced)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
