"""For every pairing of source and target, what comes out equals what went in."""

import gzip
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

import oocload
from oocload.errors import (
    ConversionError,
    InvalidArgumentError,
    StoreFormatError,
    StoreNotFoundError,
    TargetExistsError,
    UnknownFieldError,
)
from tests.conftest import read_back

N_ROWS = 1003
X = np.random.default_rng(0).normal(size=(N_ROWS, 7, 3)).astype("float32")
Y = np.arange(N_ROWS, dtype="int64")
IMAGES = np.random.default_rng(1).integers(0, 256, (N_ROWS, 5, 5), dtype=np.uint8)


def npy(folder: Path) -> Any:
    np.save(folder / "a.npy", X)
    return folder / "a.npy", {"x": X}


def npy_fortran(folder: Path) -> Any:
    np.save(folder / "a.npy", np.asfortranarray(X))
    return folder / "a.npy", {"x": X}


def npy_big_endian(folder: Path) -> Any:
    np.save(folder / "a.npy", X.astype(">f4"))
    return folder / "a.npy", {"x": X}


def npz(folder: Path) -> Any:
    np.savez(folder / "a.npz", images=X, labels=Y)
    return folder / "a.npz", {"images": X, "labels": Y}


def npz_compressed_fortran(folder: Path) -> Any:
    np.savez_compressed(folder / "a.npz", images=np.asfortranarray(X), labels=Y)
    return folder / "a.npz", {"images": X, "labels": Y}


def idx_bytes(array: np.ndarray) -> bytes:
    code = {"u1": 8, "i2": 11, "f4": 13}[array.dtype.str[1:]]
    return (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


def idx(folder: Path) -> Any:
    (folder / "a-idx3-ubyte").write_bytes(idx_bytes(IMAGES))
    return folder / "a-idx3-ubyte", {"x": IMAGES}


def idx_gzip(folder: Path) -> Any:
    (folder / "x.gz").write_bytes(gzip.compress(idx_bytes(IMAGES)))
    (folder / "y.gz").write_bytes(gzip.compress(idx_bytes(Y.astype("<i2"))))
    return {"x": folder / "x.gz", "y": folder / "y.gz"}, {"x": IMAGES, "y": Y.astype("int16")}


def dict_of_arrays(folder: Path) -> Any:
    memmap = np.memmap(folder / "m.bin", X.dtype, "w+", shape=X.shape)
    memmap[:] = X
    return {"x": memmap, "y": Y, "z": Y.tolist()}, {"x": X, "y": Y, "z": Y}


def pair_of_arrays(folder: Path) -> Any:
    return (X, Y), {"x": X, "y": Y}


def batches_of_dicts(folder: Path) -> Any:
    def batches() -> Iterator[dict[str, np.ndarray]]:
        buffer = np.empty((77, 7, 3), "float32")  # reused between batches, as generators do
        for i in range(0, N_ROWS, 77):
            n = len(X[i : i + 77])
            buffer[:n] = X[i : i + 77]
            yield {"x": buffer[:n], "y": Y[i : i + 77]}

    return batches(), {"x": X, "y": Y}


def list_of_tuples(folder: Path) -> Any:
    return [(X[i : i + 100], Y[i : i + 100]) for i in range(0, N_ROWS, 100)], {"x": X, "y": Y}


def hdf5(folder: Path) -> Any:
    with h5py.File(folder / "s.h5", "w") as file:
        file.create_dataset("x", data=X, chunks=(13, 2, 3), compression="gzip", shuffle=True)
        file.create_dataset("deep/y", data=Y)
    return folder / "s.h5", {"x": X, "deep/y": Y}


def zarr_v2(folder: Path) -> Any:
    group = zarr.open_group(folder / "s.zarr", mode="w", zarr_format=2)
    group.create_array("x", data=X, chunks=(50, 7, 3))
    group.create_array("y", data=Y, chunks=(64,))
    return folder / "s.zarr", {"x": X, "y": Y}


def open_store(folder: Path) -> Any:
    path, expected = zarr_v2(folder)
    return oocload.open(path), expected


SOURCES = [
    npy,
    npy_fortran,
    npy_big_endian,
    npz,
    npz_compressed_fortran,
    idx,
    idx_gzip,
    dict_of_arrays,
    pair_of_arrays,
    batches_of_dicts,
    list_of_tuples,
    hdf5,
    zarr_v2,
    open_store,
]
TARGETS: list[tuple[str, dict[str, Any]]] = [
    ("t.h5", {}),
    ("t.hdf5", {"codec": "none"}),
    ("t.h5", {"codec": "lzf", "chunk_rows": 10}),
    ("t.h5", {"codec": "gzip", "level": 9, "chunk_bytes": "4 KiB"}),
    ("t.zarr", {}),
    ("t.zarr", {"codec": "none", "chunk_rows": 10}),
    ("t.zarr", {"codec": "blosc", "chunk_bytes": 5000}),
    ("t.zarr", {"codec": "gzip", "chunk_rows": 20, "chunks_per_shard": 4}),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("target", "options"), TARGETS)
def test_what_comes_out_equals_what_went_in(
    tmp_path: Path, source: Callable[[Path], Any], target: str, options: dict[str, Any]
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    given, expected = source(folder)
    report = oocload.convert(given, tmp_path / target, **options)
    got = read_back(tmp_path / target)
    assert got.keys() == expected.keys()
    for name, rows in expected.items():
        assert got[name].dtype == rows.dtype
        np.testing.assert_array_equal(got[name], rows)
    assert (report.n_rows, set(report.fields)) == (N_ROWS, set(expected))
    assert report.nbytes == sum(a.nbytes for a in expected.values())
    assert report.stored_nbytes > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", target]


def test_chunks_have_the_same_height_in_every_large_field(tmp_path: Path) -> None:
    rows = {"a": np.zeros((5000, 1000), "u1"), "b": np.zeros((5000, 300), "f4"), "y": np.zeros(5000, "i8")}
    for target in ("t.h5", "t.zarr"):
        oocload.convert(rows, tmp_path / target, chunk_bytes="120 KiB")
        fields = oocload.open(tmp_path / target).fields
        assert fields["a"].chunk_rows == fields["b"].chunk_rows == 102
        assert fields["y"].chunk_rows == 3264
        with oocload.Loader(tmp_path / target, 10, seed=0) as loader:
            assert loader.stats.amplification == 0


def test_converted_store_trains_in_the_order_of_its_source(tmp_path: Path) -> None:
    oocload.convert((X, Y), tmp_path / "t.h5", chunk_rows=10)
    with oocload.Loader(tmp_path / "t.h5", 100, seed=0) as loader:
        for x, y in loader:
            np.testing.assert_array_equal(x, X[y])


def test_select_fields(tmp_path: Path) -> None:
    given, expected = hdf5(tmp_path)
    oocload.convert(given, tmp_path / "t.zarr", fields=["deep/y"])
    assert list(read_back(tmp_path / "t.zarr")) == ["deep/y"]
    oocload.convert(f"{given}::deep", tmp_path / "g.zarr")
    assert list(read_back(tmp_path / "g.zarr")) == ["y"]
    oocload.convert({"label": f"{given}::deep/y"}, tmp_path / "l.zarr")
    assert np.array_equal(read_back(tmp_path / "l.zarr")["label"], expected["deep/y"])
    with pytest.raises(UnknownFieldError, match="field 'z' must be one of those in"):
        oocload.convert(given, tmp_path / "u.zarr", fields=["z"])


def test_real_mnist(tmp_path: Path, mnist: Path) -> None:
    source = {"x": mnist / "t10k-images-idx3-ubyte.gz", "y": mnist / "t10k-labels-idx1-ubyte.gz"}
    for target in ("m.h5", "m.zarr"):
        oocload.convert(source, tmp_path / target)
        got = read_back(tmp_path / target)
        raw = gzip.decompress(source["x"].read_bytes())
        assert got["x"].tobytes() == raw[16:]
        assert got["y"].tobytes() == gzip.decompress(source["y"].read_bytes())[8:]


class TestBadInput:
    @pytest.fixture(autouse=True)
    def nothing_is_left(self, tmp_path: Path) -> Iterator[None]:
        yield
        assert not list(tmp_path.glob("t.*"))
        assert not list(tmp_path.glob(".*"))

    @pytest.mark.parametrize(
        ("source", "error", "message"),
        [
            (
                "nope.npy",
                StoreNotFoundError,
                r"source must exist, got '.*nope\.npy'; nothing lies at that path",
            ),
            ({"x": X, "y": Y[:5]}, InvalidArgumentError, "same number of rows: 'x' has 1003, 'y' has 5; row n of each"),
            (
                {"x": np.array([{}, None])},
                InvalidArgumentError,
                r"field 'x' \(array\) must have a fixed-size dtype, got object",
            ),
            (
                {"x": np.float32(3)},
                InvalidArgumentError,
                "field 'x' must be an array whose axis 0 counts rows, got a scalar",
            ),
            ({}, InvalidArgumentError, "source must have at least one field, got none"),
            (np.zeros((0, 3)), ConversionError, "source must have at least one row, got none"),
            ([], ConversionError, "a store must have at least one row, and none was appended"),
            (7, InvalidArgumentError, "source must be a path, an array, a dict of those, or an iterable"),
            (
                [3],
                InvalidArgumentError,
                r"each batch must be a dict of arrays, a tuple \(x, y\) or an array, got int",
            ),
            (
                [(X, Y), (X,)],
                InvalidArgumentError,
                r"rows must be given for fields \['x', 'y'\], got \['x'\]",
            ),
            (
                [(X,), (X[:, :2],)],
                InvalidArgumentError,
                r"rows of field 'x' must have shape \(7, 3\), got an array of shape",
            ),
            (
                [(Y,), (X[:, 0, 0],)],
                InvalidArgumentError,
                "rows of field 'x' must have dtype int64, got float32",
            ),
            (
                [(X, Y[:4])],
                InvalidArgumentError,
                "fields must be appended in equal numbers of rows: 'x' has 1003, 'y' has 4",
            ),
        ],
    )
    @pytest.mark.parametrize("target", ["t.h5", "t.zarr"])
    def test_sources(self, tmp_path: Path, source: Any, target: str, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            oocload.convert(tmp_path / source if isinstance(source, str) else source, tmp_path / target)

    @pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.gz", "a.h5", "a.zarr"])
    def test_a_file_that_is_not_what_its_suffix_says(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(StoreFormatError, match=r"must be|source must be one of \.npy"):
            oocload.convert(tmp_path / name, tmp_path / "t.h5")

    @pytest.mark.parametrize("write", [npy, npz, idx, idx_gzip])
    def test_truncated(self, tmp_path: Path, write: Callable[[Path], Any]) -> None:
        given, _ = write(tmp_path)
        path = given["x"] if isinstance(given, dict) else given
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(StoreFormatError, match=r"truncated|damaged"):
            oocload.convert(given, tmp_path / "t.zarr")

    def test_damaged_gzip(self, tmp_path: Path) -> None:
        given, _ = idx_gzip(tmp_path)
        data = bytearray(given["x"].read_bytes())
        data[len(data) // 2] ^= 0xFF
        given["x"].write_bytes(data)
        with pytest.raises(StoreFormatError, match=r"x\.gz is damaged or truncated"):
            oocload.convert(given, tmp_path / "t.h5")

    def test_pickled_objects_are_never_loaded(self, tmp_path: Path) -> None:
        np.save(tmp_path / "o.npy", np.array([{"a": 1}, None]), allow_pickle=True)
        with pytest.raises(InvalidArgumentError, match="pickled objects are never loaded"):
            oocload.convert(tmp_path / "o.npy", tmp_path / "t.h5")

    def test_batches_that_raise(self, tmp_path: Path) -> None:
        def batches() -> Iterator[np.ndarray]:
            yield X
            raise ValueError("the generator broke")

        for target in ("t.h5", "t.zarr"):
            with pytest.raises(ValueError, match="the generator broke"):
                oocload.convert(batches(), tmp_path / target)

    @pytest.mark.parametrize(
        ("rows", "target"),
        [
            (np.array(["abc", "de"]), "t.h5"),
            (np.array(["2026-01-01"], "datetime64[D]"), "t.h5"),
            (np.zeros(4, "longdouble"), "t.zarr"),
            ({"a": Y, "a/b": Y}, "t.h5"),
            ({"a": Y, "a/b": Y}, "t.zarr"),
        ],
    )
    def test_what_a_format_cannot_hold(self, tmp_path: Path, rows: Any, target: str) -> None:
        with pytest.raises(InvalidArgumentError, match=r"fields must be such as \.\w+ can hold|row shape of field"):
            oocload.convert(rows, tmp_path / target)

    @pytest.mark.parametrize(
        ("rows", "advice"),
        [
            (["abc", "de"], "store text as bytes .np.char.encode., or as tokens .*, or choose another target"),
            (np.array(["2026-01-01"], "datetime64[D]"), "store dates as whole numbers .*, or choose another target"),
        ],
    )
    def test_what_to_do_instead(self, tmp_path: Path, rows: Any, advice: str) -> None:
        with pytest.raises(InvalidArgumentError, match=advice):
            oocload.convert({"x": rows}, tmp_path / "t.h5")

    def test_garbage_behind_a_gzip_magic(self, tmp_path: Path) -> None:
        (tmp_path / "g.gz").write_bytes(b"\x1f\x8b\x08\x00" + bytes(range(200)))
        with pytest.raises(StoreFormatError, match=r"source must be one of"):
            oocload.convert(tmp_path / "g.gz", tmp_path / "t.h5")

    def test_npz_with_a_bad_checksum(self, tmp_path: Path) -> None:
        given, _ = npz(tmp_path)
        data = bytearray(given.read_bytes())
        data[5000] ^= 0xFF
        given.write_bytes(data)
        with pytest.raises(StoreFormatError, match=r"a\.npz::images is damaged or truncated: Bad CRC-32"):
            oocload.convert(given, tmp_path / "t.h5")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"codec": "brotli"}, "codec must be one of 'none', 'gzip', 'lzf', .* for this format, got 'brotli'"),
            ({"level": 30}, "level must be from 0 to 9 for codec 'gzip', got 30"),
            ({"codec": "none", "level": 1}, "level must be left out for codec 'none', got 1"),
            ({"chunk_bytes": "big"}, "chunk_bytes must be a size above zero, got 'big'"),
            ({"chunk_rows": 0}, "chunk_rows must be a whole number of at least 1, got 0"),
            ({"chunks_per_shard": 2}, "chunks_per_shard must be 1 for HDF5"),
        ],
    )
    def test_options(self, tmp_path: Path, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidArgumentError, match=message):
            oocload.convert(X, tmp_path / "t.h5", **options)

    @pytest.mark.parametrize("source", [[[1, 2], [3, 4]], ((X[i], Y[i]) for i in range(9))])
    def test_rows_for_batches(self, tmp_path: Path, source: Any) -> None:
        with pytest.raises(
            InvalidArgumentError, match=r"rows that come one by one are oocload.sources.RowsSource\(rows\)"
        ):
            oocload.convert(source, tmp_path / "t.h5")

    @pytest.mark.parametrize("beside", [{}, {"y": np.arange(10)}])
    @pytest.mark.parametrize("shape", [(10, 0), (10, 3, 0)])
    def test_rows_without_values(self, tmp_path: Path, shape: tuple[int, ...], beside: dict[str, Any]) -> None:
        rows = {"x": np.zeros(shape, "float32"), **beside}
        with pytest.raises(InvalidArgumentError, match=r"field 'x' must have values for HDF5, .* write a \.zarr store"):
            oocload.convert(rows, tmp_path / "t.h5")
        oocload.convert(rows, tmp_path / "rows.zarr")
        assert read_back(tmp_path / "rows.zarr")["x"].shape == shape
        assert [p.name for p in tmp_path.iterdir()] == ["rows.zarr"]

    def test_unknown_suffix(self, tmp_path: Path) -> None:
        with pytest.raises(
            InvalidArgumentError, match=r"target must end in one of \.h5, \.hdf5, \.zarr, got '.*t\.txt'"
        ):
            oocload.convert(X, tmp_path / "t.txt")

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConversionError, match="target's folder must exist"):
            oocload.convert(X, tmp_path / "no" / "t.h5")


@pytest.mark.parametrize("target", ["t.h5", "t.zarr"])
class TestDestination:
    def test_exists(self, tmp_path: Path, target: str) -> None:
        oocload.convert(Y, tmp_path / target)
        with pytest.raises(TargetExistsError, match=r"target must not exist, got .*; pass overwrite=True"):
            oocload.convert(X, tmp_path / target)
        assert np.array_equal(read_back(tmp_path / target)["x"], Y)

    def test_what_was_asked_for_is_checked_first(self, tmp_path: Path, target: str) -> None:
        oocload.convert({"x": X, "y": Y}, tmp_path / target)
        for options, message in [
            ({"dtypes": "float99"}, "dtypes must be names of dtypes, such as 'float32', got 'float99'"),
            ({"dtypes": {"z": "float32"}}, "dtypes must be given for fields of the source, 'x', 'y', got 'z'"),
            ({"fields": ["z"]}, "field 'z' must be one of those in"),
        ]:
            with pytest.raises((InvalidArgumentError, UnknownFieldError), match=message):
                oocload.convert(tmp_path / target, tmp_path / target, **options)

    def test_overwrite(self, tmp_path: Path, target: str) -> None:
        oocload.convert(Y, tmp_path / target)
        oocload.convert(X, tmp_path / target, overwrite=True)
        assert np.array_equal(read_back(tmp_path / target)["x"], X)
        assert [p.name for p in tmp_path.iterdir()] == [target]

    def test_overwrite_of_another_kind(self, tmp_path: Path, target: str) -> None:
        path = tmp_path / target
        if target.endswith("h5"):
            path.mkdir()
        else:
            path.write_text("a file")
        oocload.convert(X, path, overwrite=True)
        assert np.array_equal(read_back(path)["x"], X)
        assert [p.name for p in tmp_path.iterdir()] == [target]

    def test_a_failed_overwrite_keeps_what_was_there(self, tmp_path: Path, target: str) -> None:
        oocload.convert(Y, tmp_path / target)
        with pytest.raises(InvalidArgumentError):
            oocload.convert([X, X[:, :1]], tmp_path / target, overwrite=True)
        assert np.array_equal(read_back(tmp_path / target)["x"], Y)
        assert [p.name for p in tmp_path.iterdir()] == [target]


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (None, {}, "target must be a path, got None; pass a str or a pathlib.Path"),
        ("t.h5", {"fields": "x"}, r"fields must be a list of names, got 'x'; pass \['x'\]"),
    ],
)
def test_arguments_of_another_kind(target: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        oocload.convert("x.npy", target, **options)
