"""Ragged and sparse rows from every source to every target, in pieces of any size."""

import itertools
from collections.abc import Callable, Iterator
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
from oocload.convert import budget
from oocload.convert.ragged import RaggedRows
from oocload.convert.sources.resolve import resolve
from oocload.errors import ChunkError, ConversionError, InvalidArgumentError, StoreFormatError
from tests.convert.ragged import assert_same_matrix, assert_same_rows, matrix_of, ragged_rows, random_rows, rows_of
from tests.convert.test_write_ragged import ENCODINGS, TARGETS, as_objects, as_pair

N_ROWS = 700
ROWS = random_rows(np.random.default_rng(2).integers(0, 40, N_ROWS).tolist())
MATRIX = scipy.sparse.random(N_ROWS, 90, 0.1, "csr", dtype="f4", random_state=1)
Y = np.arange(N_ROWS)
RAGGED = {"oocload_encoding": "ragged", "oocload_encoding_version": 1}


def write_h5ad(path: Path, matrix: Any = MATRIX, kind: str = "csr", **changes: Any) -> Path:
    """Write a file as anndata does: the matrix, a column of labels, and something of another length."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in ("X", "layers/counts"):
            group = file.create_group(name)
            attributes = {"encoding-type": f"{kind}_matrix", "encoding-version": "0.1.0"}
            group.attrs.update({**attributes, "shape": np.array(matrix.shape)})
            for part in ("data", "indices", "indptr"):
                array = changes.get(part, getattr(matrix, part))
                group.create_dataset(part, data=array, chunks=True, compression="gzip")
        file["obs/label"] = np.arange(matrix.shape[0])
        file["var/mean"] = np.zeros(matrix.shape[1])
    return path


def write_ragged(path: Path, part: slice = slice(None)) -> Path:
    rows, labels = ROWS[part], Y[part]
    values, offsets = as_pair(rows)
    group: Any
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["y"] = labels
            group = file.create_group("t")
            group.attrs.update(RAGGED)
            group.create_dataset("values", data=values, chunks=(100,), compression="gzip")
            group["offsets"] = offsets
        return path
    group = zarr.open_group(path, mode="w")
    group.create_array("y", data=labels)
    group = group.create_group("t", attributes=RAGGED)
    group.create_array("values", data=values, chunks=(100,))
    group.create_array("offsets", data=offsets, chunks=(64,))
    return path


def vlen(folder: Path) -> Any:
    with h5py.File(folder / "v.h5", "w") as file:
        held = file.create_dataset("t", (N_ROWS,), h5py.vlen_dtype("i4"), chunks=(50,), compression="gzip")
        for i, row in enumerate(ROWS):
            if len(row):  # of others nothing is ever written
                held[i] = row
        file["y"] = Y
    return folder / "v.h5"


def batches(folder: Path) -> Iterator[dict[str, Any]]:
    for i in range(0, N_ROWS, 77):
        yield {"t": ROWS[i : i + 77], "y": Y[i : i + 77]}


SOURCES: list[Callable[[Path], Any]] = [
    lambda folder: write_ragged(folder / "s.h5"),
    lambda folder: write_ragged(folder / "s.zarr"),
    lambda folder: oocload.open(write_ragged(folder / "s.h5")),
    lambda folder: [write_ragged(folder / "a.h5", slice(300)), write_ragged(folder / "b.zarr", slice(300, None))],
    lambda folder: {"t": f"{write_ragged(folder / 's.h5')}::t", "y": Y},
    lambda folder: {"t": ROWS, "y": Y},
    lambda folder: {"t": [r.tolist() for r in ROWS], "y": Y},
    lambda folder: {"t": as_objects(ROWS), "y": Y},
    lambda folder: {"t": as_pair(ROWS), "y": Y},
    vlen,
    batches,
]
NAMES = ["h5", "zarr", "open", "joined", "field", "list", "lists", "objects", "pair", "vlen", "batches"]


@pytest.fixture(params=[997, 2**23])
def piece_nbytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(budget, "_PIECE_NBYTES", request.param)
    return int(request.param)


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.usefixtures("piece_nbytes")
def test_ragged_rows(tmp_path: Path, source: Callable[[Path], Any], target: str) -> None:
    (tmp_path / "source").mkdir()
    report = oocload.convert(source(tmp_path / "source"), tmp_path / target)
    expected = [r.astype("i8") for r in ROWS] if source is SOURCES[NAMES.index("lists")] else ROWS
    got = rows_of(tmp_path / target, "t")
    assert_same_rows(got, expected)
    assert (report.n_rows, sorted(report.fields)) == (N_ROWS, ["t", "y"])
    assert report.nbytes == sum(r.nbytes for r in got) + 8 * (N_ROWS + 1) + Y.nbytes
    with oocload.open(tmp_path / target) as store:
        assert np.array_equal(store.read_rows("y", 0, N_ROWS), Y)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.usefixtures("piece_nbytes")
class TestSparse:
    def test_of_a_store(self, tmp_path: Path, target: str) -> None:
        path = write_h5ad(tmp_path / "a.h5ad")
        fields = ["X", "layers/counts", "obs/label"]
        report = oocload.convert(path, tmp_path / target, fields=fields)
        assert report.fields == tuple(fields)
        for name in fields[:2]:
            assert_same_matrix(matrix_of(tmp_path / target, name), MATRIX)
        matrix_nbytes = MATRIX.data.nbytes + MATRIX.indices.nbytes + 8 * (N_ROWS + 1)
        assert report.nbytes == 2 * matrix_nbytes + 8 * N_ROWS

    def test_one_field(self, tmp_path: Path, target: str) -> None:
        path = write_h5ad(tmp_path / "a.h5ad")
        oocload.convert(f"{path}::X", tmp_path / target)
        assert_same_matrix(matrix_of(tmp_path / target, "X"), MATRIX)

    def test_a_group_of_them(self, tmp_path: Path, target: str) -> None:
        path = write_h5ad(tmp_path / "a.h5ad")
        oocload.convert(f"{path}::layers", tmp_path / target)
        assert_same_matrix(matrix_of(tmp_path / target, "counts"), MATRIX)

    def test_in_memory(self, tmp_path: Path, target: str) -> None:
        oocload.convert({"X": scipy.sparse.csr_array(MATRIX), "y": Y}, tmp_path / target)
        assert_same_matrix(matrix_of(tmp_path / target, "X"), MATRIX)

    @pytest.mark.parametrize("given", [MATRIX, (MATRIX, Y), [{"x": MATRIX[:5]}, {"x": MATRIX[5:]}], [MATRIX]])
    def test_without_a_name(self, tmp_path: Path, target: str, given: Any) -> None:
        oocload.convert(given, tmp_path / target)
        assert_same_matrix(matrix_of(tmp_path / target, "x"), MATRIX)

    def test_joined(self, tmp_path: Path, target: str) -> None:
        paths = [write_h5ad(tmp_path / "a.h5ad", MATRIX[:9]), write_h5ad(tmp_path / "b.h5ad", MATRIX[9:])]
        oocload.convert(paths, tmp_path / target, fields=["X"])
        assert_same_matrix(matrix_of(tmp_path / target, "X"), MATRIX)


@given(
    rows=ragged_rows(),
    encodings=st.tuples(st.sampled_from(ENCODINGS), st.sampled_from(ENCODINGS)),
    chunk_bytes=st.sampled_from(["8 KiB", "512 KiB"]),
)
def test_there_and_back(tmp_path: Path, rows: list[Any], encodings: Any, chunk_bytes: str) -> None:
    """From memory to a store, and from that to another."""
    source: Any = {"t": as_pair(rows), "y": np.arange(len(rows))}
    for number, (target, options) in enumerate(encodings):
        path = tmp_path / f"{number}-{target}"
        oocload.convert(source, path, chunk_bytes=chunk_bytes, overwrite=True, **options)
        assert_same_rows(rows_of(path, "t"), rows)
        source = path


@pytest.mark.parametrize("source", [SOURCES[i] for i in (0, 1, 3, 5, 7, 8, 9)], ids=lambda f: "")
def test_pieces_hold_no_more_than_they_may(tmp_path: Path, source: Callable[[Path], Any]) -> None:
    """Of the items of a piece, or of one row that is larger than that."""
    for batch in resolve(source(tmp_path), None).batches(1000):
        rows = batch["t"]
        lengths = np.diff(rows.offsets) if isinstance(rows, RaggedRows) else [len(r) for r in rows]
        assert len(lengths) == len(batch["y"])
        assert sum(lengths) * 4 <= 1000 or len(lengths) == 1


class TestBadInput:
    def test_columns_first(self, tmp_path: Path) -> None:
        path = write_h5ad(tmp_path / "a.h5ad", MATRIX.tocsc(), "csc")
        with pytest.raises(StoreFormatError, match=r"field 'X' of .* by columns \(CSC\) .*; convert it to CSR"):
            oocload.convert(path, tmp_path / "t.h5", fields=["X"])

    @pytest.mark.parametrize(
        ("part", "at", "value", "message"),
        [
            ("indptr", 0, 1, "field 'X': offsets must begin with 0, got 1; the file is damaged"),
            ("indptr", 300, 10**6, "offsets must be from 0 to the number of items, 6300, got 0 to 1000000"),
            ("indptr", 300, -1, "offsets must be from 0 to the number of items, 6300, got -1 to 6300"),
            ("indptr", 300, 6300, "offsets must never fall, and do after row 300"),
            ("indptr", N_ROWS, 6299, "offsets must end with the number of items, 6300, got 6299"),
            ("indices", 7, 90, "rows 0 to 700: columns must be from 0 to 89, got 0 to 90; the file is damaged"),
            ("indices", 7, -1, "columns must be from 0 to 89, got -1 to 89"),
        ],
    )
    def test_damage(self, tmp_path: Path, part: str, at: int, value: int, message: str) -> None:
        damaged = getattr(MATRIX, part).copy()
        damaged[at] = value
        path = write_h5ad(tmp_path / "a.h5ad", **{part: damaged})
        with pytest.raises(ChunkError, match=message):
            oocload.convert(path, tmp_path / "t.h5", fields=["X"])
        assert not (tmp_path / "t.h5").exists()

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ({"t": ROWS, "y": Y[:3]}, "fields must have the same number of rows: 't' has 700, 'y' has 3"),
            ({"t": MATRIX.tocoo()}, r"sparse rows of field 't' must be .* in CSR format, got coo; call \.tocsr\(\)"),
            ({"t": [[], []]}, "field 't' must be named in fields="),
            (
                {"t": [np.zeros((2, 2)), np.zeros((3, 3))]},
                r"must have shape \(any length, 2\), got .* \(3, 3\) as row 1",
            ),
            (
                [{"t": ROWS}, {"t": MATRIX}],
                "rows of field 't' must be a sequence of arrays or lists, .* got csr_matrix",
            ),
            ([{"t": ROWS}, {"t": [[1.5]]}], "rows of field 't' must have dtype int32, got float64"),
        ],
    )
    def test_sources(self, tmp_path: Path, source: Any, message: str) -> None:
        for target in TARGETS:
            with pytest.raises(InvalidArgumentError, match=message):
                oocload.convert(source, tmp_path / target)
        assert not list(tmp_path.iterdir())

    def test_no_rows(self, tmp_path: Path) -> None:
        for source in ({"t": MATRIX[:0]}, {"t": (np.zeros(0), np.zeros(1, "i8"))}):
            with pytest.raises(ConversionError, match="source must have at least one row"):
                oocload.convert(source, tmp_path / "t.h5")


def test_text_of_variable_length_stays_text(tmp_path: Path) -> None:
    words = ["Öl", "", "a\0b", "word " * 100]
    group = zarr.open_group(tmp_path / "t.zarr", mode="w")
    group.create_array("t", shape=(4,), dtype=str)[:] = np.array(words, object)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["t"] = [*words[:2], "ab", words[3]]  # h5py writes no NUL
    for name, wanted in (("t.zarr", words), ("t.h5", [*words[:2], "ab", words[3]])):
        oocload.convert(tmp_path / name, tmp_path / "out.h5", overwrite=True)
        with h5py.File(tmp_path / "out.h5") as file:
            data, offsets = file["t/values"][:].tobytes(), file["t/offsets"][:]
            assert [data[a:b].decode() for a, b in itertools.pairwise(offsets)] == wanted
        with oocload.open(tmp_path / "out.h5") as store:
            assert store.field("t").meaning.content == "text"
