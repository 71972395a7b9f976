"""A file that changes between open and read is noticed, on every path."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import oocload
from oocload.errors import OocloadError


def replace_hdf5(path: Path) -> None:
    path.unlink()
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros((1003, 7, 5), "u1")
        file["y"] = np.zeros(1003, "i8")


def write_in_place(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["touched"] = 1


@pytest.mark.parametrize("change", [replace_hdf5, write_in_place, os.unlink])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"scaleoffset": 0}])
def test_hdf5(make_store: Callable[..., Path], change: Callable[[Path], None], options: dict[str, object]) -> None:
    path = make_store(**options)
    with oocload.Loader(path, 100, shuffle=False) as loader:
        change(path)
        with pytest.raises(OocloadError, match=r"(has changed|is gone) since it was opened.*open it anew"):
            list(map(len, loader))


@pytest.mark.direct
def test_hdf5_while_it_is_read(make_store: Callable[..., Path]) -> None:
    path = make_store(n_rows=100_000, compression="gzip")
    with oocload.Loader(path, 100, shuffle=False, memory="1 MiB") as loader:
        iterator = iter(loader)
        next(iterator)
        write_in_place(path)
        with pytest.raises(OocloadError, match=r"field '[xy]', chunk .*has changed since it was opened; open it anew"):
            for _ in iterator:
                pass


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((100, 3)))
    np.save(tmp_path / "f.npy", np.zeros((100, 3), order="F"))
    for name in ("x.npy", "f.npy"):
        with oocload.Loader(tmp_path / name, 10) as loader:
            np.save(tmp_path / name, np.ones((100, 3)))
            with pytest.raises(OocloadError, match="has changed since it was opened"):
                list(loader)


def test_zarr_metadata(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "x.zarr", mode="w").create_array("x", data=np.zeros(100), chunks=(10,))
    with oocload.Loader(tmp_path / "x.zarr", 10) as loader:
        zarr.open_group(tmp_path / "x.zarr", mode="w").create_array("x", data=np.zeros(99), chunks=(9,))
        with pytest.raises(OocloadError, match="zarr.json has changed since it was opened"):
            list(loader)


def test_zip(tmp_path: Path) -> None:
    path = tmp_path / "x.zarr.zip"
    for n_rows in (100, 50):
        with zarr.storage.ZipStore(path, mode="w") as zipped:
            zarr.open_group(zipped, mode="w").create_array("x", data=np.zeros(n_rows), chunks=(10,))
        if n_rows == 100:
            loader = oocload.Loader(path, 10)
    with loader, pytest.raises(OocloadError, match=r"x.zarr.zip has changed since it was opened"):
        list(loader)
