"""One `.npy` file per sample, held against np.load: labels, sets, and everything that does not fit together."""

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oocload
from oocload.convert.sources.resolve import resolve
from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError
from oocload.sources import NpyFolderSource
from tests.convert.sources.kinds import gather

N = 23
X = np.random.default_rng(0).normal(size=(N, 4, 3)).astype("f4")
IDS = [f"id-{i}" for i in range(N)]
LABELS = {name: i % 5 for i, name in enumerate(IDS)}
PARTITION = {"train": IDS[:15][::-1], "validation": IDS[15:20]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    for name, row in zip(IDS, X, strict=True):
        np.save(folder / f"{name}.npy", row)
    return folder


def converted(source: Any, path: Path, **options: Any) -> dict[str, Any]:
    """Return what h5py reads of a conversion, the ids as text."""
    oocload.convert(source, path, overwrite=True, progress=False, **options)
    with h5py.File(path) as file:
        found = {name: file[name][()] for name in file if isinstance(file[name], h5py.Dataset)}
        offsets, values = file["id/offsets"][()], file["id/values"][()].tobytes()
        return {**found, "id": [values[a:b].decode() for a, b in pairwise(offsets)]}


def write_csv(path: Path, *lines: Any) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


class TestFields:
    def test_the_recipe(self, folder: Path, tmp_path: Path) -> None:
        """Ids in natural order, whatever the order of labels and sets."""
        labels = dict(sorted(LABELS.items(), reverse=True))
        got = converted(NpyFolderSource(folder, labels=labels, partition=PARTITION), tmp_path / "a.h5")
        assert np.array_equal(got["x"], np.stack([np.load(folder / f"{name}.npy") for name in IDS]))
        assert got["id"] == IDS
        assert got["y"].tolist() == list(LABELS.values())
        assert got["y"].dtype == "i8"
        assert got["split"].tolist() == [0] * 15 + [1] * 5 + [-1] * 3
        assert got["split"].dtype == "i1"

    def test_a_path_alone(self, folder: Path, tmp_path: Path) -> None:
        assert set(converted(folder, tmp_path / "a.h5")) == {"x", "id"}

    @pytest.mark.parametrize("suffix", ["json", "csv"])
    def test_what_lies_beside(self, folder: Path, tmp_path: Path, suffix: str) -> None:
        if suffix == "json":
            (folder / "labels.json").write_text(json.dumps(LABELS))
            (folder / "partition.json").write_text(json.dumps(PARTITION))
        else:
            write_csv(folder / "labels.csv", ("label", "id", "more"), *((y, i, "") for i, y in LABELS.items()))
            write_csv(folder / "partition.csv", ("id", "split"), *((i, k) for k, ids in PARTITION.items() for i in ids))
        got = converted(folder, tmp_path / "a.h5")
        expected = converted(NpyFolderSource(folder, labels=LABELS, partition=PARTITION), tmp_path / "b.h5")
        assert got["y"].tolist() == expected["y"].tolist()
        assert got["split"].tolist() == expected["split"].tolist()
        with pytest.raises(InvalidArgumentError, match=r"labels must be named where .*labels.json and .*labels.csv"):
            (folder / "labels.json").write_text("{}")
            (folder / "labels.csv").write_text("")
            NpyFolderSource(folder)

    @pytest.mark.parametrize(
        ("labels", "dtype"),
        [([0.5, 2], "f8"), ([True, False], "?"), ([np.float32(1), np.float32(2)], "f4"), ([[1, 2], [3, 4]], "i8")],
    )
    def test_labels_keep_their_type(self, folder: Path, labels: list[Any], dtype: str) -> None:
        given = {name: labels[i % 2] for i, name in enumerate(IDS)}
        y = gather(resolve(NpyFolderSource(folder, labels=given), None).batches(200))["y"]
        assert np.array_equal(y, [given[name] for name in IDS])
        assert y[0].dtype == dtype

    def test_words_become_codes(self, folder: Path) -> None:
        words = ["zebra", "ant", "Äffchen", "1_0"]
        source = NpyFolderSource(folder, labels={name: words[i % 4] for i, name in enumerate(IDS)})
        assert source.meanings["y"].vocabulary == tuple(sorted(words))
        y = gather(source.batches(200))["y"]
        assert [source.meanings["y"].vocabulary[code] for code in y] == [words[i % 4] for i in range(N)]
        assert source.meanings["id"].content == "text"

    def test_words_in_csv(self, folder: Path, tmp_path: Path) -> None:
        """Python would take 1_0 for a number."""
        path = write_csv(tmp_path / "l.csv", ("id", "label"), *((name, f"1_{i % 2}") for i, name in enumerate(IDS)))
        assert NpyFolderSource(folder, labels=path).meanings["y"].vocabulary == ("1_0", "1_1")
        path = write_csv(tmp_path / "l.csv", ("id", "label"), *((name, i / 2) for i, name in enumerate(IDS)))
        assert gather(NpyFolderSource(folder, labels=path).batches(200))["y"][1] == 0.5

    def test_sets_have_the_order_given(self, folder: Path) -> None:
        source = NpyFolderSource(folder, partition={"validation": IDS[:3], "train": [f"{i}.npy" for i in IDS[5:]]})
        assert source.meanings["split"].vocabulary == ("validation", "train")
        assert gather(source.batches(200))["split"] == [0] * 3 + [-1] * 2 + [1] * (N - 5)

    def test_numbers_as_ids(self, tmp_path: Path) -> None:
        for i in range(12):
            np.save(tmp_path / f"{i}.npy", i)
        source = NpyFolderSource(tmp_path, labels={i: -i for i in range(12)}, partition={"train": range(6)})
        got = gather(source.batches(50))
        assert got["x"] == list(range(12))
        assert got["y"] == [-i for i in range(12)]

    def test_folders_below(self, tmp_path: Path) -> None:
        for name in ("b/2", "b/10", "a/1", ".hidden/1", "b/.2"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            np.save(tmp_path / f"{name}.npy", [len(name)])
        (tmp_path / "b" / "again").symlink_to(tmp_path)
        source = NpyFolderSource(tmp_path, labels={"a/1": 1, "b/2": 2, "b/10": 3})
        assert gather(source.batches(50))["y"] == [1, 2, 3]

    def test_paths_of_ids(self, folder: Path) -> None:
        paths = {"second": folder / "id-2.npy", "first": folder / "id-1.npy"}
        got = gather(NpyFolderSource(paths, labels={"first": 1, "second": 2}).batches(10))
        assert np.array_equal(got["x"], X[[2, 1]])
        assert got["y"] == [2, 1]


class TestFiles:
    def test_other_headers_and_orders(self, folder: Path) -> None:
        """Fortran order, big-endian, another version of the format: the same values."""
        np.save(folder / "id-3.npy", np.asfortranarray(X[3]))
        np.save(folder / "id-4.npy", X[4].astype(">f4"))
        with open(folder / "id-5.npy", "wb") as file:
            np.lib.format.write_array(file, X[5], version=(3, 0))
        with open(folder / "id-6.npy", "wb") as file:
            np.lib.format.write_array(file, X[6], version=(2, 0))
        with open(folder / "id-7.npy", "ab") as file:
            file.write(b"more, as np.load ignores it")
        raw = (folder / "id-8.npy").read_bytes()
        short = raw[:8] + bytes([70, 0]) + raw[10:79] + b"\n" + raw[128:]  # padded to 16 bytes, as NumPy once did
        (folder / "id-8.npy").write_bytes(short)
        for first in ("id-0", "id-3", "id-4", "id-8"):
            order = {name: folder / f"{name}.npy" for name in [first, *IDS]}
            got = gather(NpyFolderSource(order).batches(100))
            assert np.array_equal(got["x"], [np.load(path) for path in order.values()])

    def test_ragged(self, tmp_path: Path) -> None:
        rows = [np.arange(3 * n, dtype="i2").reshape(n, 3) for n in (4, 0, 1, 70, 4)]
        for i, row in enumerate(rows):
            np.save(tmp_path / f"{i}.npy", np.asfortranarray(row) if i == 3 else row)
        for piece_nbytes in (1, 10**6):
            got = gather(NpyFolderSource(tmp_path, ragged=True).batches(piece_nbytes, n_ahead=2))
            assert all(np.array_equal(a, b) for a, b in zip(got["x"], rows, strict=True))

    def test_large_rows(self, tmp_path: Path) -> None:
        rows = np.random.default_rng(0).normal(size=(3, 500, 400))
        for i, row in enumerate(rows):
            np.save(tmp_path / f"{i}.npy", row)
        source = NpyFolderSource(tmp_path)
        assert source.least_piece_nbytes >= rows[0].nbytes
        assert np.array_equal(gather(source.batches(1))["x"], rows)

    def test_changed_since(self, tmp_path: Path) -> None:
        for n in range(3):
            np.save(tmp_path / f"{n}.npy", np.zeros(n + 2))
        source = NpyFolderSource(tmp_path, ragged=True)
        assert source.least_piece_nbytes
        np.save(tmp_path / "1.npy", np.zeros(10**5))
        with pytest.raises(StoreFormatError, match=r"1.npy has changed since its size was looked at"):
            list(source.batches(10))


def refused(source: NpyFolderSource, message: str, error: type[Exception] = StoreFormatError) -> None:
    with pytest.raises(error, match=message):
        for _ in resolve(source, None).batches(300):
            pass


class TestBadFiles:
    @pytest.mark.parametrize(
        ("number", "rows", "message"),
        [
            (
                5,
                np.zeros((4, 2), "f4"),
                r"id-5.npy must have the shape of .*id-0.npy, \(4, 3\), and has \(4, 2\); each file .* NAME=PATH$",
            ),
            (5, np.zeros((9, 3), "f4"), r"and has \(9, 3\); each file .* NAME=PATH, or .*ragged=True\) for rows"),
            (
                5,
                np.zeros((4, 3)),
                r"id-5.npy must have the dtype of .*id-0.npy, float32, and has float64; each file of a folder is",
            ),
            (0, np.array([{}, "a"]), r"id-0.npy must hold numbers, and holds pickled Python objects, which are never"),
            (9, np.array([None]), r"id-9.npy must hold numbers, and holds pickled Python objects"),
        ],
    )
    def test_arrays_of_another_kind(self, folder: Path, number: int, rows: Any, message: str) -> None:
        np.save(folder / f"id-{number}.npy", rows, allow_pickle=True)
        refused(NpyFolderSource(folder), message)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda raw: raw[:-3], r"id-7.npy is truncated: 3 bytes are missing; copy or write it again"),
            (lambda raw: raw[:60], r"id-7.npy must be a .npy array, and is not"),
            (lambda raw: b"", r"id-7.npy must be a .npy array, and is not"),
            (lambda raw: b"PK" + raw, r"id-7.npy must be a .npy array, and is not"),
        ],
    )
    def test_damaged(self, folder: Path, tmp_path: Path, change: Any, message: str) -> None:
        path = folder / "id-7.npy"
        path.write_bytes(change(path.read_bytes()))
        source = NpyFolderSource(folder, labels=LABELS, partition=PARTITION)
        refused(source, message)
        with pytest.raises(StoreFormatError, match=message):
            oocload.convert(source, tmp_path / "a.h5")
        assert not (tmp_path / "a.h5").exists()
        got = converted(source, tmp_path / "b.h5", on_error="skip")
        left = [i for i in range(N) if i != 7]
        assert np.array_equal(got["x"], X[left])
        assert got["y"].tolist() == [i % 5 for i in left]
        assert got["id"] == [IDS[i] for i in left]
        assert len(got["split"]) == N - 1

    def test_what_was_skipped_is_listed(self, folder: Path, tmp_path: Path) -> None:
        for number, rows in ((0, np.array([None])), (11, np.zeros(3)), (22, np.zeros((5, 3), "f4"))):
            np.save(folder / f"id-{number}.npy", rows, allow_pickle=True)
        source = NpyFolderSource(folder, on_error="skip")
        report = oocload.convert(source, tmp_path / "a.zarr", memory="4 MiB", chunk_rows=4)
        assert [Path(s.where).name for s in report.skipped] == ["id-0.npy", "id-11.npy", "id-22.npy"]
        assert "must have the shape of" in report.skipped[2].reason
        assert report.n_rows == N - 3
        assert "skipped 3" in str(report)

    def test_none_is_left(self, tmp_path: Path) -> None:
        (tmp_path / "1.npy").write_bytes(b"no")
        refused(NpyFolderSource(tmp_path, on_error="skip"), r"must have a file that can be read, and none of 1 can")

    def test_ragged_ones(self, folder: Path) -> None:
        np.save(folder / "id-9.npy", np.zeros((4, 2), "f4"))
        refused(
            NpyFolderSource(folder, ragged=True), r"must have the shape of .*id-0.npy, \(any, 3\), and has \(4, 2\)"
        )
        assert len(gather(NpyFolderSource(folder, ragged=True, on_error="skip").batches(100))["x"]) == N - 1
        np.save(folder / "id-0.npy", 1)
        refused(NpyFolderSource(folder, ragged=True), r"id-0.npy must have an axis of items")

    def test_one_that_vanishes(self, folder: Path) -> None:
        source = NpyFolderSource(folder)
        (folder / "id-4.npy").unlink()
        refused(source, r"id-4.npy cannot be read: .*No such file")


class TestBadSidecars:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"labels": {**LABELS, "no": 1, "nor": 2}}, r"labels .*no file is there for 'no' and 1 more"),
            ({"labels": {"id-1": 1}}, r"labels must have one for each file of .*, got none for 'id-0' and 21 more"),
            ({"labels": {**LABELS, "id-1": "x"}}, r"labels must be all numbers, all text, .* got 0 and 'x'"),
            ({"labels": {**LABELS, "id-1": None}}, r"labels must be all numbers, all text, .* got 0 and None"),
            ({"labels": {**LABELS, "id-1": [1, 2]}}, r"labels must be .*arrays of numbers of one shape, got 0 and \[1"),
            ({"labels": 5}, r"labels must be a dict or the path of a .json or .csv file, got 5"),
            ({"labels": "labels.txt"}, r"labels must be a dict or the path of a .json or .csv file, got 'labels.txt'"),
            (
                {"partition": {"train": ["id-1", "no"]}},
                r"partition must have ids of files .*no file is there for 'no'$",
            ),
            (
                {"partition": {"train": ["id-1"], "test": ["id-1"]}},
                r"partition must have each id once, got 'id-1' in 'train' and in 'test'",
            ),
            ({"partition": {"train": "id-1"}}, r"partition must have a list of ids for 'train', got 'id-1'"),
            ({"partition": {"train": 3}}, r"partition must have a list of ids for 'train', got 3"),
        ],
    )
    def test_what_does_not_fit(self, folder: Path, options: Any, message: str) -> None:
        refused(NpyFolderSource(folder, **options), message, InvalidArgumentError)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("l.json", "{", r"l.json cannot be read: Expecting property name"),
            ("l.json", '{"a": 1, "a": 2}', r"l.json cannot be read: each name must occur once, got 'a' twice"),
            ("l.json", "[" * 100_000, r"l.json cannot be read: maximum recursion depth"),
            ("l.json", "[1]", r"l.json must be an object of id → label, got a list"),
            ("l.json", b"\xff\xfe\xff", r"l.json cannot be read: 'utf-8' codec"),
            ("l.csv", "", r"l.csv must have a column 'id', and its first line names none"),
            ("l.csv", "id,name\n", r"l.csv must have a column 'label', and its first line names id, name"),
            ("l.csv", "id,label\na,1\nb\n", r"l.csv, line 3: must have 2 values, got 1"),
            ("l.csv", "id,label\na,1\na,2\n", r"l.csv must have each id once, and has 'a' twice"),
        ],
    )
    def test_damaged(self, folder: Path, tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        refused(NpyFolderSource(folder, labels=tmp_path / name), message)

    def test_gone(self, folder: Path) -> None:
        refused(NpyFolderSource(folder, labels="none.csv"), "must exist, got 'none.csv'", StoreNotFoundError)


class TestMaking:
    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StoreNotFoundError, match=r"source must exist, got .*none"):
            NpyFolderSource(tmp_path / "none")
        (tmp_path / "file").touch()
        with pytest.raises(InvalidArgumentError, match=r"source must be a folder, got the file"):
            NpyFolderSource(tmp_path / "file")
        with pytest.raises(StoreFormatError, match=r"must hold files that end in .npy, and holds none"):
            NpyFolderSource(tmp_path)
        with pytest.raises(InvalidArgumentError, match=r"dict id → path with at least one, got an empty dict"):
            NpyFolderSource({})
        with pytest.raises(InvalidArgumentError, match=r"on_error must be 'raise' or 'skip', got 'ignore'"):
            NpyFolderSource(tmp_path, on_error="ignore")

    def test_several_folders(self, folder: Path) -> None:
        with pytest.raises(InvalidArgumentError, match=r"source must be one folder of .npy files, got 2"):
            resolve([folder, folder], None)

    def test_zarr_is_none_of_them(self, tmp_path: Path) -> None:
        oocload.convert(np.zeros((4, 2)), tmp_path / "a.zarr")
        assert not NpyFolderSource.recognises(str(tmp_path / "a.zarr"))
        assert not NpyFolderSource.recognises(str(tmp_path))
        np.save(tmp_path / "a.zarr" / "stray.npy", 1)
        assert not NpyFolderSource.recognises(str(tmp_path / "a.zarr"))

    def test_other_labels_are_another_source(self, folder: Path) -> None:
        seen = [
            NpyFolderSource(folder, **options).identity()
            for options in ({}, {"labels": LABELS}, {"labels": {**LABELS, "id-1": 7}}, {"partition": PARTITION})
        ]
        assert len({json.dumps(identity) for identity in seen}) == 4

    def test_resumes(self, folder: Path, tmp_path: Path) -> None:
        """A damaged file stops a conversion; once it is mended, the rest follows."""
        whole = (folder / "id-20.npy").read_bytes()
        (folder / "id-20.npy").write_bytes(whole[:-1])
        with pytest.raises(StoreFormatError, match="truncated"):
            oocload.convert(folder, tmp_path / "a.h5", chunk_rows=2)
        assert not (tmp_path / "a.h5").exists()
        (folder / "id-20.npy").write_bytes(whole)
        oocload.convert(folder, tmp_path / "a.h5", chunk_rows=2, overwrite=True)
        with h5py.File(tmp_path / "a.h5") as file:
            assert np.array_equal(file["x"], X)


def test_text_is_no_bool(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", np.zeros(2))
    with pytest.raises(InvalidArgumentError, match="ragged must be True or False, got 'no'"):
        NpyFolderSource(tmp_path, ragged="no")  # type: ignore[arg-type]
