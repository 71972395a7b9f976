"""Conversions that are killed, at any moment, and resumed end in the store that they would have made at once."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

import oocload
from oocload.convert import pipeline
from oocload.convert.workplace import Workplace
from oocload.errors import ClosedError, ConversionError, InvalidArgumentError, TargetExistsError
from oocload.stores.checksums import ArrayChecksums, encode_segment, read_checksums
from tests.convert.kills import Runner, runner

N_ROWS = 6000
TARGETS = ["t.h5", "t.zarr", "sharded.zarr", "v2.zarr"]


@pytest.fixture(scope="module")
def processes() -> Iterator[Runner]:
    with runner() as started:
        yield started


def rows_from(start: int, stop: int) -> dict[str, Any]:
    """Return numbered rows that do not compress well, labels, and rows of several lengths."""
    numbers = np.arange(start, stop)
    x = (numbers[:, None] * np.arange(1, 1201) * 2654435761 >> 7) % 251
    return {
        "x": x.astype("u1").reshape(-1, 30, 40),
        "y": numbers,
        "r": [np.arange(n % 5) + n for n in numbers.tolist()],
    }


def options_of(target: str) -> dict[str, Any]:
    options: dict[str, Any] = {"chunk_rows": 50}
    if target == "sharded.zarr":
        options["chunks_per_shard"] = 7
    if target == "v2.zarr":
        options["zarr_format"] = 2
    return options


def create(path: str, resume: bool = True, step: int = 77) -> None:
    """Write all rows, from where an earlier run has left off."""
    fields = {"x": ((30, 40), "u1"), "y": "i8", "r": (None, "i8")}
    with oocload.create(path, fields, resume=resume, **options_of(Path(path).name)) as writer:
        for start in range(writer.n_rows, N_ROWS, step):
            writer.append(**rows_from(start, min(N_ROWS, start + step)))


def convert(source: str, path: str, **options: Any) -> None:
    oocload.convert(source, path, resume=True, **options_of(Path(path).name), **options)


def content_of(path: Path) -> dict[str, np.ndarray]:
    """Read a whole store with h5py or zarr themselves, the parts of ragged fields too."""
    with oocload.open(path) as store:
        names = array_names(store)
    with h5py.File(path) if path.suffix == ".h5" else nullcontext(zarr.open_group(path, mode="r")) as group:
        return {name: group[name][:] for name in names}


def array_names(store: oocload.Store) -> list[str]:
    return [*(name for name, field in store.fields.items() if field.ragged is None), *store.members]


def manifest_of(path: Path) -> dict[str, list[bytes]]:
    def blobs(known: ArrayChecksums | None) -> list[bytes]:
        assert known is not None
        return [encode_segment(known, segment) for segment in known.segments]

    with oocload.open(path) as store:
        return {name: blobs(read_checksums(store, name)) for name in array_names(store)}


def check_same(path: Path, wanted: Path) -> None:
    got, expected = content_of(path), content_of(wanted)
    assert got.keys() == expected.keys()
    for name, rows in expected.items():
        assert np.array_equal(got[name], rows), name
    assert manifest_of(path) == manifest_of(wanted)


@pytest.mark.parametrize("target", TARGETS)
def test_killed_at_random_moments(tmp_path: Path, processes: Runner, target: str) -> None:
    (tmp_path / "whole").mkdir()
    create(str(tmp_path / "whole" / target))
    moments, ended = random.Random(target), ""
    for _ in range(8):
        ended = processes.run(f"{__name__}.create", moments.uniform(0, 0.25), path=str(tmp_path / target))
        assert ended in ("killed", "done")
    assert processes.run(f"{__name__}.create", path=str(tmp_path / target)) == "done"
    check_same(tmp_path / target, tmp_path / "whole" / target)
    assert sorted(os.listdir(tmp_path)) == sorted([target, "whole"])


@pytest.mark.parametrize("target", TARGETS)
def test_killed_before_any_change_of_the_disk(tmp_path: Path, processes: Runner, target: str) -> None:
    """The first changes, those in between, and the last: metadata, checksums, the rename, what is removed after it."""
    source, call = tmp_path / "source.h5", f"{__name__}.convert"
    oocload.convert(rows_from(0, 500), source, chunk_rows=30)
    wanted = tmp_path / "whole" / target
    wanted.parent.mkdir()
    oocload.convert(source, wanted, **options_of(target))
    n_changes, moments = 200, random.Random(target)
    early, late = range(1, 12), range(1, 40)
    for change in [*early, *moments.sample(range(12, n_changes), 8)]:
        ended = processes.run(call, at_change=change, source=str(source), path=str(tmp_path / target))
        assert ended in ("killed", "done")
    for change in late:
        ended = processes.run(call, at_change=change, source=str(source), path=str(tmp_path / target))
        if ended == "done":
            break
    assert processes.run(call, source=str(source), path=str(tmp_path / target)) == "done"
    check_same(tmp_path / target, wanted)
    assert sorted(os.listdir(tmp_path)) == sorted([target, "source.h5", "whole"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("target", TARGETS)
def test_a_full_disk(tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setattr(pipeline, "_COMMIT_SECONDS_LEAST", 0.0)  # as on a disk that takes longer to fill
    rows = np.random.default_rng(0).integers(0, 256, (10_000, 1000), dtype=np.uint8)
    np.save(tmp_path / "x.npy", rows)
    path, options = small_disk / target, options_of(target) | {"chunk_rows": 500}
    with pytest.raises(
        ConversionError, match=r"writing .* failed: the disk is full; free some space .*; nothing was left"
    ) as caught:
        oocload.convert(tmp_path / "x.npy", path, **options)
    assert "rows are kept beside" in caught.value.__notes__[0]
    assert "pass resume=True (--resume) to go on" in caught.value.__notes__[0]
    with pytest.raises(ConversionError, match="the disk is full"):  # nothing was freed
        oocload.convert(tmp_path / "x.npy", path, resume=True, **options)
    assert not path.exists()
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    report = oocload.convert(tmp_path / "x.npy", path, resume=True, **options)
    assert report.n_rows_before >= 1000
    assert f"10,000 rows ({report.n_rows_before:,} of them before)" in str(report)
    assert np.array_equal(content_of(path)["x"], rows)
    assert os.listdir(small_disk) == [target]
    assert oocload.verify(path).ok


@pytest.mark.parametrize("target", TARGETS)
def test_an_exception_in_an_iterable(tmp_path: Path, target: str) -> None:
    """Rows of iterables are compared with those that are there; chunks that are there are not encoded again."""

    def batches(stop: int, change: int = -1) -> Iterator[dict[str, Any]]:
        for start in range(0, N_ROWS, 100):
            if start >= stop:
                raise RuntimeError("no more")
            rows = rows_from(start, start + 100)
            if start == change:
                rows["x"][50, 3, 4] += 1
            yield rows

    path, options = tmp_path / target, options_of(target)
    with pytest.raises(RuntimeError, match="no more") as caught:
        oocload.convert(batches(4000), path, **options)
    assert caught.value.__notes__[0].startswith("4,000 rows are kept")
    with pytest.raises(ConversionError, match="source must be what it was, and has changed: rows 3050 to 3100 of 'x'"):
        oocload.convert(batches(N_ROWS, change=3000), path, resume=True, **options)
    oocload.convert(batches(N_ROWS), path, resume=True, **options)
    (tmp_path / "whole").mkdir()
    oocload.convert(batches(N_ROWS), tmp_path / "whole" / target, **options)
    check_same(path, tmp_path / "whole" / target)


def interrupted(tmp_path: Path, **options: Any) -> Path:
    """Leave a conversion of a file that was stopped half-way."""
    np.save(tmp_path / "x.npy", rows_from(0, 3000)["x"])

    def stop(progress: oocload.Progress) -> None:
        if progress.n_rows >= 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        oocload.convert(tmp_path / "x.npy", tmp_path / "t.h5", chunk_rows=50, memory="2 MiB", progress=stop, **options)
    return tmp_path / "t.h5"


def test_a_source_that_has_changed(tmp_path: Path) -> None:
    path = interrupted(tmp_path)
    rows = np.load(tmp_path / "x.npy")
    rows[5] += 1
    np.save(tmp_path / "x.npy", rows)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(
        InvalidArgumentError, match=r"source must be what it was when .*t\.h5 was begun, and has changed"
    ):
        oocload.convert(tmp_path / "x.npy", path, chunk_rows=50, resume=True)
    assert sorted(os.listdir(tmp_path)) == before
    oocload.convert(tmp_path / "x.npy", path, chunk_rows=50)  # anew
    assert np.array_equal(content_of(path)["x"], rows)
    assert sorted(os.listdir(tmp_path)) == ["t.h5", "x.npy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"codec": "none"},
            r'whose codec was "gzip", got "none"; pass the same arguments, or start anew without resume',
        ),
        ({"level": 1}, "whose level was 4, got 1"),
        ({"chunk_rows": 60}, r'whose chunks was \{"x": \[50, 1\]\}, got \{"x": \[60, 1\]\}'),
    ],
)
def test_a_journal_of_something_else(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = interrupted(tmp_path)
    with pytest.raises(InvalidArgumentError, match=message):
        oocload.convert(tmp_path / "x.npy", path, resume=True, **{"chunk_rows": 50} | options)
    with pytest.raises(InvalidArgumentError, match="resume must go on with what was begun in .*, whose fields was"):
        oocload.convert({"z": tmp_path / "x.npy"}, path, resume=True, chunk_rows=50)
    report = oocload.convert(tmp_path / "x.npy", path, resume=True, chunk_rows=50)  # nothing was lost
    assert report.n_rows_before >= 900


@pytest.mark.parametrize("target", ["t.h5", "t.zarr"])
def test_a_whole_store_of_something_else(tmp_path: Path, target: str) -> None:
    """It waits for its name, and must not get it as the result of another conversion."""
    rows, path = rows_from(0, 500)["x"], tmp_path / target

    def take_its_name(progress: oocload.Progress) -> None:
        path.touch()

    np.save(tmp_path / "x.npy", rows)
    np.save(tmp_path / "z.npy", rows + 1)
    for source in (tmp_path / "x.npy", rows):
        with pytest.raises(TargetExistsError, match="target must not exist"):
            oocload.convert(source, path, progress=take_its_name)
        path.unlink()
        with pytest.raises(InvalidArgumentError, match=r"resume must go on with .* whose chunks was"):
            oocload.convert(source, path, resume=True, chunk_rows=9)
        other = tmp_path / "z.npy" if source is not rows else rows + 1
        with pytest.raises((InvalidArgumentError, ConversionError), match=r"source must be what it was.* has changed"):
            oocload.convert(other, path, resume=True)
        assert not path.exists()
        oocload.convert(source, path, resume=True)
        assert np.array_equal(content_of(path)["x"], rows)
        assert oocload.verify(path).ok
        assert sorted(os.listdir(tmp_path)) == sorted([target, "x.npy", "z.npy"])
        oocload.convert(rows, path, overwrite=True)
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("n_submitted", [0, 1, 5, 40])
def test_an_interrupt_between_rows_and_their_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, n_submitted: int
) -> None:
    """Rows that have left their buffer, and are not queued yet, are lost; those before them are not."""
    path, count, real = tmp_path / target, itertools.count(), ThreadPoolExecutor.submit

    def submit(pool: ThreadPoolExecutor, *args: Any) -> Any:
        if pool._thread_name_prefix == "oocload-encode" and next(count) == n_submitted:
            raise KeyboardInterrupt
        return real(pool, *args)

    with monkeypatch.context() as patched:
        patched.setattr(ThreadPoolExecutor, "submit", submit)
        with pytest.raises(KeyboardInterrupt):
            create(str(path))
    create(str(path))
    (tmp_path / "whole").mkdir()
    create(str(tmp_path / "whole" / target))
    check_same(path, tmp_path / "whole" / target)


def test_what_a_finished_run_did_not_live_to_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.arange(10))
    np.save(tmp_path / "z.npy", np.arange(10, 30))
    with monkeypatch.context() as patched:
        patched.setattr(Workplace, "remove", Workplace.close)
        oocload.convert(tmp_path / "x.npy", tmp_path / "t.h5")
    with pytest.raises(TargetExistsError, match="target must not exist"):
        oocload.convert(tmp_path / "z.npy", tmp_path / "t.h5", resume=True)
    with monkeypatch.context() as patched:
        patched.setattr(Workplace, "remove", Workplace.close)
        oocload.convert(tmp_path / "x.npy", tmp_path / "t.h5", overwrite=True)
    oocload.convert(tmp_path / "z.npy", tmp_path / "t.h5", resume=True, overwrite=True)
    assert content_of(tmp_path / "t.h5")["x"].tolist() == list(range(10, 30))
    assert sorted(os.listdir(tmp_path)) == ["t.h5", "x.npy", "z.npy"]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_metadata_that_zarr_had_half_written_goes(tmp_path: Path, zarr_format: int) -> None:
    path, fields = tmp_path / "t.zarr", {"x": "i8", "g/y": "i8"}
    with (
        pytest.raises(RuntimeError, match="stop"),
        oocload.create(path, fields, chunk_rows=5, zarr_format=zarr_format) as writer,
    ):
        writer.append_batch({"x": np.arange(20), "g/y": np.arange(20)})
        raise RuntimeError("stop")
    left = tmp_path / ".t.zarr.oocload" / "t.zarr"
    for folder in (left, left / "x", left / "g", left / "g" / "y"):
        (folder / f"zarr.{'0123456789abcdef' * 2}.partial").write_text("{")
    with oocload.create(path, fields, chunk_rows=5, zarr_format=zarr_format, resume=True) as writer:
        assert writer.n_rows == 20
    assert list(path.rglob("*.partial")) == []


def test_what_is_finished_is_finished(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(10))
    oocload.convert(tmp_path / "x.npy", tmp_path / "t.h5")
    report = oocload.convert(tmp_path / "x.npy", tmp_path / "t.h5", resume=True)
    assert (report.n_rows, report.n_rows_before) == (10, 10)
    with pytest.raises(TargetExistsError, match="target must not exist"):  # made with another codec
        oocload.convert(tmp_path / "x.npy", tmp_path / "t.h5", resume=True, codec="lzf")
    with pytest.raises(TargetExistsError, match="target must not exist"):  # of an array that nobody knows
        oocload.convert(np.arange(10), tmp_path / "t.h5", resume=True)
    with pytest.raises(TargetExistsError, match="target must not exist"):
        oocload.convert(tmp_path / "x.npy", tmp_path / "t.h5")
    with oocload.create(tmp_path / "made.h5", {"x": "i8"}, resume=True) as writer:
        writer.append(x=np.arange(10))
    with oocload.create(tmp_path / "made.h5", {"x": "i8"}, resume=True) as writer:
        assert writer.n_rows == 10
        with pytest.raises(ClosedError, match=r"made\.h5 is finished; create a new store"):
            writer.append(x=np.arange(3))
    assert sorted(os.listdir(tmp_path)) == ["made.h5", "t.h5", "x.npy"]
