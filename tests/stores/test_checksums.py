"""The manifest's blobs, and that nobody who looks at a store's arrays is bothered by them."""

import warnings
from dataclasses import replace
from pathlib import Path

import google_crc32c
import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.errors import StoreFormatError
from oocload.stores.checksums import (
    LIST_NAME,
    NEVER_WRITTEN,
    SEGMENT_CHUNKS,
    ArrayChecksums,
    ChecksumBuilder,
    Segment,
    codec_texts,
    decode_segment,
    dtype_text,
    encode_segment,
    read_checksums,
    segment_name,
    stored_crc32c,
    write_checksums_hdf5,
    write_checksums_zarr,
    write_list,
)

LIST = '{"arrays":["g/x"],"ragged":{}}'
FACTS = ArrayChecksums((30, 4), "<u2", (10, 4), ("shuffle:2", "deflate-4"), "a digest")


def filled(n_chunks: int, facts: ArrayChecksums = FACTS) -> ArrayChecksums:
    builder = ChecksumBuilder(facts)
    for chunk in range(n_chunks):
        builder.add(chunk, 100 + chunk, 7 * chunk)
    return builder.build((10 * n_chunks, 4))


def test_a_segment_comes_back() -> None:
    segment = Segment(4096, np.array([5, NEVER_WRITTEN], np.uint64), np.array([2**32 - 1, 0], np.uint32))
    blob = encode_segment(FACTS, segment)
    assert encode_segment(FACTS, segment) == blob
    back = decode_segment(blob)
    assert replace(back, segments=[]) == FACTS
    assert back.segments[0].first == 4096
    assert back.segments[0].nbytes.tolist() == [5, NEVER_WRITTEN]
    assert back.segments[0].crc32c.tolist() == [2**32 - 1, 0]


def test_the_bytes_of_a_segment_are_pinned() -> None:
    """The format is a promise to those who read it without us."""
    segment = Segment(0, np.array([5, 6], np.uint64), np.array([1, 2], np.uint32))
    line = b'{"chunks":[10,4],"codecs":["shuffle:2","deflate-4"],"conversion":"a digest","count":2,"dtype":"<u2",'
    line += b'"first":0,"shape":[30,4],"version":1}'
    body = b"oocload checksums\n" + line + b"\n" + bytes([5] + [0] * 7 + [6] + [0] * 7 + [1, 0, 0, 0, 2, 0, 0, 0])
    assert encode_segment(FACTS, segment) == body + google_crc32c.value(body).to_bytes(4, "little")


@given(st.data())
def test_any_changed_or_missing_byte_is_noticed(data: st.DataObject) -> None:
    blob = bytearray(encode_segment(FACTS, filled(3).segments[0]))
    at = data.draw(st.integers(0, len(blob) - 1))
    damaged = bytes(blob[:at]) + bytes([blob[at] ^ data.draw(st.integers(1, 255))]) + bytes(blob[at + 1 :])
    for bad in (damaged, bytes(blob[:at])):
        with pytest.raises(StoreFormatError, match="x must be as it was written, and is damaged"):
            decode_segment(bad, "x")


def test_a_later_version_is_named() -> None:
    blob = encode_segment(FACTS, filled(3).segments[0])[:-4].replace(b'"version":1', b'"version":2')
    with pytest.raises(StoreFormatError, match="x must be of version 1, got 2; a later oocload wrote it"):
        decode_segment(blob + google_crc32c.value(blob).to_bytes(4, "little"), "x")


def test_checksums_of_buffers_and_masks() -> None:
    data = np.arange(50, dtype=np.uint8)
    assert stored_crc32c(data[3:40]) == stored_crc32c(data[3:40].tobytes()) == google_crc32c.value(data[3:40].tobytes())
    assert stored_crc32c(b"abc", skipped=2) == google_crc32c.value(b"abc\2\0\0\0")


@given(st.permutations(range(20)), st.sets(st.integers(0, 19)))
def test_the_builder_takes_any_order(order: list[int], absent: set[int]) -> None:
    builder = ChecksumBuilder(FACTS)
    for chunk in order:
        if chunk not in absent:
            builder.add(chunk, chunk + 1, chunk + 2)
    built = builder.build((195, 4))
    assert built.shape == (195, 4)
    (segment,) = built.segments
    assert segment.nbytes.tolist() == [NEVER_WRITTEN if c in absent else c + 1 for c in range(20)]
    assert segment.crc32c.tolist() == [0 if c in absent else c + 2 for c in range(20)]


def test_the_builder_goes_on_from_what_is_known() -> None:
    known = filled(SEGMENT_CHUNKS + 10)
    builder = ChecksumBuilder(known)
    assert builder.from_segment == 1
    for chunk in (SEGMENT_CHUNKS + 9, SEGMENT_CHUNKS + 10, 2 * SEGMENT_CHUNKS + 3):
        builder.add(chunk, 1, 2)
    assert builder.from_segment == 1
    built = builder.build((10 * (2 * SEGMENT_CHUNKS + 4), 4))
    assert [len(s.nbytes) for s in built.segments] == [SEGMENT_CHUNKS, SEGMENT_CHUNKS, 4]
    np.testing.assert_array_equal(built.segments[0].nbytes, known.segments[0].nbytes)
    assert built.segments[1].nbytes[8:12].tolist() == [100 + SEGMENT_CHUNKS + 8, 1, 1, NEVER_WRITTEN]
    assert built.segments[2].nbytes.tolist() == [NEVER_WRITTEN] * 3 + [1]
    builder.add(5, 1, 1)
    assert builder.from_segment == 0
    assert len(known.segments[1].nbytes) == 10  # what was given stays as it was


def test_an_array_without_rows_has_a_segment_of_no_chunks() -> None:
    built = ChecksumBuilder(FACTS).build((0, 4))
    assert [(s.first, len(s.nbytes)) for s in built.segments] == [(0, 0)]
    assert decode_segment(encode_segment(built, built.segments[0])).n_chunks == 0
    assert ChecksumBuilder(built).from_segment == 0


def test_texts_of_dtypes() -> None:
    assert dtype_text(np.dtype(">f4")) == ">f4"
    assert dtype_text(np.dtype([("a", "<i4"), ("b", "u1", 3)])) == "[('a', '<i4'), ('b', '|u1', (3,))]"
    assert dtype_text(np.dtype("V6")) == "|V6"
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert dtype_text(np.dtype(ml_dtypes.bfloat16)) == "bfloat16"


def test_hdf5_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        x = file.create_dataset("g/x", data=np.zeros((30, 4), "<u2"), chunks=(10, 4), compression="gzip", shuffle=True)
        file["y"] = np.arange(3)
        write_checksums_hdf5(x, filled(SEGMENT_CHUNKS + 3))
        write_list(file.attrs, ["g/x"])
    with oocload.open(path) as store:
        assert codec_texts(store.fields["g/x"]) == FACTS.codecs
        back = read_checksums(store, "g/x")
        assert back is not None
        assert (back.shape, back.conversion) == ((10 * (SEGMENT_CHUNKS + 3), 4), "a digest")
        assert [len(s.nbytes) for s in back.segments] == [SEGMENT_CHUNKS, 3]
        assert read_checksums(store, "y") is None
        assert sorted(store.fields) == ["g/x", "y"]
        assert store.root_attribute(LIST_NAME) == (LIST, "")
    with oocload.open(f"{path}::g") as store:
        assert store.root_attribute(LIST_NAME) == (LIST, "g")
    with h5py.File(path) as file:
        assert sorted(file) == ["g", "y"]
        assert list(file["g/x"].attrs) == ["oocload_checksums_000", "oocload_checksums_001"]
        before = file["g/x"].attrs[segment_name(0)]
    with h5py.File(path, "a") as file:
        write_checksums_hdf5(file["g/x"], filled(SEGMENT_CHUNKS + 4), from_segment=1)
        np.testing.assert_array_equal(file["g/x"].attrs[segment_name(0)], before)
        write_checksums_hdf5(file["g/x"], filled(3))
        assert list(file["g/x"].attrs) == ["oocload_checksums_000"]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("sharded", [False, True])
def test_zarr_keeps_them_and_gives_no_warning(tmp_path: Path, version: int, sharded: bool) -> None:
    if sharded and version == 2:
        pytest.skip("Zarr v2 has no shards")
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=version)
    x = group.create_array("g/x", shape=(30, 4), chunks=(5, 4), shards=(10, 4) if sharded else None, dtype="<u2")
    x[:] = 7
    y = group.create_array("y", shape=(3,), chunks=(2,), dtype="u1")
    y[:] = 7
    with oocload.open(path) as store:
        facts = ArrayChecksums.describing(store.fields["g/x"], "made of sand")
    n_before = x.nchunks_initialized
    write_checksums_zarr(path / "g/x", filled(SEGMENT_CHUNKS + 3, replace(facts, chunks=(10, 4))))
    write_checksums_zarr(path / "g/x", filled(6, replace(facts, chunks=(10, 4))))
    write_list(group.attrs, ["g/x"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reopened = zarr.open_group(path, mode="r")
        assert sorted(name for name, _ in reopened.members(max_depth=None)) == ["g", "g/x", "y"]
        assert sorted(reopened["g"].keys()) == ["x"]
        assert reopened["g/x"].nchunks_initialized == n_before
        assert (reopened["g/x"][:] == 7).all()
    with oocload.open(path) as store:
        assert sorted(store.fields) == ["g/x", "y"]
        back = read_checksums(store, "g/x")
        assert back is not None
        assert (back.dtype, back.conversion, len(back.segments)) == ("<u2", "made of sand", 1)
        assert read_checksums(store, "y") is None
        assert store.root_attribute(LIST_NAME) == (LIST, "")
    for inner, below in ((f"{path}::g", "g"), (path / "g", "g"), (path / "g/x", "g/x")):
        with oocload.open(inner) as store:
            assert store.root_attribute(LIST_NAME) == (LIST, below)
    assert [f.name for f in (path / "g/x").iterdir() if "checksums" in f.name] == ["oocload_checksums_000"]


def put(dataset: h5py.Dataset, name: str, blob: np.ndarray) -> None:
    scalar = np.empty((), object)
    scalar[()] = blob
    dataset.attrs.create(name, scalar, dtype=h5py.vlen_dtype(np.uint8))


def test_lost_segments_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        x = file.create_dataset("x", shape=(30, 4), chunks=(10, 4), dtype="<u2")
        write_checksums_hdf5(x, filled(SEGMENT_CHUNKS + 3))
    with h5py.File(path, "a") as file:
        first = file["x"].attrs.pop(segment_name(0))
    with oocload.open(path) as store, pytest.raises(StoreFormatError, match="and lacks oocload_checksums_000"):
        read_checksums(store, "x")
    with h5py.File(path, "a") as file:
        last = file["x"].attrs.pop(segment_name(1))
        put(file["x"], segment_name(0), first)
    message = "must have checksums for 4099 chunks, and has them for 4096; a segment is missing"
    with oocload.open(path) as store, pytest.raises(StoreFormatError, match=message):
        read_checksums(store, "x")
    other = encode_segment(replace(FACTS, shape=(10 * 4099, 4), dtype="<i2"), filled(SEGMENT_CHUNKS + 3).segments[1])
    with h5py.File(path, "a") as file:
        put(file["x"], segment_name(1), np.frombuffer(other, np.uint8))
    assert last.nbytes == len(other)
    with oocload.open(path) as store, pytest.raises(StoreFormatError, match="its segments speak of several"):
        read_checksums(store, "x")
