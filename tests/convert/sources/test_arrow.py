"""Parquet and Arrow, written by pyarrow and read back with h5py; what cannot be rows is named."""

import datetime
import decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oocload
from oocload.convert.sources.arrow_files import file_of
from oocload.convert.sources.resolve import resolve
from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError
from oocload.sources import ArrowSource, Text

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
feather = pytest.importorskip("pyarrow.feather")
pd = pytest.importorskip("pandas")

N = 1000
X = np.random.default_rng(0).standard_normal((N, 6)).astype("f4")
DAY = datetime.date(2020, 1, 1)
TABLE = pa.table(
    {
        "i": pa.array(range(N), pa.int16()),
        "f": [None if i % 7 == 0 else i / 3 for i in range(N)],
        "h": pa.array(np.arange(N, dtype="f2")),
        "flag": [i % 3 == 0 for i in range(N)],
        "fixed": pa.FixedSizeListArray.from_arrays(X.ravel(), 6),
        "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(X.reshape(N, 2, 3)),
        "nested": pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(X.ravel(), 3), 2),
        "ragged": pa.array([list(range(i % 5)) for i in range(N)], pa.list_(pa.int32())),
        "pairs": pa.array([[[1.0, i]] * (i % 4) for i in range(N)], pa.large_list(pa.list_(pa.float64(), 2))),
        "s": [f"tëxt {i}" if i % 5 else None for i in range(N)],
        "view": pa.array([f"v{i}" for i in range(N)], pa.string_view()),
        "bytes": [bytes([i % 256]) * (i % 3) for i in range(N)],
        "four": pa.array([f"{i:04}".encode() for i in range(N)], pa.binary(4)),
        "word": pa.array([f"w{i % 4}" if i % 11 else None for i in range(N)]).dictionary_encode(),
        "day": [DAY + datetime.timedelta(i) for i in range(N)],
        "when": pa.array([datetime.datetime(2020, 1, 1, 1, 2, i % 60) for i in range(N)], pa.timestamp("us")),
        "money": [decimal.Decimal(i) / 4 for i in range(N)],
    }
)


def write(path: Path, table: Any = TABLE, height: int = 300) -> Path:
    """Write a table in row groups or record batches, as the suffix says."""
    if path.suffix == ".parquet":
        pq.write_table(
            table.drop_columns("view") if "view" in table.column_names else table, path, row_group_size=height
        )
    elif path.suffix == ".feather":
        feather.write_feather(table, path, chunksize=height)
    else:
        kind = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as file, kind(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=height)
    return path


def converted(source: Any, path: Path, **options: Any) -> dict[str, Any]:
    """Return what h5py reads: arrays, and lists of the rows of ragged fields."""
    oocload.convert(source, path, overwrite=True, progress=False, **options)
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        for name, held in file.items():
            if isinstance(held, h5py.Dataset):
                found[name] = held[()]
            else:
                values, offsets = held["values"][()], held["offsets"][()]
                found[name] = [values[a:b] for a, b in pairwise(offsets)]
    return found


def words_of(path: Path, name: str) -> tuple[str, ...]:
    with oocload.open(path) as store:
        return store.field(name).meaning.vocabulary


class TestColumns:
    @pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.arrow", "t.arrows", "table"])
    def test_every_type(self, tmp_path: Path, name: str) -> None:
        source = TABLE if name == "table" else write(tmp_path / name)
        got = converted(source, tmp_path / "out.h5")
        for column, dtype in (("i", "i2"), ("h", "f2"), ("flag", "?")):
            assert np.array_equal(got[column], TABLE[column].to_numpy())
            assert got[column].dtype == dtype
        assert np.array_equal(got["f"], TABLE["f"].to_pandas().to_numpy(), equal_nan=True)
        for column, shape in (("fixed", (N, 6)), ("tensor", (N, 2, 3)), ("nested", (N, 2, 3))):
            assert np.array_equal(got[column], X.reshape(shape))
        for column in ("ragged", "pairs"):
            assert [row.tolist() for row in got[column]] == TABLE[column].to_pylist()
        assert [bytes(row).decode() or None for row in got["s"]] == TABLE["s"].to_pylist()
        assert [bytes(row) for row in got["bytes"]] == TABLE["bytes"].to_pylist()
        assert [bytes(row) for row in got["four"]] == TABLE["four"].to_pylist()
        assert np.array_equal(got["day"], np.arange(N) + (DAY - datetime.date(1970, 1, 1)).days)
        assert np.array_equal(got["when"], TABLE["when"].to_numpy().astype("M8[us]").astype("i8"))
        assert np.array_equal(got["money"], np.arange(N) / 4)
        words = words_of(tmp_path / "out.h5", "word")
        assert [None if code < 0 else words[code] for code in got["word"]] == TABLE["word"].to_pylist()
        if "view" in got:
            assert bytes(got["view"][7]) == b"v7"

    def test_options(self, tmp_path: Path) -> None:
        path = write(tmp_path / "t.parquet")
        source = ArrowSource(
            path, columns=["h", "i"], features=["i", "f"], label="word", text={"s": Text("hashing")}, dtypes={"x": "f8"}
        )
        got = converted(source, tmp_path / "out.h5")
        assert list(got) == ["h", "s", "x", "y"]
        assert got["x"].dtype == "f8"
        assert np.array_equal(got["x"][:, 0], np.arange(N))
        assert got["s"][0].tolist() == []
        assert words_of(tmp_path / "out.h5", "y") == ("w0", "w1", "w2", "w3")

    def test_nulls_where_there_can_be_none(self, tmp_path: Path) -> None:
        path = write(tmp_path / "t.parquet", pa.table({"n": [*range(500), None]}))
        message = r"t.parquet, row group 1, row 200: column 'n' must have a value in every row to be int64, got none"
        with pytest.raises(StoreFormatError, match=message):
            converted(path, tmp_path / "out.h5")
        assert not (tmp_path / "out.h5").exists()
        got = converted(ArrowSource(path, dtypes={"n": "float64"}), tmp_path / "out.h5")
        assert np.array_equal(got["n"], [*range(500), np.nan], equal_nan=True)
        lists = pa.table({"n": pa.array([[1, 2], None], pa.list_(pa.int8(), 2))})
        with pytest.raises(StoreFormatError, match="table, chunk 0, row 1: column 'n' must have a list in every row"):
            converted(lists, tmp_path / "out.h5")
        holes = pa.table({"n": pa.array([[1, 2], [3, None]], pa.list_(pa.int8(), 2))})
        with pytest.raises(StoreFormatError, match="row 1: column 'n' must have a value in every place of a list"):
            converted(holes, tmp_path / "out.h5")

    @pytest.mark.parametrize("column", [[{"a": 1}], [[["a"]]], [[[1], [2, 3]]], [["a"]]])
    def test_what_cannot_be_rows(self, column: Any, tmp_path: Path) -> None:
        message = (
            r"column 'c' of table must hold numbers, text, bytes or lists of numbers of one length, got .*columns="
        )
        with pytest.raises(StoreFormatError, match=message):
            converted(pa.table({"c": column}), tmp_path / "out.h5")


class TestRows:
    @pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.arrows"])
    @pytest.mark.parametrize("piece", [1, 2**24])
    def test_from_anywhere(self, tmp_path: Path, name: str, piece: int) -> None:
        source = ArrowSource(write(tmp_path / name)).choosing(["i", "ragged"])
        for start, stop in ((0, None), (299, 301), (300, 600), (555, 556), (999, None)):
            batches = list(source.batches(piece, start, stop, n_ahead=2, n_threads=2))
            assert np.array_equal(np.concatenate([b["i"] for b in batches]), np.arange(N)[start:stop])
            assert sum(len(b["ragged"]) for b in batches) == len(range(N)[start:stop])

    def test_large_row_groups_in_little_memory(self, tmp_path: Path) -> None:
        table = pa.table({"x": pa.FixedSizeListArray.from_arrays(np.arange(2**20, dtype="f4"), 16)})
        path = write(tmp_path / "t.parquet", table, height=2**16)
        assert len(list(ArrowSource(path).batches(2**20))) > 4
        got = converted(path, tmp_path / "out.h5", memory="16 MiB")["x"]
        assert np.array_equal(got, np.arange(2**20, dtype="f4").reshape(-1, 16))

    def test_folders(self, tmp_path: Path) -> None:
        for part, rows in (("train", slice(0, 600)), ("validation", slice(600, N))):
            folder = tmp_path / "all" / f"split={part}"
            folder.mkdir(parents=True)
            write(folder / "part-0.parquet", TABLE.select(["i"])[rows])
            (folder / "_SUCCESS").touch()
        got = converted(tmp_path / "all", tmp_path / "out.h5")
        assert np.array_equal(got["i"], np.arange(N))
        assert np.array_equal(got["split"], np.arange(N) >= 600)
        with oocload.Loader(tmp_path / "out.h5", 10, x="i", split="validation", memory="64 MiB") as loader:
            assert loader.n_rows == 400
        for number in (2, 10, 1):
            write(tmp_path / f"part-{number}.arrow", pa.table({"n": [number]}))
        assert converted(f"{tmp_path}/part-*.arrow", tmp_path / "out.h5")["n"].tolist() == [1, 2, 10]

    def test_frames(self, tmp_path: Path) -> None:
        frame = pd.DataFrame({"a": np.arange(N), "c": pd.Categorical(["z", "x"] * (N // 2), ["z", "y", "x"])})
        frame["s"] = [f"s{i}" for i in range(N)]
        got = converted(frame, tmp_path / "out.h5")
        assert np.array_equal(got["a"], frame["a"])
        assert np.array_equal(got["c"], frame["c"].cat.codes)
        assert words_of(tmp_path / "out.h5", "c") == ("z", "y", "x")
        assert bytes(got["s"][17]) == b"s17"
        assert converted(TABLE.to_batches()[0], tmp_path / "out.h5").keys() == set(TABLE.column_names)
        with pytest.raises(InvalidArgumentError, match="columns of the DataFrame must each hold values of one kind"):
            converted(pd.DataFrame({"o": [1, "a"]}), tmp_path / "out.h5")

    def test_identity(self, tmp_path: Path) -> None:
        path = write(tmp_path / "t.parquet")
        assert resolve(path, None).identity() == resolve(path, None).identity() is not None
        assert ArrowSource(path, label="word").identity() != resolve(path, None).identity()
        assert resolve(TABLE, None).identity() is None


class TestFiles:
    def test_damage(self, tmp_path: Path) -> None:
        path = tmp_path / "t.parquet"
        path.write_bytes(b"PAR1 and so on")
        with pytest.raises(StoreFormatError, match="t.parquet must be a whole Parquet or Arrow file that can be read"):
            converted(path, tmp_path / "out.h5")
        whole = write(tmp_path / "t.arrow").read_bytes()
        (tmp_path / "t.arrow").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(StoreFormatError, match="t.arrow must be a whole Parquet or Arrow file that can be read"):
            converted(tmp_path / "t.arrow", tmp_path / "out.h5")

    def test_files_of_several_kinds(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / "1.parquet"), write(tmp_path / "2.parquet", pa.table({"i": [1.5]}))]
        message = "2.parquet must have the columns of .*1.parquet, got 'i' of double instead of int16"
        with pytest.raises(StoreFormatError, match=message):
            converted(paths, tmp_path / "out.h5")
        (tmp_path / "none").mkdir()
        with pytest.raises(
            StoreNotFoundError, match="must be a folder of Parquet or Arrow files, got .*none.*with none"
        ):
            ArrowSource(tmp_path / "none")
        with pytest.raises(StoreNotFoundError, match="source must exist, got .*3.parquet"):
            ArrowSource(tmp_path / "3.parquet")


@pytest.mark.parametrize("words", [[3.0, 1.5], [True, False], [7, 5]])
def test_categories_that_are_no_text_are_words_as_arrow_writes_them(tmp_path: Path, words: list[Any]) -> None:
    frame = pd.DataFrame({"a": pd.Categorical([*words, None], categories=words)})
    oocload.convert(frame, tmp_path / "out.h5", progress=False)
    with oocload.open(tmp_path / "out.h5") as store:
        assert store.field("a").meaning.vocabulary == tuple(pa.array(words).cast("string").to_pylist())
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["a"][()].tolist() == [0, 1, -1]


def test_a_frame_without_names_has_numbers_for_them(tmp_path: Path) -> None:
    frame = pd.DataFrame(np.arange(6).reshape(3, 2))
    oocload.convert(frame, tmp_path / "out.h5", progress=False)
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.array_equal(np.stack([file["0"], file["1"]], 1), frame)
    assert list(frame.columns) == [0, 1]


@pytest.mark.parametrize(
    "columns",
    [
        {"a": np.array([1], ">i4")},
        {"a": np.array([1j])},
        {"a": pd.arrays.SparseArray([0, 1])},
        {"a": pd.cut([1, 2, 3], 2)},
    ],
)
def test_a_frame_that_arrow_cannot_take_is_an_error_of_ours(tmp_path: Path, columns: dict[str, Any]) -> None:
    with pytest.raises((InvalidArgumentError, StoreFormatError), match=r"columns? .*of (the )?DataFrame must"):
        oocload.convert(pd.DataFrame(columns), tmp_path / "out.h5", progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ""])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, suffix: str) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    source = write(tmp_path / f"t{suffix}", table) if suffix else table
    with pytest.raises(StoreFormatError, match="must have names of their own, got 'a' twice"):
        oocload.convert(source, tmp_path / "out.h5")


@pytest.mark.parametrize(
    ("values", "options", "problem"),
    [
        ([[1], [2]], {"labels": ["a"]}, "column 'a' of table must hold text or numbers to become text, got lists"),
        (["1"], {"dtypes": {"a": "int32"}}, "column 'a' of table must hold numbers to become int32, got text"),
        ([b"x", b"\xff"], {"text": ["a"]}, r"table: column 'a' must be UTF-8, got b'\\xff'"),
        (pa.array([b"x", b"\xff"]).dictionary_encode(), {}, r"column 'a' must be UTF-8, got b'\\xff'"),
    ],
)
def test_options_that_do_not_fit_a_column_are_errors(tmp_path: Path, values: Any, options: Any, problem: str) -> None:
    with pytest.raises(StoreFormatError, match=problem):
        oocload.convert(ArrowSource(pa.table({"a": values}), **options), tmp_path / "out.h5")


def test_numbers_become_text_where_that_is_asked_and_identifiers_stay_bytes(tmp_path: Path) -> None:
    table = pa.table({"n": [1, 20], "u": pa.array([b"0" * 16, b"1" * 16], pa.uuid())})
    oocload.convert(ArrowSource(table, dtypes={"n": "str"}), tmp_path / "out.h5", progress=False)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["n/values"][()].tobytes() == b"120"
        assert file["u/values"][()].tobytes() == b"0" * 16 + b"1" * 16


def test_a_sign_in_the_name_of_another_file_makes_no_arrow_folder(tmp_path: Path) -> None:
    (tmp_path / "lr=1").mkdir()
    (tmp_path / "lr=1" / "a=b.png").write_bytes(b"")
    assert not ArrowSource.recognises(str(tmp_path))
    assert not ArrowSource.recognises(str(tmp_path / "lr=1"))


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_batch_of_a_stream_is_read_without_those_before_it(
    tmp_path: Path, compression: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = TABLE.drop_columns(["word", "view"])
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(tmp_path / "t.arrows"), "wb") as file:
        with pa.ipc.new_stream(file, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=70)
    stream = file_of(str(tmp_path / "t.arrows"))
    assert len(stream.parts) == 15
    monkeypatch.setitem(file_of.__globals__, "enumerate", None)  # nothing is gone through
    for part in (9, 0, 14):
        (batch,) = stream.read(part, table.column_names, N)
        assert batch.equals(table.slice(part * 70, 70).combine_chunks().to_batches()[0])
