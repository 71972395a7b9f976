"""Sources in random order: every row once, all fields together, whatever memory holds; also after a kill."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

import oocload
from oocload.chunks.scratch import Scratch
from oocload.convert import buckets, runs
from oocload.convert.fields import Spec
from oocload.convert.keys import row_keys
from oocload.convert.sources import shuffled
from oocload.convert.sources.identity import Identity
from oocload.convert.sources.records import Records, RecordSource
from oocload.convert.sources.resolve import resolve
from oocload.convert.sources.shuffled import ShuffledSource
from oocload.convert.sources.skipped import Skipped
from oocload.convert.spec import FieldSpec
from oocload.errors import ConversionError, InvalidArgumentError, MemoryCeilingError
from oocload.layout import Meaning
from tests.convert.kills import Runner, runner
from tests.convert.sources.kinds import KINDS, N_ROWS, Batches, Kind, assert_rows, gather

MIB = 2**20


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make runs and buckets of a few rows, and have buckets cut again."""
    monkeypatch.setattr(buckets, "_MOST_RUN_NBYTES", 4000)
    monkeypatch.setattr(buckets, "_BUCKET_NBYTES", 1000)
    monkeypatch.setattr(buckets, "_SEGMENT_NBYTES", 300)
    monkeypatch.setattr(buckets, "_LEAST_SEGMENT_NBYTES", 300)


def order_of(n_rows: int, seed: int) -> np.ndarray:
    return np.argsort(row_keys(seed, 0, n_rows), kind="stable")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_kinds(tmp_path: Path, tiny: None, kind: Kind) -> None:
    source, expected = kind(tmp_path)
    path = tmp_path / "work" / "shuffle.rows"
    n_rows = len(next(iter(expected.values())))
    wanted = {name: [rows[i] for i in order_of(n_rows, 5)] for name, rows in expected.items()}
    for start in (0, 60):
        with ShuffledSource(resolve(source, None), 5, path, 64 * MIB) as rows:
            got = gather(rows.batches(6000, start, n_ahead=2, n_threads=2))
            assert_rows({name: got[name] for name in wanted}, {name: some[start:] for name, some in wanted.items()})
            rows.close()
        for left in tmp_path.glob("work/*"):
            left.unlink()  # of a source that can be gone on with


def test_buckets_are_cut_again(tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[buckets.KeyRange] = []
    real = runs.Runs.__init__

    def noted(self: Any, path: Path, lanes: Any, keys: buckets.KeyRange, *args: Any) -> None:
        begun.append(keys)
        real(self, path, lanes, keys, *args)

    monkeypatch.setattr(runs.Runs, "__init__", noted)
    monkeypatch.setattr(buckets, "_LEAST_SEGMENT_NBYTES", 10**6)
    source = {"x": np.arange(900), "r": [np.arange(i % 4) for i in range(900)]}
    with ShuffledSource(resolve(source, None), 1, tmp_path / "w/shuffle.rows", 64 * MIB) as rows:
        got = gather(rows.batches(3000, n_ahead=2, n_threads=2))
    assert np.array_equal(np.concatenate(got["x"], axis=None), order_of(900, 1))
    assert max(len(row) for row in got["r"]) == 3
    assert len({keys.shift for keys in begun}) > 2
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("target", ["a.h5", "a.zarr", "parts/*.h5"])
def test_convert(tmp_path: Path, target: str) -> None:
    """The order is that of seed and source alone; 'x' and 'y' stay together; nothing is left behind."""
    y = np.arange(5000)
    x = (y[:, None] * np.arange(1, 20) % 251).astype("u1")
    options: dict[str, Any] = {"part_bytes": "64 KiB", "chunk_rows": 100} if "*" in target else {}
    orders = []
    for memory in ("8 MiB", "200 MiB"):
        report = oocload.convert(
            {"x": x, "y": y}, tmp_path / target, shuffle=True, seed=9, memory=memory, overwrite=True, **options
        )
        assert report.seed == 9
        assert "in an order drawn by seed 9" in str(report)
        loader = oocload.Loader(tmp_path / target, 5000, shuffle=False)
        got_x, got_y = next(iter(loader))
        assert np.array_equal(got_x, x[got_y])
        orders.append(np.array(got_y))
    assert np.array_equal(orders[0], order_of(5000, 9))
    assert np.array_equal(orders[0], orders[1])
    assert os.listdir(tmp_path) == [Path(target).parts[0]]


def test_a_seed_is_drawn_and_named(tmp_path: Path) -> None:
    seeds = {oocload.convert({"x": np.arange(9)}, tmp_path / f"{i}.h5", shuffle=True).seed for i in range(3)}
    assert len(seeds) == 3
    assert oocload.convert({"x": np.arange(9)}, tmp_path / "a.h5").seed is None


def test_few_rows(tmp_path: Path) -> None:
    for n_rows in (1, 2, 3):
        path = tmp_path / f"{n_rows}.zarr"
        oocload.convert({"x": np.arange(n_rows), "none": np.empty((n_rows, 0))}, path, shuffle=True, seed=0)
        file = zarr.open_group(path, mode="r")
        assert sorted(file["x"][:].tolist()) == list(range(n_rows))
        assert file["none"].shape == (n_rows, 0)


def test_rows_larger_than_runs(tmp_path: Path, tiny: None) -> None:
    x = np.random.default_rng(0).integers(0, 99, (20, 9000), dtype="u1")
    ragged = [np.arange(i * 300, dtype="i4") for i in range(20)]
    oocload.convert(iter([{"x": x, "r": ragged}]), tmp_path / "a.h5", shuffle=True, seed=2, memory="8 MiB")
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["x"][:], x[order_of(20, 2)])
        assert np.array_equal(np.diff(file["r/offsets"]), order_of(20, 2) * 300)


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="must have at least one row"):
        oocload.convert(iter([]), tmp_path / "a.h5", shuffle=True)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 1}, r"seed must be left out unless shuffle=True \(--shuffle\), got 1"),
        ({"seed": -1, "shuffle": True}, r"seed must be a whole number from 0 to 2\*\*64 - 1, got -1"),
        ({"shuffle": "yes"}, "shuffle must be True or False, got 'yes'"),
        ({"shuffle": True, "scheduler": "tcp://a:1"}, "shuffle must be False where scheduler= is given"),
    ],
)
def test_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        oocload.convert({"x": np.arange(3)}, tmp_path / "a.h5", **arguments)


def test_ceilings(tmp_path: Path) -> None:
    big = np.zeros((4, 6 * MIB), np.uint8)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("x", data=big, chunks=(1, 6 * MIB), compression="gzip", compression_opts=1)
    with pytest.raises(MemoryCeilingError, match="memory must be at least"):
        oocload.convert(tmp_path / "s.h5", tmp_path / "a.h5", shuffle=True, memory="16 MiB")
    ragged = iter([{"r": [np.zeros(3 * MIB, np.uint8), np.zeros(1, np.uint8)]}])
    with pytest.raises(MemoryCeilingError, match=r"memory must be at least 12.* to shuffle rows of up to 3.*, got 9"):
        oocload.convert(ragged, tmp_path / "a.h5", shuffle=True, memory="9 MiB")
    assert os.listdir(tmp_path) == ["s.h5"]


def source_of(folder: Path, n_rows: int = 2000) -> Path:
    x = np.random.default_rng(0).integers(0, 255, (n_rows, 50), dtype="u1")
    oocload.convert({"x": x, "y": np.arange(n_rows), "r": [np.arange(i % 5) for i in range(n_rows)]}, folder / "s.h5")
    return folder / "s.h5"


def convert(source: str, path: str, tiny: bool = True) -> None:
    """Convert in many small runs and buckets; as another process does."""
    if tiny:
        import_module("oocload.convert.buckets")._MOST_RUN_NBYTES = 30_000
        import_module("oocload.convert.buckets")._BUCKET_NBYTES = 30_000
        import_module("oocload.convert.pipeline")._COMMIT_SECONDS_LEAST = 0.0
        import_module("oocload.convert.pipeline")._COMMIT_NBYTES = 1
    oocload.convert(source, path, shuffle=True, seed=4, chunk_rows=50, memory="16 MiB", resume=True)


@pytest.fixture(scope="module")
def processes() -> Iterator[Runner]:
    with runner() as started:
        yield started


@pytest.mark.parametrize("target", ["t.h5", "t.zarr"])
def test_killed_at_any_change_of_the_disk(tmp_path: Path, processes: Runner, target: str) -> None:
    source, path = source_of(tmp_path), tmp_path / target
    call = {"source": str(source), "path": str(path)}
    ended = []
    for change in [3, 6, 9, 12, 15, 25, 40, 60, 70, 80, 100, 5, 7, 40, 8]:
        ended.append(processes.run(f"{__name__}.convert", at_change=change, **call))
    assert set(ended) <= {"killed", "done"}
    assert "killed" in ended
    assert processes.run(f"{__name__}.convert", **call) == "done"
    assert oocload.verify(path, permutation_of=source).ok
    assert np.array_equal(read(path, "y"), order_of(2000, 4))
    assert sorted(os.listdir(tmp_path)) == ["s.h5", target]


def read(path: Path, field: str) -> np.ndarray:
    rows = [batch[field] for batch in resolve(path, [field]).batches(MIB)]
    return np.concatenate(rows)


def stop_at(n_rows: int) -> Any:
    def stop(progress: oocload.Progress) -> None:
        if progress.n_rows >= n_rows:
            raise RuntimeError("stopped")

    return stop


def test_the_second_pass_goes_on_without_the_first(tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with the seed that was drawn."""
    source, path = source_of(tmp_path), tmp_path / "t.h5"
    options: dict[str, Any] = {"shuffle": True, "chunk_rows": 50, "memory": "16 MiB"}
    with pytest.raises(RuntimeError, match="stopped"):
        oocload.convert(source, path, progress=stop_at(700), **options)
    assert sorted(os.listdir(tmp_path / ".t.h5.oocload"))[-2:] == ["shuffle.rows", "t.h5"]
    monkeypatch.setattr(shuffled, "row_keys", None)  # no key is made, so no row is read
    report = oocload.convert(source, path, resume=True, **options)
    assert report.n_rows_before >= 600
    assert report.seed is not None
    assert np.array_equal(read(path, "y"), order_of(2000, report.seed))
    assert sorted(os.listdir(tmp_path)) == ["s.h5", "t.h5"]
    again = oocload.convert(source, path, resume=True, **options, seed=report.seed)  # all is done
    assert again.n_rows_before == 2000


def test_the_first_pass_goes_on(tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    source, path = source_of(tmp_path), tmp_path / "t.h5"
    starts: list[int] = []

    def noted(seed: int, start: int, stop: int) -> Any:
        starts.append(start)
        return row_keys(seed, start, stop)

    def full(descriptor: int, some: Any, at: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real = runs.Runs.add

    def add(self: runs.Runs, run: runs.Run) -> None:
        real(self, run)
        if len(self.runs) == 10:
            monkeypatch.setattr(os, "pwrite", full)

    monkeypatch.setattr(shuffled, "row_keys", noted)
    with monkeypatch.context() as patch:
        patch.setattr(runs.Runs, "add", add)
        with pytest.raises(ConversionError, match=r"writing .* failed: the disk is full, and shuffling needs room"):
            oocload.convert(source, path, shuffle=True, seed=1, memory="16 MiB")
    monkeypatch.undo()
    monkeypatch.setattr(shuffled, "row_keys", noted)
    lines = (tmp_path / ".t.h5.oocload/shuffle.index").read_text().splitlines()
    n_written = sum(json.loads(line)["rows"] for line in lines[1:])
    starts.clear()
    oocload.convert(source, path, shuffle=True, seed=1, memory="16 MiB", resume=True)
    assert starts[0] == n_written > 0
    assert np.array_equal(read(path, "y"), order_of(2000, 1))


def test_what_is_left_of_another_shuffle_is_not_gone_on_with(tmp_path: Path) -> None:
    source, path = source_of(tmp_path), tmp_path / "t.h5"
    for _ in range(2):
        with pytest.raises(RuntimeError, match="stopped"):
            oocload.convert(source, path, shuffle=True, seed=1, progress=stop_at(1))
    with pytest.raises(InvalidArgumentError, match="source must be what it was when .* was begun, and has changed"):
        oocload.convert(source, path, shuffle=True, seed=2, resume=True)
    oocload.convert(source, path, shuffle=True, seed=2)
    assert np.array_equal(read(path, "y"), order_of(2000, 2))
    assert sorted(os.listdir(tmp_path)) == ["s.h5", "t.h5"]


def test_batches_are_read_and_compared_again(tmp_path: Path) -> None:
    """Nobody knows whether an iterable is what it was; what was made of it is."""
    path = tmp_path / "t.h5"
    with pytest.raises(RuntimeError, match="stopped"):
        oocload.convert(Batches(), path, chunk_rows=5, shuffle=True, progress=stop_at(1))
    left = ["journal", "redo", "shuffle.index", "t.h5"]  # no row, but the seed
    assert sorted(os.listdir(tmp_path / ".t.h5.oocload")) == left
    report = oocload.convert(Batches(), path, chunk_rows=5, shuffle=True, resume=True)
    assert np.array_equal(read(path, "y"), order_of(N_ROWS, report.seed or 0))


class Lines(RecordSource[int]):
    """Records of which one cannot be read, in pieces of ten."""

    label = "lines"
    skips = True
    record_specs: dict[str, Spec] = {"y": FieldSpec((), np.dtype("i8"))}  # noqa: RUF012
    record_meanings = {"y": Meaning(("none", "one"))}  # noqa: RUF012

    def record_identity(self) -> Identity:
        return {"lines": 1}

    def pieces(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[int]:
        yield from range(0, 100, 10)

    def read(self, piece: int, scratch: Scratch) -> Records:
        rows = np.arange(piece, piece + 10)
        return Records({"y": rows[rows != 42]}, [Skipped("line 42", "is bad")] if piece == 40 else [])


def test_what_was_skipped_is_known_after_a_kill(tmp_path: Path) -> None:
    path, options = tmp_path / "t.h5", {"shuffle": True, "seed": 1, "on_error": "skip"}
    with pytest.raises(RuntimeError, match="stopped"):
        oocload.convert(Lines(), path, progress=stop_at(1), **options)
    report = oocload.convert(Lines(), path, resume=True, **options)
    assert report.skipped == (Skipped("line 42", "is bad"),)
    assert sorted(read(path, "y").tolist()) == [n for n in range(100) if n != 42]


def test_meanings_go_along(tmp_path: Path) -> None:
    for _ in range(2):  # of the second, no row is read
        with ShuffledSource(Lines(), 1, tmp_path / "w/shuffle.rows", 64 * MIB, resume=True) as rows:
            assert sum(len(batch["y"]) for batch in rows.batches(MIB)) == 99
            assert rows.meanings == {"y": Meaning(("none", "one"))}


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with ShuffledSource(Lines(), 1, tmp_path / "w/shuffle.rows", 64 * MIB) as rows:
        next(iter(rows.batches(MIB)))
        with ShuffledSource(Lines(), 1, tmp_path / "w/shuffle.rows", 64 * MIB) as others:
            with pytest.raises(ConversionError, match="another is shuffling rows in"):
                next(iter(others.batches(MIB)))


def test_cut_rows_are_those_of_one_file(tmp_path: Path) -> None:
    """A line that a kill has cut short is written again."""
    path = tmp_path / "w/shuffle.rows"
    with ShuffledSource(Lines(), 1, path, 64 * MIB) as rows:
        wanted = gather(rows.batches(MIB))
    index = runs.index_of(path)
    index.write_bytes(index.read_bytes()[:-20])
    with ShuffledSource(Lines(), 1, path, 64 * MIB, resume=True) as rows:
        assert_rows(gather(rows.batches(MIB)), wanted)


CODE = """
import sys, numpy as np, oocload

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

oocload.convert({"x": np.zeros((9, 9))}, "few.h5", shuffle=True)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew: proc(5)
before = peak()
oocload.convert("s.h5", "t.h5", shuffle=True, memory=int(sys.argv[1]), progress=False, codec="none")
print(peak() - before)
"""


def test_memory(tmp_path: Path) -> None:
    memory = 24 * MIB
    x = np.zeros((96 * 1024, 1024), np.uint8)  # 96 MiB
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("x", data=x, chunks=(512, 1024), compression="gzip", compression_opts=1)
    run = subprocess.run(
        [sys.executable, "-c", CODE, str(memory)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) <= 1.1 * memory + 16 * MIB
