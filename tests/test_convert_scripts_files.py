"""The scripts that convert one file per sample, with the examples that they make."""

import json
import runpy
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(SCRIPTS / script), run_name="__main__")


def test_npy_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "samples"
    run(monkeypatch, "convert_npy_folder.py", "--example", folder)
    shown = capsys.readouterr().out
    assert "300 rows of x, y, id, split" in shown
    assert "first batch of train: x (32, 16, 16) float32, 8 batches an epoch" in shown
    labels = json.loads((folder / "labels.json").read_text())
    with h5py.File(tmp_path / "samples.h5") as file:
        assert file["y"][()].tolist() == list(labels.values())
        assert np.array_equal(file["x"][7], np.load(folder / "id-7.npy"))
    (folder / "id-7.npy").write_bytes(b"")
    run(monkeypatch, "convert_npy_folder.py", folder, tmp_path / "s.zarr", "--skip", "--memory", "16 MiB")
    assert "skipped 1" in capsys.readouterr().out
    assert zarr.open_array(tmp_path / "s.zarr" / "x", mode="r").shape == (299, 16, 16)


def test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pets"
    run(monkeypatch, "convert_images.py", "--example", folder, "--size", 48, 64, "--fit", "crop")
    shown = capsys.readouterr().out
    assert "100 rows of x, y, id, split" in shown
    assert "first batch: x (16, 48, 64, 3) uint8; classes cat, dog" in shown
    run(monkeypatch, "convert_images.py", folder, tmp_path / "p.zarr", "--encoded", "--size", 48, 64)
    assert "first batch: x (16, 48, 64, 3) uint8; classes cat, dog" in capsys.readouterr().out
    (tmp_path / "l.csv").write_text("file,animal\npets/test/cat/1.jpg,cat\n")
    run(monkeypatch, "convert_images.py", tmp_path / "l.csv", "--path-column", "file", "--label-column", "animal")
    with h5py.File(tmp_path / "l.h5") as file:
        assert file["x"].shape == (1, 60, 80, 3)


@pytest.mark.parametrize("script", ["convert_npy_folder.py", "convert_images.py"])
def test_help(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, status, shown in ((["--help"], 0, "Example, which makes its own"), ([], 2, "or --example FOLDER")):
        with pytest.raises(SystemExit) as ended:
            run(monkeypatch, script, *arguments)
        captured = capsys.readouterr()
        assert ended.value.code == status
        assert shown in captured.out + captured.err
