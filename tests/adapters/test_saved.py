"""A directory of checkpoints: whole or not there."""

import os
from pathlib import Path

import numpy as np
import pytest

from oocload.adapters.saved import Directory
from oocload.errors import CheckpointError, InvalidArgumentError


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    arrays = [
        np.arange(6, dtype="float32").reshape(2, 3),
        np.array(7, "int64"),
        np.zeros((0, 4), "uint8"),
        np.array([1.5, 2.5], ml_dtypes.bfloat16),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
    ]
    directory = Directory(tmp_path / "run", keep=2)
    directory.save("1", {"a": [1, "b"]}, arrays)
    saved = directory.newest()
    assert saved is not None
    assert saved.facts["a"] == [1, "b"]
    for a, b in zip(arrays, saved.arrays, strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    directory = Directory(tmp_path, keep=2)
    for name in ("1", "2", "3", "4"):
        directory.save(name, {}, [])
    assert names(tmp_path) == ["checkpoint-3.npz", "checkpoint-4.npz"]


def test_a_kill_while_writing_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Directory(tmp_path, keep=2)
    directory.save("1", {"n": 1}, [np.arange(100)])
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        directory.save("2", {"n": 2}, [np.arange(100)])
    monkeypatch.undo()
    assert names(tmp_path) == ["checkpoint-1.npz", "checkpoint-2.npz.partial"]
    saved = directory.newest()
    assert saved is not None
    assert saved.facts["n"] == 1
    assert names(tmp_path) == ["checkpoint-1.npz"]


@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
def test_a_damaged_one_is_named(tmp_path: Path, damage: str) -> None:
    directory = Directory(tmp_path, keep=2)
    for name in ("1", "2"):
        path = directory.save(name, {}, [np.arange(1000)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"cut": bytes(data[: len(data) // 2]), "bit": bytes(data), "empty": b""}[damage])
    with pytest.raises(CheckpointError, match=r"checkpoint-2.npz is damaged .*; delete .* go on from checkpoint-1.npz"):
        directory.newest()


def test_a_file_of_anything_else_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "checkpoint-1.npz", other=np.arange(3))
    with pytest.raises(CheckpointError, match=r"checkpoint-1.npz is damaged .*; delete that file to begin anew"):
        Directory(tmp_path, keep=1).newest()


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(InvalidArgumentError, match="directory must not be a file, and .*f is one; name another"):
        Directory(tmp_path / "f", keep=1)
