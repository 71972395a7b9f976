"""``codec="auto"`` through `convert` and `create`: where samples come from, and what a second run takes."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from oocload.convert.encode import Encoding
from oocload.errors import InvalidArgumentError

auto = importlib.import_module("oocload.convert.auto")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Have the disk be so fast, and decoding so slow, that lzf or blosc is taken; return the samples of each choice."""
    samples: list[np.ndarray] = []

    def pick(candidates: Any, rate: float) -> Any:
        return candidates[1], ["" for _ in candidates]

    def sample_chunks(rows: np.ndarray, height: int | None = None) -> list[np.ndarray]:
        samples.append(rows)
        return [rows]

    monkeypatch.setattr(auto, "pick", pick)
    monkeypatch.setattr(auto, "sample_chunks", sample_chunks)
    monkeypatch.setattr(auto, "_FILE_NBYTES", 2**20)
    monkeypatch.setattr(auto, "_ROUND_NBYTES", 2**10)
    return samples


ROWS = np.repeat(np.arange(50_000, dtype="u2"), 10).reshape(-1, 10)


@pytest.mark.parametrize(("target", "taken"), [("t.h5", Encoding("lzf", None)), ("t.zarr", Encoding("blosc", 5))])
def test_samples_come_from_all_over_a_file(
    tmp_path: Path, tried: list[np.ndarray], target: str, taken: Encoding
) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    report = oocload.convert(tmp_path / "x.npy", tmp_path / target, codec="auto", chunk_rows=100)
    assert report.codec == str(taken)
    assert f"codec {taken}" in str(report)
    (rows,) = tried
    assert len(rows) == 400
    assert rows[:, 0].min() < 10_000
    assert rows[:, 0].max() > 40_000
    again = oocload.convert(tmp_path / "x.npy", tmp_path / target, codec="auto", chunk_rows=100, resume=True)
    assert (again.codec, again.n_rows_before, len(tried)) == (str(taken), 50_000, 1)


@pytest.mark.parametrize("parts", [False, True])
def test_a_run_that_is_resumed_keeps_its_codec(tmp_path: Path, tried: list[np.ndarray], parts: bool) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    target = tmp_path / ("all/p-*.h5" if parts else "t.h5")
    options: dict[str, Any] = {"codec": "auto", "chunk_rows": 100, "memory": "1 MiB"}
    if parts:
        options["part_bytes"] = "100 KiB"

    def stop(progress: oocload.Progress) -> None:
        if progress.n_rows > 20_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        oocload.convert(tmp_path / "x.npy", target, progress=stop, **options)
    report = oocload.convert(tmp_path / "x.npy", target, resume=True, **options)
    assert (report.codec, len(tried)) == ("lzf", 1)
    with oocload.open(target) as store:
        stores = {id(p.store): p.field for p in store.parts("x")} or {0: store.fields["x"]}
        assert {field.decoder for field in stores.values()} == {"shuffle+lzf"}


def test_of_an_iterable_the_first_rows_tell(tmp_path: Path, tried: list[np.ndarray]) -> None:
    report = oocload.convert((ROWS[i : i + 1000] for i in range(0, 50_000, 1000)), tmp_path / "t.h5", codec="auto")
    assert (report.codec, len(tried), len(tried[0])) == ("lzf", 1, 1000)
    with oocload.create(tmp_path / "t.zarr", {"x": ((10,), "u2"), "r": (None, "i4")}, codec="auto") as writer:
        writer.append(x=ROWS[:100], r=[np.arange(n % 3, dtype="i4") for n in range(100)])
    assert oocload.open(tmp_path / "t.zarr").fields["x"].decoder == "blosc-5"


def test_a_level_without_a_codec(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="level must be left out for codec 'auto', got 3"):
        oocload.convert(ROWS, tmp_path / "t.h5", codec="auto", level=3)
