"""CSV files held against pandas, the csv module and plain loops; bad ones are named by file and line."""

import bz2
import csv
import gzip
import io
import os
import pickle
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oocload
from oocload.convert.sources.resolve import resolve
from oocload.errors import (
    InvalidArgumentError,
    MissingPackageError,
    StoreFormatError,
    StoreNotFoundError,
    UnknownFieldError,
)
from oocload.sources import CsvSource, Text
from tests.conftest import SHARED

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")

MESSAGES = SHARED / "data" / "sms" / "SMSSpamCollection.tsv"
needs_messages = pytest.mark.skipif(not MESSAGES.exists(), reason="needs the SMS Spam Collection beside the project")
WORDS = ["plain", "", "with, comma", 'with "quotes"', "two\nlines", "tëxt", " spaces ", '"', "NA"]


def read_back(path: Path) -> dict[str, Any]:
    """Return what h5py reads: arrays, and lists of the rows of ragged fields."""
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        for name, held in file.items():
            if isinstance(held, h5py.Dataset):
                found[name] = held[()]
            else:
                values, offsets = held["values"][()], held["offsets"][()]
                found[name] = [values[a:b] for a, b in pairwise(offsets)]
    return found


def converted(source: Any, folder: Path, **options: Any) -> dict[str, Any]:
    oocload.convert(source, folder / "out.h5", overwrite=True, progress=False, **options)
    return read_back(folder / "out.h5")


def texts(rows: list[np.ndarray]) -> list[str]:
    return [row.tobytes().decode() for row in rows]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def frame(n_rows: int, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    columns = {
        "a": random.integers(-(10**12), 10**12, n_rows),
        "b": random.standard_normal(n_rows),
        "flag": random.random(n_rows) < 0.5,
        "s": np.array(WORDS, object)[random.integers(0, len(WORDS), n_rows)],
    }
    found = pd.DataFrame(columns)
    found.loc[::7, "b"] = np.nan
    return found


def by_pandas(path: Path, **options: Any) -> Any:
    """Read with every digit of floats, and text that is never missing."""
    if int(pd.__version__.partition(".")[0]) < 3:  # where it is not the default
        options["float_precision"] = "round_trip"
    return pd.read_csv(path, keep_default_na=False, na_values={"b": [""]}, **options)


def assert_as_pandas(got: dict[str, Any], wanted: Any) -> None:
    assert got.keys() == set(wanted.columns)
    assert np.array_equal(got["b"], wanted["b"], equal_nan=True)
    assert got["b"].dtype == "f8"
    for name, dtype in (("a", "i8"), ("flag", "?")):
        assert np.array_equal(got[name], wanted[name])
        assert got[name].dtype == dtype
    assert texts(got["s"]) == wanted["s"].tolist()


class TestRows:
    @pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.bz2", ".csv.zst", ".tsv"])
    def test_as_pandas_reads_them(self, tmp_path: Path, suffix: str) -> None:
        wanted = frame(500)
        path = tmp_path / f"t{suffix}"
        plain = wanted.to_csv(index=False, sep="\t" if "tsv" in suffix else ",").encode()
        pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": lambda data: pa.compress(data, "zstd", True)}
        path.write_bytes(pack.get(path.suffix, bytes)(plain))
        assert_as_pandas(converted(path, tmp_path), by_pandas(io.BytesIO(plain), sep="\t" if "tsv" in suffix else ","))

    def test_many_blocks_give_what_one_does(self, tmp_path: Path) -> None:
        wanted = frame(9000)
        wanted.to_csv(tmp_path / "t.csv", index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
        source = CsvSource(tmp_path / "t.csv")
        batches = list(source.batches(1, n_ahead=3, n_threads=2))
        assert len(batches) > 3
        assert np.array_equal(np.concatenate([batch["a"] for batch in batches]), wanted["a"])
        assert_as_pandas(converted(source, tmp_path, memory="16 MiB"), by_pandas(tmp_path / "t.csv"))

    def test_numbered_files_of_different_lengths(self, tmp_path: Path) -> None:
        parts = [frame(n, n) for n in (5, 0, 700, 1)]
        for number, part in zip((1, 2, 3, 10), parts, strict=True):
            part.to_csv(tmp_path / f"part-{number}.csv", index=False)
        got = converted(f"{tmp_path}/part-*.csv", tmp_path)
        assert np.array_equal(got["a"], np.concatenate([part["a"] for part in parts]).astype("i8"))
        assert texts(got["s"]) == [word for part in parts for word in part["s"]]

    def test_dialects(self, tmp_path: Path) -> None:
        bom = write(tmp_path / "bom.csv", "\ufeffa;b\n1;x\n2;y")
        assert converted(bom, tmp_path)["a"].tolist() == [1, 2]
        names = write(tmp_path / "names.csv", "# made by a machine\n1|x\n\n2|y\n")
        got = converted(CsvSource(names, delimiter="|", header=["n", "w"], skip_lines=1), tmp_path)
        assert (got["n"].tolist(), texts(got["w"])) == ([1, 2], ["x", "y"])
        assert converted(CsvSource(names, header=False, skip_lines=1), tmp_path)["column_0"].tolist() == [1, 2]
        latin = tmp_path / "latin.csv"
        latin.write_bytes("a,b\n1,né\n".encode("latin-1"))
        assert texts(converted(CsvSource(latin, encoding="latin-1"), tmp_path)["b"]) == ["né"]
        marks = write(tmp_path / "marks.csv", 'a,b\n1,5" pipe\n2,"x\n3,-\n')
        assert texts(converted(CsvSource(marks, quote=None), tmp_path)["b"]) == ['5" pipe', '"x', "-"]

    def test_types_that_are_told(self, tmp_path: Path) -> None:
        path = write(tmp_path / "t.csv", "zip,n,when,gone\n007,1,2020-01-02,\n010,,2020-01-03,\n")
        got = converted(CsvSource(path, dtypes={"zip": str, "n": "float32"}), tmp_path)
        assert texts(got["zip"]) == ["007", "010"]
        assert got["n"].dtype == "f4"
        assert np.array_equal(got["n"], [1, np.nan], equal_nan=True)
        assert texts(got["when"]) == ["2020-01-02", "2020-01-03"]
        assert np.isnan(got["gone"]).all()
        got = converted(CsvSource(path, columns=["zip"], dtypes={"zip": "uint8"}), tmp_path)
        assert got.keys() == {"zip"}
        assert got["zip"].tolist() == [7, 10]
        missing = write(tmp_path / "m.csv", "n\n1.5\n?\n")
        got = converted(CsvSource(missing, missing=["?"]), tmp_path)
        assert np.array_equal(got["n"], [1.5, np.nan], equal_nan=True)

    def test_resumes(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        frame(30_000).to_csv(path, index=False)
        source = CsvSource(path, features=["a", "b"])

        def stop(progress: Any) -> None:
            if progress.n_rows > 10_000:
                raise RuntimeError("enough")

        options: dict[str, Any] = {"codec": "gzip", "level": 1, "memory": "16 MiB", "chunk_rows": 500}
        with pytest.raises(RuntimeError, match="enough"):
            oocload.convert(source, tmp_path / "r.h5", progress=stop, **options)
        assert not (tmp_path / "r.h5").exists()
        report = oocload.convert(source, tmp_path / "r.h5", resume=True, progress=False, **options)
        assert report.n_rows_before > 0
        wanted = by_pandas(path)
        assert np.array_equal(read_back(tmp_path / "r.h5")["x"], wanted[["a", "b"]].to_numpy("f4"), equal_nan=True)

    def test_travels(self, tmp_path: Path) -> None:
        source = CsvSource(write(tmp_path / "t.csv", "a,b\n1,x\n"), label="b")
        copy = pickle.loads(pickle.dumps(source))
        assert copy.identity() == source.identity() is not None
        assert copy.specs == source.specs
        assert CsvSource(tmp_path / "t.csv").identity() != source.identity()
        assert not CsvSource(tmp_path / "t.csv", text={"b": Text(str.split)}).identity_is_proof


class TestFields:
    @pytest.fixture
    def flowers(self, tmp_path: Path) -> Path:
        rows = ["5.1,3,setosa,DE,1", "6.4,2,virginica,FR,0", "5.9,,versicolor,,1", "5,1,setosa,DE,0"]
        return write(tmp_path / "flowers.csv", "\n".join(["length,n,species,country,old", *rows]))

    def test_matrix_and_labels(self, flowers: Path, tmp_path: Path) -> None:
        source = CsvSource(flowers, features=["length", "n"], label="species", labels=["country"])
        assert list(resolve(source, None).specs or {}) == ["x", "y", "country", "old"]
        got = converted(source, tmp_path)
        assert np.array_equal(got["x"], np.array([[5.1, 3], [6.4, 2], [5.9, np.nan], [5, 1]], "f4"), equal_nan=True)
        assert got["x"].dtype == "f4"
        assert got["y"].tolist() == [0, 2, 1, 0]
        assert got["country"].tolist() == [0, 1, -1, 0]
        with oocload.open(tmp_path / "out.h5") as store:
            assert store.field("y").meaning.vocabulary == ("setosa", "versicolor", "virginica")
            assert store.field("country").meaning.vocabulary == ("DE", "FR")

    def test_all_numbers(self, flowers: Path, tmp_path: Path) -> None:
        source = CsvSource(flowers, features=True, label="old", columns=["length", "n"], dtypes={"x": "float64"})
        got = converted(source, tmp_path)
        assert got["x"].dtype == "f8"
        assert np.array_equal(got["x"][:, 0], [5.1, 6.4, 5.9, 5])
        assert got["y"].tolist() == [1, 0, 1, 0]
        assert got.keys() == {"x", "y"}
        several = converted(CsvSource(flowers, features={"a": ["length"], "b": ["n", "old"]}), tmp_path)
        assert (several["a"].shape, several["b"].shape) == ((4, 1), (4, 2))

    def test_chosen_later(self, flowers: Path, tmp_path: Path) -> None:
        got = converted(CsvSource(flowers, label="species"), tmp_path, fields=["y", "length"])
        assert got.keys() == {"y", "length"}
        assert got["y"].tolist() == [0, 2, 1, 0]

    def test_a_given_vocabulary(self, flowers: Path, tmp_path: Path) -> None:
        words = ["virginica", "versicolor", "setosa"]
        got = converted(CsvSource(flowers, label="species", labels={"species": words}), tmp_path)
        assert got["y"].tolist() == [2, 0, 1, 2]
        message = (
            r"flowers.csv, line 4: column 'species' must be a word of the vocabulary \('virginica', 'setosa'\), "
            "got 'versicolor'; add it"
        )
        with pytest.raises(StoreFormatError, match=message):
            converted(CsvSource(flowers, labels={"species": ["virginica", "setosa"]}), tmp_path)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"label": "what"}, "column 'what' must be one of those in .*flowers.csv, which has 'length', 'n'"),
            ({"dtypes": {"what": int}}, "dtypes must name columns or fields of .*, got 'what'"),
            ({"features": ["length", "length"]}, "features must have at least one name, each once"),
            ({"features": ["species"], "labels": ["species"]}, "column 'species' must be named once in features="),
            ({"features": {"a": ["n"], "b": ["n"]}}, "column 'n' must be named once in features="),
            ({"features": {"n": ["length"]}}, "fields of .* must have names of their own, got 'n' twice"),
        ],
    )
    def test_columns_that_are_not_there(self, flowers: Path, options: dict[str, Any], message: str) -> None:
        with pytest.raises((UnknownFieldError, InvalidArgumentError, StoreFormatError), match=message):
            _ = CsvSource(flowers, **options).specs


@needs_messages
class TestMessages:
    @pytest.fixture
    def messages(self) -> list[tuple[str, str]]:
        lines = MESSAGES.read_text(encoding="utf-8").splitlines()[1:]
        return [(label, text) for label, _, text in (line.partition("\t") for line in lines)]

    def test_words(self, messages: list[tuple[str, str]], tmp_path: Path) -> None:
        source = CsvSource(MESSAGES, label="Label", text="SMS")
        got = converted(source, tmp_path)
        counts = Counter(word for _, text in messages for word in text.lower().split())
        known = ["", "[UNK]", *sorted(counts, key=lambda word: (-counts[word], word))]
        number = {word: i for i, word in enumerate(known)}
        assert [row.tolist() for row in got["SMS"]] == [[number[w] for w in t.lower().split()] for _, t in messages]
        assert got["y"].tolist() == [int(label == "spam") for label, _ in messages]
        with oocload.open(tmp_path / "out.h5") as store:
            assert store.field("SMS").meaning.vocabulary == tuple(known)
            assert store.field("y").meaning.vocabulary == ("ham", "spam")

    def test_padded_characters_on_the_way_to_a_loader(self, messages: list[tuple[str, str]], tmp_path: Path) -> None:
        source = CsvSource(MESSAGES, label="Label", text={"SMS": {"tokens": "characters", "maxlen": 40}})
        got = converted(source, tmp_path)["SMS"]
        with oocload.open(tmp_path / "out.h5") as store:
            known = store.field("SMS").meaning.vocabulary
        wanted = [[known.index(c) for c in text.lower()[:40]] for _, text in messages[:200]]
        assert got.shape == (len(messages), 40)
        assert got[:200].tolist() == [row + [0] * (40 - len(row)) for row in wanted]
        with oocload.Loader(tmp_path / "out.h5", 32, x="SMS", y="y", seed=0, memory="64 MiB") as loader:
            x, y = next(iter(loader))
        assert (x.shape, y.shape) == ((32, 40), (32,))

    def test_quotes_are_characters_where_tabs_stand_between(
        self, messages: list[tuple[str, str]], tmp_path: Path
    ) -> None:
        assert texts(converted(MESSAGES, tmp_path)["SMS"]) == [text for _, text in messages]

    def test_quotes_as_pandas_has_them(self, tmp_path: Path) -> None:
        wanted = pd.read_csv(MESSAGES, sep="\t")  # which takes two messages into others
        assert texts(converted(CsvSource(MESSAGES, quote='"'), tmp_path)["SMS"]) == wanted["SMS"].tolist()


class TestBadInput:
    @pytest.fixture
    def bad(self, tmp_path: Path) -> Path:
        """A word in line 3, too few columns in line 6 and too many in the last; a record of two lines between."""
        lines = ["a,b,s", "1,1.5,x", "2,two,x", '3,3.5,"a', 'b"', "4", "5,5.5,x", "6,6.5,x,y"]
        return write(tmp_path / "bad.csv", "\n".join(lines))

    def test_is_named(self, bad: Path, tmp_path: Path) -> None:
        message = "bad.csv, line 3: column 'b' must hold numbers as its first rows do, got 'two'; mend it, .*skip"
        with pytest.raises(StoreFormatError, match=message):
            converted(CsvSource(bad, dtypes={"b": "float64"}), tmp_path)
        assert not (tmp_path / "out.h5").exists()
        with pytest.raises(StoreFormatError, match=message):  # as more than half of the column are numbers
            converted(bad, tmp_path)
        with pytest.raises(StoreFormatError, match="bad.csv, line 6: must have 3 columns, got 1: '4'"):
            converted(CsvSource(bad, dtypes={"b": "str"}), tmp_path)
        with pytest.raises(StoreFormatError, match="bad.csv, line 3: column 'b' must hold numbers"):
            converted(CsvSource(bad, features=["a", "b"]), tmp_path)

    def test_a_column_of_words_and_some_numbers_is_text(self, tmp_path: Path) -> None:
        path = write(tmp_path / "t.csv", "a,b,c\n1,1, 1\nx,2,\ny,z,2e3\n2,w,-.5\nz,,-\n")
        got = converted(CsvSource(path, on_error="skip"), tmp_path)
        assert texts(got["a"]) == ["1", "x", "y", "2"]
        assert texts(got["b"]) == ["1", "2", "z", "w"]
        assert np.array_equal(got["c"], [1, np.nan, 2000, -0.5], equal_nan=True)

    def test_is_skipped_and_listed(self, bad: Path, tmp_path: Path) -> None:
        source = CsvSource(bad, dtypes={"b": "float64"}, labels=["s"], on_error="skip")
        report = oocload.convert(source, tmp_path / "out.h5", progress=False)
        assert [where.rpartition(", ")[2] for where, _ in report.skipped] == ["line 3", "line 6", "line 8"]
        assert "must have 3 columns, got 4" in report.skipped[2].reason
        got = read_back(tmp_path / "out.h5")
        assert got["a"].tolist() == [1, 3, 5]
        assert got["s"].tolist() == [1, 0, 1]

    def test_far_into_a_file(self, tmp_path: Path) -> None:
        """Blocks after the first, and lines that are counted over records of several."""
        rows = [f'{i},"{i}\n{i}"' for i in range(40_000)]
        rows[30_000] = "many,x"
        path = write(tmp_path / "t.csv", "\n".join(["n,s", *rows]))
        with pytest.raises(StoreFormatError, match=r"t.csv, line 60002: column 'n' must hold whole numbers .*'many'"):
            list(CsvSource(path, dtypes={"n": "int64"}).batches(1))

    def test_types_that_do_not_hold(self, tmp_path: Path) -> None:
        first, later = write(tmp_path / "1.csv", "n\n1\n2\n"), write(tmp_path / "2.csv", "n\n3\n4.5\n")
        message = "2.csv, line 3: column 'n' must hold whole numbers .*, got '4.5'; pass dtypes={'n': 'float64'}"
        with pytest.raises(StoreFormatError, match=message):
            converted([first, later], tmp_path)
        write(later, "n,m\n1,\n,5\n")
        with pytest.raises(StoreFormatError, match="2.csv must have the columns of .*1.csv, n, got n, m"):
            converted([first, later], tmp_path)
        message = "2.csv, line 2: column 'm' must have a value in every row to be int64, got none; pass dtypes="
        with pytest.raises(StoreFormatError, match=message):
            converted(CsvSource(later, dtypes={"m": "int64"}), tmp_path)
        write(first, "n\n300\n")
        with pytest.raises(StoreFormatError, match="line 2: column 'n' must hold whole numbers .*'300'"):
            converted(CsvSource(first, dtypes={"n": "uint8"}), tmp_path)
        write(first, "n\n1e300\n")
        with pytest.raises(StoreFormatError, match="line 2: column 'n' must fit into float32, got 1e\\+300"):
            converted(CsvSource(first, features=["n"]), tmp_path)

    def test_damage(self, tmp_path: Path) -> None:
        packed = tmp_path / "t.csv.gz"
        packed.write_bytes(gzip.compress(os.urandom(50_000).hex().encode())[:-200])
        with pytest.raises(StoreFormatError, match=r"t.csv.gz must be a whole file of its kind, and is damaged"):
            converted(packed, tmp_path)
        never = write(tmp_path / "never.csv", 'a,b\n1,x\n2,"never closed\n3,y\n')
        with pytest.raises(StoreFormatError, match="never.csv, line 3: a quote must close, and this one never does"):
            converted(never, tmp_path)
        latin = tmp_path / "latin.csv"
        latin.write_bytes(b"a,b\n1,n\xe9\n")
        with pytest.raises(StoreFormatError, match="latin.csv, line 2: column 'b' must be UTF-8, .*pass encoding="):
            converted(latin, tmp_path)
        with pytest.raises(StoreFormatError, match="latin.csv, line 2: column 'b' must be UTF-8, .*pass encoding="):
            converted(CsvSource(latin, text=["b"]), tmp_path)

    def test_bytes_that_are_no_table(self, tmp_path: Path) -> None:
        binary = tmp_path / "binary.tsv"
        binary.write_bytes(b"a\tb\n\xff\xfe\x89\n1\tn\n")
        with pytest.raises(StoreFormatError, match=r"binary.tsv, line 2: must have 2 columns, got 1: "):
            converted(binary, tmp_path)
        assert texts(converted(CsvSource(binary, on_error="skip"), tmp_path)["b"]) == ["n"]
        with pytest.raises(StoreFormatError, match="empty.csv must begin with the names of its columns, got nothing"):
            converted(write(tmp_path / "empty.csv", ""), tmp_path)
        with pytest.raises(StoreFormatError, match="columns of .*twice.csv must have names of their own, got 'a'"):
            converted(write(tmp_path / "twice.csv", "a,a\n1,2\n"), tmp_path)
        wide = write(tmp_path / "wide.csv", "a,b\n1,x\n2," + "y" * 200_000 + "\n")
        write(tmp_path / "narrow.csv", "a,b\n1,x\n")
        with pytest.raises(StoreFormatError, match="wide.csv, line 3: a record must fit into 64.0 KiB, and is longer"):
            list(CsvSource([tmp_path / "narrow.csv", wide]).batches(1))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"delimiter": ", "}, "delimiter must be one ASCII character or None, got ', '"),
            ({"quote": ""}, "quote must be one ASCII character or None, got ''"),
            ({"header": "a,b"}, "header must be True, False or a list of names, each once, got 'a,b'"),
            ({"skip_lines": -1}, "skip_lines must be a whole number of at least 0, got -1"),
            ({"missing": "NA"}, "missing must be a list of words, got 'NA'"),
            ({"encoding": "klingon"}, "encoding must be one that Python knows, got 'klingon'"),
            ({"on_error": "ignore"}, "on_error must be 'raise' or 'skip', got 'ignore'"),
            ({"columns": "a"}, "columns must be a list of names, got 'a'"),
            ({"label": ["a"]}, r"label must be the name of one column, got \['a'\]"),
            ({"text": {"a": 3}}, r"text of column 'a' must be Text\(...\), its tokens, or a dict .*, got 3"),
            ({"dtypes": {"a": "M8[s]"}}, r"dtypes\['a'\] must be one of numbers or 'str', got datetime64\[s\]"),
        ],
    )
    def test_options(self, tmp_path: Path, options: dict[str, Any], message: str) -> None:
        path = write(tmp_path / "t.csv", "a,b\n1,2\n")
        with pytest.raises(InvalidArgumentError, match=message):
            CsvSource(path, **options)

    def test_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(StoreNotFoundError, match="source must exist, got .*; no file lies at that path"):
            CsvSource(tmp_path / "t.csv")
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        message = (
            "reading CSV, Parquet and Arrow files needs the package 'pyarrow', which is not installed; run: pip "
            r"install pyarrow \(or install oocload with its extra 'parquet'\)"
        )
        with pytest.raises(MissingPackageError, match=message):
            converted(write(tmp_path / "t.csv", "a,b\n1,2\n"), tmp_path)


@pytest.mark.parametrize("text", ["a,b\r1,2\r3,4\r", "a,b\r1,2\n3,4\n"])
def test_rows_behind_carriage_returns_alone_are_not_lost_with_the_header(tmp_path: Path, text: str) -> None:
    with pytest.raises(StoreFormatError, match=r"a.csv must have lines that end in a line feed, and its first ends"):
        converted(write(tmp_path / "a.csv", text), tmp_path)


def test_a_carriage_return_within_a_value_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreFormatError, match=r"line 3: must have quotes around values with carriage returns, got"):
        converted(write(tmp_path / "a.csv", "a,b\n1,x\n2,x\ry\n"), tmp_path)


def test_whole_numbers_that_no_float_has_are_not_rounded(tmp_path: Path) -> None:
    found = converted(write(tmp_path / "a.csv", f"a,b\n{2**64 - 1},1\n{2**63 + 1},1e300\n"), tmp_path)
    assert found["a"].tolist() == [2**64 - 1, 2**63 + 1]
    assert found["a"].dtype == np.uint64
    assert found["b"].dtype == np.float64
    with pytest.raises(StoreFormatError, match="line 3: column 'a' must have a value in every row to be int64"):
        converted(write(tmp_path / "a.csv", f"a,b\n{2**53 + 1},1\n,2\n"), tmp_path)
    source = CsvSource(write(tmp_path / "a.csv", f"a\n{2**64 - 1}\n"), features=True, dtypes={"x": "uint64"})
    assert converted(source, tmp_path)["x"].tolist() == [[2**64 - 1]]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"encoding": "hex"}, "encoding must be one that Python knows"),
        ({"dtypes": {"a": "longdouble"}}, r"dtypes\['a'\] must be one of numbers or 'str'"),
        ({"header": 5}, "header must be True, False or a list of names"),
        ({"missing": 5}, "missing must be a list of words"),
        ({"delimiter": "\n"}, "delimiter must not end lines"),
        ({"skip_lines": True}, "skip_lines must be a whole number"),
        ({"text": {"a": {"maxlen": True}}}, "maxlen must be a whole number"),
        ({"text": {"a": {"vocabulary": 5}}}, "vocabulary must be a list of words"),
    ],
)
def test_options_of_a_wrong_type_are_refused(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=problem):
        CsvSource(write(tmp_path / "a.csv", "a\n1\n"), **options)


@pytest.mark.parametrize("made", [None, [object()], ["a", 1]])
def test_a_function_that_makes_no_tokens_is_an_error_that_names_the_column(tmp_path: Path, made: Any) -> None:
    source = CsvSource(write(tmp_path / "a.csv", "t\nx\n"), text={"t": lambda _: made})
    with pytest.raises(StoreFormatError, match=r"a.csv: column 't' must become a list of words or of whole numbers"):
        converted(source, tmp_path)


def test_words_of_digits_stay_words_where_labels_or_text_are_asked(tmp_path: Path) -> None:
    source = CsvSource(write(tmp_path / "a.csv", "a,b\n007,01 x\n7,01\n"), labels=["a"], text=["b"])
    oocload.convert(source, tmp_path / "out.h5", progress=False)
    with oocload.open(tmp_path / "out.h5") as store:
        assert store.field("a").meaning.vocabulary == ("007", "7")
        assert store.field("b").meaning.vocabulary == ("", "[UNK]", "01", "x")
