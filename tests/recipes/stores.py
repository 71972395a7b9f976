"""Stores that recipes on labelled rows must refuse."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import oocload
from tests.recipes.running import error_of_recipe


def check_refusals(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path where nothing lies, fields that are missing, of other lengths or shapes, and a store h5py cannot read."""

    def error(**fields: np.ndarray) -> str:
        with h5py.File(folder / "s.h5", "w") as file:
            for field, values in fields.items():
                file[field] = values
        return error_of_recipe(name, monkeypatch, "--store", folder / "s.h5")

    x, y = np.zeros((300, 4), np.uint8), np.arange(300) % 3
    missing = error_of_recipe(name, monkeypatch, "--store", folder / "none.h5")
    assert missing.startswith("StoreNotFoundError: ")
    assert f"{folder}/none.h5" in missing
    assert error(images=x, y=y).startswith("UnknownFieldError: ")
    assert "'x'" in error(images=x, y=y)
    assert "same number of rows" in error(x=x, y=y[:9])
    assert "field 'x' of " in error(x=np.array(["a"] * 300, "S1"), y=y)
    assert "must have one class for each row, all of 0, 1, 2" in error(x=x, y=y[:, None])
    assert "with labels [0, 2, 4]" in error(x=x, y=y * 2)
    oocload.convert({"x": x, "y": y}, folder / "s.zarr")
    assert "must be an HDF5 file" in error_of_recipe(name, monkeypatch, "--store", folder / "s.zarr")
    (folder / "text.h5").write_text("no store")
    assert error_of_recipe(name, monkeypatch, "--store", folder / "text.h5").startswith("StoreFormatError: ")
