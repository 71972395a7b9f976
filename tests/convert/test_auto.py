"""Which codec is taken: the decision by numbers alone, and that what is measured belongs to what is decided."""

import importlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.convert.auto import Candidate, choose_codec, disk_rate, pick, sample_chunks, sample_starts
from oocload.convert.encode import Encoding, choose_encoding

AUTO = importlib.import_module("oocload.convert.auto")  # as an attribute, `convert` is the function
NONE = Candidate(Encoding("none", None), 1.0, float("inf"), float("inf"))


def candidate(ratio: float, decode_rate: float, encode_rate: float = 1.0) -> Candidate:
    return Candidate(Encoding("zstd", 1), ratio, encode_rate, decode_rate)


def test_the_smallest_that_keeps_up_is_taken() -> None:
    table = [NONE, candidate(1.5, 300), candidate(2.0, 200), candidate(3.0, 99)]
    taken, verdicts = pick(table, 100)
    assert taken is table[2]
    assert verdicts == ["larger", "larger", "taken", "decodes slower than the disk reads"]
    assert pick(table, 99)[0] is table[3]
    assert pick(table, 201)[0] is table[1]
    assert pick(table, 301)[0] is NONE


def test_what_saves_little_is_not_worth_a_codec() -> None:
    table = [NONE, candidate(1.05, 300), candidate(0.99, 300)]
    taken, verdicts = pick(table, 1)
    assert taken is NONE
    assert verdicts == ["taken", "saves less than 5%", "saves less than 5%"]
    assert pick([NONE, candidate(1.06, 300)], 1)[0] is not NONE


def test_of_two_as_small_the_one_that_encodes_faster() -> None:
    table = [NONE, candidate(2.0, 300, encode_rate=9), candidate(2.01, 300, encode_rate=2)]
    taken, verdicts = pick(table, 1)
    assert taken is table[1]
    assert verdicts[2] == "encodes slower, and is hardly smaller"


rates = st.floats(0.001, 1e12)


@given(
    found=st.lists(st.builds(candidate, st.floats(0.5, 1e5), rates, rates), max_size=6),
    disk=rates,
)
def test_whatever_is_measured(found: list[Candidate], disk: float) -> None:
    taken, verdicts = pick([NONE, *found], disk)
    assert [verdict == "taken" for verdict in verdicts] == [one is taken for one in [NONE, *found]]
    worthy = [one for one in found if one.decode_rate >= disk and one.ratio >= 1.06]
    assert taken.decode_rate >= disk
    assert taken is NONE or taken.ratio > 1.05
    assert taken.ratio >= 0.99 * max((one.ratio for one in worthy), default=1.0)


def smooth() -> np.ndarray:
    return np.sin(np.arange(4 * 5000) / 1000).round(2).astype("<f4").reshape(4000, 5)


@pytest.mark.parametrize("target_format", ["hdf5", "zarr2", "zarr3"])
def test_every_candidate_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target_format: Any) -> None:
    monkeypatch.setattr(AUTO, "disk_rate", lambda *_: 1e-3)  # with which everything keeps up
    samples = {"x": smooth(), "y": np.arange(4000)}
    choice = choose_codec(target_format, samples, tmp_path, 2, heights={"x": 1000})
    assert choose_encoding(target_format, choice.encoding.codec, choice.encoding.level) == choice.encoding
    assert choice.encoding.codec != "none"
    assert len(choice.table) >= 5
    assert {one.encoding.codec for one, _ in choice.table} >= {"none", "gzip"}
    assert all(one.decode_rate > 0 and one.encode_rate > 0 and one.ratio > 0 for one, _ in choice.table)
    assert [verdict for one, verdict in choice.table if one.encoding == choice.encoding] == ["taken"]


def test_noise_is_not_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AUTO, "disk_rate", lambda *_: 1e-3)
    noise = np.random.default_rng(0).integers(0, 256, (400, 50), np.uint8)
    assert choose_codec("hdf5", {"x": noise}, tmp_path, 2).encoding == Encoding("none", None)


def test_rows_of_no_bytes(tmp_path: Path) -> None:
    assert choose_codec("hdf5", {"x": np.zeros((5, 0)), "y": np.zeros(0)}, tmp_path, 1).encoding == Encoding(
        "none", None
    )


def test_a_disk_that_nothing_keeps_up_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AUTO, "disk_rate", lambda *_: 1e18)
    choice = choose_codec("zarr3", {"x": smooth()}, tmp_path, 1)
    assert choice.encoding == Encoding("none", None)
    assert str(choice).count("decodes slower than the disk reads") == len(choice.table) - 1


def test_the_table_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AUTO, "disk_rate", lambda *_: 2.5e9)
    lines = str(choose_codec("zarr3", {"x": smooth()}, tmp_path, 1)).splitlines()
    assert lines[0].startswith("codec ")
    assert lines[0].endswith("the disk reads 2.50 GB/s")
    assert lines[1].split()[:2] == ["codec", "ratio"]
    assert len(lines) == 8


def test_the_disk_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert disk_rate(tmp_path, pool, 2, 3 * 2**20) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        choose_codec("hdf5", {"x": smooth()}, tmp_path / "none", 1)


@given(n_rows=st.integers(1, 10**9), height=st.integers(1, 10**6))
def test_samples_are_whole_chunks_spread_over_the_rows(n_rows: int, height: int) -> None:
    starts = sample_starts(n_rows, height)
    assert len(starts) == min(4, max(1, n_rows // height))
    assert starts == sorted(set(starts))
    assert all(start % height == 0 and start + min(height, n_rows) <= n_rows for start in starts)


def test_chunks_are_taken_from_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(80_000).reshape(8000, 10))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert [chunk[0, 0] for chunk in sample_chunks(mapped, 1000)] == [10_000, 30_000, 50_000, 70_000]
    assert [chunk.shape for chunk in sample_chunks(mapped)] == [(6553, 10)]
    assert [chunk.shape for chunk in sample_chunks(np.zeros(3))] == [(3,)]
    assert sample_chunks(np.zeros((0, 3))) == []


def test_samples_by_hand() -> None:
    assert sample_starts(8000, 1000) == [1000, 3000, 5000, 7000]
    assert sample_starts(999, 1000) == [0]
    assert sample_starts(2500, 1000) == [0, 1000]
