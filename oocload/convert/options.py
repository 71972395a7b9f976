"""How a store is to be written: the arguments that `create` and `convert` share, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from oocload.available import default_ceiling
from oocload.convert.arrays import NewArray, plan_arrays
from oocload.convert.encode import Encoding, choose_encoding
from oocload.convert.fields import Spec
from oocload.convert.session import StoreFormat
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError
from oocload.units import parse_bytes

_HDF5 = (".h5", ".hdf5")
_ZARR = ".zarr"
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Options:
    """As `oocload.create` takes them; sizes in bytes."""

    codec: str | None
    level: int | None
    chunk_nbytes: int
    chunk_rows: int | None
    batch_size: int | None
    chunks_per_shard: int | None
    zarr_format: int
    memory: int
    resume: bool
    overwrite: bool

    @classmethod
    def checked(
        cls,
        codec: str | None,
        level: int | None,
        chunk_bytes: int | str,
        chunk_rows: int | None,
        batch_size: int | None,
        chunks_per_shard: int | None,
        zarr_format: int,
        memory: int | str | None,
        resume: bool,
        overwrite: bool,
    ) -> Self:
        """Return options from arguments.

        Raises
        ------
        InvalidArgumentError
            If one breaks its rule.

        """
        if zarr_format not in (2, 3):
            raise InvalidArgumentError(f"zarr_format must be 2 or 3, got {zarr_format!r}")
        if chunk_rows is not None and batch_size is not None:
            raise InvalidArgumentError(
                f"batch_size must be left out where chunk_rows is given, got {batch_size!r} beside {chunk_rows!r}"
            )
        return cls(
            codec=codec,
            level=level,
            chunk_nbytes=parse_bytes(chunk_bytes, "chunk_bytes"),
            chunk_rows=_check_count("chunk_rows", chunk_rows),
            batch_size=_check_count("batch_size", batch_size),
            chunks_per_shard=_check_count("chunks_per_shard", chunks_per_shard),
            zarr_format=zarr_format,
            memory=default_ceiling() if memory is None else parse_bytes(memory, "memory"),
            resume=resume,
            overwrite=overwrite,
        )

    def format_of(self, path: Path) -> StoreFormat:
        """Return the format of a store by its suffix.

        Raises
        ------
        InvalidArgumentError
            If the suffix is another one, or the format has no shards and some were asked for.

        """
        suffix = path.suffix.lower()
        if suffix not in (*_HDF5, _ZARR):
            known = ", ".join((*_HDF5, _ZARR))
            raise InvalidArgumentError(
                f"target must end in one of {known}, got {os.fspath(path)!r}; name the store that will be written"
            )
        found: StoreFormat = "hdf5" if suffix in _HDF5 else "zarr2" if self.zarr_format == 2 else "zarr3"
        if (self.chunks_per_shard or 1) > 1 and found != "zarr3":
            raise InvalidArgumentError(
                "chunks_per_shard must be 1 for HDF5 and Zarr v2, which have no shards; write a .zarr store of v3"
            )
        return found

    def encoding_for(self, store_format: StoreFormat) -> Encoding | None:
        """Return the codec and its level; None where only rows can tell which is best.

        Raises
        ------
        InvalidArgumentError
            If the format has no such codec, or the codec no such level.

        """
        if self.codec == AUTO:
            if self.level is not None:
                raise InvalidArgumentError(f"level must be left out for codec 'auto', got {self.level!r}")
            return None
        return choose_encoding(store_format, self.codec, self.level)

    def arrays_of(
        self, fields: Mapping[str, Spec], store_format: StoreFormat, n_rows: int | None
    ) -> dict[str, NewArray]:
        """Return the arrays that hold some fields.

        Raises
        ------
        InvalidArgumentError
            If the format has no chunks for one of them.

        """
        for name, spec in fields.items() if store_format == "hdf5" else ():
            if isinstance(spec, FieldSpec) and 0 in spec.row_shape:
                raise InvalidArgumentError(
                    f"field {name!r} must have values for HDF5, which has no chunks without any, got rows of shape "
                    f"{spec.row_shape}; leave it out, or write a .zarr store"
                )
        return plan_arrays(
            fields,
            self.chunk_nbytes,
            self.chunk_rows,
            n_rows,
            self.chunks_per_shard,
            has_shards=store_format == "zarr3",
            batch_size=self.batch_size,
        )


def _check_count(name: str, value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise InvalidArgumentError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value
