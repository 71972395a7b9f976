"""Conversions that are killed, at any moment, and resumed end in the store that they would have made at once."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

import oocload
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
