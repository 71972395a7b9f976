import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

import oocload
from oocload.chunks.read import open_reader
from oocload.chunks.scratch import Scratch
from oocload.statistics.scan import Needs, Scan, ranges_of, threads_within
from tests.conftest import our_threads


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=np.arange(40_000.0).reshape(-1, 4), chunks=(100, 4), compression="lzf")
    return tmp_path / "x.h5"


def test_ranges_are_whole_chunks_and_have_every_row_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oocload.statistics.scan._RANGE_NBYTES", 30_000)
    with oocload.open([path, path]) as store:
        grid = ranges_of(store.field("x"))
        ranges = [grid.rows(i) for i in range(grid.n_blocks)]
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(20_000))
    assert all(start % 100 == 0 for start, _ in ranges)
    assert {stop - start for start, stop in ranges} == {1000}


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_what_is_found_comes_in_order(path: Path, monkeypatch: pytest.MonkeyPatch, n_threads: int) -> None:
    monkeypatch.setattr("oocload.statistics.scan._RANGE_NBYTES", 1)
    turn = threading.Event()

    def first_last(block: np.ndarray, start: int, scratch: Scratch) -> tuple[float, int]:
        if n_threads > 1 and start == 0:
            turn.wait(10)  # until others have gone ahead as far as they may
        elif start == 500:
            turn.set()
        return float(block[0, 0]), start

    with oocload.open(path) as store:
        field = store.field("x")
        reader = open_reader(store, field)
        grid = ranges_of(field)
        if n_threads == 1:
            turn.set()
        found = list(Scan(reader, field, grid, first_last, n_threads if n_threads != 2 else 4))
        reader.close()
    assert [rows for rows, _ in found] == [(i, i + 100) for i in range(0, 10_000, 100)]
    assert [value for _, value in found] == [(4.0 * i, i) for i in range(0, 10_000, 100)]


def test_an_error_of_a_thread_comes_out_and_ends_the_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oocload.statistics.scan._RANGE_NBYTES", 1)

    def fails(block: np.ndarray, start: int, scratch: Scratch) -> None:
        if start == 1000:
            raise ArithmeticError("at row 1000")

    with oocload.open(path) as store:
        reader = open_reader(store, store.field("x"))
        with pytest.raises(ArithmeticError, match="at row 1000"):
            list(Scan(reader, store.field("x"), ranges_of(store.field("x")), fails, 2))
        reader.close()
    assert our_threads() == []


def test_threads_within_a_ceiling(path: Path) -> None:
    with oocload.open(path) as store:
        field = store.field("x")
        reader = open_reader(store, field)
        needs = Needs(reader, field, 1000, work_nbytes=5000, result_nbytes=100, held_nbytes=77)
        reader.close()
    assert needs.total(1) == needs.fixed + needs.per_thread
    assert needs.per_thread >= 32_000 + 3200 + 5000 + 300
    assert threads_within(needs, None, 3, "x") == 3
    assert threads_within(needs, needs.total(2), 9, "x") == 2
    assert threads_within(needs, needs.total(1), 9, "x") == 1
    with pytest.raises(oocload.MemoryCeilingError, match=rf"memory must be at least {needs.total(1)} bytes .*'x'"):
        threads_within(needs, needs.total(1) - 1, 9, "x")
