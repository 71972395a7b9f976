import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import oocload
from oocload.errors import StoreFormatError, StoreNotFoundError, UnknownFieldError


@pytest.mark.direct
def test_shows_fields_without_reading_data(make_store: Callable[..., Path]) -> None:
    path = make_store(compression="gzip", shuffle=True)
    with oocload.open(path) as store:
        field = store.fields["y"]
        assert (field.shape, field.dtype, field.chunks) == ((1003,), np.dtype("int64"), (13,))
        assert (field.decoder, field.read_path) == ("shuffle+deflate-4", "direct")
        text = repr(store)
    for shown in ("HDF5 store", "1003 × 7 × 5", "uint8", "13 × 7 × 5", "shuffle+deflate-4", "direct"):
        assert shown in text


def test_shows_zarr_shards_and_versions(tmp_path: Path) -> None:
    for version, options in ((2, {}), (3, {"shards": (40, 4)})):
        path = tmp_path / f"v{version}.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=version)
        group.create_array("a/b", shape=(100, 4), chunks=(10, 4), dtype="f4", **options)
        text = repr(oocload.open(path))
        assert f"Zarr v{version} store" in text
        assert "a/b" in text
        assert ("in shards 40 × 4" in text) == (version == 3)


@pytest.mark.direct
def test_says_why_a_field_is_not_read_directly(make_store: Callable[..., Path]) -> None:
    store = oocload.open(make_store(scaleoffset=0))
    assert (store.fields["x"].read_path, store.fields["x"].reason) == ("h5py", "codec scaleoffset")
    assert "h5py: codec scaleoffset" in repr(store)


def test_opens_a_group_inside_a_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file["deep/er/x"] = np.arange(10)
        file["other"] = np.arange(3)
    store = oocload.open(f"{tmp_path}/g.h5::deep")
    assert list(store.fields) == ["er/x"]
    with pytest.raises(UnknownFieldError, match="group 'nope' must be a group of .*g.h5, and nothing has that name"):
        oocload.open(f"{tmp_path}/g.h5::nope")
    with pytest.raises(UnknownFieldError, match="'other' must be a group of .*g.h5, and it is an array; name it"):
        oocload.open(f"{tmp_path}/g.h5::other")


def test_a_file_stays_free_for_others(make_store: Callable[..., Path]) -> None:
    path = make_store()
    with oocload.Loader(path, 10) as loader, h5py.File(path, "r") as file:
        next(iter(loader))
        assert len(file["y"]) == 1003


def test_dangling_and_cyclic_links_are_passed_over(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "l.h5", "w") as file:
        file["x"] = np.arange(4)
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("missing.h5", "x")
        file["group/up"] = h5py.SoftLink("/")
    assert "x" in oocload.open(tmp_path / "l.h5").fields


@pytest.mark.direct
def test_follows_external_links(make_store: Callable[..., Path], tmp_path: Path) -> None:
    source = make_store(name="source.h5", compression="gzip")
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["linked"] = h5py.ExternalLink(source.name, "y")
    with oocload.Loader(tmp_path / "link.h5", 100, x="linked", shuffle=False) as loader:
        assert np.array_equal(np.concatenate(list(loader)), np.arange(1003))
        assert loader.stats.paths == {"linked": "direct"}


def test_an_unreadable_field_stops_nobody_else(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    group.create_array("x", data=np.arange(10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group.create_array("text", shape=(10,), dtype=str)
    with oocload.Loader(tmp_path / "s.zarr", 5, x="x", shuffle=False) as loader:
        assert next(iter(loader)).tolist() == [0, 1, 2, 3, 4]
    metadata = tmp_path / "s.zarr" / "text" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"string"', '"a type of the future"'))
    with oocload.Loader(tmp_path / "s.zarr", 5, x="x", shuffle=False) as loader:
        assert next(iter(loader)).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(StoreFormatError, match=r"field 'text' of .* cannot be read: zarr cannot open it: .*future"):
        oocload.Loader(tmp_path / "s.zarr", 5, x="text")


def test_damaged_metadata_of_a_member(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    group.create_array("x", data=np.arange(10))
    (tmp_path / "s.zarr" / "x" / "zarr.json").write_text("{")
    with pytest.raises(StoreFormatError, match=r"x/zarr.json must be the metadata of a Zarr array or group, and is"):
        oocload.open(tmp_path / "s.zarr")


def test_pickles_as_its_address(make_store: Callable[..., Path]) -> None:
    store = oocload.open(make_store())
    again = pickle.loads(pickle.dumps(store))
    assert again.fields == store.fields


def test_reads_the_corpus_as_h5py_does(corpus: list[Path]) -> None:
    n_fields = 0
    for path in corpus:
        store = oocload.open(path)
        for name, field in store.fields.items():
            if not field.shape or not field.n_rows:
                continue
            with oocload.Loader(path, max(1, field.n_rows // 3), x=name, shuffle=False) as loader:
                got = np.concatenate([np.array(x) for x in loader])
            with h5py.File(path) as file:
                np.testing.assert_array_equal(got, file[name][()])
            n_fields += 1
    assert n_fields > 40


@pytest.mark.parametrize("name", ["s.h5", "s.zarr", "fallback.h5"])
def test_a_change_of_folder_does_not_lose_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make_store: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "fallback.h5":
        make_store(name=name, fletcher32=True)
    else:
        oocload.convert((np.arange(1003), np.arange(1003)), name)
    with oocload.Loader(name, 100, x="y", shuffle=False) as loader:
        monkeypatch.chdir("/")
        assert np.array_equal(np.concatenate([y.copy() for y in loader]), np.arange(1003))
        assert np.array_equal(pickle.loads(pickle.dumps(loader))[0], np.arange(100))


@pytest.mark.direct
def test_zip_store_and_lone_array(tmp_path: Path) -> None:
    rows = np.arange(600).reshape(100, 6)
    with zarr.storage.ZipStore(tmp_path / "z.zarr.zip", mode="w") as zipped:
        zarr.open_group(zipped, mode="w").create_array("a", data=rows, chunks=(7, 6))
    zarr.create_array(tmp_path / "lone.zarr", data=rows, chunks=(7, 6))
    for name, path, field in (("z.zarr.zip", "direct", "a"), ("lone.zarr", "direct", "x")):
        with oocload.Loader(tmp_path / name, 9, x=field, shuffle=False) as loader:
            assert np.array_equal(np.concatenate([x.copy() for x in loader]), rows)
            assert loader.stats.paths == {field: path}


def test_missing_path() -> None:
    with pytest.raises(StoreNotFoundError, match=r"store must exist, got 'no/such\.h5'; nothing lies at that path"):
        oocload.open("no/such.h5")
    with pytest.raises(StoreNotFoundError, match=r"store must exist, got 'no/such\.zarr'"):
        oocload.open("no/such.zarr")


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("rows")
    with pytest.raises(StoreFormatError, match=r"store must have a suffix that names its format \(\.h5"):
        oocload.open(tmp_path / "data.txt")


@pytest.mark.parametrize("name", ["fake.h5", "fake.zarr"])
def test_file_that_is_not_what_its_suffix_says(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("this is no array at all")
    kind = "an HDF5 file" if name.endswith("h5") else "a Zarr store"
    with pytest.raises(StoreFormatError, match=f"must be {kind}, and"):
        oocload.open(tmp_path / name)


def test_directory_named_as_hdf5(tmp_path: Path) -> None:
    (tmp_path / "dir.h5").mkdir()
    with pytest.raises(StoreFormatError, match=r"must be an HDF5 file, and is a directory"):
        oocload.open(tmp_path / "dir.h5")


def test_truncated_hdf5(make_store: Callable[..., Path]) -> None:
    path = make_store(compression="gzip")
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(StoreFormatError, match=r"is truncated: .* copy or write it again"):
        oocload.open(path)


def test_not_a_path() -> None:
    with pytest.raises(oocload.InvalidArgumentError, match="store must be a path, a glob or a list of paths, got 7"):
        oocload.open(7)  # type: ignore[arg-type]
    with pytest.raises(oocload.InvalidArgumentError, match=r"got array\(.{,40}\); .* write rows in memory to a store"):
        oocload.open(np.zeros((1000, 30)))  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["https://a.org/b.h5", "s3://a/b.parquet", "gs://a/b.bin"])
def test_a_url_is_no_path(url: str, tmp_path: Path) -> None:
    with pytest.raises(
        StoreNotFoundError, match="got '.*://.*'; stores and sources are read from a file system: copy it"
    ):
        oocload.open(url)
    with pytest.raises(StoreNotFoundError, match="source must exist, got '.*://a"):
        oocload.convert(url, tmp_path / "t.h5")


def test_zarr_that_lost_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "m.zarr"
    zarr.open_group(path, mode="w").create_array("x", shape=(4,), dtype="i4")
    (path / "zarr.json").unlink()
    shutil.rmtree(path / "x")
    with pytest.raises(StoreFormatError, match="must be a Zarr store, and zarr cannot open it"):
        oocload.open(path)
