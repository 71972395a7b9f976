"""Rows of Python objects: gathered by bytes, and named where one is unlike the first."""

import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oocload
from oocload.convert.fields import parse_fields
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning
from oocload.sources import RowsSource
from tests.convert.sources.kinds import gather

Pair = namedtuple("Pair", ["left", "right"])


def generated(n: int = 500) -> Iterator[dict[str, Any]]:
    for i in range(n):
        yield {
            "x": np.full((2, 3), i, "float32"),
            "y": i,
            "name": f"row {i}",
            "raw": bytes(i % 3),
            "t": list(range(i % 4)),
        }


def test_rows_of_a_generator(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="'t' must have items in row 0, which tell their dtype"):
        gather(RowsSource(generated(), ragged=["t"]).batches(2000))
    fields = {
        "x": ((2, 3), "float32"),
        "y": "int32",
        "name": (None, "uint8"),
        "raw": (None, "uint8"),
        "t": (None, "int16"),
    }
    source = RowsSource(generated(), fields=fields)
    assert source.specs == parse_fields(fields)
    assert source.meanings == {"name": Meaning(content="text")}
    oocload.convert(source, tmp_path / "a.h5", progress=False)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["x"][:, 0, 0], np.arange(500))
        assert file["name/values"][:].tobytes().decode() == "".join(f"row {i}" for i in range(500))
        np.testing.assert_array_equal(np.diff(file["t/offsets"]), np.arange(500) % 4)


@pytest.mark.parametrize(
    ("rows", "fields"),
    [
        ([1, 2, 3], {"x": "int64"}),
        ([1.5, 2], {"x": "float64"}),
        ([True, False], {"x": "bool"}),
        ([[1, 2], [3, 4]], {"x": ((2,), "int64")}),
        ([(np.zeros(3, "uint8"), 1), (np.ones(3, "uint8"), 2)], {"x": ((3,), "uint8"), "y": "int64"}),
        ([Pair(1, "a"), Pair(2, "b")], {"left": "int64", "right": (None, "uint8")}),
        (np.zeros((4, 2, 2), ">f4"), {"x": ((2, 2), "float32")}),
        (["some", "text"], {"x": (None, "uint8")}),
    ],
)
def test_what_rows_can_be(rows: Any, fields: dict[str, Any]) -> None:
    source = RowsSource(rows)
    assert source.specs == parse_fields(fields)
    assert source.n_rows == len(rows)
    for _ in range(2):
        assert {name: len(found) for name, found in gather(source.batches(100)).items()} == dict.fromkeys(
            fields, len(rows)
        )


def test_ragged_rows() -> None:
    rows = [np.arange(2 * n, dtype="int16").reshape(n, 2) for n in (2, 0, 5)]
    with pytest.raises(
        InvalidArgumentError, match=r"'x' must have rows of one shape, \(2, 2\), got \(0, 2\) in row 1; "
    ):
        gather(RowsSource(rows).batches(10**6))
    source = RowsSource(rows, ragged=True)
    assert source.specs == parse_fields({"x": ((None, 2), "int16")})
    for row, wanted in zip(gather(source.batches(10))["x"], rows, strict=True):
        np.testing.assert_array_equal(row, wanted)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([np.zeros(3)] * 7 + [np.zeros(4)], {}, r"one shape, \(3,\), got \(4,\) in row 7; .* ragged=\['x'\]"),
        ([np.zeros((3, 2))] * 7 + [np.zeros((3, 4))], {}, r"one shape, \(3, 2\), got \(3, 4\) in row 7$"),
        ([np.zeros((3, 2))] * 7 + [np.zeros((3, 4))], {"ragged": True}, r"shape \(None, 2\), got \(3, 4\) in row 7"),
        ([{"a": 1}, {"b": 1}], {}, "each row must have the fields a, got b in row 1"),
        ([1, 2, 2.5], {}, "dtype int64, got float64, 2.5, in row 2; say what fits all rows with fields="),
        ([np.float32(1), np.float64(1)], {}, "dtype float32, got float64, .* in row 1"),
        ([1, 300], {"fields": {"x": "uint8"}}, "dtype uint8, got int64, 300, in row 1"),
        ([1, "a"], {}, "numbers or text, got str of <U1 in row 1"),
        ([object()], {}, "numbers or text, got object of object in row 0"),
        (["a", "b\ud800"], {}, r"field 'x', row 1: text must be such as UTF-8 can hold, got '\\ud800' at character 1"),
        ([[[1], [1, 2]]], {}, "lists of several lengths in row 0"),
        ([(1, 2, 3, 4)], {}, "got tuple of 4 as row 0"),
        ([1, {}], {}, "got dict of 0 as row 1"),
        (iter([]), {}, "at least one row, got none"),
        ([1], {"ragged": ["y"]}, "ragged must name fields of the rows, got 'y'; they have x"),
        ([1], {"ragged": ["x"]}, "ragged must name fields whose rows are arrays, got 'x': a number"),
        ([1], {"ragged": "x"}, r"ragged must be a list of names, got 'x'; pass \['x'\]"),
        (5, {}, "rows must be an iterable of rows, got int"),
        ({"x": [1]}, {}, "rows must be an iterable of rows, got dict"),
    ],
)
def test_bad_rows(rows: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        gather(RowsSource(rows, **options).batches(50))


def test_a_generator_is_used_up() -> None:
    source = RowsSource(x for x in range(10))
    assert [int(x) for x in gather(source.batches(50))["x"]] == list(range(10))
    with pytest.raises(InvalidArgumentError, match="got one that is used up"):
        gather(source.batches(50))


def test_iterated_by_the_caller() -> None:
    def rows() -> Iterator[int]:
        yield threading.get_ident()

    (x,) = gather(RowsSource(rows()).choosing(["x"]).batches(50, n_ahead=3, n_threads=2))["x"]
    assert x == threading.get_ident()


def test_one_array_filled_again_and_again() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        x, t = np.zeros(3, "int64"), np.zeros(9, "int64")
        for i in range(50):
            x[:], t[:] = i, -i
            yield {"x": x, "t": t[: i % 5 + 1]}

    got = gather(RowsSource(rows(), ragged=["t"]).batches(10**6))
    assert [int(x[2]) for x in got["x"]] == list(range(50))
    assert [t.tolist() for t in got["t"]] == [[-i] * (i % 5 + 1) for i in range(50)]


def test_batches_are_gathered_by_bytes() -> None:
    source = RowsSource([np.zeros(1000, "uint8")] * 100)
    sizes = [len(batch["x"]) for batch in source.batches(20_000)]
    assert sizes == [20] * 5
    assert sum(sizes) == 100
