import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.errors import InvalidArgumentError
from oocload.plan import select as select_module
from oocload.plan.blocks import BlockGrid
from oocload.plan.select import Selection
from oocload.plan.split import select_rows
from oocload.plan.visits import Visits
from tests.plan.test_blocks import grids


def rows_in(selection: Selection) -> list[int]:
    return [row for _, rows in selection.row_pieces() for row in rows.tolist()]


@st.composite
def chosen(draw: st.DrawFn) -> tuple[BlockGrid, list[int]]:
    grid = draw(grids(max_rows=300))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    mask = rng.random(grid.n_rows) < draw(st.sampled_from([0.05, 0.5, 0.95, 1.0]))
    mask[rng.integers(grid.n_rows)] = True
    return grid, np.flatnonzero(mask).tolist()


@given(case=chosen())
def test_holds_the_rows_it_was_made_of(case: tuple[BlockGrid, list[int]]) -> None:
    grid, rows = case
    selection = Selection.of_rows(grid, np.array(rows))
    assert rows_in(selection) == rows
    assert selection.n_rows == len(rows)
    everything = np.arange(grid.n_rows)
    assert everything[selection.holds(everything)].tolist() == rows
    starts, stops = grid.borders(np.arange(grid.n_blocks))
    blocks = np.searchsorted(stops, selection.starts, side="right")
    assert (selection.starts >= starts[blocks]).all()
    assert (selection.stops <= stops[blocks]).all()


@given(case=chosen(), data=st.data())
def test_covers_parts_of_groups(case: tuple[BlockGrid, list[int]], data: st.DataObject) -> None:
    grid, rows = case
    selection = Selection.of_rows(grid, np.array(rows))
    groups = np.array(data.draw(st.lists(st.integers(0, selection.n_groups - 1), min_size=1, max_size=6)))
    lows = np.array([data.draw(st.integers(0, int(selection.counts[g]) - 1)) for g in groups])
    highs = np.array(
        [data.draw(st.integers(int(low), int(selection.counts[g]))) for g, low in zip(groups, lows, strict=True)]
    )
    cover = selection.cover(0, 0, Visits(groups, lows, highs))
    ends = np.cumsum(selection.counts)
    wanted = [rows[ends[g] - selection.counts[g] :][low:high] for g, low, high in zip(groups, lows, highs, strict=True)]
    assert cover.rows().tolist() == [row for part in wanted for row in part]


@given(case=chosen(), data=st.data())
def test_parts_of_an_order(case: tuple[BlockGrid, list[int]], data: st.DataObject) -> None:
    grid, rows = case
    selection = Selection.of_rows(grid, np.array(rows))
    order = np.random.default_rng(len(rows)).permutation(selection.n_groups)
    at = sorted(data.draw(st.lists(st.integers(1, len(rows) - 1), max_size=3, unique=True))) if len(rows) > 1 else []
    borders = [0, *at, len(rows)]
    parts = [selection.part(order, a, b) for a, b in itertools.pairwise(borders)]
    assert [p.n_rows for p in parts] == [b - a for a, b in itertools.pairwise(borders)]
    assert sorted(row for p in parts for row in rows_in(p)) == rows
    assert all(rows_in(p) == sorted(rows_in(p)) for p in parts)


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, rows = BlockGrid(5000, 7), np.flatnonzero(np.random.default_rng(0).random(5000) < 0.5)
    whole = Selection.of_rows(grid, rows)
    order = np.arange(whole.n_groups)[::-1]
    part = whole.part(order, 100, 1500)
    monkeypatch.setattr(select_module, "PIECE_ROWS", 50)
    monkeypatch.setattr(select_module, "_PIECE_GROUPS", 3)
    pieced = Selection.of_rows(grid, rows)
    assert pieced.fingerprint == whole.fingerprint
    assert pieced.part(order, 100, 1500).fingerprint == part.fingerprint
    assert rows_in(pieced) == rows.tolist()


def test_fingerprint_tells_selections_apart() -> None:
    grid = BlockGrid(100, 10)
    assert Selection.of_grid(grid).fingerprint is None
    prints = {Selection.of_rows(grid, np.array(r)).fingerprint for r in ([1, 2], [1, 3], [1, 2, 4], [11, 12])}
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows must be at least one, got none"),
        ([3, 5, 3], "rows must differ, and row 3 comes more than once"),
        ([3, 100], "rows must be from 0 to 99, got 100"),
        ([-1, 3], "rows must be from 0 to 99, got -1"),
        ([3, 51], "rows must be among those of this loader, and row 51 is not"),
    ],
)
def test_bad_rows(rows: list[int], message: str) -> None:
    grid = BlockGrid(100, 10)
    selection = Selection.of_rows(grid, np.arange(50))
    with pytest.raises(InvalidArgumentError, match=message):
        select_rows(grid, selection, np.array(rows, np.int64))
