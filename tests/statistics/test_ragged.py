from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import oocload
from oocload.layout import RaggedLayout


def test_ragged_rows_have_those_of_their_items_and_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oocload.statistics.stats._LENGTHS_AT_ONCE", 7)
    lengths = np.random.default_rng(0).integers(2, 9, 30)
    items = np.random.default_rng(1).normal(size=(int(lengths.sum()), 3))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("values", data=items, chunks=(10, 3))
        file["offsets"] = np.concatenate([[0], np.cumsum(lengths)])
    with oocload.open(tmp_path / "x.h5") as store:
        values, offsets = store.field("values"), store.field("offsets")
        ragged = replace(values, name="x", shape=(30, 3), ragged=RaggedLayout(values, offsets))
        store.fields = {**store.fields, "x": ragged}
        found = oocload.stats(store, "x")["x"]
    assert found.lengths == (lengths.min(), pytest.approx(lengths.mean()), lengths.max())
    assert (found.n_rows, found.count.tolist(), found.channel_axis) == (30, [len(items)] * 3, 0)
    np.testing.assert_allclose(found.mean, items.mean(axis=0), rtol=1e-12)
    assert f"x: rows of {lengths.min()} to {lengths.max()} items, {lengths.mean():.1f} on average" in str(found)
