"""The source of one field: of a store, or of an array or rows in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from oocload.convert.ragged import is_sparse, ragged_spec_of
from oocload.convert.sources.arrays import SliceSource, slices_like_an_array
from oocload.convert.sources.base import FieldSource
from oocload.convert.sources.mapped import MappedSource, shared_map_of
from oocload.convert.sources.ragged import MemoryRagged, sparse_source
from oocload.convert.sources.store import StoreField
from oocload.convert.sources.store_ragged import StoreRagged
from oocload.convert.sources.vlen import VlenSource, vlen_item_dtype
from oocload.errors import StoreFormatError
from oocload.stores.base import Store


def of_field(store: Store, name: str) -> FieldSource:
    """Return the source of a field of a store.

    Raises
    ------
    UnknownFieldError, StoreFormatError
        If it is not there, or cannot be read.

    """
    field = store.field(name)
    if field.read_path == "none":
        raise StoreFormatError(
            f"field {name!r} of {store.address} cannot be read: {field.reason}; choose other fields with fields="
        )
    if field.ragged is not None:
        return StoreRagged(store, field)
    item_dtype = vlen_item_dtype(field)
    return StoreField(store, field) if item_dtype is None else VlenSource(store, field, item_dtype)


def in_memory(name: str, value: Any) -> FieldSource:
    """Return the source of an array, of ragged rows or of a sparse matrix."""
    if is_sparse(value):
        return sparse_source(name, value)
    spec = ragged_spec_of(name, value)
    if spec is not None and not spec.dtype.hasobject:
        return MemoryRagged(name, value, spec)
    if not slices_like_an_array(value):
        return SliceSource(np.asarray(value))
    mapped = shared_map_of(value)
    return SliceSource(value) if mapped is None else MappedSource(value, mapped)
