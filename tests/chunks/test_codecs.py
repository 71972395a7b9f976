import bz2
import lzma
import zlib

import google_crc32c
import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.chunks.codecs import DecodeError, decode
from oocload.chunks.scratch import ALIGNMENT, Scratch
from oocload.layout import Codec, reason_against


def shuffled(raw: bytes, item_bytes: int) -> bytes:
    """HDF5's byte shuffle, the obvious way."""
    whole = len(raw) // item_bytes * item_bytes
    return b"".join(raw[i:whole:item_bytes] for i in range(item_bytes)) + raw[whole:]


def run(data: bytes, codecs: list[Codec], n_bytes: int) -> bytes:
    out = np.empty(n_bytes, np.uint8)
    decode(np.frombuffer(data, np.uint8), codecs, out, Scratch())
    return out.tobytes()


@given(raw=st.binary(min_size=1, max_size=3000), item_bytes=st.integers(1, 17), compress=st.booleans())
def test_shuffle_is_undone(raw: bytes, item_bytes: int, compress: bool) -> None:
    data = shuffled(raw, item_bytes)
    codecs = [Codec("shuffle", item_bytes=item_bytes)]
    if compress:
        data, codecs = zlib.compress(data), [*codecs, Codec("deflate")]
    assert run(data, codecs, len(raw)) == raw


@pytest.mark.parametrize("item_bytes", [2, 4, 8, 16, 255, 256, 300])
def test_shuffle_of_large_chunks(item_bytes: int) -> None:
    raw = np.random.default_rng(0).integers(0, 256, 300_007, dtype=np.uint8).tobytes()
    assert run(shuffled(raw, item_bytes), [Codec("shuffle", item_bytes=item_bytes)], len(raw)) == raw


CANNOT = r"(cannot decode it|decodes it to)|it, decompressed, has (more than )?\d+"


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("deflate", zlib.compress),
        ("zlib", zlib.compress),
        ("gzip", imagecodecs.gzip_encode),
        ("lzf", imagecodecs.lzf_encode),
        ("zstd", imagecodecs.zstd_encode),
        ("blosc", imagecodecs.blosc_encode),
        ("lz4", lambda raw: imagecodecs.lz4_encode(raw, header=True)),
        ("lz4h5", imagecodecs.lz4h5_encode),
        ("bz2", bz2.compress),
        ("bzip2", bz2.compress),
        ("lzma", lzma.compress),
    ],
)
class TestCompressors:
    RAW = bytes(range(64)) * 100

    def test_decodes(self, name: str, encode: object) -> None:
        assert run(encode(self.RAW), [Codec(name)], len(self.RAW)) == self.RAW

    def test_decodes_under_a_checksum(self, name: str, encode: object) -> None:
        data = encode(self.RAW)
        data += google_crc32c.value(data).to_bytes(4, "little")
        assert run(data, [Codec(name), Codec("crc32c")], len(self.RAW)) == self.RAW

    def test_damage_is_an_error(self, name: str, encode: object) -> None:
        data = bytearray(encode(self.RAW))
        with pytest.raises(DecodeError, match=rf"{name} {CANNOT}"):
            run(bytes(data[: len(data) // 2]), [Codec(name)], len(self.RAW))

    def test_another_length_is_an_error(self, name: str, encode: object) -> None:
        for n_bytes in (len(self.RAW) - 1, len(self.RAW) + 1):
            with pytest.raises(DecodeError, match=rf"{name} {CANNOT}"):
                run(encode(self.RAW), [Codec(name)], n_bytes)


@pytest.mark.parametrize(
    ("codecs", "reason"),
    [
        ([Codec("zlib"), Codec("zstd")], "several compressors"),
        ([Codec("zlib"), Codec("shuffle", item_bytes=4)], "shuffle in an unusual place"),
        ([Codec("shuffle", item_bytes=4), Codec("shuffle", item_bytes=2)], "shuffle in an unusual place"),
        ([Codec("szip")], "codec szip"),
        ([Codec("shuffle", item_bytes=4), Codec("zlib"), Codec("crc32c")], ""),
    ],
)
def test_chains_of_unknown_length_are_left_to_the_libraries(codecs: list[Codec], reason: str) -> None:
    assert reason_against(tuple(codecs)) == reason


def test_flipped_byte_under_crc32c() -> None:
    data = bytearray(b"rows" * 10)
    data += google_crc32c.value(bytes(data)).to_bytes(4, "little")
    data[5] ^= 1
    with pytest.raises(DecodeError, match="crc32c checksum does not match"):
        run(bytes(data), [Codec("crc32c")], 40)


def test_raw_chunk_of_another_length() -> None:
    with pytest.raises(DecodeError, match="it has 3 bytes, where 4 belong"):
        run(b"abc", [], 4)


def test_scratch_is_aligned_reused_and_counted() -> None:
    counted: list[int] = []
    scratch = Scratch(counted.append)
    first = scratch.get("a", 1000)
    assert first.ctypes.data % ALIGNMENT == 0
    assert scratch.get("a", 500).ctypes.data == first.ctypes.data
    scratch.get("a", 1500)
    assert sum(counted) == scratch.nbytes == 1500
