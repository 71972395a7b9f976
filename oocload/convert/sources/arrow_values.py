"""Values of Arrow arrays as NumPy has them, and the error for one that cannot be part of a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.convert.ragged import RaggedRows
from oocload.optional import require


def pyarrow(part: str = "") -> Any:
    """Import pyarrow, or a module of it."""
    return require(f"pyarrow.{part}".rstrip("."), "parquet", "reading CSV, Parquet and Arrow files")


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
    """Return an Arrow array of text, of one, of one of a dictionary, or of a sequence of text and None."""
    arrow = pyarrow()
    if not isinstance(values, arrow.Array | arrow.ChunkedArray):
        return arrow.array(values, arrow.string())
    array = one_array(values)
    if arrow.types.is_string(array.type) or arrow.types.is_large_string(array.type):
        return array
    return array.cast(arrow.large_string())


def ragged_bytes(values: Any) -> RaggedRows:
    """Return the bytes of text or binary values, without a copy where all are there; None has no bytes."""
    array = values.fill_null("" if _is_text(values) else b"") if values.null_count else values
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
        values = values.cast(pyarrow().float64()) if not pyarrow().types.is_floating(values.type) else values
        values = values.fill_null(float("nan"))
    found = items(values)
    return found if found.dtype == dtype else _cast(found, dtype)


def items(values: Any) -> NDArray[Any]:
    """Return the numbers of an Arrow array in which none is missing, without a copy where they are not bits.

    Arrow's own `to_numpy` imports pandas where that is installed: a quarter of a second, and memory.
    """
    _, data = values.buffers()
    if pyarrow().types.is_boolean(values.type):
        bits = np.unpackbits(np.frombuffer(data or b"", np.uint8), bitorder="little")
        return bits[values.offset : values.offset + len(values)].astype(bool)
    dtype = np.dtype(values.type.to_pandas_dtype())
    return np.frombuffer(data or b"", dtype)[values.offset : values.offset + len(values)]


def first_none(values: Any) -> int:
    """Return the place of the first missing value, where there is one."""
    return int(np.flatnonzero(items(values.is_null()))[0])


NAN_ADVICE = "have it as 'float64' with dtypes=, where missing values are NaN"


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


def _is_text(array: Any) -> bool:
    return bool(pyarrow().types.is_string(array.type) or pyarrow().types.is_large_string(array.type))


def _none(kind: Any) -> Any:
    return pyarrow().array([], kind)
