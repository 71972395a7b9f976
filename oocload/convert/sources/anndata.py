"""AnnData: files, folders, and objects in memory or backed by a file; anndata is not imported to know them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np

import oocload.stores as stores
from oocload.convert.sources.anndata_columns import BOOLS
from oocload.convert.sources.anndata_file import Make, fields_of_files, is_anndata
from oocload.convert.sources.base import FieldGroup, FieldSource
from oocload.convert.sources.dask import dask_sources, is_dask
from oocload.convert.sources.lazy import LazySources
from oocload.convert.sources.one_field import in_memory, of_field
from oocload.convert.sources.ragged import MemoryRagged
from oocload.convert.sources.stacking import TEXT, text_rows
from oocload.errors import InvalidArgumentError, StoreNotFoundError
from oocload.layout import Meaning


class AnnDataSource(FieldGroup):
    """Cells of an AnnData: its file, its Zarr folder, or the object itself.

    The fields are ``X``, ``layers/…`` and ``obsm/…``, CSR matrices as they are; the columns of the cells as
    ``obs/…``, categorical ones as codes with their categories as vocabulary; and the names of the cells as ``id``.
    Text becomes ragged rows of bytes; nullable integers ``float64`` with NaN, and nullable bools codes, -1 where one is
    missing. What is not by cells (``var``, ``uns``), or of cells with cells (``obsp``), is left out, and so is ``raw``.

    Parameters
    ----------
    source
        A path, a glob or a list of paths, or an ``anndata.AnnData``; of one that is backed by a file X is read from
        there. Of several files the cells follow each other: those fields are taken that all have, and codes are such
        as all categories together ask for.

    Raises
    ------
    StoreNotFoundError, InvalidArgumentError
        If nothing lies there, or it is something else.

    Examples
    --------
    >>> import anndata, numpy as np, oocload, pandas
    >>> types = pandas.DataFrame({"cell_type": ["B", "T", "B"]}, index=["a", "b", "c"])
    >>> anndata.AnnData(np.ones((3, 5), "float32"), obs=types).write_h5ad("cells.h5ad")
    >>> report = oocload.convert("cells.h5ad", "cells.zarr", fields=["X", "obs/cell_type"])
    >>> oocload.open("cells.zarr").field("obs/cell_type").meaning.vocabulary
    ('B', 'T')

    """

    def __init__(self, source: Any) -> None:
        self._paths: list[str] = []
        if self.recognises_object(source):
            self.label = f"AnnData of {source.n_obs} cells"
        elif isinstance(source, str | os.PathLike | list | tuple):
            self._paths = stores.expand(source, "source")
            self.label = ", ".join(self._paths[:2]) + (", …" if len(self._paths) > 2 else "")
        else:
            raise InvalidArgumentError(f"source must be a path or an anndata.AnnData, got {type(source).__name__}")
        for path in self._paths:
            if not os.path.exists(path):
                raise StoreNotFoundError(f"source must exist, got {path!r}; nothing lies at that path")
        self._source = source

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether a path is an ``.h5ad`` file, or a Zarr folder of anndata."""
        return is_anndata(path)

    @classmethod
    def from_paths(cls, paths: Sequence[str]) -> Self:
        """Return the source of some files or folders."""
        return cls(paths)

    @classmethod
    def recognises_object(cls, source: object) -> bool:
        """Whether an object is an AnnData."""
        anndata = sys.modules.get("anndata")
        return anndata is not None and isinstance(source, anndata.AnnData)

    @classmethod
    def from_object(cls, source: Any) -> Self:
        """Return the source of an AnnData."""
        return cls(source)

    def field_sources(self) -> Mapping[str, FieldSource]:
        """Return field → source; each is made when it is asked for, so that one that cannot be read may be left out."""
        return LazySources(fields_of_files(self._paths) if self._paths else _fields_of_object(self._source))


def _fields_of_object(adata: Any) -> dict[str, Make]:
    makers: dict[str, Make] = {}
    if adata.isbacked:
        if adata.is_view:
            raise InvalidArgumentError(
                "source must be a whole AnnData, or one in memory, got a part of one that is backed by a file; call "
                "its to_memory() first"
            )
        path = os.fspath(adata.filename)
        makers["X"] = lambda: of_field(stores.open(path), "X")
    elif adata.X is not None:
        makers["X"] = partial(_matrix, "X", adata.X)
    for group, arrays in (("layers", adata.layers), ("obsm", adata.obsm)):
        for name, value in arrays.items():
            if name is None:  # anndata's own name of X, among the layers
                continue
            if hasattr(value, "columns"):
                makers |= {f"{group}/{name}/{c}": partial(_column, f"{group}/{name}/{c}", value[c]) for c in value}
            else:
                makers[f"{group}/{name}"] = partial(_matrix, f"{group}/{name}", value)
    makers |= {f"obs/{c}": partial(_column, f"obs/{c}", adata.obs[c]) for c in adata.obs}
    makers["id"] = partial(_text_source, "id", adata.obs_names)
    return makers


def _matrix(name: str, value: Any) -> FieldSource:
    return dask_sources({name: value})[name] if is_dask(value) else in_memory(name, value)


def _column(name: str, column: Any) -> FieldSource:
    """Return the source of a column of pandas."""
    kind = str(column.dtype)
    if kind == "category":
        source = in_memory(name, np.asarray(column.cat.codes))
        source.meaning = Meaning(vocabulary=tuple(map(str, column.cat.categories)))
        return source
    if kind == "boolean":
        source = in_memory(name, column.astype("Int8").to_numpy(np.int8, na_value=-1))
        source.meaning = BOOLS
        return source
    if kind[:1] in "IUF" and hasattr(column.array, "_mask"):
        return in_memory(name, column.to_numpy(np.float64, na_value=np.nan))
    array = column.to_numpy()
    if array.dtype.kind in "biufc":
        return in_memory(name, array)
    if all(isinstance(value, str) for value in array[~column.isna().to_numpy()]):
        return _text_source(name, array)
    raise InvalidArgumentError(
        f"field {name!r} must hold numbers, categories or text, got {kind}; choose other fields with fields="
    )


def _text_source(name: str, values: Any) -> FieldSource:
    rows = text_rows([value if isinstance(value, str) else "" for value in values])
    source = MemoryRagged(name, (rows.values, rows.offsets), TEXT)
    source.meaning = Meaning(content="text")
    return source
