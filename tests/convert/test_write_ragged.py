"""Ragged and sparse rows that are appended, read back with h5py and zarr themselves."""

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse
import zarr
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.convert.chunking import DEFAULT_CHUNK_NBYTES, items_height
from oocload.errors import InvalidArgumentError
from tests.convert.ragged import (
    assert_same_matrix,
    assert_same_rows,
    matrix_of,
    open_group,
    ragged_rows,
    random_rows,
    rows_of,
)

ENCODINGS = [
    ("w.h5", {}),
    ("w.h5", {"codec": "lzf"}),
    ("w.h5", {"codec": "none"}),
    ("w.zarr", {}),
    ("w.zarr", {"codec": "blosc"}),
    ("w.zarr", {"codec": "none", "chunks_per_shard": 2}),
    ("w.zarr", {"codec": "gzip"}),
]
TARGETS = ["w.h5", "w.zarr"]
ROWS = random_rows([3, 0, 5, 1, 0])


def as_objects(rows: list[Any]) -> np.ndarray:
    held = np.empty(len(rows), object)
    held[:] = rows
    return held


def as_pair(rows: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(rows), np.cumsum([0, *map(len, rows)])


@given(
    rows=ragged_rows(),
    sizes=st.lists(st.integers(0, 20), max_size=5),
    encoding=st.sampled_from(ENCODINGS),
    chunk_bytes=st.sampled_from([2**13, DEFAULT_CHUNK_NBYTES]),
)
def test_rows_come_back(tmp_path: Path, rows: list[Any], sizes: list[int], encoding: Any, chunk_bytes: int) -> None:
    target, options = encoding
    cuts = sorted({min(len(rows), int(c)) for c in np.cumsum(sizes)} | {0, len(rows)})
    spec = ((None, *rows[0].shape[1:]), rows[0].dtype)
    fields = {"g/tokens": spec, "y": "i8"}
    with oocload.create(tmp_path / target, fields, chunk_bytes=chunk_bytes, overwrite=True, **options) as writer:
        for start, stop in itertools.pairwise(cuts):
            writer.append_batch({"g/tokens": rows[start:stop], "y": np.arange(start, stop)})
        assert writer.n_rows == len(rows)
        assert writer.nbytes == sum(r.nbytes for r in rows) + 8 * (len(rows) + 1) + 8 * len(rows)
    assert_same_rows(rows_of(tmp_path / target, "g/tokens"), rows)
    with oocload.open(tmp_path / target) as store:
        assert list(store.fields) == ["g/tokens", "y"]
        assert store.fields["g/tokens"].shape == (len(rows),)
        assert all(f.read_path != "none" for f in store.fields.values())


@pytest.mark.parametrize("target", TARGETS)
class TestForms:
    @pytest.mark.parametrize(
        "given",
        [
            ROWS,
            as_objects(ROWS),
            as_pair(ROWS),
            [r.tolist() for r in ROWS],
            [r.tolist() if i % 2 else r for i, r in enumerate(ROWS)],
            [tuple(r.tolist()) for r in ROWS],
            (as_pair(ROWS)[0].tolist(), as_pair(ROWS)[1].tolist()),
        ],
        ids=["arrays", "objects", "pair", "lists", "mixed", "tuples", "pair of lists"],
    )
    def test_named(self, tmp_path: Path, target: str, given: Any) -> None:
        with oocload.create(tmp_path / target, {"t": (None, "i4")}) as writer:
            writer.append(t=given)
            writer.append(t=given)
        assert_same_rows(rows_of(tmp_path / target, "t"), [*ROWS, *ROWS])

    @pytest.mark.parametrize("given", [ROWS, as_objects(ROWS), as_pair(ROWS)], ids=["arrays", "objects", "pair"])
    def test_recognised(self, tmp_path: Path, target: str, given: Any) -> None:
        with oocload.create(tmp_path / target) as writer:
            writer.append(t=given, y=np.arange(5))
            writer.append(t=given, y=np.arange(5))
        assert_same_rows(rows_of(tmp_path / target, "t"), [*ROWS, *ROWS])

    def test_lists_are_recognised(self, tmp_path: Path, target: str) -> None:
        with oocload.create(tmp_path / target) as writer:
            writer.append(t=[[1, 2], [], [3]], z=[[[1.5, 2.5]], [[1, 2], [3, 4]], []])
            writer.append(t=[[], []], z=[[], []])
        assert_same_rows(rows_of(tmp_path / target, "t"), [np.array(r, "i8") for r in ([1, 2], [], [3], [], [])])
        assert [r.shape for r in rows_of(tmp_path / target, "z")] == [(1, 2), (2, 2), (0, 2), (0, 2), (0, 2)]

    def test_lists_of_equal_length_are_dense(self, tmp_path: Path, target: str) -> None:
        with oocload.create(tmp_path / target) as writer:
            writer.append(t=[[1, 2], [3, 4]], p=(np.array([1, 2]), np.array([3, 4])))
        with oocload.open(tmp_path / target) as store:
            assert {n: f.shape for n, f in store.fields.items()} == {"p": (2, 2), "t": (2, 2)}

    def test_rows_of_one_length_as_an_array(self, tmp_path: Path, target: str) -> None:
        rows = np.arange(24, dtype="i2").reshape(2, 4, 3)
        with oocload.create(tmp_path / target, {"t": ((None, 3), "i4")}) as writer:
            writer.append(t=rows)
            writer.append(t=rows[:0])
        assert_same_rows(rows_of(tmp_path / target, "t"), list(rows), "i4")

    def test_only_empty_rows(self, tmp_path: Path, target: str) -> None:
        with oocload.create(tmp_path / target, {"t": ((None, 3), "f4"), "y": "u1"}) as writer:
            writer.append(t=[[], np.zeros((0, 3), "f4"), np.zeros(0)], y=np.zeros(3, "u1"))
        assert [r.shape for r in rows_of(tmp_path / target, "t")] == [(0, 3)] * 3

    def test_rows_are_copied(self, tmp_path: Path, target: str) -> None:
        values, offsets = np.arange(5, dtype="i4"), np.array([0, 2, 5])
        with oocload.create(tmp_path / target, {"t": (None, "i4")}) as writer:
            for _ in range(2):
                writer.append(t=(values, offsets))
                values += 5
        assert_same_rows(rows_of(tmp_path / target, "t"), np.split(np.arange(10, dtype="i4"), [2, 5, 7]))

    def test_sparse(self, tmp_path: Path, target: str) -> None:
        matrix = scipy.sparse.random(300, 50, 0.1, "csr", dtype="f4", random_state=0)
        with oocload.create(tmp_path / target, chunk_bytes="32 KiB") as writer:
            writer.append(X=matrix[:100], y=np.arange(100))
            writer.append(X=scipy.sparse.csr_array(matrix[100:]), y=np.arange(200))
        assert_same_matrix(matrix_of(tmp_path / target, "X"), matrix)
        arrays, attributes = open_group(tmp_path / target, "X")
        assert [arrays[n].dtype for n in ("data", "indices", "indptr")] == ["f4", "i4", "i8"]
        with oocload.open(tmp_path / target) as store:
            assert store.fields["X"].shape == (300, 50)


FIELD_ERRORS = [
    (
        {"t": ((3, None), "i4")},
        r"row shape of field 't' must have None, any length, as its first axis only, got \(3, N",
    ),
    ({"t": ((None, None), "i4")}, "must have None, any length, as its first axis only"),
    ({"t": ((None, 0), "i4")}, r"row shape of field 't' must have sizes of at least 1, got \(None, 0\)"),
    ({"t": (None, "O")}, "field 't' must have a fixed-size dtype, got object"),
    ({"t": (None, "nonsense")}, r"field 't' must be given as \(row_shape, dtype\)"),
    ({"t": (None, "i4"), "t/values": "i4"}, "fields must have names of their own, got 't/values' beside 't'"),
]


@pytest.mark.parametrize(("fields", "message"), FIELD_ERRORS)
def test_bad_fields(tmp_path: Path, fields: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        oocload.create(tmp_path / "w.h5", fields)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "spec", [(None, "f4"), ("f4", None), ((None,), "f4"), ("f4", (None,)), {"shape": (None,), "dtype": "f4"}]
)
def test_spellings(tmp_path: Path, spec: Any) -> None:
    with oocload.create(tmp_path / "w.h5", {"t": spec}) as writer:
        writer.append(t=[np.zeros(2, "f4")])
    assert_same_rows(rows_of(tmp_path / "w.h5", "t"), [np.zeros(2, "f4")])


CSR = scipy.sparse.eye(4, 6, format="csr", dtype="f4")
APPEND_ERRORS = [
    ((None, "i4"), [np.zeros(3)], "rows of field 't' must have dtype int32, got float64, which may not fit"),
    ((None, "i4"), [[1], [2.5]], "must have dtype int32, got float64, which may not fit"),
    ((None, "i4"), [np.zeros(2, "i8"), [1]], "must have dtype int32, got int64, which may not fit"),
    ((None, "u1"), [[1, 300], [-2]], "rows of field 't' must fit into its dtype uint8, got numbers from -2 to 300"),
    ((None, "f4"), [[2**24 + 1]], "must fit into its dtype float32, got numbers from 16777217"),
    ((None, "?"), [[2]], "must fit into its dtype bool, got numbers from 2 to 2"),
    ((None, "i4"), [["a"]], "must have dtype int32, got <U1"),
    ((None, "i4"), ["ab"], r"must have shape \(any length\), got an array of shape \(\) as row 0"),
    ((None, "i4"), [[1], [[1, 2]]], r"must have shape \(any length\), got an array of shape \(1, 2\) as row 1"),
    (
        ((None, 3), "i4"),
        [np.zeros((2, 2), "i4")],
        r"must have shape \(any length, 3\), got an array of shape \(2, 2\) as",
    ),
    (
        ((None, 3), "i4"),
        np.zeros((2, 4), "i4"),
        r"must have shape \(any length, 3\), got an array of shape \(4,\) as row",
    ),
    ((None, "i4"), np.zeros(2, "i4"), r"got an array of shape \(\) as row 0"),
    ((None, "i4"), [[[1], [2, 3]]], "rows of field 't' must each be an array of items of one shape, got in row 0"),
    ((None, "i4"), 7, r"must be a sequence of arrays or lists, or a tuple \(values, offsets\), got int"),
    ((None, "i4"), "abc", "must be a sequence of arrays or lists, .* got str"),
    (
        (None, "i4"),
        ([1], [2], [3]),
        r"must be a tuple \(values, offsets\) of two arrays, got one of 3; pass rows as a l",
    ),
    ((None, "i4"), ([1, 2], [0, 1]), "offsets of field 't' must go from 0 to the number of items, 2, got 0 to 1"),
    ((None, "i4"), ([1, 2], [1, 2]), "offsets of field 't' must go from 0 to the number of items, 2, got 1 to 2"),
    ((None, "i4"), ([1, 2], [0, 2, 1, 2]), "offsets of field 't' must never fall, got 1 after 2 at row 1"),
    (
        (None, "i4"),
        ([1, 2], [0.0, 2.0]),
        "offsets of field 't' must be whole numbers in one dimension, one more than r",
    ),
    ((None, "i4"), ([], []), "offsets of field 't' must be whole numbers in one dimension"),
]


@pytest.mark.parametrize(("spec", "rows", "message"), APPEND_ERRORS)
@pytest.mark.parametrize("target", TARGETS)
def test_refused_rows_lose_nothing(tmp_path: Path, target: str, spec: Any, rows: Any, message: str) -> None:
    with oocload.create(tmp_path / target, {"t": spec, "y": "i8"}) as writer:
        good = np.zeros((1, 2, *(spec[0][1:] if spec[0] else ())), spec[1])
        writer.append(t=good, y=[1])
        with pytest.raises(InvalidArgumentError, match=message):
            writer.append(t=rows, y=np.arange(len(rows)) if hasattr(rows, "__len__") else [1])
        writer.append(t=good, y=[2])
    assert_same_rows(rows_of(tmp_path / target, "t"), [good[0], good[0]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (CSR[:, :5], "rows of field 't' must have 6 columns, got 5"),
        (CSR.tocsc(), r"sparse rows of field 't' must be a matrix or array in CSR format, got csc; call \.tocsr\(\)"),
        (CSR.toarray(), "must be a matrix or array in CSR format, got ndarray"),
        (CSR.astype("f8"), "must have dtype float32, got float64"),
    ],
)
def test_refused_sparse_rows(tmp_path: Path, rows: Any, message: str) -> None:
    with oocload.create(tmp_path / "w.h5") as writer:
        writer.append(t=CSR)
        with pytest.raises(InvalidArgumentError, match=message):
            writer.append(t=rows)
    assert_same_matrix(matrix_of(tmp_path / "w.h5", "t"), CSR)


def test_damaged_sparse_rows(tmp_path: Path) -> None:
    wide, short = CSR.copy(), CSR.copy()
    wide.indices = wide.indices + 4
    short.indices = short.indices[:-1]
    with oocload.create(tmp_path / "w.h5") as writer:
        writer.append(t=CSR)
        with pytest.raises(InvalidArgumentError, match="columns of field 't' must be from 0 to 5, got 4 to 7"):
            writer.append(t=wide)
        with pytest.raises(InvalidArgumentError, match="must have as many indices as data, got 3"):
            writer.append(t=short)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[], []], r"field 't' must be named in fields=, as \(None, dtype\), where its first rows are all empty"),
        (CSR.tocoo(), "must be a matrix or array in CSR format, got coo"),
        (as_objects([{}, None]), "field 't' must have a fixed-size dtype, got object"),
        (as_objects([np.array([None]), np.array([{}, 1])]), "field 't' must have a fixed-size dtype, got object"),
    ],
)
def test_what_is_not_recognised(tmp_path: Path, rows: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message), oocload.create(tmp_path / "w.h5") as writer:
        writer.append(t=rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", TARGETS)
def test_rows_before_an_exception_are_gone_on_with(tmp_path: Path, target: str) -> None:
    rows = list(np.zeros((10, 200_000), "u1"))
    with pytest.raises(RuntimeError, match="stop"), oocload.create(tmp_path / target, {"t": (None, "u1")}) as writer:
        writer.append(t=rows)
        raise RuntimeError("stop")
    assert not (tmp_path / target).exists()
    with oocload.create(tmp_path / target, resume=True) as writer:
        assert writer.n_rows == 10
        writer.append(t=rows[:1])
    assert_same_rows(rows_of(tmp_path / target, "t"), rows + rows[:1])
    assert len(list(tmp_path.iterdir())) == 1


def test_chunks(tmp_path: Path) -> None:
    fields = {"t": (None, "i4"), "wide": ((None, 100_000), "u1"), "y": "i8"}
    with oocload.create(tmp_path / "w.h5", fields) as writer:
        writer.append(t=[[1]], wide=np.zeros((1, 1, 100_000), "u1"), y=[1])
    with h5py.File(tmp_path / "w.h5") as file:
        assert file["t/values"].chunks == (2**16 // 4,)
        assert file["t/offsets"].chunks == file["y"].chunks == (4096,)
        assert file["wide/values"].chunks == (1, 100_000)
        assert (file["t/offsets"].compression, file["t/offsets"].shuffle) == ("gzip", True)
    with oocload.create(tmp_path / "w.zarr", fields, chunk_bytes="256 KiB") as writer:
        writer.append(t=[[1]], wide=np.zeros((1, 1, 100_000), "u1"), y=[1])
    values: Any = zarr.open_group(tmp_path / "w.zarr", mode="r")["t/values"]
    assert (values.chunks, values.shards) == ((2**15 // 4,), (2**23 // 4,))  # nobody knows how many items come


@given(item=st.integers(1, 10**7), chunk=st.integers(1, 10**8))
def test_items_height(item: int, chunk: int) -> None:
    height = items_height(item, chunk)
    assert height >= 1
    assert height * item <= max(chunk / 8, 4096, item)
