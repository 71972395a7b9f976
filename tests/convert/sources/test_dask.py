"""Dask arrays: every block computed once, a bounded number at a time, rows in order."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.convert.sources.dask import is_dask
from oocload.convert.sources.resolve import resolve
from oocload.errors import InvalidArgumentError
from tests.conftest import our_threads
from tests.convert.sources.kinds import N_ROWS, X, Y, assert_rows, gather

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")


class Counted:
    """Counts how often each block is made, and how many are there that nobody has taken."""

    def __init__(self) -> None:
        self.made: Counter[Any] = Counter()
        self.lock = threading.Lock()

    def __call__(self, block: np.ndarray, block_info: Any = None) -> np.ndarray:
        with self.lock:
            self.made[block_info[0]["chunk-location"]] += 1
        return block + 1

    @property
    def n_blocks(self) -> int:
        return sum(self.made.values())


def counted(chunks: Any = (10, 5, 3)) -> tuple[Any, Counted]:
    count = Counted()
    return da.map_blocks(count, da.from_array(X, chunks), dtype=X.dtype), count


@given(
    heights=st.lists(st.integers(0, 40), min_size=1, max_size=9).map(lambda h: (*h, max(0, N_ROWS - sum(h)))),
    piece=st.integers(1, 9000),
    bounds=st.tuples(st.integers(0, N_ROWS), st.integers(0, N_ROWS)).map(sorted),
    n_ahead=st.sampled_from([0, 1, 4]),
)
def test_any_rows(heights: tuple[int, ...], piece: int, bounds: list[int], n_ahead: int) -> None:
    n_rows = sum(heights)
    x = np.resize(X, (n_rows, 5, 3))
    array = da.from_array(x, ((*heights,), (2, 3), 3))
    start, stop = bounds
    rows = resolve({"x": array, "y": np.arange(n_rows), "z": array[:, 0] + 1}, None)
    got = gather(rows.batches(piece, start, stop, n_ahead))
    if start < min(stop, n_rows):
        part = slice(start, stop)
        assert_rows(got, {"x": [*x[part]], "y": [*np.arange(n_rows)[part]], "z": [*x[part, 0] + 1]})


@pytest.mark.parametrize("n_ahead", [0, 1, 3])
@pytest.mark.parametrize("chunks", [(10, 5, 3), (10, 2, 3)])
def test_each_block_once(n_ahead: int, chunks: Any) -> None:
    x, count = counted(chunks)
    got = gather(resolve({"x": x, "sum": x.sum(axis=(1, 2)), "y": Y}, None).batches(2000, n_ahead=n_ahead))
    assert_rows(got, {"x": [*X + 1], "sum": [*(X + 1).sum(axis=(1, 2))], "y": [*Y]})
    assert set(count.made.values()) == {1}
    assert not our_threads()


@pytest.mark.parametrize("n_ahead", [0, 1, 4])
def test_bounded(n_ahead: int) -> None:
    x, count = counted()
    rows = resolve(x, None)
    piece = 2 * 10 * X[0].nbytes
    given_rows = 0
    for batch in rows.batches(piece, n_ahead=n_ahead):
        assert count.n_blocks * 10 - given_rows <= 20 * (n_ahead + 1)
        given_rows += len(batch["x"])
    assert given_rows == N_ROWS


def test_nothing_before_a_row_is_computed() -> None:
    x, count = counted()
    rows = resolve(x, None)
    assert rows.can_jump
    assert_rows(gather(rows.batches(600, 35, 52)), {"x": [*X[35:52] + 1]})
    assert sorted(place[0] for place in count.made) == [3, 4, 5]


def test_the_scheduler_that_is_set() -> None:
    x, _ = counted()
    names = set()

    def get(graph: Any, keys: Any, **options: Any) -> Any:
        names.add("ours")
        return dask.get(graph, keys, **options)

    with dask.config.set(scheduler=get):
        gather(resolve(x, None).batches(600))
    assert names == {"ours"}


def test_an_error_of_a_block() -> None:
    def fail(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info and block_info[0]["chunk-location"][0] == 4:
            raise ValueError("the block broke")
        return block

    x = da.map_blocks(fail, da.from_array(X, (10, 5, 3)), dtype=X.dtype)
    for n_ahead in (0, 2):
        got: list[np.ndarray] = []
        with pytest.raises(ValueError, match="the block broke"):
            got.extend(b["x"] for b in resolve(x, None).batches(600, n_ahead=n_ahead))
        assert sum(map(len, got)) <= 40
    assert not our_threads()


def test_what_it_says_of_itself() -> None:
    x = da.from_array(X, (30, 5, 3))
    rows = resolve((x, da.from_array(Y, 50)), None)
    assert rows.identity() == resolve((x, da.from_array(Y, 50)), None).identity()
    assert resolve(x + 1, None).identity() != resolve(x, None).identity()
    assert not rows.identity_is_proof
    assert rows.least_piece_nbytes == 30 * 60 + 50 * 8
    assert rows.least_piece_reason.startswith(
        f"field 'x' (dask array {x.name}) has pieces of 1.8 KiB; raise memory=, or"
    )
    assert "rechunk({0: rows})" in rows.least_piece_reason


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: da.from_array(Y, 10)[da.from_array(Y, 10) > 5], r"known sizes, .* call its compute_chunk_sizes\(\)"),
        (lambda: da.from_array(Y, 10).sum(), "field 'x' must be an array whose axis 0 counts rows, got a scalar"),
        (lambda: da.from_array(np.array([None, {}]), 1), "field 'x' must have a fixed-size dtype, got object"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        resolve(make(), None)


def test_others_are_not_dask(tmp_path: Path) -> None:
    assert is_dask(da.zeros(3))
    assert not any(map(is_dask, [X, [1], da.zeros(3).to_delayed(), None]))


@pytest.fixture
def client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as found,
    ):
        yield found


@pytest.mark.framework
def test_a_client_that_is_current(client: Any) -> None:
    """Also where it is current in the context of the caller alone."""
    import distributed

    where = da.from_array(X, (30, 5, 3)).map_blocks(lambda b: b + bool(distributed.get_worker().id), dtype=X.dtype)
    with client.as_current():
        assert_rows(gather(resolve(where, None).batches(2000, n_ahead=2)), {"x": [*X + 1]})
