"""Sources of records: whatever the pieces and threads, the same rows in order; what is skipped is listed."""

import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.chunks.scratch import Scratch
from oocload.convert.fields import Spec
from oocload.convert.sources.identity import Identity
from oocload.convert.sources.parted import describe
from oocload.convert.sources.records import Records, RecordSource, Skipped
from oocload.convert.spec import FieldSpec
from oocload.layout import Meaning

N = 97


class Numbers(RecordSource[range]):
    """The numbers from 0; some cannot be read."""

    label = "numbers"
    skips = True

    def __init__(self, bad: set[int] = frozenset(), can_jump: bool = True, known: bool = True) -> None:  # type: ignore[assignment]
        self.bad, self.can_jump, self.known = bad, can_jump, known
        self.n_read = self.n_held = self.most_held = 0
        self.closed = False
        self._lock = threading.Lock()

    @property
    def record_specs(self) -> Mapping[str, Spec]:
        return {"x": FieldSpec((2,), np.dtype("int64")), "y": FieldSpec((), np.dtype("int64"))}

    @property
    def record_meanings(self) -> Mapping[str, Meaning]:
        return {"y": Meaning(tuple(map(str, range(N))))}

    @property
    def n_records(self) -> int | None:
        return N if self.known else None

    @cached_property
    def rule(self) -> str:
        return self.on_error

    def record_identity(self) -> Identity:
        return {"bad": sorted(self.bad)}

    def pieces(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[range]:
        try:
            height = max(1, piece_nbytes // 24)
            for first in range(start if self.can_jump else 0, N, height):
                if self.can_jump and stop is not None and first >= stop:
                    return
                with self._lock:
                    self.n_held += 1
                    self.most_held = max(self.most_held, self.n_held)
                yield range(first, min(N, first + height))
        finally:
            self.closed = True

    def read(self, piece: range, scratch: Scratch) -> Records:
        with self._lock:
            self.n_read += len(piece)
        bad = [i for i in piece if i in self.bad]
        if bad and self.on_error == "raise":
            raise oocload.StoreFormatError(f"number {bad[0]} cannot be read")
        y = np.array([i for i in piece if i not in self.bad], "int64")
        return Records({"x": np.stack([y, -y], axis=1), "y": y}, [Skipped(f"number {i}", "bad") for i in bad])


@given(
    nbytes=st.integers(1, 3000),
    bounds=st.lists(st.integers(0, N), min_size=2, max_size=2).map(sorted),
    n_ahead=st.integers(0, 3),
    can_jump=st.booleans(),
    bad=st.sets(st.integers(0, N - 1), max_size=20),
)
def test_rows_in_order(nbytes: int, bounds: list[int], n_ahead: int, can_jump: bool, bad: set[int]) -> None:
    source = Numbers(bad, can_jump).with_on_error("skip" if bad else "raise")
    start, stop = bounds
    got: list[int] = []
    for batch in source.batches(nbytes, start, stop, n_ahead):
        assert np.array_equal(batch["x"], np.stack([batch["y"], -batch["y"]], axis=1))
        got += batch["y"].tolist()
        source.n_held -= 1
    kept = [i for i in range(N) if i not in bad]
    assert got == kept[start:stop]
    assert source.most_held <= n_ahead + 1 or not can_jump or bad
    if stop >= len(kept):
        assert [s.where for s in source.skipped] == [f"number {i}" for i in sorted(bad)]
    assert source.closed


def test_to_begin_late_reads_no_more_than_it_must() -> None:
    source = Numbers()
    assert [b["y"].tolist() for b in source.batches(240, 50, 70)] == [[*range(50, 60)], [*range(60, 70)]]
    assert source.n_read == 20


def test_an_error_comes_where_its_rows_would_have_come() -> None:
    got: list[int] = []
    with pytest.raises(oocload.StoreFormatError, match="number 42 cannot be read"):
        for batch in Numbers({42}).batches(240, n_ahead=3):
            got += batch["y"].tolist()
    assert got == [*range(40)]


def test_one_that_is_abandoned_is_closed() -> None:
    source = Numbers()
    batches = source.batches(24, n_ahead=2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert source.closed
    assert source.n_read <= 4


def test_fields_are_chosen() -> None:
    chosen = Numbers().choosing(["y"])
    assert list(chosen.specs or ()) == ["y"]
    assert list(chosen.meanings) == ["y"]
    assert all(list(batch) == ["y"] for batch in chosen.batches(240))
    with pytest.raises(
        oocload.UnknownFieldError, match=r"field 'z' must be one of those in numbers, which has 'x', 'y'"
    ):
        _ = Numbers().choosing(["z"]).specs


def test_what_was_found_out_before_is_found_out_anew() -> None:
    source = Numbers()
    assert source.rule == "raise"
    assert source.with_on_error("skip").rule == "skip"
    assert source.rule == "raise"
    assert source.with_on_error("skip").n_rows is None


@pytest.mark.parametrize("name", ["t.h5", "t.zarr", "p/part-*.h5"])
def test_a_conversion_of_them(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"part_bytes": "34 KiB", "chunk_rows": 10} if "*" in name else {}
    target = tmp_path / name
    with pytest.raises(oocload.StoreFormatError, match="number 90 cannot be read"):
        oocload.convert(Numbers({90}), target, **options)
    report = oocload.convert(Numbers({90, 3}), target, on_error="skip", **options)
    assert report.skipped == (Skipped("number 3", "bad"), Skipped("number 90", "bad"))
    assert "skipped 2:\n  number 3: bad\n  number 90: bad" in str(report)
    with oocload.open(str(target)) as store:
        assert store.field("y").meaning.vocabulary[:2] == ("0", "1")
    with oocload.Loader(str(target), batch_size=10, shuffle=False, x="y") as loader:
        got = np.concatenate([*loader])
    assert got.tolist() == [i for i in range(N) if i not in (3, 90)]


@pytest.mark.parametrize("can_jump", [True, False])
def test_a_conversion_that_failed_goes_on(tmp_path: Path, can_jump: bool) -> None:
    def stop(progress: oocload.Progress) -> None:
        if progress.n_rows >= 60 and progress.n_rows_before == 0:
            raise KeyboardInterrupt

    target = tmp_path / "t.zarr"
    options: dict[str, Any] = {"chunk_rows": 1, "memory": "1 MiB"}
    source = Numbers({5}, can_jump).with_on_error("skip")
    with pytest.raises(KeyboardInterrupt):
        oocload.convert(source, target, progress=stop, **options)
    report = oocload.convert(source, target, resume=True, **options)
    assert report.skipped == (Skipped("number 5", "bad"),)
    assert report.n_rows == N - 1


def test_no_cluster_reads_them() -> None:
    with pytest.raises(oocload.InvalidArgumentError, match=r"got numbers, whose records one process reads; .* without"):
        describe(Numbers())


def test_bad_rules() -> None:
    with pytest.raises(oocload.InvalidArgumentError, match="on_error must be 'raise' or 'skip', got 'ignore'"):
        oocload.convert(Numbers(), "t.h5", on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(oocload.InvalidArgumentError, match="no records that could be skipped"):
        oocload.convert({"x": np.zeros(3)}, "t.h5", on_error="skip")

    class Firm(Numbers):
        skips = False

    with pytest.raises(oocload.InvalidArgumentError, match="for numbers, which has nothing to skip"):
        oocload.convert(Firm(), "t.h5", on_error="skip")
