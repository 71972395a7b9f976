"""Every layout, read by the direct path and by the library, equals what h5py and zarr read."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

import oocload
from oocload.chunks.decoded import ChunkReader
from oocload.chunks.read import LibraryReader, open_reader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Target
from oocload.errors import ChunkError, StoreFormatError
from oocload.stores.hdf5 import ChunkTable
from tests.conftest import check_rows, numbered

DTYPES = ["u1", "i1", "<u2", ">i2", "<i4", ">u4", "<i8", "<f2", "<f4", ">f4", "<f8", ">f8", "?"]
HDF5_FILTERS: list[dict[str, Any]] = [
    {},
    {"compression": "gzip"},
    {"compression": "gzip", "compression_opts": 0},
    {"compression": "gzip", "shuffle": True},
    {"compression": "lzf"},
    {"compression": "lzf", "shuffle": True},
    {"shuffle": True},
    {"fletcher32": True},
    {"compression": "szip"},
    {"scaleoffset": 0},
]
ZARR_V3: list[dict[str, Any]] = [
    {"compressors": None},
    {},
    {"compressors": ZstdCodec(level=3, checksum=True)},
    {"compressors": GzipCodec()},
    {"compressors": BloscCodec(cname="lz4", shuffle="shuffle")},
    {"compressors": BloscCodec(cname="zstd", shuffle="bitshuffle")},
    {"compressors": [ZstdCodec(), Crc32cCodec()]},
    {"compressors": [Crc32cCodec()]},
    {"serializer": BytesCodec(endian="big")},
    {"filters": [TransposeCodec(order=(1, 0))]},
]
ZARR_V2: list[dict[str, Any]] = [
    {"compressors": None},
    {},
    {"compressors": numcodecs.Zlib(1)},
    {"compressors": numcodecs.GZip(1)},
    {"compressors": numcodecs.Zstd(1)},
    {"compressors": numcodecs.Blosc("zstd", shuffle=numcodecs.Blosc.SHUFFLE)},
    {"compressors": numcodecs.LZ4()},
    {"compressors": numcodecs.BZ2()},
    {"order": "F"},
    {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    {"filters": [numcodecs.Shuffle(4)]},
]


@st.composite
def arrays(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, int]]:
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 9)))
    chunks = (draw(st.integers(1, shape[0])), draw(st.integers(1, shape[1])))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    values = rng.integers(0, 2 if dtype.kind == "b" else 100, shape)
    return values.astype(dtype), chunks


def read(path: Path, name: str, reader: Callable[..., Any], scattered: bool) -> np.ndarray:
    """Read a whole field in uneven ranges, to consecutive places or to permuted ones."""
    with oocload.open(path) as store:
        field = store.field(name)
        rows = np.empty(field.shape, field.dtype)
        order = np.random.default_rng(1).permutation(field.n_rows)
        open_field = reader(store, field)
        scratch = Scratch()
        for start in range(0, field.n_rows, 7):
            stop = min(field.n_rows, start + 7)
            target = Target(rows, index=order[start:stop]) if scattered else Target(rows, first=start)
            middle = (start + stop) // 2
            open_field.read([(start, middle), (middle, stop)], target, scratch)
        open_field.close()
        return rows[order] if scattered else rows


def check_all_paths(path: Path, expected: np.ndarray) -> None:
    field = oocload.open(path).fields["x"]
    readers = [open_reader, LibraryReader] + ([ChunkReader] if field.chunks and field.read_path == "direct" else [])
    for reader in readers:
        for scattered in (False, True):
            got = read(path, "x", reader, scattered)
            assert got.dtype == expected.dtype.newbyteorder("=")
            np.testing.assert_array_equal(got, expected)


@given(drawn=arrays(), filters=st.sampled_from(HDF5_FILTERS), chunked=st.booleans(), holes=st.booleans())
def test_hdf5(
    tmp_path: Path,
    drawn: tuple[np.ndarray, tuple[int, int]],
    filters: dict[str, Any],
    chunked: bool,
    holes: bool,
) -> None:
    values, chunks = drawn
    if values.dtype.kind not in "iu":
        filters = {k: v for k, v in filters.items() if k != "scaleoffset"}
    if filters.get("compression") == "szip" and (values.dtype.kind == "b" or np.prod(chunks) < 8):
        filters = {}
    fill = None if "scaleoffset" in filters else values.dtype.type(1)
    options = {"chunks": chunks, "maxshape": (None, values.shape[1]), **filters} if chunked or filters else {}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("x", values.shape, values.dtype, fillvalue=fill, **options)
        start = len(values) // 2 if holes else 0
        dataset[start:] = values[start:]
        expected = dataset[...]
    check_all_paths(tmp_path / "x.h5", expected)


@given(
    drawn=arrays(),
    version=st.sampled_from([2, 3]),
    options=st.data(),
    shards=st.integers(1, 3),
    holes=st.booleans(),
)
def test_zarr(
    tmp_path: Path,
    drawn: tuple[np.ndarray, tuple[int, int]],
    version: int,
    options: st.DataObject,
    shards: int,
    holes: bool,
) -> None:
    values, chunks = drawn
    chosen = dict(options.draw(st.sampled_from(ZARR_V2 if version == 2 else ZARR_V3)))
    if version == 3:
        values = values.astype(values.dtype.newbyteorder("="))
        if shards > 1:
            chosen["shards"] = tuple(c * shards for c in chunks)
    path = tmp_path / "x.zarr"
    shutil.rmtree(path, ignore_errors=True)
    group = zarr.open_group(path, mode="w", zarr_format=version)
    array = group.create_array(
        "x", shape=values.shape, dtype=values.dtype, chunks=chunks, fill_value=values.dtype.type(1), **chosen
    )
    start = len(values) // 2 if holes else 0
    array[start:] = values[start:]
    check_all_paths(path, np.asarray(array[...]))


def test_filter_masks_are_honoured(tmp_path: Path) -> None:
    """A chunk that a filter was left out for says so in its mask."""
    rows = np.arange(40, dtype="<i4").reshape(10, 4)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        d = file.create_dataset("x", rows.shape, rows.dtype, chunks=(5, 4), compression="gzip", shuffle=True)
        d[5:] = rows[5:]
        d.id.write_direct_chunk((0, 0), (rows[:5] + 100).tobytes(), filter_mask=0b11)
    with h5py.File(tmp_path / "x.h5") as file:
        expected = file["x"][...]
    assert expected[0, 0] == 100
    check_all_paths(tmp_path / "x.h5", expected)


def test_user_block_and_latest_format(tmp_path: Path) -> None:
    rows = np.arange(4000).reshape(1000, 4)
    for options in ({"userblock_size": 1024}, {"libver": "latest"}):
        with h5py.File(tmp_path / "x.h5", "w", **options) as file:
            file.create_dataset("x", data=rows, chunks=(64, 4), maxshape=(None, 4), compression="gzip")
            file.create_dataset("plain", data=rows)
        check_all_paths(tmp_path / "x.h5", rows)
        assert np.array_equal(read(tmp_path / "x.h5", "plain", open_reader, False), rows)


@pytest.mark.parametrize("filters", HDF5_FILTERS[:6])
def test_chunks_wider_than_the_rows(tmp_path: Path, filters: dict[str, Any]) -> None:
    """A dataset that was narrowed keeps its chunks; Zarr allows them from the start."""
    rows = np.arange(80, dtype="<i4").reshape(10, 8)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        d = file.create_dataset("x", data=rows, chunks=(4, 8), maxshape=(None, None), **filters)
        d.resize((10, 5))
        expected = d[...]
    check_all_paths(tmp_path / "x.h5", expected)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("compressors", [None, "auto"])
def test_zarr_chunks_wider_and_taller_than_the_array(tmp_path: Path, version: int, compressors: Any) -> None:
    rows = np.arange(30, dtype="<i4").reshape(10, 3)
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=version)
    group.create_array("x", data=rows, chunks=(16, 8), compressors=compressors)
    check_all_paths(tmp_path / "x.zarr", rows)


def test_rows_without_items(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", (10, 0), "f4", chunks=(4, 8), maxshape=(None, None))
    with oocload.Loader(tmp_path / "x.h5", 4, x="x", shuffle=False) as loader:
        assert [x.shape for x in loader] == [(4, 0), (4, 0), (2, 0)]


def test_rows_of_every_size_find_their_places(tmp_path: Path) -> None:
    """Small and large rows, few and many, take different ways to their places."""
    for width in (1, 2, 3, 8, 16, 100, 1021, 5000):
        for n_rows in (3, 600):
            rows = np.random.default_rng(0).integers(0, 256, (n_rows, width), dtype=np.uint8)
            for options in ({}, {"chunks": (n_rows, width), "compression": "lzf"}):
                with h5py.File(tmp_path / "x.h5", "w") as file:
                    file.create_dataset("x", data=rows, **options)
                with oocload.Loader(tmp_path / "x.h5", n_rows, x="x", seed=1) as loader:
                    assert np.array_equal(next(iter(loader)), rows[loader.batch_rows(0)])


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_damaged_chunk_names_path_field_and_chunk(make_store: Callable[..., Path]) -> None:
    path = make_store(compression="gzip")
    with h5py.File(path) as file:
        info = file["x"].id.get_chunk_info(3)
    flip(path, info.byte_offset)
    with oocload.Loader(path, 100, shuffle=False) as loader, pytest.raises(ChunkError) as error:
        list(map(len, loader))
    assert f"{path}, field 'x', chunk (3, 0, 0): deflate cannot decode it" in str(error.value)


def test_chunk_past_the_end_of_the_file_is_noticed_before_reading(tmp_path: Path) -> None:
    (tmp_path / "short.h5").write_bytes(bytes(100))
    table = ChunkTable(str(tmp_path / "short.h5"), np.array([0, 60]), np.array([50, 50]))
    with pytest.raises(StoreFormatError, match=r"here: chunk 1 ends at byte 110, but .* has 100 bytes; .* truncated"):
        table.check_against_file("here")


def test_file_cut_after_it_was_opened(make_store: Callable[..., Path]) -> None:
    path = make_store(n_rows=100_000, chunk_rows=None)
    with oocload.Loader(path, 100, x="y", shuffle=False) as loader:
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size - 100)
        with pytest.raises(ChunkError, match=r"field 'y', chunk \(0,\): cannot read .*: the file ends at byte"):
            list(map(len, loader))


def test_truncated_zarr_chunk(tmp_path: Path) -> None:
    rows = numbered(100)
    for compressors in (None, ZstdCodec()):
        path = tmp_path / "t.zarr"
        shutil.rmtree(path, ignore_errors=True)
        group = zarr.open_group(path, mode="w")
        group.create_array("x", data=rows["x"], chunks=(10, 7, 5), compressors=compressors)
        chunk = path / "x" / "c" / "4" / "0" / "0"
        chunk.write_bytes(chunk.read_bytes()[:20])
        with oocload.Loader(path, 10, x="x") as loader:
            with pytest.raises(ChunkError, match=r"field 'x', chunk \(4, 0, 0\): "):
                list(map(len, loader))


def test_damaged_shard_index(tmp_path: Path) -> None:
    rows = numbered(100)
    path = tmp_path / "s.zarr"
    group = zarr.open_group(path, mode="w")
    group.create_array("x", data=rows["x"], chunks=(10, 7, 5), shards=(50, 7, 5))
    shard = path / "x" / "c" / "1" / "0" / "0"
    flip(shard, shard.stat().st_size - 10)
    with oocload.Loader(path, 10, x="x") as loader:
        with pytest.raises(ChunkError, match="fails its checksum; the file is damaged"):
            list(map(len, loader))
    shard.write_bytes(shard.read_bytes()[:30])
    with oocload.Loader(path, 10, x="x") as loader:
        with pytest.raises(ChunkError, match="fewer than its index; it is truncated"):
            list(map(len, loader))


def test_fields_of_unlike_heights(tmp_path: Path) -> None:
    rows = numbered(1000)
    for heights in ((7, 5), (8, 300), (300, 8), (64, 48)):
        with h5py.File(tmp_path / "h.h5", "w") as file:
            file.create_dataset("x", data=rows["x"], chunks=(heights[0], 7, 5), compression="gzip")
            file.create_dataset("y", data=rows["y"], chunks=(heights[1],), compression="gzip")
        with oocload.Loader(tmp_path / "h.h5", 64, seed=0) as loader:
            numbers = []
            for x, y in loader:
                check_rows(x, y)
                numbers.append(y.copy())
        assert np.array_equal(np.sort(np.concatenate(numbers)), rows["y"])
