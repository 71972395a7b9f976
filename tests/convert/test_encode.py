"""Every codec of every format: what we encode, h5py and zarr read back, and so does the direct path."""

import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.chunks.read import open_reader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Places
from oocload.convert.encode import Encoding, choose_encoding, codecs_of, encoder_for, hdf5_filters, zarr_codecs
from oocload.convert.shuffle import bitshuffle_lz4, byte_shuffle
from oocload.errors import InvalidArgumentError
from oocload.layout import Codec
from oocload.stores.base import direct_path_enabled

HEIGHT, WIDTH = 37, 5  # 185 items: not a multiple of eight
PAIR = np.dtype([("a", "<i4"), ("b", "<f8")])
DTYPES = {name: np.dtype(name) for name in ("u1", "<i2", ">i2", "<f4", "<f8", "?", "<c16", "S5", "<U3", "<i8", "V7")}
DTYPES["pair"] = PAIR

HDF5 = ["none", "gzip", "lzf", "zstd", "blosc", "lz4", "bitshuffle"]
ZARR = ["none", "gzip", "zstd", "blosc"]

pytestmark = pytest.mark.filterwarnings(
    "ignore::zarr.errors.UnstableSpecificationWarning", "ignore::zarr.errors.ZarrUserWarning"
)


def rows(dtype: np.dtype[Any], content: str) -> np.ndarray:
    """Return a chunk of any dtype."""
    shape = (HEIGHT, WIDTH)
    if content == "zeros":
        return np.zeros(shape, dtype)
    if dtype.kind == "?" or dtype.kind == "b":
        return np.random.default_rng(0).random(shape) < (0.5 if content == "random" else 0.1)
    if content == "sorted":
        numbers = np.arange(HEIGHT * WIDTH).reshape(shape)
        if dtype == PAIR:
            made = np.zeros(shape, dtype)
            made["a"], made["b"] = numbers, numbers / 7
            return made
        return (numbers % 251).astype("u1").astype(dtype) if dtype.kind != "V" else numbers.astype("S7").view(dtype)
    raw = np.random.default_rng(0).integers(1, 100, (HEIGHT, WIDTH * dtype.itemsize), np.uint8)
    if dtype.kind == "U":  # code points must be characters
        raw = raw.reshape(-1, 4) * np.array([1, 0, 0, 0], np.uint8)
    return np.ascontiguousarray(raw).reshape(-1).view(dtype).reshape(shape)


def same(got: Any, want: np.ndarray) -> None:
    got = np.asarray(got)
    assert got.shape == want.shape
    assert got.astype(want.dtype).tobytes() == want.tobytes()


def read_by_oocload(path: Path, codecs: tuple[Codec, ...]) -> np.ndarray:
    with oocload.open(path) as store:
        field = store.fields["x"]
        if direct_path_enabled():
            assert field.read_path == "direct", field.reason
        assert field.codecs == codecs
        got = np.empty(field.shape, field.dtype)
        reader = open_reader(store, field)
        reader.read([(0, field.n_rows)], Places(got, first=0), Scratch())
        reader.close()
    return got


def write_hdf5(path: Path, encoding: Encoding, dtype: np.dtype[Any], chunks: list[np.ndarray]) -> None:
    shape = chunks[0].shape
    encode = encoder_for("hdf5", encoding, dtype, shape)
    with h5py.File(path, "w") as file:
        filters = hdf5_filters(encoding, dtype, shape)
        dataset = file.create_dataset("x", (0, *shape[1:]), dtype, maxshape=(None, *shape[1:]), **filters)
        for i, chunk in enumerate(chunks):
            dataset.resize((i + 1) * shape[0], axis=0)
            data, skipped = encode(chunk)
            dataset.id.write_direct_chunk((i * shape[0], *(0 for _ in shape[1:])), data, skipped)


@pytest.mark.parametrize("name", [name for name in DTYPES if name != "<U3"])
@pytest.mark.parametrize("codec", HDF5)
def test_hdf5(tmp_path: Path, codec: str, name: str) -> None:
    dtype = DTYPES[name]
    chunks = [rows(dtype, content) for content in ("random", "zeros", "sorted", "random")]
    encoding = choose_encoding("hdf5", codec, None)
    write_hdf5(tmp_path / "x.h5", encoding, dtype, chunks)
    with h5py.File(tmp_path / "x.h5") as file:
        same(file["x"][()], np.concatenate(chunks))
    same(read_by_oocload(tmp_path / "x.h5", codecs_of("hdf5", encoding, dtype)), np.concatenate(chunks))


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("codec", ZARR)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr(tmp_path: Path, zarr_format: int, codec: str, name: str) -> None:
    dtype = DTYPES[name]
    encoding = choose_encoding("zarr", codec, None)
    encode = encoder_for("zarr2" if zarr_format == 2 else "zarr3", encoding, dtype, (HEIGHT, WIDTH))
    chunks = [rows(dtype, content) for content in ("random", "zeros", "sorted")]
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=zarr_format)
    group.create_array(
        "x",
        shape=(HEIGHT * len(chunks), WIDTH),
        chunks=(HEIGHT, WIDTH),
        dtype=dtype,
        **zarr_codecs(encoding, dtype, zarr_format),
    )
    for i, chunk in enumerate(chunks):
        file = tmp_path / "x.zarr" / "x" / (f"{i}.0" if zarr_format == 2 else f"c/{i}/0")
        file.parent.mkdir(parents=True, exist_ok=True)
        data, skipped = encode(chunk)
        assert not skipped
        file.write_bytes(data)
    same(zarr.open_group(tmp_path / "x.zarr", mode="r")["x"][:], np.concatenate(chunks))
    same(read_by_oocload(tmp_path / "x.zarr", codecs_of("zarr3", encoding, dtype)), np.concatenate(chunks))


@pytest.fixture(scope="module")
def made_without_plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file for each codec, made by a process that never imports hdf5plugin."""
    folder = tmp_path_factory.mktemp("made")
    code = """
import sys
import h5py, numpy as np
from oocload.convert.encode import choose_encoding, encoder_for, hdf5_filters
assert "hdf5plugin" not in sys.modules and not h5py.h5z.filter_avail(32015)
chunk = (np.arange(185) % 251).astype("<f4").reshape(37, 5)
for codec in sys.argv[1:]:
    encoding = choose_encoding("hdf5", codec, None)
    with h5py.File(codec + ".h5", "w") as file:
        filters = hdf5_filters(encoding, chunk.dtype, chunk.shape)
        x = file.create_dataset("x", chunk.shape, chunk.dtype, maxshape=(None, 5), **filters)
        x.id.write_direct_chunk((0, 0), *encoder_for("hdf5", encoding, chunk.dtype, chunk.shape)(chunk))
"""
    subprocess.run([sys.executable, "-c", code, *HDF5], check=True, cwd=folder)
    return folder


@pytest.mark.parametrize(
    ("codec", "plugin"),
    [
        ("zstd", {**hdf5plugin.Zstd(clevel=3), "shuffle": True}),
        ("blosc", hdf5plugin.Blosc("lz4", 5, hdf5plugin.Blosc.SHUFFLE)),
        ("lz4", {**hdf5plugin.LZ4(), "shuffle": True}),
        ("bitshuffle", hdf5plugin.Bitshuffle(cname="lz4")),
        ("gzip", {"compression": "gzip", "shuffle": True}),
        ("lzf", {"compression": "lzf", "shuffle": True}),
        ("none", {}),
    ],
)
@pytest.mark.parametrize("plugins_are_there", [True, False])
def test_filters_are_those_of_their_libraries(
    tmp_path: Path, made_without_plugins: Path, codec: str, plugin: Any, plugins_are_there: bool
) -> None:
    """Also where the file is made without the plugins, which only HDF5 itself needs."""
    path = made_without_plugins / f"{codec}.h5"
    if plugins_are_there:
        path = tmp_path / "ours.h5"
        write_hdf5(path, choose_encoding("hdf5", codec, None), np.dtype("<f4"), [rows(np.dtype("<f4"), "sorted")])
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file.create_dataset("x", data=rows(np.dtype("<f4"), "sorted"), chunks=(HEIGHT, WIDTH), **plugin)
    with h5py.File(path) as ours, h5py.File(tmp_path / "theirs.h5") as theirs:
        lists = [file["x"].id.get_create_plist() for file in (ours, theirs)]
        found, wanted = ([p.get_filter(i)[:3:2] for i in range(p.get_nfilters())] for p in lists)
        assert found == wanted
        same(ours["x"][()], rows(np.dtype("<f4"), "sorted"))


@pytest.mark.parametrize("dtype", ["u1", "<f4"])
def test_lzf_leaves_out_what_does_not_shrink(tmp_path: Path, dtype: str) -> None:
    random = np.random.default_rng(0).integers(0, 2**8, (64, 64 * np.dtype(dtype).itemsize), np.uint8).view(dtype)
    encode = encoder_for("hdf5", choose_encoding("hdf5", "lzf", None), random.dtype, random.shape)
    assert encode(random).skipped == (1 if dtype == "u1" else 2)
    assert encode(np.zeros_like(random)).skipped == 0
    chunks = [random, np.zeros_like(random), random]
    write_hdf5(tmp_path / "x.h5", choose_encoding("hdf5", "lzf", None), random.dtype, chunks)
    with h5py.File(tmp_path / "x.h5") as file:
        same(file["x"][()], np.concatenate(chunks))


def images() -> np.ndarray:
    """Return smooth images with noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    planes = [128 + 60 * np.sin(x / a) + 60 * np.cos(y / b) for a, b in rng.uniform(3, 20, (64, 2))]
    return np.clip(planes + rng.normal(0, 2, (64, 64, 64)), 0, 255).astype("u1")


@pytest.mark.parametrize("level", [4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize(
    "make",
    [
        images,
        lambda: np.random.default_rng(0).normal(size=(256, 256)).astype("<f4"),
        lambda: np.round(np.random.default_rng(0).normal(size=(128, 256)), 2),
        lambda: np.full((256, 256), 1.5, "<f4"),
        lambda: np.zeros((64, 1000), "u1"),
        lambda: np.random.default_rng(0).integers(0, 1000, (64, 1000)).astype("<i2"),
    ],
)
def test_gzip_is_no_larger_than_h5py_makes_it(tmp_path: Path, make: Callable[[], np.ndarray], level: int) -> None:
    data = make()
    ours = encoder_for("hdf5", Encoding("gzip", level), data.dtype, data.shape)(data).data
    with h5py.File(tmp_path / "x.h5", "w") as file:
        options = {"compression": "gzip", "compression_opts": level, "shuffle": data.dtype.itemsize > 1}
        dataset = file.create_dataset("x", data=data, chunks=data.shape, **options)
        assert len(ours) <= len(dataset.id.read_direct_chunk((0,) * data.ndim)[1])


@pytest.mark.parametrize("target_format", ["hdf5", "zarr2", "zarr3"])
def test_chunks_of_one_item_are_remembered(target_format: Any) -> None:
    encode = encoder_for(target_format, Encoding("gzip", 4), np.dtype("<i4"), (1000,))
    chunks = [np.full(1000, value, "<i4") for value in (7, 258, 7)] + [np.r_[np.full(999, 7, "<i4"), 8].astype("<i4")]
    wbits = 15 if target_format == "hdf5" else 31
    for chunk in chunks:
        raw = np.frombuffer(zlib.decompress(encode(chunk).data, wbits), np.uint8)
        if target_format == "hdf5":
            raw = np.ascontiguousarray(raw.reshape(4, -1).T)
        assert raw.tobytes() == chunk.tobytes()


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4", "bitshuffle", "blosc", "lzf"])
def test_threads_share_an_encoder(codec: str) -> None:
    dtype = np.dtype("<f4")
    encode = encoder_for("hdf5", choose_encoding("hdf5", codec, None), dtype, (50_000,))
    chunks = [np.round(np.random.default_rng(i).normal(size=50_000), 1).astype(dtype) for i in range(12)]
    alone = [encode(chunk) for chunk in chunks]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(encode, chunks)) == alone


@given(item_bytes=st.integers(1, 20), n=st.integers(1, 3000), seed=st.integers(0, 9))
def test_shuffles(item_bytes: int, n: int, seed: int) -> None:
    raw = np.random.default_rng(seed).integers(0, 256, n * item_bytes, np.uint8)
    out = np.empty_like(raw)
    byte_shuffle(raw, item_bytes, out, Scratch())
    assert out.tobytes() == raw.reshape(n, item_bytes).T.tobytes()
    assert len(bitshuffle_lz4(raw, item_bytes)) >= 12


@pytest.mark.parametrize("item_bytes", [2, 4])
def test_shuffle_of_several_pieces(item_bytes: int) -> None:
    raw = np.random.default_rng(0).integers(0, 256, 300_000 // item_bytes * item_bytes, np.uint8)
    out = np.empty_like(raw)
    byte_shuffle(raw, item_bytes, out, Scratch())
    assert out.tobytes() == raw.reshape(-1, item_bytes).T.tobytes()


@pytest.mark.parametrize(("codec", "level"), [("zstd", -7), ("zstd", 0), ("zstd", 1), ("zstd", 19), ("gzip", 0)])
def test_levels_of_zarr(codec: str, level: int) -> None:
    data = np.round(np.random.default_rng(0).normal(size=5000), 1)
    encoding = choose_encoding("zarr3", codec, level)
    data_2 = zarr_codecs(encoding, data.dtype, 2)["compressors"].decode(
        encoder_for("zarr2", encoding, data.dtype, data.shape)(data).data
    )
    assert bytes(data_2) == data.tobytes()


@pytest.mark.parametrize(
    ("target_format", "codec", "level", "message"),
    [
        ("hdf5", "gzipp", None, "codec must be one of 'none', 'gzip', 'lzf', .* for this format, got 'gzipp'"),
        ("zarr3", "lzf", None, "codec must be one of 'none', 'gzip', 'zstd', 'blosc' for this format, got 'lzf'"),
        ("zarr2", "gzip", 10, "level must be from 0 to 9 for codec 'gzip', got 10"),
        ("hdf5", "lzf", 3, "level must be left out for codec 'lzf', got 3"),
        ("hdf5", "zstd", 0, "level must be from 1 to 22 for codec 'zstd', got 0"),
    ],
)
def test_bad_codecs(target_format: str, codec: str, level: int | None, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        choose_encoding(target_format, codec, level)


def test_encodings_have_names() -> None:
    assert [str(choose_encoding("hdf5", name, None)) for name in (None, "none", "zstd")] == ["gzip 4", "none", "zstd 3"]
