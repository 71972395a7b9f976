"""Several files of bounded size: what they hold together, how large they are, and what is left of them half-way."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.convert.arrays import NewArray
from oocload.convert.parts import room_for_rows, rows_of_part
from oocload.convert.spec import FieldSpec
from oocload.errors import ConversionError, InvalidArgumentError, TargetExistsError
from tests.convert.kills import runner
from tests.convert.test_resume import check_same, rows_from

RANDOM = np.random.default_rng(0)


def size_of(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)


@pytest.mark.parametrize("target", ["all/part-*.h5", "all/part-*.zarr"])
@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_dense_rows(tmp_path: Path, target: str, codec: str) -> None:
    x, y = RANDOM.integers(0, 256, (5003, 40, 13), dtype="u1"), np.arange(5003)
    report = oocload.convert((x, y), tmp_path / target, part_bytes="400 KiB", chunk_rows=100, codec=codec)
    paths = sorted((tmp_path / "all").iterdir())
    assert [p.name for p in paths] == [f"part-{n:05d}{Path(target).suffix}" for n in range(len(paths))]
    assert all(size_of(p) <= 400 * 1024 for p in paths)
    with oocload.open(tmp_path / target) as store:
        assert {part.field.chunk_rows for part in store.parts("x")} == {100}
        assert all((part.stop - part.start) % 100 == 0 for part in store.parts("x")[:-1])
    with oocload.Loader(tmp_path / target, 64, shuffle=False) as loader:
        got = list(loader)
    assert np.array_equal(np.concatenate([b[0] for b in got]), x)
    assert np.array_equal(np.concatenate([b[1] for b in got]), y)
    assert (report.n_rows, report.stored_nbytes) == (5003, sum(map(size_of, paths)))
    assert oocload.verify(tmp_path / target).ok
    assert os.listdir(tmp_path) == ["all"]


@pytest.mark.parametrize("target", ["all/part-*.h5", "all/part-*.zarr"])
def test_rows_of_several_lengths(tmp_path: Path, target: str) -> None:
    rows = [RANDOM.integers(0, 2**60, n) for n in RANDOM.integers(0, 900, 3000)]
    rows[1000] = RANDOM.integers(0, 2**60, 200_000)  # larger than a file may be: it has one of its own

    def batches() -> Any:
        yield from ({"t": rows[i : i + 70], "y": np.arange(i, min(3000, i + 70))} for i in range(0, 3000, 70))

    oocload.convert(batches(), tmp_path / target, part_bytes="1 MiB")
    sizes = [size_of(p) for p in sorted((tmp_path / "all").iterdir())]
    assert sum(size > 2**20 for size in sizes) == 1
    with oocload.open(tmp_path / target) as store:
        assert store.fields["t"].shape[0] == 3000
        (alone,) = (p for p in store.parts("y") if p.start <= 1000 < p.stop)
        assert (alone.start, alone.stop) == (1000, 1001)
    with oocload.Loader(tmp_path / target, 100, shuffle=False, ragged="values") as loader:
        got = [batch["t"] for batch in loader]
    values = np.concatenate([g.values for g in got])
    assert np.array_equal(values, np.concatenate(rows))


@pytest.mark.parametrize("target", ["all/p-*.h5", "all/p-*.zarr"])
def test_killed_and_resumed(tmp_path: Path, target: str) -> None:
    """At random moments, and just before the last changes of the disk, the rename of the folder among them."""
    options: dict[str, Any] = {"part_bytes": "300 KiB", "chunk_rows": 50}
    oocload.convert(rows_from(0, 1000), tmp_path / "source.h5", chunk_rows=64)
    (tmp_path / "whole").mkdir()
    oocload.convert(tmp_path / "source.h5", tmp_path / "whole" / target, **options)
    arguments = {"source": str(tmp_path / "source.h5"), "path": str(tmp_path / target)} | options
    chance, call = random.Random(target), "tests.convert.test_parts.convert"
    with runner() as processes:
        for _ in range(6):
            assert processes.run(call, after_s=chance.uniform(0, 0.15), **arguments) in ("killed", "done")
        for change in range(1, 40, 3):
            if processes.run(call, at_change=change, **arguments) == "done":
                break
        assert processes.run(call, **arguments) == "done"
    names = sorted(os.listdir(tmp_path / "all"))
    assert len(names) > 3
    assert names == sorted(os.listdir(tmp_path / "whole" / "all"))
    for name in names:
        check_same(tmp_path / "all" / name, tmp_path / "whole" / "all" / name)
    assert sorted(os.listdir(tmp_path)) == ["all", "source.h5", "whole"]


def convert(source: str, path: str, **options: Any) -> None:
    oocload.convert(source, path, resume=True, **options)


def test_an_iterable_is_resumed(tmp_path: Path) -> None:
    def batches(stop: int) -> Any:
        for start in range(0, 2000, 100):
            if start == stop:
                raise RuntimeError("no more")
            yield rows_from(start, start + 100)

    options: dict[str, Any] = {"part_bytes": "300 KiB", "chunk_rows": 50}
    with pytest.raises(RuntimeError, match="no more"):
        oocload.convert(batches(1300), tmp_path / "all" / "p-*.h5", **options)
    assert not (tmp_path / "all").exists()
    report = oocload.convert(batches(-1), tmp_path / "all" / "p-*.h5", resume=True, **options)
    assert 500 < report.n_rows_before < 1300
    oocload.convert(batches(-1), tmp_path / "whole" / "p-*.h5", **options)
    for path in (tmp_path / "all").iterdir():
        check_same(path, tmp_path / "whole" / path.name)
    assert sorted(os.listdir(tmp_path)) == ["all", "whole"]


@given(
    part=st.integers(2**16, 2**30),
    row=st.integers(1, 2**16),
    height=st.integers(1, 300),
    small=st.integers(1, 16),
)
def test_files_are_bounded(part: int, row: int, height: int, small: int) -> None:
    arrays = {
        "x": NewArray(FieldSpec((row,), np.dtype("u1")), height),
        "y": NewArray(FieldSpec((small,), np.dtype("u1")), height * 4),
    }
    room, of_largest = room_for_rows(part, arrays)
    try:
        n_rows = rows_of_part(room, row + small, of_largest)
    except InvalidArgumentError:
        return
    y_chunks = -(-n_rows // arrays["y"].height)
    assert n_rows % of_largest == 0
    assert n_rows * row + y_chunks * arrays["y"].chunk_nbytes < part


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("all/p-*.h5", {}, r"part_bytes must be given for a target of several files, got '.*p-\*\.h5'"),
        (
            "t.h5",
            {"part_bytes": "1 MiB"},
            r"target must be files of a folder of their own, with one star in their name",
        ),
        ("*/p-*.h5", {"part_bytes": "1 MiB"}, "target must be files of a folder of their own"),
        ("all/p-*-*.h5", {"part_bytes": "1 MiB"}, "target must be files of a folder of their own"),
        ("all/p-*.h5", {"part_bytes": "lots"}, "part_bytes must be a size above zero, got 'lots'"),
        ("all/p-*.h5", {"part_bytes": "40 KiB"}, r"part_bytes must have room for a chunk of every field, .* at least"),
    ],
)
def test_bad_calls(tmp_path: Path, target: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        oocload.convert(np.zeros((1000, 1000), "u1"), tmp_path / target, **options)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "mine").write_text("kept")
    target, rows = tmp_path / "all" / "p-*.h5", np.zeros((1000, 1000), "u1")
    with pytest.raises(TargetExistsError, match=r"target must not exist, got '.*all'; pass overwrite=True"):
        oocload.convert(rows, target, part_bytes="1 MiB")
    assert (tmp_path / "all" / "mine").read_text() == "kept"
    oocload.convert(rows, target, part_bytes="1 MiB", overwrite=True)
    assert "mine" not in os.listdir(tmp_path / "all")
    assert os.listdir(tmp_path) == ["all"]


def test_other_options_are_not_resumed(tmp_path: Path) -> None:
    def batches() -> Any:
        yield np.zeros((1000, 1000), "u1")
        raise RuntimeError("stop")

    target = tmp_path / "all" / "p-*.h5"
    with pytest.raises(RuntimeError, match="stop"):
        oocload.convert(batches(), target, part_bytes="600 KiB", codec="none", chunk_rows=50)
    with pytest.raises(InvalidArgumentError, match="whose part_bytes was 614400, got 819200"):
        oocload.convert(batches(), target, part_bytes="800 KiB", codec="none", chunk_rows=50, resume=True)
    assert issubclass(ConversionError, RuntimeError)
    with pytest.raises(RuntimeError, match="stop"):
        oocload.convert(batches(), target, part_bytes="600 KiB", codec="none", chunk_rows=50, resume=True)
