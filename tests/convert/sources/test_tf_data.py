"""Datasets of TensorFlow, and TFRecord files by its own writer, beside what its own parser makes of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oocload
from oocload.convert.fields import parse_fields
from oocload.convert.sources.resolve import resolve
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning
from oocload.sources import TfDatasetSource, TFRecordSource
from tests.convert.sources.kinds import assert_rows, gather

tf = pytest.importorskip("tensorflow")

pytestmark = pytest.mark.framework
N = 101
X, Y = np.arange(N * 6, dtype="float32").reshape(N, 2, 3), np.arange(N)
TOKENS = [np.arange(i % 5) - i for i in Y]
NAMES = [f"näme {i}".encode() for i in Y]


def dicts() -> Any:
    def rows() -> Iterator[dict[str, Any]]:
        return ({"x": x, "in": {"t": t, "name": n}} for x, t, n in zip(X, TOKENS, NAMES, strict=True))

    inner = {"t": tf.TensorSpec((None,), tf.int64), "name": tf.TensorSpec((), tf.string)}
    return tf.data.Dataset.from_generator(rows, output_signature={"x": tf.TensorSpec((2, 3)), "in": inner})


@pytest.mark.parametrize("form", [lambda d: d, lambda d: d.ragged_batch(8)])
@pytest.mark.parametrize("start", [0, 50])
def test_dicts(form: Any, start: int) -> None:
    source = resolve(form(dicts()), None)
    assert source.specs == parse_fields({"x": ((2, 3), "float32"), "in/t": (None, "int64"), "in/name": (None, "uint8")})
    got = gather(source.batches(2000, start))
    assert_rows(
        got,
        {
            "x": [*X[start:]],
            "in/t": TOKENS[start:],
            "in/name": [np.frombuffer(n, np.uint8) for n in NAMES[start:]],
        },
    )
    assert source.meanings == {"in/name": Meaning(content="text")}


@pytest.mark.parametrize("batch", [None, 8])
def test_tuples(tmp_path: Path, batch: int | None) -> None:
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    assert TfDatasetSource(dataset).n_rows == N
    oocload.convert(dataset if batch is None else dataset.batch(batch), tmp_path / "a.h5", progress=False)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["x"], X)
        np.testing.assert_array_equal(file["y"], Y)


def test_what_is_in_a_tuple() -> None:
    dataset = tf.data.Dataset.from_tensor_slices(({"a": X, "b": Y}, Y))
    assert list(TfDatasetSource(dataset).specs or ()) == ["a", "b", "y"]


def test_rows_or_batches() -> None:
    lone = tf.data.Dataset.from_tensor_slices(X)
    with pytest.raises(InvalidArgumentError, match=r"surely rows or surely batches: 'x' has \(2, 3\); say which"):
        TfDatasetSource(lone)
    for batched, shape, n in ((False, (2, 3), N), (True, (3,), 2 * N)):
        source = TfDatasetSource(lone, batched=batched)
        assert source.specs == parse_fields({"x": (shape, "float32")})
        assert len(gather(source.batches(1000))["x"]) == n
    alike = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5, drop_remainder=True)
    with pytest.raises(InvalidArgumentError, match=r"'x' has \(5, 2, 3\), 'y' has \(5,\); say which"):
        TfDatasetSource(alike)
    unlike = tf.data.Dataset.from_tensor_slices((X, X[:, 0]))
    assert len(gather(TfDatasetSource(unlike).batches(1000))["y"]) == N


def test_ragged_tensors() -> None:
    ragged = tf.ragged.constant([t.tolist() for t in TOKENS], dtype=tf.int32)
    dataset = tf.data.Dataset.from_tensor_slices({"t": ragged, "y": Y})
    for form in (dataset, dataset.batch(9)):
        assert_rows(gather(resolve(form, None).batches(700)), {"t": TOKENS, "y": [*Y]})


def test_bytes_that_are_no_text() -> None:
    source = TfDatasetSource(tf.data.Dataset.from_tensor_slices((Y[:3], [b"a", b"\xff", b"c"])))
    gather(source.batches(100))
    assert source.meanings == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tf.data.Dataset.range(3).repeat(), r"must end, got one that repeats for ever; call .take\(n\)"),
        (lambda: tf.data.Dataset.range(3).map(lambda i: (i, i, i, i)), "got a tuple of 4; map it to a dict"),
        (lambda: tf.data.Dataset.range(3).map(lambda i: {"a": (i, i)}), "got a tuple of 2 as 'a'"),
        (lambda: tf.data.Dataset.from_tensor_slices((tf.sparse.eye(3), [1, 2, 3])), "got SparseTensorSpec; map it"),
        (
            lambda: tf.data.Dataset.from_tensor_slices((X, [["a", "b"]] * N)).batch(3),
            "one text a row, got rows of shape",
        ),
        (lambda: uneven((None, None)), r"differ in their first axis only, got shape \(None, None\)"),
        (lambda: uneven(None), "axes of known number, got <unknown>"),
    ],
)
def test_errors(make: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        TfDatasetSource(make())


def uneven(shape: Any) -> Any:
    signature = {"x": tf.TensorSpec(shape, tf.int64), "y": tf.TensorSpec((), tf.int64)}
    return tf.data.Dataset.from_generator(lambda: iter(()), output_signature=signature)


@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
def test_tfrecord_files_of_its_own(tmp_path: Path, compression: str) -> None:
    path = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(path, compression) as file:
        for i in range(N):
            feature = {
                "x": tf.train.Feature(bytes_list=tf.train.BytesList(value=[X[i].tobytes()])),
                "t": tf.train.Feature(int64_list=tf.train.Int64List(value=TOKENS[i])),
                "v": tf.train.Feature(float_list=tf.train.FloatList(value=X[i].ravel() / 3)),
                "name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[NAMES[i]])),
            }
            file.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    forms = {
        "x": tf.io.FixedLenFeature([], tf.string),
        "t": tf.io.RaggedFeature(tf.int64),
        "v": tf.io.FixedLenFeature([2, 3], tf.float32),
        "name": tf.io.FixedLenFeature([], tf.string),
    }
    (parsed,) = tf.data.TFRecordDataset(path, compression).batch(N).map(lambda b: tf.io.parse_example(b, forms))
    wanted = {
        "x": [*tf.reshape(tf.io.decode_raw(parsed["x"], tf.float32), (N, 2, 3)).numpy()],
        "t": [row.numpy() for row in parsed["t"]],
        "v": [*parsed["v"].numpy()],
        "name": [np.frombuffer(name, np.uint8) for name in parsed["name"].numpy()],
    }
    features = {"x": ((2, 3), "float32"), "t": (None, "int64"), "v": ((2, 3), "float32"), "name": "text"}
    assert_rows(gather(TFRecordSource(path, features=features).batches(5000)), wanted)
