"""TFRecord files: what is read, what is inferred, and every way in which they can be damaged."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.convert.fields import parse_fields
from oocload.convert.sources.known import known_source
from oocload.errors import ConversionError, InvalidArgumentError, StoreFormatError, StoreNotFoundError
from oocload.layout import Meaning
from oocload.sources import TFRecordSource
from tests.convert.sources.kinds import gather
from tests.convert.sources.tfrecords import COMPRESS, delimited, each_of, example, feature, frame, write

N = 150
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (N, 4, 3)).astype("uint8")
TOKENS = [RNG.integers(-(2**40), 2**62, n) // 2 ** RNG.integers(0, 60, n) for n in RNG.integers(0, 9, N)]
COLUMNS: dict[str, Any] = {
    "image": [row.tobytes() for row in IMAGES],
    "label": list(range(N)),
    "tokens": TOKENS,
    "vector": [np.arange(5, dtype="float32") + i for i in range(N)],
    "text": [f"naïve {'x' * (i % 7)}" for i in range(N)],
    "png": [b"\x89PNG\r\n\x1a\n" + bytes(i % 5) for i in range(N)],
}


def rows_of(source: TFRecordSource, piece_nbytes: int = 2**20) -> dict[str, list[np.ndarray]]:
    return gather(source.batches(piece_nbytes))


def assert_all(got: dict[str, list[np.ndarray]], part: slice = slice(None)) -> None:
    np.testing.assert_array_equal([row.tobytes() for row in got["image"]], COLUMNS["image"][part])
    assert [bytes(row).decode() for row in got["text"]] == COLUMNS["text"][part]
    assert [bytes(row) for row in got["png"]] == COLUMNS["png"][part]
    for name in ("label", "tokens", "vector"):
        for row, wanted in zip(got[name], COLUMNS[name][part], strict=True):
            np.testing.assert_array_equal(row, wanted)


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("packed", [True, False])
def test_features_are_inferred(tmp_path: Path, compression: str, packed: bool) -> None:
    path = write(tmp_path / "a.tfrecord", each_of(COLUMNS), compression, packed)
    source = TFRecordSource(path)
    assert source.specs == parse_fields(
        {
            "image": (None, "uint8"),
            "label": "int64",
            "png": (None, "uint8"),
            "text": (None, "uint8"),
            "tokens": (None, "int64"),
            "vector": ((5,), "float32"),
        }
    )
    assert source.meanings == {"png": Meaning(content="image"), "text": Meaning(content="text")}
    for piece_nbytes in (1, 9000, 2**20):
        assert_all(rows_of(source, piece_nbytes))


def test_features_are_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", each_of(COLUMNS))
    features = {"image": ((4, 3), "uint8"), "label": "int16", "vector": (None, "float64"), "text": "text"}
    source = TFRecordSource(path, features=features)
    assert source.specs == parse_fields({**features, "text": (None, "uint8")})
    got = rows_of(source)
    np.testing.assert_array_equal(got["image"], IMAGES)
    assert got["label"][3].dtype == np.int16
    np.testing.assert_array_equal(got["vector"], COLUMNS["vector"])


def test_raw_bytes_of_any_length(tmp_path: Path) -> None:
    rows = [np.arange(n * 2, dtype="<i4").reshape(n, 2) for n in (3, 0, 1)]
    path = write(tmp_path / "a.tfrecord", [{"x": row.tobytes()} for row in rows])
    got = rows_of(TFRecordSource(path, features={"x": ((None, 2), "int32")}))["x"]
    for row, wanted in zip(got, rows, strict=True):
        np.testing.assert_array_equal(row, wanted)


def test_files_follow_each_other(tmp_path: Path) -> None:
    records = each_of(COLUMNS)
    for i, compression in enumerate(COMPRESS):
        write(tmp_path / f"part-{i}.tfrecord", records[i * 50 : i * 50 + 50], compression)
    report = oocload.convert(f"{tmp_path}/part-*.tfrecord", tmp_path / "a.h5", progress=False)
    assert report.n_rows == N
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["label"], range(N))
        np.testing.assert_array_equal(file["tokens/values"], np.concatenate(TOKENS))


def test_fields_are_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", each_of(COLUMNS))
    report = oocload.convert(path, tmp_path / "a.h5", fields=["vector", "label"], progress=False)
    assert report.fields == ("vector", "label")


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrec", "a.TFRecords.gz", "d-train.tfrecord-00000-of-00002"])
def test_known_by_name(tmp_path: Path, name: str) -> None:
    assert isinstance(known_source(write(tmp_path / name, [{"y": 1}])), TFRecordSource)


def test_numbered_files_are_known_by_their_beginning(tmp_path: Path) -> None:
    assert isinstance(known_source(write(tmp_path / "train-00000-of-00001", [{"y": 1}])), TFRecordSource)
    (tmp_path / "other-00000-of-00001").write_bytes(b"something else")
    assert known_source(tmp_path / "other-00000-of-00001") is None


numbers = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)


@given(records=st.lists(st.tuples(numbers, st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_any_numbers_in_any_form(tmp_path: Path, records: list[tuple[list[int], bool, bool]]) -> None:
    """Records of one length in several forms, features in either order, packed or not."""
    data = []
    for values, packed, turned in records:
        both: list[tuple[str, Any]] = [("a", values), ("b", len(values))]
        features = dict(reversed(both) if turned else both)
        if not values:
            del features["a"]
        data.append(frame(example(features, packed)))
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"".join(data))
    got = rows_of(TFRecordSource(path, features={"a": (None, "int64"), "b": "int64"}))
    assert [row.tolist() for row in got["a"]] == [values for values, _, _ in records]
    assert [int(b) for b in got["b"]] == [len(values) for values, _, _ in records]


def test_numbers_with_tags_of_their_own_that_look_like_others(tmp_path: Path) -> None:
    records = [{"a": [20000, 5]}] * 6 + [{"a": [1, 1, 5]}] * 6  # of one length, tags in the same places
    path = write(tmp_path / "a.tfrecord", records, packed=False)
    found = gather(TFRecordSource(path, features={"a": (None, "int64")}).batches(10**6))["a"]
    assert [row.tolist() for row in found] == [record["a"] for record in records]


def test_unknown_fields_and_later_entries(tmp_path: Path) -> None:
    """Of protocol buffers: what is not known is passed over, and of two entries with one key the later one counts."""

    def entry(key: bytes, value: bytes) -> bytes:
        return delimited(1, delimited(1, key) + b"\x20\x07" + delimited(2, value))

    twice = entry(b"y", feature(1)) + entry(b"y", feature([3.5]) + feature(5))
    data = b"\x55abcd" + b"\x59abcdefgh" + delimited(1, twice) + delimited(1, entry(b"z", feature(2)))
    path = tmp_path / "a.tfrecord"
    path.write_bytes(frame(data))
    assert {name: [int(v) for v in rows] for name, rows in rows_of(TFRecordSource(path)).items()} == {
        "y": [5],
        "z": [2],
    }


GOOD = example({"y": 1, "x": b"abcd"})
FORMS = {"y": "int64", "x": ((4,), "uint8")}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"x": b"abcd"}, "feature 'y' is missing or empty"),
        ({"y": [1, 2], "x": b"abcd"}, r"feature 'y' must have 1 values, for \(\) int64, got 2"),
        ({"y": 1.5, "x": b"abcd"}, "feature 'y' must hold whole numbers, got floats"),
        ({"y": b"1", "x": b"abcd"}, "feature 'y' must hold whole numbers, got bytes"),
        ({"y": 1, "x": b"abc"}, r"feature 'x' must have 4 bytes, for \(4,\) uint8, got 3"),
        ({"y": 1, "x": [b"abcd", b""]}, "feature 'x' must be one value of bytes, got 2"),
    ],
)
@pytest.mark.parametrize("forms", [FORMS, None])
def test_a_record_unlike_the_others(tmp_path: Path, record: dict[str, Any], message: str, forms: Any) -> None:
    if forms is None and "y" in record and message.startswith("feature 'x' must have"):
        return  # any number of bytes will do
    path = tmp_path / "a.tfrecord"
    first = [frame(GOOD)] * (1200 if forms is None else 5)
    path.write_bytes(b"".join([*first, frame(example(record)), *[frame(GOOD)] * 3]))
    offset = sum(map(len, first))
    with pytest.raises(StoreFormatError, match=f"a.tfrecord, record {len(first)} at byte {offset}: {message}"):
        rows_of(TFRecordSource(path, features=forms))
    source = TFRecordSource(path, features=forms, on_error="skip")
    assert len(rows_of(source)["y"]) == len(first) + 3
    (skipped,) = source.skipped
    assert skipped.where == f"{path}, record {len(first)} at byte {offset}"


def test_numbers_that_do_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [{"y": 5}, {"y": 300}, {"y": -1}])
    with pytest.raises(StoreFormatError, match="record 1 at byte .* feature 'y' must fit into uint8, got 300"):
        rows_of(TFRecordSource(path, features={"y": "uint8"}))
    write(path, [{"y": 0.5}])
    with pytest.raises(StoreFormatError, match="record 0 at byte 0: feature 'y' must fit into int64, got 0.5"):
        rows_of(TFRecordSource(path, features={"y": "int64"}))


def test_text_that_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [{"t": "ä"}, {"t": "ä".encode()[:1]}, {"t": "ä".encode()[1:]}])
    with pytest.raises(StoreFormatError, match="record 1 .* feature 't' must be UTF-8: unexpected end of data"):
        rows_of(TFRecordSource(path, features={"t": "text"}))
    assert TFRecordSource(path).meanings == {}


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("compression", COMPRESS)
def test_damaged_data(tmp_path: Path, compression: str) -> None:
    """The checksum of the data is another: that record is named, or skipped."""
    size = len(frame(GOOD))
    path = tmp_path / "a.tfrecord"
    path.write_bytes(COMPRESS[compression](damaged(frame(GOOD) * 9, size * 4 + 20)))
    wanted = f"a.tfrecord, record 4 at byte {size * 4}: its data is damaged: the CRC-32C is another"
    with pytest.raises(StoreFormatError, match=wanted):
        oocload.convert(path, tmp_path / "a.h5", progress=False)
    assert not (tmp_path / "a.h5").exists()
    report = oocload.convert(path, tmp_path / "a.h5", on_error="skip", progress=False)
    assert report.n_rows == 8
    assert [s.where for s in report.skipped] == [f"{path}, record 4 at byte {size * 4}"]


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("what", ["length", "end", "middle"])
def test_what_follows_cannot_be_found(tmp_path: Path, compression: str, what: str) -> None:
    size = len(frame(GOOD))
    data = {
        "length": damaged(frame(GOOD) * 9, size * 4 + 1),
        "end": frame(GOOD) * 4 + frame(GOOD)[:-1],
        "middle": frame(GOOD) * 4 + frame(GOOD)[:7],
    }[what]
    path, other = tmp_path / "a.tfrecord", write(tmp_path / "b.tfrecord", [{"y": 7, "x": b"wxyz"}])
    path.write_bytes(COMPRESS[compression](data))
    reason = "its length is damaged: the CRC-32C is another" if what == "length" else "the file is truncated"
    for piece_nbytes in (1, 2**20):
        with pytest.raises(StoreFormatError, match=f"a.tfrecord, record 4 at byte {size * 4}: {reason}"):
            rows_of(TFRecordSource([path, other]), piece_nbytes)
        source = TFRecordSource([path, other], on_error="skip")
        assert [int(y) for y in rows_of(source, piece_nbytes)["y"]] == [1, 1, 1, 1, 7]
        (skipped,) = source.skipped
        assert skipped.reason.endswith("so is all that follows")


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_damaged_compression(tmp_path: Path, compression: str) -> None:
    rows = RNG.integers(0, 256, (200, 40)).astype("uint8")
    path = write(tmp_path / "a.tfrecord", [{"x": row.tobytes()} for row in rows], compression)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreFormatError, match="a.tfrecord, record .* truncated"):
        rows_of(TFRecordSource(path))
    path.write_bytes(whole[:4000] + bytes(1000) + whole[5000:])
    with pytest.raises(StoreFormatError, match="a.tfrecord, record .* damaged"):
        rows_of(TFRecordSource(path))
    path.write_bytes(whole + whole)  # as `cat` makes them
    assert len(rows_of(TFRecordSource(path))["x"]) == 400


def test_what_is_no_example(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    for data, message in {
        b"\x0a\x05abc": "bytes are missing at its end",
        b"\x0b": "wire type 3",
        delimited(1, delimited(1, delimited(1, b"y") + delimited(2, delimited(3, delimited(1, b"\x80"))))): "no end",
        delimited(1, delimited(1, delimited(1, b"y") + delimited(2, delimited(2, delimited(1, b"abc"))))): "3 bytes",
    }.items():
        path.write_bytes(b"".join([*[frame(GOOD)] * 20, *[frame(data)] * 6]))
        with pytest.raises(StoreFormatError, match=f"record 20 at .*: it is no tf.train.Example: .*{message}"):
            rows_of(TFRecordSource(path))
        source = TFRecordSource(path, on_error="skip")
        assert len(rows_of(source)["y"]) == 20
        assert len(source.skipped) == 6


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"neither plain nor compressed")
    with pytest.raises(StoreFormatError, match="the file must be a TFRecord file, plain, GZIP or ZLIB"):
        oocload.convert(path, tmp_path / "a.h5", progress=False)
    path.write_bytes(b"")
    with pytest.raises(StoreFormatError, match="must hold at least one record that can be read, got none"):
        oocload.convert(path, tmp_path / "a.h5", progress=False)
    with pytest.raises(StoreNotFoundError, match="nothing lies there"):
        TFRecordSource(tmp_path / "b.tfrecord")


@pytest.mark.parametrize("features", [{}, {"x": "float"}, {"x": "U5"}, {"x": (None, None, 3)}, ["x"], {"": "int64"}])
def test_features_that_are_none(tmp_path: Path, features: Any) -> None:
    path = write(tmp_path / "a.tfrecord", [{"y": 1}])
    if features == {"x": "float"}:
        TFRecordSource(path, features=features)
        return
    with pytest.raises(InvalidArgumentError):
        TFRecordSource(path, features=features)


def test_going_on(tmp_path: Path) -> None:
    """A conversion that stopped at a damaged record goes on when the file is whole again, unless it was changed."""
    rows = RNG.integers(0, 256, (3000, 400)).astype("uint8")
    path = write(tmp_path / "a.tfrecord", [{"x": row.tobytes(), "y": i} for i, row in enumerate(rows)])
    source = TFRecordSource(path, features={"x": ((400,), "uint8"), "y": "int64"})
    kept = []

    def stop(progress: oocload.Progress) -> None:
        kept.append(progress.n_rows)
        if len(kept) > 2:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"memory": "3 MiB", "chunk_bytes": "32 KiB"}
    with pytest.raises(KeyboardInterrupt):
        oocload.convert(source, tmp_path / "a.h5", progress=stop, **options)
    report = oocload.convert(source, tmp_path / "a.h5", resume=True, progress=False, **options)
    assert report.n_rows_before > 0
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["x"], rows)


def test_no_rows_left(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [{"y": 1}] + [{"z": 2}] * 3)
    source = TFRecordSource(path, features={"w": "int64"}, on_error="skip")
    with pytest.raises((ConversionError, StoreFormatError)):
        oocload.convert(source, tmp_path / "a.h5", progress=False)
    assert not (tmp_path / "a.h5").exists()
