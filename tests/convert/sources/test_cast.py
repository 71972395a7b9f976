"""Values survive a cast, or an error names one that does not."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from oocload.convert.fields import FieldSpec
from oocload.convert.ragged import RaggedRows
from oocload.convert.sources.cast import Cast, cast_values
from oocload.convert.sources.resolve import resolve
from oocload.errors import InvalidArgumentError

DTYPES = ["?", "u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]


def cast(source: Any, dtypes: Any, piece: int = 64, **options: Any) -> list[dict[str, Any]]:
    return [dict(batch) for batch in Cast(resolve(source, None), dtypes).batches(piece, **options)]


@given(data=st.data(), wanted=st.sampled_from(DTYPES), given_dtype=st.sampled_from(DTYPES))
def test_values_survive_or_are_told_of(data: st.DataObject, wanted: str, given_dtype: str) -> None:
    values = data.draw(hnp.arrays(given_dtype, hnp.array_shapes(max_dims=2, max_side=4)))
    got, lost = cast_values(values, np.dtype(wanted))
    expected = [not survives(value, np.dtype(wanted)) for value in values.ravel()]
    if lost is None:
        assert not any(expected)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(got, values.astype(wanted))
    else:
        assert int(np.ravel_multi_index(lost, values.shape)) == expected.index(True)


def survives(value: Any, dtype: np.dtype) -> bool:
    """Look at one value, as Python's numbers that have no limits."""
    number = value.item()
    if dtype.kind == "f":
        with np.errstate(all="ignore"):
            return not np.isfinite(value) or bool(np.isfinite(np.array(value).astype(dtype)))
    if dtype.kind == "b":
        return number in (0, 1)
    limits = np.iinfo(dtype)
    return bool(np.isfinite(value)) and number == int(number) and limits.min <= number <= limits.max


def test_dense() -> None:
    x = np.arange(60).reshape(20, 3)
    source = Cast(resolve({"x": x, "y": x[:, 0]}, None), {"x": "uint8"})
    assert source.specs == {"x": FieldSpec((3,), np.dtype("u1")), "y": FieldSpec((), x.dtype)}
    got = list(source.batches(64, start=5, stop=17))
    np.testing.assert_array_equal(np.concatenate([b["x"] for b in got]), x[5:17].astype("u1"))
    assert {b["x"].dtype.str for b in got} == {"|u1"}
    assert {b["y"].dtype for b in got} == {x.dtype}
    assert source.held_nbytes(100) > resolve({"x": x}, None).held_nbytes(100)


def test_every_field_and_ragged_items() -> None:
    rows = [np.arange(n) for n in (3, 0, 5)]
    matrix = scipy.sparse.random(3, 9, 0.5, "csr")
    got = cast({"t": rows, "s": matrix, "y": np.arange(3)}, "float32", 10**6)[0]
    assert isinstance(got["t"], RaggedRows)
    np.testing.assert_array_equal(got["t"].values, np.concatenate(rows).astype("f4"))
    np.testing.assert_array_equal(got["s"].values, matrix.data.astype("f4"))
    assert got["y"].dtype == "f4"


def test_batches() -> None:
    batches = [{"x": np.arange(i, i + 4.0), "t": [[i], [], [1, 2], [3]]} for i in range(0, 12, 4)]
    got = cast(batches, {"x": "int16", "t": "u1"}, start=6)
    assert np.concatenate([b["x"] for b in got]).tolist() == [6, 7, 8, 9, 10, 11]
    assert got[-1]["t"].values.tolist() == [8, 1, 2, 3]


@pytest.mark.parametrize(
    ("source", "dtypes", "message"),
    [
        ({"x": np.arange(300)}, "uint8", "field 'x' must hold values that uint8 can, got 256 in row 256; choose a"),
        ({"x": np.arange(9) - 4}, {"x": "u8"}, "field 'x' must hold values that uint64 can, got -4 in row 0"),
        ({"x": np.arange(9) / 2}, "int32", r"got 0\.5 in row 1"),
        ({"x": [1.0, np.nan]}, "int32", "got nan in row 1"),
        ({"x": [[1e5], [70000]]}, "float16", r"got 100000\.0 in row 0"),
        ({"t": [[1], [2, 3], [], [4, 500]]}, "u1", "field 't' must hold values that uint8 can, got 500 in row 3"),
        ({"x": [1]}, {"z": "u1"}, "dtypes must be given for fields of the source, 'x', got 'z'"),
        ({"x": [1]}, "S3", "dtypes must be of numbers or bools, got |S3"),
        ({"x": [1]}, "number", "dtypes must be names of dtypes, such as 'float32', got 'number'"),
        ({"x": np.array(["a"])}, "u1", "field 'x' must hold numbers or bools to be cast, got <U1"),
    ],
)
def test_bad_input(source: Any, dtypes: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        cast(source, dtypes)


def test_identity(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", np.arange(4))
    plain = resolve(tmp_path / "x.npy", None)
    assert Cast(plain, "u1").identity() != Cast(plain, "u2").identity() != plain.identity()
    assert Cast(plain, {"x": "u1"}).identity() == Cast(plain, {"x": "u1"}).identity()
    assert Cast(resolve(np.arange(3), None), "u1").identity() is None
