"""Datasets of xarray: in memory, by dask, and lazily opened."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from oocload.convert.fields import parse_fields
from oocload.convert.sources.resolve import resolve
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning
from oocload.sources import XarraySource
from tests.convert.sources.kinds import assert_rows, gather

xarray = pytest.importorskip("xarray")

N = 50
T = np.arange(4.0 * N * 3).reshape(4, N, 3)
DAYS = np.datetime64("2020-01-01", "ns") + np.arange(N) * np.timedelta64(1, "D")
NAMES = [f"näme {i}" for i in range(N)]


def dataset() -> Any:
    variables = {
        "t": (("lat", "time", "lon"), T),
        "p": (("time",), np.arange(N, dtype="int32")),
        "scale": ((), 3.0),
    }
    coordinates = {"time": DAYS, "lat": np.arange(4), "name": ("time", NAMES), "area": (("lat", "lon"), T[:, 0])}
    return xarray.Dataset(variables, coordinates)


WANTED = {
    "t": [*T.transpose(1, 0, 2)],
    "p": [*np.arange(N, dtype="int32")],
    "time": [*DAYS.astype(np.int64)],
    "name": [np.frombuffer(name.encode(), np.uint8) for name in NAMES],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["memory", "dask", "netcdf", "zarr", "zarr by dask"])
@pytest.mark.parametrize(("start", "stop"), [(0, N), (13, 31)])
def test_samples(tmp_path: Path, kind: str, start: int, stop: int) -> None:
    found = dataset()
    if kind == "dask":
        found = found.chunk({"time": 7, "lat": 2})
    if kind == "netcdf":
        found.to_netcdf(tmp_path / "a.nc", engine="scipy")
        found = xarray.open_dataset(tmp_path / "a.nc", engine="scipy")
    if kind.startswith("zarr"):
        found.to_zarr(tmp_path / "a.zarr", encoding={"t": {"chunks": (2, 8, 3)}})
        found = xarray.open_zarr(tmp_path / "a.zarr", chunks=None if kind == "zarr" else {})
    with found:
        rows = resolve(found, None)
        specs = {"t": ((4, 3), "float64"), "p": "int32", "time": "int64", "name": (None, "uint8")}
        assert rows.specs == parse_fields(specs)
        assert rows.meanings == {"name": Meaning(content="text")}
        assert rows.n_rows == N
        for n_ahead in (0, 2):
            got = gather(rows.batches(900, start, stop, n_ahead, 2))
            assert_rows(got, {name: wanted[start:stop] for name, wanted in WANTED.items()})


@pytest.mark.filterwarnings("ignore")
def test_opened_from_a_file_and_converted(tmp_path: Path) -> None:
    dataset().to_zarr(tmp_path / "a.zarr", encoding={"t": {"chunks": (2, 8, 3)}})
    with xarray.open_zarr(tmp_path / "a.zarr", chunks=None) as found:
        report = oocload.convert(XarraySource(found), tmp_path / "b.zarr", fields=["p", "t"], progress=False)
    assert report.fields == ("p", "t")
    store = oocload.open(tmp_path / "b.zarr")
    assert store.fields["t"].shape == (N, 4, 3)


def test_arrays() -> None:
    array = xarray.DataArray(T, dims=("a", "b", "c"))
    with pytest.raises(InvalidArgumentError, match="dim=") as caught:
        XarraySource(xarray.Dataset({"u": array, "v": array.transpose("b", "a", "c")}))
    assert "got 'a', 'b', 'c' in all variables: 'u' has ('a', 'b', 'c'), 'v' has ('b', 'a', 'c')" in str(caught.value)
    assert resolve(array, None).specs == parse_fields({"x": ((N, 3), "float64")})
    named = XarraySource(array.rename("heat"), dim="c")
    assert named.dim == "c"
    np.testing.assert_array_equal(gather(resolve(named, None).batches(5000))["heat"], T.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("variables", "dim", "message"),
    [
        ({"u": ("a", [1, 2]), "v": ("b", [1, 2, 3])}, None, "got none in all variables: 'u' has"),
        ({}, None, "got none in all variables: there are none"),
        ({"u": ("a", [1, 2])}, "b", "dim must be a dimension of the dataset, got 'b': 'u' has"),
        ({"u": (("a", "b"), [["x", "y"]])}, "a", "'u' must hold numbers, or one text a sample, got <U1 of shape"),
    ],
)
def test_errors(variables: dict[str, Any], dim: str | None, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        resolve(XarraySource(xarray.Dataset(variables), dim), None)


def test_other_objects() -> None:
    with pytest.raises(InvalidArgumentError, match="dataset must be an xarray Dataset or DataArray, got list"):
        XarraySource([1])
