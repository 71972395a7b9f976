"""Every layout, read by the direct path and by the library, equals what h5py and zarr read."""

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec
from zarr.storage import LocalStore, ZipStore

import oocload
from oocload.chunks.decoded import ChunkReader
from oocload.chunks.read import LibraryReader, open_reader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Places
from oocload.errors import ChunkError, OocloadError, StoreFormatError
from oocload.stores.base import direct_path_enabled
from oocload.stores.chunk_table import ChunkTable
from tests.conftest import check_rows, numbered

DTYPES: list[Any] = [
    "u1", "i1", "<u2", ">i2", "<i4", ">u4", "<i8", ">u8", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "?",
    "<c8", ">c16", "S1", "S7", "V5", [("a", "<i4"), ("b", ">f8", (2,)), ("c", "S3")], [("p", "?"), ("q", "<c8")],
]  # fmt: skip
ZARR_DTYPES = [*DTYPES[:-3], [("a", "<i4"), ("c", "S3")], DTYPES[-1], "<U3", ">U2", "<M8[s]", "<m8[ns]"]
HDF5_FILTERS: list[dict[str, Any]] = [
    {},
    {"compression": "gzip"},
    {"compression": "gzip", "compression_opts": 0},
    {"compression": "gzip", "shuffle": True},
    {"compression": "lzf"},
    {"compression": "lzf", "shuffle": True},
    {"shuffle": True},
    {"fletcher32": True},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
    {"compression": "szip"},
    {"scaleoffset": 0},
    {**hdf5plugin.LZ4()},
    {**hdf5plugin.LZ4(nbytes=24), "shuffle": True},
    {**hdf5plugin.Blosc("lz4", shuffle=hdf5plugin.Blosc.SHUFFLE)},
    {**hdf5plugin.Blosc("zstd", shuffle=hdf5plugin.Blosc.BITSHUFFLE), "fletcher32": True},
    {**hdf5plugin.Blosc2("lz4")},
    {**hdf5plugin.Blosc2("zstd", filters=hdf5plugin.Blosc2.BITSHUFFLE)},
    {**hdf5plugin.Blosc2("blosclz", filters=hdf5plugin.Blosc2.DELTA)},
    {**hdf5plugin.Zstd()},
    {**hdf5plugin.Zstd(clevel=1), "shuffle": True, "fletcher32": True},
    {**hdf5plugin.Bitshuffle(cname="lz4")},
    {**hdf5plugin.Bitshuffle(nelems=16, cname="lz4")},
    {**hdf5plugin.Bitshuffle(cname="zstd")},
    {**hdf5plugin.Bitshuffle(cname="none")},
    {**hdf5plugin.Bitshuffle(nelems=8, cname="none")},
    {**hdf5plugin.BZip2()},
]
BY_THE_LIBRARY = ("szip", "scaleoffset")
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
    {"filters": "transpose", "compressors": None},
    {"filters": "transpose"},
    {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    {"chunk_key_encoding": {"name": "default", "separator": "."}},
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
    {"compressors": numcodecs.LZMA()},
    {"compressors": numcodecs.LZMA(format=2)},
    {"order": "F"},
    {"order": "F", "compressors": None},
    {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    {"filters": [numcodecs.Shuffle(4)]},
    {"filters": [numcodecs.Shuffle(2)], "compressors": None},
    {"filters": "delta"},
    {"filters": "delta", "order": "F", "compressors": numcodecs.LZ4()},
]


@dataclass
class Drawn:
    """An array and how it is to be stored."""

    values: np.ndarray
    chunks: tuple[int, ...]
    hole: slice  # rows that are never written

    @property
    def numeric(self) -> bool:
        return self.values.dtype.kind in "iuf"


@st.composite
def arrays(draw: st.DrawFn, dtypes: list[Any]) -> Drawn:
    ndim = draw(st.integers(1, 4))
    shape = (draw(st.integers(1, 40)), *(draw(st.integers(1, 6)) for _ in range(ndim - 1)))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    if dtype.kind in "iufc":
        values = rng.integers(0, 100, shape).astype(dtype)
    elif dtype.kind == "U":
        values = np.array(["a", "bc", "", "déf"])[rng.integers(0, 4, shape)].astype(dtype)
    else:
        values = rng.integers(0, 2, (*shape, dtype.itemsize), dtype=np.uint8).view(dtype)[..., 0]
    first = draw(st.integers(0, shape[0]))
    return Drawn(values, chunks, slice(first, draw(st.integers(first, shape[0]))))


def write(target: Any, drawn: Drawn) -> None:
    for part in (slice(0, drawn.hole.start), slice(drawn.hole.stop, len(drawn.values))):
        if part.start < part.stop:
            target[part] = drawn.values[part]


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
            target = Places(rows, index=order[start:stop]) if scattered else Places(rows, first=start)
            middle = (start + stop) // 2
            open_field.read([(start, middle), (middle, stop)], target, scratch)
        open_field.close()
        return rows[order] if scattered else rows


def same(got: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two arrays are equal bit for bit, whatever their byte orders."""
    expected = np.asarray(expected).astype(expected.dtype.newbyteorder("="))
    return (got.dtype, got.shape, got.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def check_all_paths(path: Path, expected: np.ndarray, direct: bool | None = None) -> None:
    """Compare every reader with what the library read; ``direct``: whether the direct path must be taken."""
    with oocload.open(path) as store:
        field = store.fields["x"]
    if direct is not None and direct_path_enabled():
        assert (field.read_path == "direct") == direct, field.reason
    readers: list[Any] = [open_reader, LibraryReader]
    if field.chunks and field.read_path == "direct":
        readers.append(ChunkReader)
    for reader in readers:
        for scattered in (False, True):
            assert same(read(path, "x", reader, scattered), expected), (reader, scattered, field)


@settings(max_examples=150)
@given(
    drawn=arrays(DTYPES),
    filters=st.sampled_from(HDF5_FILTERS),
    layout=st.sampled_from(["chunked", "contiguous", "compact", "latest", "early", "fixed"]),
)
def test_hdf5(tmp_path: Path, drawn: Drawn, filters: dict[str, Any], layout: str) -> None:
    values, dtype = drawn.values, drawn.values.dtype
    if not drawn.numeric or dtype.kind == "f":
        filters = {k: v for k, v in filters.items() if k != "scaleoffset"}
    if filters.get("compression") == "szip" and (not drawn.numeric or np.prod(drawn.chunks) < 8):
        filters = {}
    if "shuffle" in filters or "compression" in filters or "fletcher32" in filters or "scaleoffset" in filters:
        layout = "chunked" if layout in ("contiguous", "compact") else layout
    by_library = filters.get("compression") == "szip" or "scaleoffset" in filters
    options: dict[str, Any] = dict(filters)
    if layout not in ("contiguous", "compact"):
        options["chunks"] = drawn.chunks
        if layout != "fixed":
            options["maxshape"] = (None, *values.shape[1:])
    if "scaleoffset" not in filters and dtype.kind not in "V":
        options["fillvalue"] = np.ones((), dtype)[()]
    with h5py.File(tmp_path / "x.h5", "w", libver="latest" if layout in ("latest", "fixed") else None) as file:
        if layout == "compact":
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_layout(h5py.h5d.COMPACT)
            options = {"dcpl": plist}
        elif layout == "early":
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            options["dcpl"] = plist
        dataset = file.create_dataset(
            "x", values.shape, h5py.opaque_dtype(dtype) if dtype.kind == "M" else dtype, **options
        )
        write(dataset, drawn)
        expected = dataset[...]
    check_all_paths(tmp_path / "x.h5", expected, direct=not by_library)


@settings(max_examples=150)
@given(
    drawn=arrays(ZARR_DTYPES),
    version=st.sampled_from([2, 3]),
    options=st.data(),
    shards=st.integers(1, 3),
    zipped=st.booleans(),
    tall=st.booleans(),
)
def test_zarr(
    tmp_path: Path, drawn: Drawn, version: int, options: st.DataObject, shards: int, zipped: bool, tall: bool
) -> None:
    values, chunks = drawn.values, drawn.chunks
    chosen = dict(options.draw(st.sampled_from(ZARR_V2 if version == 2 else ZARR_V3)))
    dtype = values.dtype
    if chosen.get("filters") == "delta":
        names = {"i": ("<i2", "<i4"), "u": ("<u2", "<u8"), "f": ("<f4", "<f8")}.get(dtype.kind)
        if names is None:
            del chosen["filters"]
        else:
            values = values.astype(names[0])
            chosen["filters"] = [numcodecs.Delta(names[0], names[1])]
    elif chosen.get("filters") == "transpose":
        chosen["filters"] = [TransposeCodec(order=tuple(np.random.default_rng(0).permutation(values.ndim).tolist()))]
    elif "filters" in chosen and np.prod(chunks) * dtype.itemsize % chosen["filters"][0].elementsize:
        del chosen["filters"]  # numcodecs refuses to read it
    if version == 3:
        values = values.astype(values.dtype.newbyteorder("="))
        if shards > 1 and values.dtype.names is None:  # zarr-python cannot compare the fill value of structures
            chosen["shards"] = tuple(c * shards for c in chunks)
    elif tall:
        chunks = (chunks[0] + len(values), *chunks[1:])
    drawn = Drawn(values, chunks, drawn.hole)
    path = tmp_path / ("x.zarr.zip" if zipped else "x.zarr")
    shutil.rmtree(tmp_path / "x.zarr", ignore_errors=True)
    path.unlink(missing_ok=True)
    fill = np.ones((), values.dtype)[()] if values.dtype.kind in "biufc" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # data types that Zarr v3 has not settled, members written twice
        holder = ZipStore(path, mode="w") if zipped else LocalStore(path)
        group = zarr.open_group(holder, mode="w", zarr_format=version)
        array = group.create_array(
            "x", shape=values.shape, dtype=values.dtype, chunks=chunks, fill_value=fill, **chosen
        )
        write(array, drawn)
        holder.close()
        with zarr.storage.ZipStore(path, mode="r") if zipped else LocalStore(path) as readable:
            expected = np.asarray(zarr.open_group(readable, mode="r")["x"][...])
        check_all_paths(path, expected, direct=True)


@settings(max_examples=60)
@given(drawn=arrays([*DTYPES, "<U3", ">U2", "<M8[s]"]), fortran=st.booleans())
def test_npy(tmp_path: Path, drawn: Drawn, fortran: bool) -> None:
    np.save(tmp_path / "x.npy", np.asarray(drawn.values, order="F" if fortran else "C"))
    expected = np.load(tmp_path / "x.npy")
    in_order = not fortran or sum(n > 1 for n in expected.shape) <= 1
    check_all_paths(tmp_path / "x.npy", expected, direct=in_order)


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("index", [[BytesCodec(), Crc32cCodec()], [BytesCodec(endian="big")]])
@pytest.mark.parametrize(
    "inner", [[BytesCodec()], [TransposeCodec(order=(1, 0)), BytesCodec(endian="big"), ZstdCodec(), Crc32cCodec()]]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_shards_of_every_kind(tmp_path: Path, location: str, index: list[Any], inner: list[Any], zipped: bool) -> None:
    rows = np.arange(60 * 8, dtype="<i4").reshape(60, 8)
    path = tmp_path / ("s.zarr.zip" if zipped else "s.zarr")
    with ZipStore(path, mode="w") if zipped else LocalStore(path) as holder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zip members written twice
        group = zarr.open_group(holder, mode="w")
        sharding = ShardingCodec(chunk_shape=(5, 4), codecs=inner, index_codecs=index, index_location=location)
        array = group.create_array(
            "x", shape=rows.shape, dtype="i4", chunks=(20, 8), serializer=sharding, compressors=None, fill_value=-3
        )
        array[:7] = rows[:7]  # the rest of the first shard is missing, and so is the second
        array[40:, :4] = rows[40:, :4]
    with ZipStore(path, mode="r") if zipped else LocalStore(path) as holder:
        expected = np.asarray(zarr.open_group(holder, mode="r")["x"][...])
    check_all_paths(path, expected, direct=True)


def test_consolidated_metadata(tmp_path: Path) -> None:
    rows = np.arange(40).reshape(10, 4)
    for version in (2, 3):
        group = zarr.open_group(tmp_path / "c.zarr", mode="w", zarr_format=version)
        group.create_array("deep/x", data=rows, chunks=(3, 4))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not part of the Zarr v3 specification
            zarr.consolidate_metadata(tmp_path / "c.zarr")
        with oocload.open(tmp_path / "c.zarr") as store:
            assert list(store.fields) == ["deep/x"]
        assert same(read(tmp_path / "c.zarr", "deep/x", open_reader, True), rows)


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


@pytest.mark.direct
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
    table = ChunkTable(str(tmp_path / "short.h5"), None, np.array([0, 60]), np.array([50, 50]))
    with pytest.raises(StoreFormatError, match=r"here: chunk 1 ends at byte 110, but .* has 100 bytes; .* truncated"):
        table.check_against_file("here")


@pytest.mark.direct
def test_file_cut_after_it_was_opened(make_store: Callable[..., Path]) -> None:
    path = make_store(n_rows=100_000, chunk_rows=None)
    with oocload.Loader(path, 100, x="y", shuffle=False) as loader:
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size - 100)
        with pytest.raises(OocloadError, match=r"store.h5 has changed since it was opened; open it anew"):
            list(map(len, loader))


@pytest.mark.direct
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


@pytest.mark.direct
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
