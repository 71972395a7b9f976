"""Datasets and arrays of xarray with a dimension that counts samples; xarray is not imported to know them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.convert.sources.ahead import ReadAhead, ReadRows
from oocload.convert.sources.base import ArraySource, FieldGroup, FieldSource
from oocload.convert.sources.dask import dask_sources, is_dask
from oocload.convert.sources.one_field import in_memory
from oocload.convert.sources.ragged import MemoryRagged
from oocload.convert.sources.stacking import TEXT, text_rows
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning, Segment

_TEXTS = "OUST"  # kinds of dtypes


class XarraySource(FieldGroup):
    """An ``xarray.Dataset`` or ``DataArray``: in memory, backed by dask, or opened from files and not yet loaded.

    Each variable that has the dimension of the samples becomes a field, with that dimension as axis 0; variables
    without it are left out. Coordinates along it, and it alone, become fields, too. Times become whole numbers, in the
    unit that they have; text becomes ragged rows of bytes.

    Parameters
    ----------
    dataset
        The dataset, or an array, which becomes the field of its name, or ``x``.
    dim
        The dimension that counts samples. None takes the only one that all variables have, or of several the one
        that is the first of each.

    Raises
    ------
    InvalidArgumentError
        If it is neither, has no such dimension, or there are several.

    Examples
    --------
    >>> import numpy as np, oocload, xarray
    >>> dataset = xarray.Dataset({"t": (("x", "time"), np.zeros((4, 100)))}, {"time": np.arange(100)})
    >>> oocload.convert(oocload.sources.XarraySource(dataset, dim="time"), "t.zarr").fields
    ('t', 'time')

    """

    def __init__(self, dataset: Any, dim: str | None = None) -> None:
        if not self.recognises_object(dataset):
            raise InvalidArgumentError(f"dataset must be an xarray Dataset or DataArray, got {type(dataset).__name__}")
        self.label = f"xarray {type(dataset).__name__}"
        if not hasattr(dataset, "data_vars"):
            dataset = dataset.to_dataset(name=dataset.name or "x")
        self._dataset = dataset
        self.dim = _dimension(dataset, dim)

    @classmethod
    def recognises_object(cls, source: object) -> bool:
        """Whether an object is a dataset or an array of xarray."""
        xarray = sys.modules.get("xarray")
        return xarray is not None and isinstance(source, xarray.Dataset | xarray.DataArray)

    @classmethod
    def from_object(cls, source: Any) -> Self:
        """Return the source of it."""
        return cls(source)

    def field_sources(self) -> Mapping[str, FieldSource]:
        """Return field → source; dask arrays together, as they may share what is computed."""
        dataset, dim = self._dataset, self.dim
        found = {str(name): v.variable for name, v in dataset.data_vars.items() if dim in v.dims}
        found |= {str(name): v.variable for name, v in dataset.coords.items() if v.dims == (dim,)}
        variables = {name: v.transpose(dim, ...) for name, v in found.items()}
        together = dask_sources(
            {n: _plain(v.data) for n, v in variables.items() if is_dask(v._data) and v.dtype.kind not in _TEXTS}
        )
        return {n: together[n] if n in together else _source(n, v, dim) for n, v in variables.items()}


def _dimension(dataset: Any, dim: str | None) -> str:
    shown = ", ".join(f"{name!r} has {v.dims}" for name, v in dataset.data_vars.items())
    if dim is not None:
        if dim not in dataset.dims:
            raise InvalidArgumentError(f"dim must be a dimension of the dataset, got {dim!r}: {shown}")
        return dim
    each = [v.dims for v in dataset.data_vars.values() if v.dims]
    common = [d for d in (each[0] if each else ()) if all(d in dims for dims in each)]
    first = [d for d in common if all(d == dims[0] for dims in each)]
    found = first if len(common) > 1 else common
    if len(found) != 1:
        raise InvalidArgumentError(
            f"dataset must have one dimension that counts samples, got {', '.join(map(repr, common)) or 'none'} in all "
            f"variables: {shown or 'there are none'}; name it with oocload.sources.XarraySource(dataset, dim=...)"
        )
    return str(found[0])


def _source(name: str, variable: Any, dim: str) -> FieldSource:
    """Return the source of a variable whose first dimension counts samples."""
    if variable.dtype.kind in _TEXTS:
        return _text_source(name, variable)
    if not variable._in_memory:
        return _VariableSource(name, variable, dim)
    return in_memory(name, _plain(variable.values))


def _plain(values: Any) -> Any:
    """Return times as whole numbers, which stores can hold."""
    return values.view(np.int64) if values.dtype.kind in "mM" else values


def _text_source(name: str, variable: Any) -> FieldSource:
    values = variable.values
    if values.ndim != 1 or not all(isinstance(value, str | bytes) for value in values.tolist()):
        raise InvalidArgumentError(
            f"field {name!r} must hold numbers, or one text a sample, got {variable.dtype} of shape {variable.shape}; "
            "drop it with dataset.drop_vars()"
        )
    rows = text_rows(values.tolist())
    source = MemoryRagged(name, (rows.values, rows.offsets), TEXT)
    source.meaning = Meaning(content="text")
    return source


class _VariableSource(ArraySource):
    """A variable that is loaded piece by piece, by one thread, through xarray and what it was opened with."""

    identity_is_proof = False

    def __init__(self, name: str, variable: Any, dim: str) -> None:
        self.label = f"variable {name!r}"
        self.shape = tuple(variable.shape)
        self.dtype = np.dtype(np.int64) if variable.dtype.kind in "mM" else variable.dtype
        self._variable, self._dim = variable, dim
        height = variable.encoding.get("preferred_chunks", {}).get(dim, 0)
        self._height = int(height[0] if isinstance(height, tuple) else height)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Where chunks of the file begin."""
        return (Segment(0, self.n_rows, self._height, 0),)

    @property
    def least_nbytes(self) -> int:
        """Bytes of the rows of a chunk, and of the chunk itself."""
        return max(1, 2 * self._height) * self.row_nbytes

    def reader(self, start: int, stop: int, ahead: ReadAhead) -> ReadRows:
        """Return what reads rows."""
        return self._read

    def _read(self, start: int, stop: int, scratch: Scratch) -> NDArray[Any]:
        return np.ascontiguousarray(_plain(self._variable.isel({self._dim: slice(start, stop)}).values))
