"""Statistics of whole stores against NumPy on the same arrays."""

import sys
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import fields as fields_of
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.statistics.result import FieldStatistics
from oocload.statistics.scan import Needs
from tests.conftest import read_back

HDF5: list[dict[str, Any]] = [{}, {"compression": "gzip", "shuffle": True}, {"compression": "lzf", "fletcher32": True}]
DTYPES = ["?", "u1", "<i2", ">u4", "<i8", "<f2", ">f4", "<f8"]


def write(path: Path, arrays: dict[str, np.ndarray], chunks: dict[str, tuple[int, ...]], options: Any) -> None:
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array, chunks=chunks[name], **options)
        return
    group = zarr.open_group(path, mode="w", zarr_format=options)
    for name, array in arrays.items():
        group.create_array(name, data=array, chunks=chunks[name])


@st.composite
def values(draw: st.DrawFn, n_rows: int) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = (n_rows, *draw(st.lists(st.integers(1, 5), max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    array = rng.normal(3, 20, shape)
    array = (array if dtype.kind == "f" else np.abs(array)).astype(dtype)
    if dtype.kind == "f" and draw(st.booleans()):
        array[rng.random(shape) < 0.2] = np.nan
    return array


def same(a: FieldStatistics, b: FieldStatistics) -> None:
    """Fail unless two are equal to the last bit."""
    for field in fields_of(FieldStatistics):
        mine, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == other.dtype
            assert mine.tobytes() == other.tobytes(), field.name
        else:
            assert mine == other, field.name


def check(found: FieldStatistics, array: np.ndarray) -> None:
    """Compare with NumPy's functions that leave out NaN, in float64."""
    axis = found.channel_axis
    channels = [array] if axis is None else np.moveaxis(array, axis + 1, 0)
    assert found.n_channels == len(channels)
    assert (found.shape, found.n_rows) == (array.shape, len(array))
    for i, channel in enumerate(channels):
        floats = np.asarray(channel).astype(np.float64)
        assert found.count[i] == (~np.isnan(floats)).sum()
        assert found.n_nan[i] == np.isnan(floats).sum()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = [np.nanmean(floats), np.nanstd(floats), np.nanmin(floats), np.nanmax(floats)]
        values = [found.mean[i], found.std[i], float(found.min[i]), float(found.max[i])]
        np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-10)


@given(st.data(), st.integers(1, 60), st.sampled_from([*HDF5, 2, 3]), st.integers(1, 3))
def test_any_store_as_numpy_has_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, n_rows: int, options: Any, n_files: int
) -> None:
    x = data.draw(values(n_rows))
    y = np.random.default_rng(n_rows).integers(
        0, 3, (n_rows, data.draw(st.integers(1, 2)))[: data.draw(st.integers(1, 2))]
    )
    arrays = {"x": x, "y": y}
    chunks = {name: tuple(data.draw(st.integers(1, n)) for n in a.shape) for name, a in arrays.items()}
    suffix = ".h5" if isinstance(options, dict) else ".zarr"
    folder = tmp_path_factory.mktemp("stores")
    borders = np.linspace(0, n_rows, n_files + 1).astype(int)
    paths = []
    for number, (low, high) in enumerate(pairwise(borders)):
        if high == low:
            continue
        paths.append(folder / f"part-{number}{suffix}")
        part = {name: a[low:high] for name, a in arrays.items()}
        clipped = {name: (min(c[0], high - low), *c[1:]) for name, c in chunks.items()}
        write(paths[-1], part, {n: tuple(map(int, c)) for n, c in clipped.items()}, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("oocload.statistics.scan._RANGE_NBYTES", data.draw(st.sampled_from([1, 200, 2**20])))
        found = oocload.stats(paths, threads=1)
        again = oocload.stats(paths, threads=2)
        more = oocload.stats(paths, threads=4)
    assert list(found) == ["x", "y"]
    for name, array in arrays.items():
        check(found[name], array)
        same(found[name], again[name])
        same(found[name], more[name])
    if y.shape[1:] in ((), (1,)):
        check_labels(found["y"], y.ravel().tolist())
    else:
        assert (found["y"].histogram, found["y"].longest_run) == (None, None)


def check_labels(found: FieldStatistics, labels: list[Any]) -> None:
    assert found.histogram == Counter(labels)
    assert list(found.histogram) == sorted(found.histogram)
    longest, row = (None, 0, 0), 0
    for label, group in groupby(labels):
        length = len(list(group))
        if length > longest[1]:
            longest = (label, length, row)
        row += length
    assert found.longest_run == longest


@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, "auto"])
def test_any_axis_may_count_channels(tmp_path: Path, axis: Any) -> None:
    x = np.random.default_rng(0).integers(0, 200, (50, 4, 6, 3), np.uint8)
    write(tmp_path / "x.h5", {"x": x}, {"x": (7, 4, 6, 3)}, {})
    found = oocload.stats(tmp_path / "x.h5", "x", channel_axis=axis)["x"]
    assert found.channel_axis == {"auto": 2, -1: 2}.get(axis, axis)
    check(found, x)


def test_infinities_are_as_numpy_has_them(tmp_path: Path) -> None:
    x = np.ones((10, 5), np.float32)
    x[3, 0], x[4, 1], x[5, 2], x[6, 2], x[:, 3] = np.inf, -np.inf, np.inf, -np.inf, np.nan
    write(tmp_path / "x.h5", {"x": x}, {"x": (2, 5)}, {})
    found = oocload.stats(tmp_path / "x.h5")["x"]
    assert found.n_infinite.tolist() == [1, 1, 2, 0, 0]
    assert found.count.tolist() == [10, 10, 10, 0, 10]
    np.testing.assert_array_equal(found.mean, [np.inf, -np.inf, np.nan, np.nan, 1])
    np.testing.assert_array_equal(found.std, [np.nan] * 4 + [0])
    np.testing.assert_array_equal(found.min, np.array([1, -np.inf, -np.inf, np.nan, 1], "f4"))
    assert found.min.dtype == found.max.dtype == np.float32


def test_text_has_labels_only(tmp_path: Path) -> None:
    y = np.repeat(np.array([b"cat", b"dog", b"cat"]), [3, 5, 4])
    write(tmp_path / "y.h5", {"y": y}, {"y": (4,)}, {})
    found = oocload.stats(tmp_path / "y.h5")["y"]
    assert found.histogram == {"cat": 7, "dog": 5}
    assert found.longest_run == ("dog", 5, 3)
    assert (found.mean, found.std, found.min, found.max) == (None, None, None, None)
    assert found.count.tolist() == [12]


def test_what_has_no_statistics_is_left_out(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.zeros((3, 2))
        file["complex"] = np.zeros(3, np.complex64)
        file["empty"] = np.zeros((0, 2))
        file["one"] = 1.0
        file["records"] = np.zeros(3, [("a", "i4")])
        file["text"] = ["a", "b", "c"]
        file["words"] = np.zeros((3, 2), "S3")
    found = oocload.stats(tmp_path / "x.h5")
    assert list(found) == ["x"]
    assert list(found.skipped) == ["complex", "empty", "one", "records", "text", "words"]
    assert "  text: left out, holds text or arrays of variable length" in str(found)
    for name, why in found.skipped.items():
        with pytest.raises(oocload.InvalidArgumentError) as error:
            oocload.stats(tmp_path / "x.h5", [name])
        assert str(error.value) == f"fields must hold numbers or labels, and {name!r} {why}; leave it out"
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["one"] = 1.0
    with pytest.raises(
        oocload.InvalidArgumentError, match=r"store must have a field of numbers or labels, got .*'one'"
    ):
        oocload.stats(tmp_path / "none.h5")


def test_an_open_store_stays_open(make_store: Callable[..., Path]) -> None:
    with oocload.open(make_store()) as store:
        assert oocload.stats(store, "y")["y"].mean.tolist() == [501]
        assert store.read_rows("y", 3, 4).tolist() == [3]
        with pytest.raises(oocload.UnknownFieldError, match="'z' must be one of those in"):
            oocload.stats(store, "z")
        with pytest.raises(oocload.UnknownFieldError, match="'x' must be one of those looked at in .*: 'y'"):
            oocload.stats(store, "y")["x"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"threads": "2"}, "threads must be a whole number of at least 1, got '2'"),
        ({"memory": -1}, "memory must be a size above zero, got -1"),
        ({"fields": 3}, "fields must be a field's name or several, got 3"),
        ({"fields": []}, r"fields must be a field's name or several, got \[\]"),
        ({"save": 3}, "save must be True, False or a path, got 3"),
        ({"channel_axis": 2}, "channel_axis must be 'auto', None or an axis of the rows of field 'x'"),
    ],
)
def test_bad_arguments(make_store: Callable[..., Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(oocload.InvalidArgumentError, match=message):
        oocload.stats(make_store(), **options)


def test_damage_is_said(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", {"x": np.arange(1000.0)}, {"x": (100,)}, {"compression": "gzip"})
    with h5py.File(tmp_path / "x.h5") as file:
        offset = file["x"].id.get_chunk_info(4).byte_offset
    content = bytearray((tmp_path / "x.h5").read_bytes())
    content[offset : offset + 20] = bytes(20)
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(oocload.ChunkError, match=r"field 'x', chunk \(4,\)"):
        oocload.stats(tmp_path / "x.h5")


def test_a_ceiling_too_small_names_the_smallest(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(4000, 700))
    write(tmp_path / "x.h5", {"x": x}, {"x": (1000, 700)}, {"compression": "lzf"})
    with pytest.raises(
        oocload.MemoryCeilingError, match=r"memory must be at least \d+ bytes .* for field 'x'"
    ) as error:
        oocload.stats(tmp_path / "x.h5", memory="1 MiB")
    least = int(str(error.value).split("at least ")[1].split()[0])
    check(oocload.stats(tmp_path / "x.h5", memory=least)["x"], x)
    with pytest.raises(oocload.MemoryCeilingError):
        oocload.stats(tmp_path / "x.h5", memory=least - 1)


CEILINGS = {
    "columns": (np.random.default_rng(0).normal(size=(20_000, 100)), (500, 100)),
    "NaN": (np.where(np.random.default_rng(0).random((20_000, 100)) < 0.1, np.nan, 1.0), (500, 100)),
    "wide": (np.random.default_rng(0).normal(size=(150, 30_000)).astype("f4"), (10, 30_000)),
    "images": (np.random.default_rng(0).integers(0, 256, (3000, 3, 40, 40), np.uint8), (100, 3, 40, 40)),
    "labels": (np.random.default_rng(0).integers(0, 60_000, 600_000), (100_000,)),
    "short labels": (np.random.default_rng(0).integers(0, 10, 4_000_000, np.uint8), (1_000_000,)),
    "names": (np.random.default_rng(0).integers(0, 5000, 200_000).astype("S8"), (50_000,)),
}


@pytest.mark.parametrize("name", CEILINGS)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_no_more_is_held_than_was_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, n_threads: int
) -> None:
    array, chunks = CEILINGS[name]
    write(tmp_path / "x.h5", {"x": array}, {"x": chunks}, {"compression": "lzf"})
    made: list[Needs] = []
    init = Needs.__init__

    def noted(self: Needs, *args: Any) -> None:
        init(self, *args)
        made.append(self)

    monkeypatch.setattr(Needs, "__init__", noted)
    oocload.stats(tmp_path / "x.h5", threads=1)  # what is imported or kept from the first time on
    with oocload.open(tmp_path / "x.h5") as store:
        tracemalloc.start()
        try:
            oocload.stats(store, threads=n_threads)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < made[0].total(n_threads) + 200_000  # of Python's own objects


def test_real_digits(tmp_path: Path, mnist: Path) -> None:
    files = {"x": mnist / "t10k-images-idx3-ubyte.gz", "y": mnist / "t10k-labels-idx1-ubyte.gz"}
    oocload.convert(files, tmp_path / "digits.zarr")
    found = oocload.stats(tmp_path / "digits.zarr")
    assert found["x"].mean[0] / 255 == pytest.approx(0.13251, abs=1e-5)
    assert found["x"].std[0] / 255 == pytest.approx(0.31048, abs=1e-5)
    assert (found["x"].min[0], found["x"].max[0], found["x"].count[0]) == (0, 255, 7_840_000)
    assert found["y"].histogram == {
        0: 980, 1: 1135, 2: 1032, 3: 1010, 4: 982, 5: 892, 6: 958, 7: 1028, 8: 974, 9: 1009
    }  # fmt: skip
    arrays = read_back(tmp_path / "digits.zarr")
    check(found["x"], arrays["x"])
    check_labels(found["y"], arrays["y"].tolist())


def test_progress_is_shown_when_asked_for(
    make_store: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_store()
    oocload.stats(path)
    assert sys.stderr is not None
    assert capsys.readouterr().err == ""
    oocload.stats(path, progress=True)
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize(("at", "offset", "told"), [(2, 1, "row 1: .* from 3 to 1"), (4, 99, "row 3: .* from 9 to 99")])
def test_damaged_offsets_are_told(tmp_path: Path, at: int, offset: int, told: str) -> None:
    path = tmp_path / "rows.h5"
    oocload.convert({"t": [np.ones(n) for n in (3, 2, 4, 1)]}, path)
    with h5py.File(path, "a") as file:
        file["t/offsets"][at] = offset
    with pytest.raises(oocload.ChunkError, match=rf"rows.h5, field 't', {told}"):
        oocload.stats(path, progress=False)


def test_ragged_rows_of_joined_stores(tmp_path: Path) -> None:
    rows = [np.arange(n % 5 + 1) for n in range(40)]
    for number, part in enumerate((rows[:17], rows[17:])):
        oocload.convert({"x": part}, tmp_path / f"part-{number}.h5")
    found = oocload.stats(tmp_path / "part-*.h5")["x"]
    values = np.concatenate(rows)
    assert found.lengths is not None
    assert (found.lengths.min, found.lengths.mean, found.lengths.max) == (1, 3.0, 5)
    assert (found.count, found.mean, found.max) == (len(values), values.mean(), 4)
