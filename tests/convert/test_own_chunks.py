"""Which arrays our own encoders go on with, and that others read what they write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import zarr
from numcodecs import LZ4, Blosc, Zlib, Zstd
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

import oocload
from oocload import stores
from oocload.convert.append_hdf5 import filter_values
from oocload.convert.own_chunks import hdf5_encoder, zarr_encoder

pytestmark = pytest.mark.direct

ROWS = (np.arange(100 * 6).reshape(100, 6) % 251).astype("i4")

HDF5: dict[str, tuple[dict[str, Any], bool]] = {
    "raw": ({}, True),
    "gzip": ({"compression": "gzip", "compression_opts": 7}, True),
    "gzip, shuffle": ({"compression": "gzip", "shuffle": True}, True),
    "lzf": ({"compression": "lzf"}, True),
    "shuffle alone": ({"shuffle": True}, False),
    "fletcher32": ({"compression": "gzip", "fletcher32": True}, False),
    "zstd": (dict(hdf5plugin.Zstd(5)), True),
    "zstd, shuffle": (dict(hdf5plugin.Zstd(5)) | {"shuffle": True}, True),
    "lz4": (dict(hdf5plugin.LZ4()), True),
    "lz4 in blocks": (dict(hdf5plugin.LZ4(nbytes=32)), True),
    "blosc lz4": (dict(hdf5plugin.Blosc(cname="lz4", clevel=3)), True),
    "blosc zstd": (dict(hdf5plugin.Blosc(cname="zstd")), False),
    "blosc2": (dict(hdf5plugin.Blosc2()), False),
    "bitshuffle": (dict(hdf5plugin.Bitshuffle()), True),
    "bitshuffle in blocks": (dict(hdf5plugin.Bitshuffle(nelems=8)), False),
    "bitshuffle zstd": (dict(hdf5plugin.Bitshuffle(cname="zstd")), False),
    "bitshuffle alone": (dict(hdf5plugin.Bitshuffle(cname="none")), False),
    "bzip2": (dict(hdf5plugin.BZip2()), False),
}


@pytest.mark.parametrize("kind", HDF5)
def test_hdf5(tmp_path: Path, kind: str) -> None:
    options, is_ours = HDF5[kind]
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=ROWS[:55], chunks=(8, 6), maxshape=(None, 6), **options)
    with stores.open(path) as store, h5py.File(path) as file:
        assert (hdf5_encoder(store.fields["x"], filter_values(file["x"])) is not None) == is_ours
    with oocload.open(path, mode="a") as appender:
        appender.append(x=ROWS[55:])
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["x"][()], ROWS)


ZARR: dict[str, tuple[dict[str, Any], bool]] = {
    "raw": ({"compressors": None}, True),
    "zstd": ({"compressors": ZstdCodec(level=-3)}, True),
    "zstd, checksum": ({"compressors": ZstdCodec(level=3, checksum=True)}, False),
    "gzip": ({"compressors": GzipCodec(level=2)}, True),
    "blosc lz4": ({"compressors": BloscCodec(typesize=4, cname="lz4", clevel=5, shuffle="shuffle")}, True),
    "blosc zstd": ({"compressors": BloscCodec(typesize=4, cname="zstd", clevel=5, shuffle="shuffle")}, False),
    "crc32c": ({"compressors": [ZstdCodec(level=3), Crc32cCodec()]}, False),
    "crc32c alone": ({"compressors": Crc32cCodec()}, False),
    "shards": ({"compressors": ZstdCodec(level=3), "shards": (24, 6)}, True),
    "big-endian": ({"compressors": ZstdCodec(level=3), "serializer": zarr.codecs.BytesCodec(endian="big")}, True),
    "v2 zstd": ({"zarr_format": 2, "compressors": Zstd(3)}, True),
    "v2 blosc": ({"zarr_format": 2, "compressors": Blosc("lz4", 5, Blosc.SHUFFLE)}, True),
    "v2 zlib": ({"zarr_format": 2, "compressors": Zlib(3)}, False),
    "v2 lz4": ({"zarr_format": 2, "compressors": LZ4()}, False),
    "v2 order F": ({"zarr_format": 2, "compressors": Zstd(3), "order": "F"}, False),
}


@pytest.mark.parametrize("kind", ZARR)
def test_zarr(tmp_path: Path, kind: str) -> None:
    options, is_ours = ZARR[kind]
    zarr_format = options.get("zarr_format", 3)
    more = {name: value for name, value in options.items() if name != "zarr_format"}
    path = tmp_path / "x.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    array: Any = group.create_array("x", shape=(55, 6), dtype="i4", chunks=(8, 6), **more)
    array[...] = ROWS[:55]
    with stores.open(path) as store:
        assert (zarr_encoder(store.fields["x"], array.metadata) is not None) == is_ours
    with oocload.open(path, mode="a") as appender:
        appender.append(x=ROWS[55:])
    found: Any = zarr.open_group(path, mode="r")["x"]
    np.testing.assert_array_equal(found[...], ROWS)
    with stores.open(path) as store:
        np.testing.assert_array_equal(store.read_rows("x", 0, 100), ROWS)


@pytest.mark.parametrize("place", ["start", "end"])
def test_unusual_indexes_of_shards(tmp_path: Path, place: str) -> None:
    path = tmp_path / "x.zarr"
    codec = zarr.codecs.ShardingCodec(
        chunk_shape=(8, 6),
        codecs=[zarr.codecs.BytesCodec(), ZstdCodec(level=3)],
        index_codecs=[zarr.codecs.BytesCodec()],
        index_location=place,
    )
    zarr.open_group(path, mode="w")
    array: Any = zarr.create(store=path, path="x", shape=(55, 6), dtype="i4", chunks=(24, 6), codecs=[codec])
    array[...] = ROWS[:55]
    with oocload.open(path, mode="a") as appender:
        appender.append(x=ROWS[55:])
    found: Any = zarr.open_group(path, mode="r")["x"]
    np.testing.assert_array_equal(found[...], ROWS)


@pytest.mark.parametrize(
    ("target", "codec"),
    [*(("x.h5", c) for c in ("none", "gzip", "lzf", "zstd", "blosc", "lz4", "bitshuffle")),
     *((target, c) for target in ("x.zarr", "v2.zarr") for c in ("none", "gzip", "zstd", "blosc"))],
)  # fmt: skip
def test_all_that_create_writes(tmp_path: Path, target: str, codec: str) -> None:
    path = tmp_path / target
    with oocload.create(
        path, {"x": ((6,), "i4"), "y": "u1"}, codec=codec, chunk_rows=8, zarr_format=2 if "2" in target else 3
    ) as writer:
        writer.append(x=ROWS[:55], y=np.arange(55, dtype="u1"))
    with stores.open(path) as store:
        for name in ("x", "y"):
            field = store.fields[name]
            if target.endswith(".zarr"):
                assert zarr_encoder(field, zarr.open_array(path / name).metadata) is not None
            else:
                with h5py.File(path) as file:
                    assert hdf5_encoder(field, filter_values(file[name])) is not None
    with oocload.open(path, mode="a") as appender:
        appender.append(x=ROWS[55:], y=np.arange(55, 100, dtype="u1"))
    with oocload.Loader(path, batch_size=100, shuffle=False) as loader:
        x, y = next(iter(loader))
        np.testing.assert_array_equal(x, ROWS)
        np.testing.assert_array_equal(y, np.arange(100))
    assert oocload.verify(path).ok
