"""What columns of Arrow types hold, and arrays of the simple types that everything else takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oocload.convert.sources.arrow_values import one_array, pyarrow
from oocload.convert.sources.table_choice import ColumnKind

_BYTES = np.dtype(bytes)


def kinds_of(schema: Any, dictionaries: Mapping[str, tuple[str, ...]]) -> dict[str, ColumnKind]:
    """Return column → what it holds."""
    return {field.name: _kind_of(field.type, dictionaries.get(field.name)) for field in schema}


def simple(values: Any) -> Any:
    """Return a column as an array of a simple type: dates as counts, decimals as floats, lists as they are."""
    array = one_array(values)
    array = getattr(array, "storage", array)
    types, kind = pyarrow().types, array.type
    if types.is_temporal(kind):
        return array.view(pyarrow().int32() if kind.bit_width == 32 else pyarrow().int64())
    if types.is_decimal(kind) or types.is_null(kind):
        return array.cast(pyarrow().float64())
    if types.is_dictionary(kind):
        array, kind = array.dictionary_decode(), kind.value_type
        as_it_is = _is_text(kind) or types.is_null(kind) or types.is_binary(kind) or types.is_large_binary(kind)
        return array if as_it_is else array.cast(pyarrow().large_string())
    if types.is_string_view(kind):
        return array.cast(pyarrow().large_string())
    if types.is_binary_view(kind) or types.is_fixed_size_binary(kind):
        return array.cast(pyarrow().large_binary())
    return array


def _kind_of(kind: Any, words: tuple[str, ...] | None) -> ColumnKind:
    types = pyarrow().types
    if isinstance(kind, pyarrow().FixedShapeTensorType):
        if kind.permutation is not None and list(kind.permutation) != sorted(kind.permutation):
            return ColumnKind(problem=f"must hold tensors in C order, got the permutation {kind.permutation}")
        return ColumnKind(np.dtype(kind.value_type.to_pandas_dtype()), tuple(kind.shape))
    if isinstance(kind, pyarrow().BaseExtensionType):
        kind = kind.storage_type
    if types.is_dictionary(kind):
        if types.is_nested(getattr(kind.value_type, "storage_type", kind.value_type)):
            return ColumnKind(problem=f"must have categories that are text or numbers, got {kind.value_type}")
        return ColumnKind(vocabulary=words, is_words=True)
    if _is_text(kind) or types.is_string_view(kind):
        return ColumnKind()
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return ColumnKind(_BYTES)
    if types.is_fixed_size_binary(kind) and not types.is_decimal(kind):
        return ColumnKind(_BYTES)
    return _of_numbers(kind)


def _of_numbers(kind: Any) -> ColumnKind:
    """Return the kind of numbers, or of lists of them."""
    types, shape, inner = pyarrow().types, [], kind
    while (size := _size(inner)) != 0:
        shape.append(size)
        inner = inner.value_type
    dtype = _dtype(inner, types)
    if dtype is None or None in shape[1:] or (shape and not types.is_primitive(inner)):
        return ColumnKind(problem=f"must hold numbers, text, bytes or lists of numbers of one length, got {kind}")
    return ColumnKind(dtype, tuple(shape))


def _size(kind: Any) -> int | None:
    """Return the length of the lists of a type, None for any, and 0 for what is no list."""
    types = pyarrow().types
    if types.is_fixed_size_list(kind):
        return int(kind.list_size)
    return None if types.is_list(kind) or types.is_large_list(kind) else 0


def _dtype(kind: Any, types: Any) -> np.dtype[Any] | None:
    found: np.dtype[Any] | None = None
    if types.is_temporal(kind) and not types.is_interval(kind):
        found = np.dtype(np.int32 if kind.bit_width == 32 else np.int64)
    elif types.is_decimal(kind) or types.is_null(kind):
        found = np.dtype(np.float64)
    elif types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        found = np.dtype(kind.to_pandas_dtype())
    return found


def _is_text(kind: Any) -> bool:
    return bool(pyarrow().types.is_string(kind) or pyarrow().types.is_large_string(kind))
