"""Links inside and between HDF5 files: followed, and harmless where they lead nowhere or in circles."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import oocload
from oocload.errors import StoreFormatError


def test_external_links_are_read_directly(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    rows = np.arange(100).reshape(50, 2)
    with h5py.File(tmp_path / "deep" / "data.h5", "w") as file:
        file.create_dataset("g/x", data=rows, chunks=(8, 2), compression="gzip")
    with h5py.File(tmp_path / "main.h5", "w") as file:
        file["x"] = h5py.ExternalLink("deep/data.h5", "/g/x")
        file["group"] = h5py.ExternalLink("deep/data.h5", "/g")
    for name in ("x", "group/x"):
        with oocload.Loader(tmp_path / "main.h5", 7, x=name, shuffle=False) as loader:
            assert np.array_equal(np.concatenate([x.copy() for x in loader]), rows)


def test_dangling_links_are_listed_and_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["ok"] = np.arange(10)
        file["soft"] = h5py.SoftLink("/nowhere")
        file["external"] = h5py.ExternalLink("gone.h5", "/x")
    with oocload.Loader(tmp_path / "d.h5", 5) as loader:
        assert list(next(iter(loader))) == ["ok"]
    with pytest.raises(StoreFormatError, match=r"field 'soft' of .* its link to '/nowhere' leads nowhere"):
        oocload.Loader(tmp_path / "d.h5", 5, x="soft")
    with pytest.raises(StoreFormatError, match=r"its link to '/x' in 'gone.h5' leads nowhere"):
        oocload.Loader(tmp_path / "d.h5", 5, x="external")
    assert "leads nowhere" in repr(oocload.open(tmp_path / "d.h5"))


def test_circles_end(tmp_path: Path) -> None:
    for here, there in (("a", "b"), ("b", "a")):
        with h5py.File(tmp_path / f"{here}.h5", "w") as file:
            file["x"] = np.arange(6)
            file["self"] = h5py.SoftLink("/")
            file["other"] = h5py.ExternalLink(f"{there}.h5", "/")
            file["loop"] = h5py.SoftLink("/loop")
            file.create_group("g")["up"] = file["/"]
    store = oocload.open(tmp_path / "a.h5")
    assert {"x", "other/x"} <= store.fields.keys()
    assert len(store.fields) < 30
    with pytest.raises(StoreFormatError, match="field 'loop' of .* leads nowhere"):
        oocload.Loader(tmp_path / "a.h5", 5, x="loop")
