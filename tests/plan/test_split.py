import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.errors import InvalidArgumentError
from oocload.plan.blocks import BlockGrid
from oocload.plan.select import Selection
from oocload.plan.split import split_by_blocks, split_by_rows
from tests.plan.strategies import selections
from tests.plan.test_blocks import grids
from tests.plan.test_select import rows_in

FRACTIONS = st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.5), (0.3, 0.2), (1.0,), (0.9, 0.1)])


@given(grid=grids(max_rows=300), data=st.data(), fractions=FRACTIONS, seed=st.integers(0, 99), by=st.booleans())
def test_parts_are_disjoint_and_of_exact_size(
    grid: BlockGrid, data: st.DataObject, fractions: tuple[float, ...], seed: int, by: bool
) -> None:
    selection = data.draw(selections(grid))
    sizes = np.diff([0, *np.floor(np.cumsum(fractions).round(9) * selection.n_rows + 0.5)])

    def split() -> list[Selection]:
        return split_by_blocks(selection, fractions, seed) if by else split_by_rows(grid, selection, fractions, seed)

    if not sizes.all():
        with pytest.raises(InvalidArgumentError, match="fractions must leave each part a row"):
            split()
        return
    parts = [rows_in(p) for p in split()]
    assert [len(p) for p in parts] == sizes.tolist()
    together = sorted(row for p in parts for row in p)
    assert len(set(together)) == len(together)
    assert set(together) <= set(rows_in(selection))
    assert parts == [rows_in(p) for p in split()]


def test_blocks_are_whole_but_at_the_borders() -> None:
    parts = split_by_blocks(Selection.of_grid(BlockGrid(10_000, 64)), (0.7, 0.2, 0.1), 0)
    assert sum(p.n_groups for p in parts) <= 157 + 2
    assert len(np.unique(np.diff(parts[0].starts))) > 1  # not the first blocks of the store


@given(seed=st.integers(0, 99), n_classes=st.integers(1, 6))
def test_stratified_parts_have_their_share_of_every_class(seed: int, n_classes: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.choice(n_classes, 2000, p=(w := rng.random(n_classes) + 0.05) / w.sum())
    grid = BlockGrid(2000, 37)
    fractions = (0.7, 0.2, 0.1)
    parts = split_by_rows(grid, Selection.of_grid(grid), fractions, seed, codes)
    counts = np.bincount(codes, minlength=n_classes)
    for fraction, part in zip(fractions, parts, strict=True):
        found = np.bincount(codes[rows_in(part)], minlength=n_classes)
        assert (np.abs(found - fraction * counts) <= 1).all()
    assert sum(p.n_rows for p in parts) == 2000


def test_rows_are_taken_from_everywhere() -> None:
    grid = BlockGrid(10_000, 100)
    part = split_by_rows(grid, Selection.of_grid(grid), (0.5, 0.5), 0)[0]
    assert part.n_groups == 100
    assert 30 < part.counts.min() < part.counts.max() < 70


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((0.8, 0.3), r"fractions must not exceed 1 together, got 0\.8 \+ 0\.3 = 1\.1"),
        ((1.2,), "fractions must not exceed 1 together"),
        ((0.5, 0.0), "fractions must be above 0, got 0.0"),
        ((0.5, -0.1), "fractions must be above 0, got -0.1"),
        ((float("nan"),), "fractions must be above 0, got nan"),
        ((0.9, 0.001), "fractions must leave each part a row, and 0.001 of 100 rows is none"),
    ],
)
def test_bad_fractions(fractions: tuple[float, ...], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        split_by_blocks(Selection.of_grid(BlockGrid(100, 10)), fractions, 0)
