"""Chunk addresses: dense and sparse tables, and their cache on disk."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import oocload
from oocload.stores.chunk_table import ChunkTable

pytestmark = pytest.mark.direct


def read(path: Path, cache: Path | None = None) -> np.ndarray:
    with oocload.open(path, index_cache=cache) as store, oocload.Loader(store, 100, x="x", shuffle=False) as loader:
        return np.concatenate([x.copy() for x in loader])


def test_mostly_unwritten_datasets_have_small_tables(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("x", (10**6, 4), "u1", chunks=(1, 4), fillvalue=7)[5::1000] = 1
    with oocload.open(tmp_path / "s.h5") as store:
        table = store.locate("x")
        assert table.nbytes <= 24 * 1000
        assert table.find(4) is None
        assert table.find(10**6 - 1) is None
        place = table.find(5)
        assert place is not None
        assert place.nbytes == 4


def test_filter_masks_of_mostly_unwritten_datasets(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        d = file.create_dataset("x", (1000, 4), "<u4", chunks=(2, 4), compression="gzip", fillvalue=3)
        d[100:104] = 5
        d.id.write_direct_chunk((200, 0), np.arange(8, dtype="<u4").tobytes(), filter_mask=1)
        expected = d[...]
    assert np.array_equal(read(tmp_path / "m.h5"), expected)


def test_a_second_opening_uses_the_cache(
    make_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = make_store(compression="gzip"), tmp_path / "a" / "cache"
    expected = read(path, cache)
    assert len(list(cache.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(ChunkTable, "chunked", None)  # the walk over the index
        assert np.array_equal(read(path, cache), expected)
    with h5py.File(path, "a") as file:
        file["x"][0] = 9
    assert (read(path, cache)[0] == 9).all()
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"nothing of the kind", None])
def test_a_damaged_cache_is_made_again(make_store: Callable[..., Path], tmp_path: Path, damage: bytes | None) -> None:
    path, cache = make_store(compression="gzip"), tmp_path / "cache"
    expected = read(path, cache)
    (file,) = cache.iterdir()
    if damage is None:
        np.savez(file, offsets=np.zeros(3, np.int64), sizes=np.zeros(3, np.int64))
    else:
        file.write_bytes(damage)
    assert np.array_equal(read(path, cache), expected)
    assert [f.suffix for f in cache.iterdir()] == [".npz"]
