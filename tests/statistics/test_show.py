from pathlib import Path

import h5py
import numpy as np

import oocload


def test_a_store_prints_as_a_table(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "train.h5", "w") as file:
        x = np.arange(60, dtype="f4").reshape(20, 3)
        x[4, 1] = np.nan
        file["x"], file["y"], file["wide"] = x, np.repeat([3, 1], [15, 5]), np.ones((20, 12))
        file["id"] = np.arange(20) % 11
        file["names"] = ["a"] * 20
    found = oocload.stats(tmp_path / "train.h5")
    assert str(found).replace(str(tmp_path), "") == (Path(__file__).parent / "table.txt").read_text().rstrip("\n")
    assert repr(found) == str(found)
    assert str(found["y"]).splitlines()[-1] == (
        "  y: 2 labels: 3: 15 (75.0%), 1: 5 (25.0%); longest run 15 × 3 from row 0"
    )
