"""Damaged and hostile files end in one error that names path, field and chunk: no garbage, no huge allocation."""

import json
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import imagecodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

import oocload
from oocload.errors import ChunkError, MemoryCeilingError, OocloadError, StoreFormatError

ROWS = np.random.default_rng(0).integers(0, 50, (64, 32), dtype=np.uint16)
HUGE = 2**40


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def read_all(path: Path, **options: Any) -> np.ndarray:
    with oocload.Loader(path, 8, x="x", shuffle=False, **options) as loader:
        return np.concatenate([x.copy() for x in loader])


def write(path: Path, **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=ROWS, chunks=(16, 32), **options)
    return path


@pytest.mark.direct
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"compression": "lzf", "shuffle": True}])
def test_flipped_byte_under_fletcher32(tmp_path: Path, options: dict[str, Any]) -> None:
    path = write(tmp_path / "f.h5", fletcher32=True, **options)
    assert np.array_equal(read_all(path), ROWS)
    with h5py.File(path) as file:
        info = file["x"].id.get_chunk_info(2)
    for at in (0, info.size // 2, info.size - 1):
        flip(path, info.byte_offset + at)
        with pytest.raises(ChunkError, match=r"f.h5, field 'x', chunk \(2, 0\): its fletcher32 checksum does not"):
            read_all(path)
        flip(path, info.byte_offset + at)


@pytest.mark.direct
def test_flipped_byte_under_crc32c(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "c.zarr", mode="w")
    group.create_array("x", data=ROWS, chunks=(16, 32), compressors=[ZstdCodec(), Crc32cCodec()])
    flip(tmp_path / "c.zarr" / "x" / "c" / "1" / "0", 30)
    with pytest.raises(ChunkError, match=r"c.zarr, field 'x', chunk \(1, 0\): its crc32c checksum does not match"):
        read_all(tmp_path / "c.zarr")


def bitshuffled(nbytes: int, block: int, *sizes: int) -> bytes:
    return struct.pack(">QI", nbytes, block) + b"".join(struct.pack(">I", s) + bytes(min(s, 100)) for s in sizes)


def blosc2_frame(**changes: int) -> bytes:
    """Return a frame of one chunk with some of its header's numbers changed."""
    with h5py.File("frame.h5", "w", driver="core", backing_store=False) as file:
        d = file.create_dataset("x", data=ROWS[:16], chunks=(16, 32), **hdf5plugin.Blosc2("lz4"))
        frame = bytearray(d.id.read_direct_chunk((0, 0))[1])
    for name, value in changes.items():
        at, form = {"header": (11, ">i"), "nbytes": (30, ">q"), "stored": (39, ">q")}[name]
        struct.pack_into(form, frame, at, value)
    return bytes(frame)


NBYTES = ROWS[:16].nbytes
HOSTILE: list[tuple[str, dict[str, Any], bytes]] = [
    ("deflate decodes it to|deflate cannot", {"compression": "gzip"}, zlib.compress(bytes(NBYTES - 1))),
    ("deflate", {"compression": "gzip"}, zlib.compress(bytes(50_000_000))),
    ("lzf", {"compression": "lzf"}, imagecodecs.lzf_encode(bytes(NBYTES + 7))),
    ("zstd", hdf5plugin.Zstd(), imagecodecs.zstd_encode(bytes(50_000_000))),
    ("zstd", hdf5plugin.Zstd(), b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", HUGE) + bytes(40)),
    ("lz4h5", hdf5plugin.LZ4(), struct.pack(">QII", HUGE, 2**30, 2**30) + bytes(40)),
    ("lz4h5", hdf5plugin.LZ4(), struct.pack(">QII", NBYTES, NBYTES, 2**31) + bytes(40)),
    ("blosc", hdf5plugin.Blosc(), struct.pack("<4B3I", 2, 1, 0x21, 2, 2**31 - 1, 2**30, 60) + bytes(44)),
    ("bitshuffle", hdf5plugin.Bitshuffle(cname="lz4"), bitshuffled(HUGE, 8192, 100)),
    ("bitshuffle", hdf5plugin.Bitshuffle(cname="lz4"), bitshuffled(NBYTES, 16, *[2**31] * 64)),
    ("bitshuffle", hdf5plugin.Bitshuffle(cname="lz4"), bitshuffled(NBYTES, 17, 100)),
    ("bitshuffle", hdf5plugin.Bitshuffle(cname="lz4"), bitshuffled(NBYTES, 1024, 100)),
    ("bitshuffle", hdf5plugin.Bitshuffle(cname="zstd"), bitshuffled(NBYTES, 1024, 100)),
    ("bitshuffle", hdf5plugin.Bitshuffle(cname="lz4"), b"short"),
    ("blosc2", hdf5plugin.Blosc2(), blosc2_frame(nbytes=HUGE)),
    ("blosc2", hdf5plugin.Blosc2(), blosc2_frame(header=2**30)),
    ("blosc2", hdf5plugin.Blosc2(), blosc2_frame(stored=HUGE)),
    ("blosc2", hdf5plugin.Blosc2(), blosc2_frame(nbytes=NBYTES - 2)),
    ("blosc2", hdf5plugin.Blosc2(), b"nothing of the kind" * 20),
    ("bzip2", hdf5plugin.BZip2(), imagecodecs.bz2_encode(bytes(5_000_000))),
]


@pytest.mark.direct
@pytest.mark.parametrize(("codec", "filters", "stored"), HOSTILE)
def test_hostile_chunks(tmp_path: Path, codec: str, filters: dict[str, Any], stored: bytes) -> None:
    path = write(tmp_path / "h.h5", **filters)
    with h5py.File(path, "a") as file:
        file["x"].id.write_direct_chunk((16, 0), stored)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ChunkError, match=rf"h.h5, field 'x', chunk \(1, 0\): .*({codec}|it, decompressed, has)"):
        read_all(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


@pytest.mark.direct
def test_a_chunk_file_larger_than_any_codec_makes(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "l.zarr", mode="w")
    group.create_array("x", data=ROWS, chunks=(16, 32))
    with open(tmp_path / "l.zarr" / "x" / "c" / "1" / "0", "r+b") as file:
        file.truncate(2**33)  # sparse
    with pytest.raises(ChunkError, match=r"chunk \(1, 0\): it has 8589934592 bytes, more than any codec makes of 1024"):
        read_all(tmp_path / "l.zarr")


def test_absurd_shapes_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (10**15,), "f8", chunks=(1000,))
        file.create_dataset("wide", (4, 2**40), "u1", chunks=(1, 2**30))
    for name in ("x", "wide"):
        with pytest.raises(MemoryCeilingError, match=r"memory must be (given|at least)"):
            oocload.Loader(tmp_path / "a.h5", 2, x=name)
        with pytest.raises(MemoryCeilingError, match="memory must be at least"):
            oocload.Loader(tmp_path / "a.h5", 2, x=name, memory="1 GiB")


def test_absurd_zarr_chunks(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("x", data=ROWS, chunks=(16, 32))
    metadata = tmp_path / "a.zarr" / "x" / "zarr.json"
    content = json.loads(metadata.read_text())
    content["chunk_grid"]["configuration"]["chunk_shape"] = [2**40, 32]
    metadata.write_text(json.dumps(content))
    with pytest.raises(MemoryCeilingError, match=r"memory must be (given|at least)"):
        oocload.Loader(tmp_path / "a.zarr", 2)


def test_truncated_files_of_every_kind(tmp_path: Path, make_store: Callable[..., Path]) -> None:
    path = make_store(chunk_rows=None)
    data = path.read_bytes()
    np.save(tmp_path / "x.npy", ROWS)
    npy = (tmp_path / "x.npy").read_bytes()
    for share in (0.0, 0.1, 0.5, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(StoreFormatError, match=r"truncated|must be an HDF5 file"):
            oocload.Loader(path, 2)
        (tmp_path / "x.npy").write_bytes(npy[: int(share * len(npy))])
        with pytest.raises(StoreFormatError, match=r"truncated|must be a .npy array, and is not"):
            oocload.Loader(tmp_path / "x.npy", 2)


def test_npy_header_that_claims_too_much(tmp_path: Path) -> None:
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"shape": (2**62, 8), "fortran_order": False, "descr": "<f8"})
    with pytest.raises(StoreFormatError, match=r"must be a .npy array, and is not: its header claims shape"):
        oocload.open(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {**hdf5plugin.Bitshuffle(cname="lz4")},
        {**hdf5plugin.Blosc2("zstd")},
        {**hdf5plugin.Blosc("lz4")},
        {**hdf5plugin.LZ4()},
    ],
)
def test_any_flipped_byte_gives_rows_or_one_of_our_errors(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = write(tmp_path / "whole.h5", **options).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "flipped.h5"
    outcomes = set()
    for at in rng.integers(0, len(whole), 120).tolist():
        data = bytearray(whole)
        data[at] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        try:
            outcomes.add(read_all(path, memory="64 MiB").shape)
        except OocloadError as exc:
            outcomes.add(type(exc).__name__)
    assert ROWS.shape in outcomes
    assert "ChunkError" in outcomes
