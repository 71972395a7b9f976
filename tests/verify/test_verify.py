"""Whatever is changed in the bytes of a store is found, and the chunk that has it is named."""

import json
import re
import shutil
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import oocload
from oocload import BadChunk
from oocload.errors import (
    InvalidArgumentError,
    StoreFormatError,
    StoreNotFoundError,
    UnknownFieldError,
)
from oocload.stores.checksums import read_checksums
from oocload.verify.chunks import BUFFER_NBYTES
from tests.verify.checksums import add_checksums, checksums_of, stored_by_zarr

N_ROWS, HEIGHT = 100, 13
KINDS = {
    "gzip.h5": {},
    "lzf.h5": {"codec": "lzf"},
    "raw.h5": {"codec": "none"},
    "zstd.zarr": {},
    "raw.zarr": {"codec": "none"},
    "shards.zarr": {"chunks_per_shard": 3},
}
Place = tuple[str, int, Path, int, int]  # array, chunk, file, offset, bytes


def rows() -> dict[str, object]:
    rng = np.random.default_rng(0)
    tokens = [rng.integers(0, 99, n).astype("i4") for n in rng.integers(0, 60, N_ROWS)]
    return {
        "x": rng.integers(0, 9, (N_ROWS, 16, 96)).astype("u2"),
        "g/noise": rng.integers(0, 256, (N_ROWS, 3072), "u1"),
        "t": tokens,
    }


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One store of each kind, with checksums; who changes one puts it back."""
    folder = tmp_path_factory.mktemp("stores")
    for name, options in KINDS.items():
        oocload.convert(rows(), folder / name, chunk_rows=HEIGHT, chunk_bytes=4096, **options)
    return {name: folder / name for name in KINDS}


def places(path: Path) -> list[Place]:
    """Return where h5py, or the specification of Zarr, says that chunks lie."""
    found: list[Place] = []
    names = ("x", "g/noise", "t/values", "t/offsets")
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            for name in names:
                for i in range(file[name].id.get_num_chunks()):
                    info = file[name].id.get_chunk_info(i)
                    chunk = info.chunk_offset[0] // file[name].chunks[0]
                    found.append((name, chunk, path, info.byte_offset, info.size))
        return found
    group = zarr.open_group(path, mode="r")
    for name in names:
        array = group[name]
        for chunk in range(-(-array.shape[0] // array.chunks[0])):
            stored = stored_by_zarr(array, path / name, (chunk, *(0 for _ in array.shape[1:])))
            if stored is not None:
                found.append((name, chunk, stored[0], stored[1], len(stored[2])))
    return found


@contextmanager
def changed(file: Path, at: int, mask: int) -> Iterator[None]:
    """Flip some bits of a byte for a moment."""
    whole = file.read_bytes()
    file.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
    try:
        yield
    finally:
        file.write_bytes(whole)


@pytest.fixture
def copy(stores: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a store, to be changed."""

    def copied(name: str) -> Path:
        source, path = stores[name], tmp_path / name
        shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path)
        return path

    return copied


def why(report: oocload.VerifyReport) -> list[str]:
    return [str(bad).split(": ", 1)[1] for bad in report.bad]


def rewrite(file: Path, change: Callable[[dict], None]) -> None:
    metadata = json.loads(file.read_text())
    change(metadata)
    file.write_text(json.dumps(metadata))


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_store_is_whole(stores: dict[str, Path], name: str) -> None:
    report = oocload.verify(stores[name])
    assert report.ok
    assert report.unchecked == ()
    there = places(stores[name])
    assert (report.n_chunks, report.nbytes) == (len(there), sum(nbytes for *_, nbytes in there))
    assert str(report).startswith(f"verified {stores[name]}: {len(there)} chunks (")
    assert ", all as they were written; " in str(report)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=20)
@given(data=st.data())
def test_every_flipped_bit_of_the_data_is_found_and_its_chunk_named(
    stores: dict[str, Path], name: str, data: st.DataObject
) -> None:
    path = stores[name]
    field, chunk, file, offset, nbytes = data.draw(st.sampled_from(places(path)))
    at = offset + data.draw(st.integers(0, nbytes - 1))
    with changed(file, at, 1 << data.draw(st.integers(0, 7))):
        report = oocload.verify(path)
    with oocload.open(path) as store:
        layout = store.field(field)
    rows = chunk * layout.chunk_rows, min(layout.n_rows, (chunk + 1) * layout.chunk_rows)
    (bad,) = report.bad
    assert bad == BadChunk(field, chunk, rows, str(file), offset, bad.why)
    assert bad.why.startswith("its bytes are not those that were written (CRC-32C ")
    assert not report.ok
    first, summary = str(report).splitlines()
    assert first.startswith(f"bad: {field}, chunk {chunk}, rows {rows[0]} to {rows[1]}, in {file} at byte {offset}: ")
    assert ", 1 bad; " in summary


@pytest.mark.parametrize("name", KINDS)
def test_what_the_writer_keeps_is_what_h5py_and_zarr_find(stores: dict[str, Path], name: str) -> None:
    found = checksums_of(stores[name])
    assert sorted(found) == ["g/noise", "t/offsets", "t/values", "x"]
    with oocload.open(stores[name]) as store:
        for array, known in found.items():
            kept = read_checksums(store, array)
            assert kept is not None
            assert replace(kept, segments=[], conversion="") == replace(known, segments=[])
            assert [s.first for s in kept.segments] == [s.first for s in known.segments]
            for ours, theirs in zip(kept.segments, known.segments, strict=True):
                np.testing.assert_array_equal(ours.nbytes, theirs.nbytes, err_msg=array)
                np.testing.assert_array_equal(ours.crc32c, theirs.crc32c, err_msg=array)
        attribute = store.root_attribute("oocload_checksums")
    assert attribute == ('{"arrays":["g/noise","t/offsets","t/values","x"],"ragged":{"t":0}}', "")


@pytest.mark.parametrize("name", ["gzip.h5", "zstd.zarr"])
@settings(max_examples=20)
@given(data=st.data())
def test_every_flipped_bit_of_the_manifest_is_found(stores: dict[str, Path], name: str, data: st.DataObject) -> None:
    path, array = stores[name], data.draw(st.sampled_from(["x", "g/noise", "t/values"]))
    file = path if path.suffix == ".h5" else path / array / "oocload_checksums_000"
    blob = file.read_bytes() if file != path else blob_in_hdf5(path, array)
    at, mask = data.draw(st.integers(0, len(blob) - 1)), 1 << data.draw(st.integers(0, 7))
    starts = [0] if file != path else places_of(path.read_bytes(), blob)
    with ExitStack() as stack:
        for start in starts:
            stack.enter_context(changed(file, start + at, mask))
        report = oocload.verify(path)
    (bad,) = report.bad
    assert "its checksums cannot be read: oocload_checksums_000 must be as it was written, and is damaged" in bad.why
    assert bad.rows is not None
    assert (bad.field, bad.chunk, bad.rows[0]) == (array, 0, 0)


def blob_in_hdf5(path: Path, array: str) -> bytes:
    with h5py.File(path) as file:
        return file[array].attrs["oocload_checksums_000"].tobytes()


def places_of(whole: bytes, blob: bytes) -> list[int]:
    """Return where some bytes lie; HDF5 may have left copies where they no longer count."""
    return [match.start() for match in re.finditer(re.escape(blob), whole)]


@given(data=st.data())
def test_every_flipped_bit_of_zarr_metadata_that_matters_is_found(stores: dict[str, Path], data: st.DataObject) -> None:
    path = stores["zstd.zarr"]
    folder = path / data.draw(st.sampled_from(["x", "t/offsets"]))
    file = folder / "zarr.json"
    before = facts_by_zarr(folder)
    with changed(file, data.draw(st.integers(0, file.stat().st_size - 1)), 1 << data.draw(st.integers(0, 7))):
        try:
            report = oocload.verify(path)
        except StoreFormatError:
            return
        assert not report.ok or facts_by_zarr(folder) == before


def facts_by_zarr(folder: Path) -> object:
    array = zarr.open_array(folder, mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return array.shape, array.dtype, array.chunks, array.shards, str(array.compressors), array.serializer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["shape"].__setitem__(0, 99), "its shape is (99, 16, 96), and (100, 16, 96) when its checksums"),
        (lambda m: m["shape"].__setitem__(1, 6), "its shape is (100, 6, 96), and (100, 16, 96) when its checksums"),
        (lambda m: m.update(data_type="int16"), "its dtype is <i2, and <u2 when its checksums were taken"),
        (
            lambda m: m["codecs"][0]["configuration"].update(endian="big"),
            "its dtype is >u2, and <u2 when its checksums were taken",
        ),
        (
            lambda m: m["codecs"][1]["configuration"].update(level=4),
            "its codecs are ['zstd-4'], and ['zstd-3'] when its checksums were taken",
        ),
        (
            lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[12, 16, 96]),
            "its chunks are (12, 16, 96), and (13, 16, 96) when its checksums were taken",
        ),
        (lambda m: m["codecs"][1].update(name="zztd"), "it cannot be read any more: zarr cannot open it"),
    ],
)
def test_other_facts_are_named(copy: Callable[[str], Path], change: Callable[[dict], None], message: str) -> None:
    path = copy("zstd.zarr")
    rewrite(path / "x/zarr.json", change)
    bad = oocload.verify(path).bad[0]
    assert (bad.field, bad.chunk, bad.rows) == ("x", None, None)
    assert message in bad.why


def test_missing_longer_and_unexpected_chunks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path / "x", shape=(50,), chunks=(10,), dtype="u1", compressors=None)
    zarr.open_group(path, mode="a")
    array[:30] = 7
    add_checksums(path)
    assert oocload.verify(path).ok
    (path / "x/c/0").unlink()
    (path / "x/c/1").write_bytes(bytes(11))
    (path / "x/c/4").write_bytes(bytes(10))
    report = oocload.verify(path)
    assert [(bad.chunk, bad.rows) for bad in report.bad] == [(0, (0, 10)), (1, (10, 20)), (4, (40, 50))]
    assert why(report) == [
        "it is missing, and had 10 bytes",
        "it has 11 bytes, and had 10",
        "it is there, with 10 bytes, and was never written",
    ]


def test_a_damaged_index_of_a_shard_is_that_of_its_chunks(copy: Callable[[str], Path]) -> None:
    path = copy("shards.zarr")
    shard = path / "x/c.1.0.0"
    with changed(shard, shard.stat().st_size - 10, 1):
        report = oocload.verify(path)
    assert [(bad.field, bad.chunk) for bad in report.bad] == [("x", 3), ("x", 4), ("x", 5)]
    assert all(w.endswith("c.1.0.0 fails its checksum; the file is damaged") for w in why(report))
    shard.unlink()
    assert [w.partition(",")[0] for w in why(oocload.verify(path))] == ["it is missing"] * 3


def test_a_changed_filter_mask_is_found(stores: dict[str, Path]) -> None:
    """It says which filters a chunk went through, and lies in the index, not in the chunk."""
    path = stores["lzf.h5"]
    with h5py.File(path) as file:
        info = file["g/noise"].id.get_chunk_info(1)
    assert (info.filter_mask, info.chunk_offset) == (1, (13, 0))  # noise does not get smaller
    key = struct.pack("<IIQQ", info.size, info.filter_mask, *info.chunk_offset)
    with changed(path, path.read_bytes().index(key) + 4, 1):
        (bad,) = oocload.verify(path).bad
    assert (bad.field, bad.chunk) == ("g/noise", 1)


def test_lost_arrays_lists_and_checksums_are_named(copy: Callable[[str], Path]) -> None:
    path = copy("zstd.zarr")
    shutil.rmtree(path / "x")
    (path / "g/noise/oocload_checksums_000").unlink()
    report = oocload.verify(path)
    assert [(bad.field, bad.why) for bad in report.bad] == [
        ("g/noise", "its checksums are missing"),
        ("x", "the array is missing, and had checksums"),
    ]
    path = copy("gzip.h5")
    with h5py.File(path, "a") as file:
        del file.attrs["oocload_checksums"]
    assert "list of its arrays that have checksums" in why(oocload.verify(path))[0]


def test_a_group_that_is_no_field_any_more_is_named(copy: Callable[[str], Path]) -> None:
    path = copy("gzip.h5")
    with h5py.File(path, "a") as file:
        del file["t"].attrs["oocload_encoding"]
    assert why(oocload.verify(path)) == [
        "its arrays are no ragged or sparse field any more: the attributes of the group are damaged"
    ]
    path = copy("zstd.zarr")
    rewrite(path / "g/zarr.json", lambda m: m.update(zarr_format=7))
    assert why(oocload.verify(path))[0].startswith("zarr cannot list it: ")


def test_an_hdf5_file_that_hdf5_cannot_go_through_is_named(stores: dict[str, Path]) -> None:
    """A tree of chunks says where its neighbours are, which looking for a chunk never asks."""
    path = stores["gzip.h5"]
    tree = path.read_bytes().index(b"TREE\1\0")
    with changed(path, tree + 16, 32):
        assert why(oocload.verify(path))[0].startswith("HDF5 cannot list it: ")


def test_a_chunk_that_hdf5_does_not_find_is_named(stores: dict[str, Path]) -> None:
    """Its bytes are right, but whoever reads the file with h5py gets fill values."""
    path = stores["gzip.h5"]
    with h5py.File(path) as file:
        before = file["x"][()]
        last = file["x"].id.get_chunk_info(7).byte_offset
    whole = path.read_bytes()
    row = whole.index(struct.pack("<Q", last)) + 16  # of the key behind the last chunk, which bounds it
    with changed(path, row, whole[row]):
        report = oocload.verify(path)
        with h5py.File(path) as file:
            assert not np.array_equal(file["x"][()], before)
    assert [(bad.field, bad.chunk, bad.why) for bad in report.bad] == [
        ("x", 7, "HDF5 does not find it by its index, which is damaged")
    ]


def test_an_impossible_address_in_the_index_is_an_error_of_the_array(stores: dict[str, Path]) -> None:
    path = stores["gzip.h5"]
    _, _, _, offset, _ = next(place for place in places(path) if place[:2] == ("x", 1))
    address = path.read_bytes().index(struct.pack("<Q", offset))
    with changed(path, address + 7, 128):
        (bad,) = oocload.verify(path, fields=["x"]).bad
    assert (bad.field, bad.chunk) == ("x", None)
    assert "is damaged: h5py cannot read its metadata: " in bad.why


def test_sparse_fields_are_checked_with_their_number_of_columns(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    path = tmp_path / "a.h5"
    oocload.convert({"s": sparse.random(50, 20, 0.2, "csr", random_state=0)}, path)
    assert oocload.verify(path, fields=["s"]).ok
    with h5py.File(path, "a") as file:
        file["s"].attrs["shape"] = [50, 21]
    assert why(oocload.verify(path)) == ["it has 21 columns, and had 20"]


def test_arrays_without_checksums_are_named(copy: Callable[[str], Path], tmp_path: Path) -> None:
    path = copy("gzip.h5")
    with h5py.File(path, "a") as file:
        file["more"] = np.arange(3)
    np.save(tmp_path / "y.npy", np.arange(3))
    report = oocload.verify([path, tmp_path / "y.npy"])
    assert report.ok
    assert report.unchecked == (f"{path}::more", f"{tmp_path}/y.npy::x")
    assert f"without checksums, so not checked: {path}::more, {tmp_path}/y.npy::x\n" in str(report)
    assert f"verified {path} and 1 other: " in str(report)


def test_several_files_are_checked_each_by_itself(copy: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("gzip.h5", "raw.h5", "lzf.h5"):
        copy(name)
    field, chunk, file, offset, _ = places(tmp_path / "lzf.h5")[0]
    (tmp_path / "raw.h5").write_bytes((tmp_path / "raw.h5").read_bytes()[:9000])
    with changed(file, offset, 1):
        report = oocload.verify(str(tmp_path / "*.h5"))
    broken, flipped = report.bad
    assert (broken.path, broken.field, broken.chunk) == (str(tmp_path / "raw.h5"), "", None)
    assert "it cannot be opened any more: " in broken.why
    assert "is truncated" in broken.why
    assert (flipped.path, flipped.field, flipped.chunk) == (str(file), field, chunk)
    whole = oocload.verify(tmp_path / "gzip.h5")
    assert report.n_chunks == 2 * whole.n_chunks


def test_parts_of_a_store(copy: Callable[[str], Path]) -> None:
    path = copy("zstd.zarr")
    counts = {
        name: sum(place[0] == name for place in places(path)) for name in ("x", "g/noise", "t/values", "t/offsets")
    }
    counts["t"] = counts["t/values"] + counts["t/offsets"]
    assert oocload.verify(path, fields=["x"]).n_chunks == counts["x"]
    assert oocload.verify(path, fields=["t"]).n_chunks == counts["t"]
    assert oocload.verify(path, fields=["t/values", "g"]).n_chunks == counts["t/values"] + counts["g/noise"]
    for part in (f"{path}::g", path / "g", path / "g/noise"):
        report = oocload.verify(part)
        assert (report.n_chunks, report.ok) == (counts["g/noise"], True), report
    for part in (f"{path}::t", path / "t"):
        report = oocload.verify(part, fields=["x"])
        assert (report.n_chunks, report.ok) == (counts["t"], True), report


def test_a_zip_file_is_checked(copy: Callable[[str], Path], tmp_path: Path) -> None:
    path = copy("shards.zarr")
    packed, squeezed = tmp_path / "a.zarr.zip", tmp_path / "b.zarr.zip"
    for file, method in ((packed, zipfile.ZIP_STORED), (squeezed, zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(file, "w", method) as archive:
            for member in sorted(p for p in path.rglob("*") if p.is_file()):
                archive.write(member, member.relative_to(path))
    report = oocload.verify(packed)
    assert report.ok
    assert report.n_chunks == len(places(path))
    start = packed.read_bytes().index((path / "x/c.0.0.0").read_bytes())
    with changed(packed, start + 3, 1):
        (bad,) = oocload.verify(packed).bad
    assert (bad.field, bad.chunk, bad.path) == ("x", 0, str(packed))
    assert "its chunks cannot be found in a zip file with compressed members" in why(oocload.verify(squeezed))[0]


def test_chunks_in_two_dimensions_and_segments_of_many_chunks(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(2500 * 4).reshape(2500, 4), chunks=(1, 2))
    add_checksums(path)
    assert oocload.verify(path).n_chunks == 5000
    with h5py.File(path) as file:
        offset = file["x"].id.get_chunk_info_by_coord((2400, 2)).byte_offset
        assert len(file["x"].attrs) == 2
    (segment_at,) = places_of(path.read_bytes(), blob_in_hdf5(path, "x"))
    with changed(path, offset + 15, 1), changed(path, segment_at + 500, 1):
        segment, flipped = oocload.verify(path).bad
    assert (flipped.chunk, flipped.rows) == (4801, (2400, 2401))
    assert (segment.chunk, segment.rows) == (0, (0, 2048))
    assert segment.why.endswith("(those of chunks 0 to 4095)")


def test_chunks_larger_than_a_buffer(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(5, BUFFER_NBYTES), chunks=(2, BUFFER_NBYTES), dtype="u1")
        file["x"][:3] = np.random.default_rng(0).integers(0, 256, (3, BUFFER_NBYTES), "u1")
        file["x"][4] = 1
    add_checksums(path)
    assert oocload.verify(path, threads=1).ok
    with h5py.File(path) as file:
        offset = file["x"].id.get_chunk_info(1).byte_offset
    with changed(path, offset + 2 * BUFFER_NBYTES - 1, 1):
        assert [bad.chunk for bad in oocload.verify(path).bad] == [1]


def test_a_store_that_changes_meanwhile_is_no_damaged_one(
    copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy("zstd.zarr")
    (path / "x/c.0.0.0").write_bytes(b"other")

    def check_and_touch(*arguments: object) -> object:
        rewrite(path / "x/zarr.json", lambda m: m["shape"].__setitem__(0, 99))
        return original(*arguments)

    module = sys.modules["oocload.verify.verify"]
    original = module._check
    monkeypatch.setattr(module, "_check", check_and_touch)
    with pytest.raises(StoreFormatError, match="has changed since it was opened"):
        oocload.verify(path)


def test_wrong_calls(tmp_path: Path, copy: Callable[[str], Path]) -> None:
    path = copy("gzip.h5")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["x"] = np.arange(3)
    message = "store must have checksums, and .*plain.h5 has none: it was not written by oocload, or .*; run oocload"
    with pytest.raises(InvalidArgumentError, match=message):
        oocload.verify(tmp_path / "plain.h5")
    with pytest.raises(StoreNotFoundError, match="store must exist"):
        oocload.verify(tmp_path / "nothing.zarr")
    (tmp_path / "a folder").mkdir()
    with pytest.raises(StoreFormatError, match="must be a Zarr store"):
        oocload.verify(tmp_path / "a folder")
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(StoreFormatError, match="store must have a suffix that names its format"):
        oocload.verify(tmp_path / "a.txt")
    with pytest.raises(UnknownFieldError, match="field 'z' must be one of those in"):
        oocload.verify(path, fields=["z"])
    for fields in ("x", []):
        with pytest.raises(InvalidArgumentError, match="fields must be a list of at least one name"):
            oocload.verify(path, fields=fields)
    with pytest.raises(InvalidArgumentError, match="threads must be a whole number of at least 1, got 0"):
        oocload.verify(path, threads=0)
