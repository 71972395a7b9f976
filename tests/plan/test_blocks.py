from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from oocload.plan.blocks import (
    FLEXIBLE_BLOCK_NBYTES,
    BlockGrid,
    FieldRows,
    Piece,
    Span,
    amplification,
    choose_block_rows,
    lay_blocks,
)


@st.composite
def grids(draw: st.DrawFn, max_rows: int = 300) -> BlockGrid:
    """Grids of one span or several, whose first block may be short."""
    n_spans = draw(st.integers(1, 4))
    spans, at = [], 0
    for _ in range(n_spans):
        stop = at + draw(st.integers(1, max(1, max_rows // n_spans)))
        block_rows = draw(st.integers(1, 60))
        spans.append(Span(at, stop, block_rows, at - draw(st.integers(0, block_rows - 1))))
        at = stop
    return BlockGrid.of(spans)


@given(grid=grids())
def test_blocks_cover_every_row_once(grid: BlockGrid) -> None:
    rows = [r for b in range(grid.n_blocks) for r in range(*grid.rows(b))]
    assert rows == list(range(grid.n_rows))
    heights = sorted((stop - start for start, stop in map(grid.rows, range(grid.n_blocks))), reverse=True)
    assert heights[-1] >= 1
    if grid.even:
        assert len(set(heights)) == 1


@st.composite
def pieces(draw: st.DrawFn, n_rows: int) -> tuple[Piece, ...]:
    inner = draw(st.lists(st.integers(1, max(1, n_rows - 1)), max_size=2, unique=True)) if n_rows > 1 else []
    borders = [0, *sorted(inner), n_rows]
    found = []
    for start, stop in pairwise(borders):
        height = draw(st.integers(0, 40))
        found.append((start, stop, height, start - (draw(st.integers(0, height - 1)) if height else 0)))
    return tuple(found)


def chunks_of(field: FieldRows, start: int, stop: int) -> set[tuple[int, int]]:
    """Return the chunks that hold rows of a range, one row at a time."""
    found = set()
    for row in range(start, stop):
        for number, (low, high, height, origin) in enumerate(field.pieces):
            if low <= row < high and height:
                found.add((number, (row - origin) // height))
    return found


@given(data=st.data(), n_rows=st.integers(1, 200))
def test_blocks_of_fields_in_pieces(data: st.DataObject, n_rows: int) -> None:
    fields = {n: FieldRows(data.draw(st.integers(1, 10**6)), data.draw(pieces(n_rows))) for n in "ab"}
    grid, resident = lay_blocks(n_rows, fields)
    rows = [r for b in range(grid.n_blocks) for r in range(*grid.rows(b))]
    assert rows == list(range(n_rows))
    largest = max(fields, key=lambda n: fields[n].row_nbytes)
    assert largest not in resident
    for name, field in fields.items():
        decoded = sum(len(chunks_of(field, *grid.rows(b))) for b in range(grid.n_blocks))
        n_chunks = len(chunks_of(field, 0, n_rows))
        assert np.isclose(amplification(grid, field.pieces), decoded / n_chunks if n_chunks else 1)
        if len(set(fields) - resident) == 1 and name not in resident:
            assert decoded == n_chunks


def test_parts_keep_their_own_heights() -> None:
    field = FieldRows(1000, ((0, 100, 30, 0), (100, 250, 64, 90), (250, 300, 0, 250)))
    grid, resident = lay_blocks(300, {"x": field})
    assert not resident
    assert [grid.rows(b) for b in range(grid.n_blocks)] == [
        (0, 30), (30, 60), (60, 90), (90, 100), (100, 154), (154, 218), (218, 250), (250, 300)
    ]  # fmt: skip


def test_one_height_is_the_block() -> None:
    assert choose_block_rows([256], 12288, 10**6) == 256
    assert lay_blocks(100, {"x": FieldRows(12288, ((0, 100, 256, 0),))})[0] == BlockGrid(100, 100)


def test_heights_are_joined_while_that_is_cheap() -> None:
    assert choose_block_rows([6, 4], 100, 10**6) == 12
    assert choose_block_rows([101, 103], 100, 10**6) == 103


def test_raw_rows_are_cut_by_bytes() -> None:
    assert choose_block_rows([], 1024, 10**6) == FLEXIBLE_BLOCK_NBYTES // 1024
    assert choose_block_rows([], 10**9, 10**6) == 1
