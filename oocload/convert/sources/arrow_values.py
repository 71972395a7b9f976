"""Values of Arrow arrays as NumPy has them, and the error for one that cannot be part of a row.

`to_numpy`, `pyarrow.array` and scalars of pyarrow are not used: they import pandas where that is installed, which takes
a quarter of a second and 45 MiB.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.convert.ragged import RaggedRows
from oocload.optional import require


def pyarrow(part: str = "") -> Any:
    """Import pyarrow, or a module of it."""
    return require(f"pyarrow.{part}".rstrip("."), "parquet", "reading CSV, Parquet and Arrow files")


def computed(name: str, *values: Any, **options: Any) -> Any:
    """Return what a function of `pyarrow.compute` makes, in memory that goes back to the system when it is done.

    The pool that pyarrow takes by default keeps 40 MiB.
    """
    return getattr(pyarrow("compute"), name)(*values, **options, memory_pool=pyarrow().system_memory_pool())


class RowError(Exception):
    """A value that cannot be part of a row; who knows where the row lies makes an error for people of it.

    Parameters
    ----------
    row
        Which, of those that were given.
    reason
        "must <rule>, got <value>; <what to do>".

    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row = row
        self.reason = reason


def one_array(values: Any) -> Any:
    """Return the one array of a chunked one, copied only where there are several."""
    if not isinstance(values, pyarrow().ChunkedArray):
        return values
    return values.chunk(0) if values.num_chunks == 1 else pyarrow().concat_arrays(values.chunks or [_none(values.type)])


def as_strings(values: Any) -> Any:
    """Return an Arrow array of text, of one, of one of a dictionary, or of a sequence of text and None (as empty).

    Raises
    ------
    RowError
        If bytes are no text.

    """
    arrow = pyarrow()
    if not isinstance(values, arrow.Array | arrow.ChunkedArray):
        return _from_sequence(values)
    array = one_array(values)
    if arrow.types.is_string(array.type) or arrow.types.is_large_string(array.type):
        return array
    try:
        return array.cast(arrow.large_string())
    except arrow.ArrowInvalid as exc:  # bytes
        for row, value in enumerate(array.to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError:
                raise RowError(row, f"must be UTF-8, got {value[:40]!r}; leave it as bytes") from exc
        raise


def ragged_bytes(values: Any) -> RaggedRows:
    """Return the bytes of text or binary values, without a copy where all are there; None has no bytes."""
    array = without_none(values)
    wide = pyarrow().types.is_large_string(array.type) or pyarrow().types.is_large_binary(array.type)
    _, places, data = array.buffers()
    offsets = np.frombuffer(places, np.int64 if wide else np.int32)[array.offset : array.offset + len(array) + 1]
    first, last = (int(offsets[0]), int(offsets[-1])) if len(array) else (0, 0)
    held = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return RaggedRows(held[first:last], np.zeros(1, np.int64) if not len(array) else offsets.astype(np.int64) - first)


def numbers(values: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return numbers as a dtype that can hold them; None becomes NaN.

    Raises
    ------
    RowError
        If one is missing that cannot be NaN, or one does not fit.

    """
    if values.null_count:
        if dtype.kind != "f":
            row = first_none(values)
            raise RowError(row, f"must have a value in every row to be {dtype}, got none; {NAN_ADVICE}")
        found = items_or(values, np.nan)
    else:
        found = items(values)
    return found if found.dtype == dtype else _cast(found, dtype)


def items(values: Any) -> NDArray[Any]:
    """Return the numbers of an Arrow array, anything where one is missing; without a copy where they are not bits."""
    data = values.buffers()[1]
    if pyarrow().types.is_boolean(values.type):
        bits = np.unpackbits(np.frombuffer(data or b"", np.uint8), bitorder="little")
        return bits[values.offset : values.offset + len(values)].astype(bool)
    dtype = np.dtype(values.type.to_pandas_dtype())
    return np.frombuffer(data or b"", dtype)[values.offset : values.offset + len(values)]


def items_or(values: Any, missing: float) -> NDArray[Any]:
    """Return the numbers of an Arrow array, and another where one is missing; of NaN, as floats."""
    found = items(values)
    if not values.null_count:
        return found
    found = found.astype(np.float64) if np.isnan(missing) and found.dtype.kind != "f" else found.copy()
    found[items(values.is_null())] = missing
    return found


def mask_of(bools: NDArray[np.bool_]) -> Any:
    """Return bools as an Arrow array."""
    arrow = pyarrow()
    bits = arrow.py_buffer(np.packbits(bools, bitorder="little"))
    return arrow.BooleanArray.from_buffers(arrow.bool_(), len(bools), [None, bits])


def without_none(values: Any) -> Any:
    """Return text or bytes with empty ones in place of those that are missing."""
    if not values.null_count:
        return values
    empty = as_strings([""] * values.null_count).cast(values.type)
    return computed("replace_with_mask", values, values.is_null(), empty)


def first_none(values: Any) -> int:
    """Return the place of the first missing value, where there is one."""
    return int(np.flatnonzero(items(values.is_null()))[0])


NAN_ADVICE = "pass dtypes={column: 'float64'} to the source, where missing values are NaN"


def _cast(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Cast; whole numbers must fit, floats may lose digits and not become infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(dtype)
    if dtype.kind in "fc":
        wrong = np.isinf(cast) & ~np.isinf(values) if values.dtype.itemsize > dtype.itemsize else np.zeros(0, bool)
    else:
        wrong = (cast != values) | ((cast < 0) != (values < 0) if dtype.kind in "iu" else False)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise RowError(row, f"must fit into {dtype}, got {values[row]}; name another dtype with dtypes=")
    return cast


def _from_sequence(values: Iterable[str | None]) -> Any:
    """Return an Arrow array of text; `pyarrow.array` would import pandas."""
    arrow = pyarrow()
    encoded = [(value or "").encode() for value in values]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    places, data = arrow.py_buffer(offsets), arrow.py_buffer(b"".join(encoded))
    return arrow.LargeStringArray.from_buffers(len(encoded), places, data)


def _none(kind: Any) -> Any:
    return pyarrow().array([], kind)
