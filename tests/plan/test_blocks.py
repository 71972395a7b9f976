import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from oocload.plan.blocks import FLEXIBLE_BLOCK_NBYTES, BlockGrid, amplification, choose_block_rows


@given(n_rows=st.integers(1, 500), block_rows=st.integers(1, 60))
def test_blocks_cover_every_row_once(n_rows: int, block_rows: int) -> None:
    grid = BlockGrid(n_rows, block_rows)
    rows = [r for b in range(grid.n_blocks) for r in range(*grid.rows(b))]
    assert rows == list(range(n_rows))
    assert grid.missing_rows == grid.n_blocks * block_rows - n_rows < block_rows


@given(n_rows=st.integers(1, 300), block_rows=st.integers(1, 40), height=st.integers(1, 40))
def test_amplification_counts_rows_decoded(n_rows: int, block_rows: int, height: int) -> None:
    grid = BlockGrid(n_rows, block_rows)
    decoded = 0
    for block in range(grid.n_blocks):
        start, stop = grid.rows(block)
        decoded += len({row // height for row in range(start, stop)})
    n_chunks = -(-n_rows // height)
    assert np.isclose(amplification(grid, height), decoded / n_chunks)


def test_one_height_is_the_block() -> None:
    assert choose_block_rows([256], 12288, 10**6) == 256
    assert choose_block_rows([256], 12288, 100) == 100


def test_heights_are_joined_while_that_is_cheap() -> None:
    assert choose_block_rows([6, 4], 100, 10**6) == 12
    assert choose_block_rows([101, 103], 100, 10**6) == 103


def test_raw_rows_are_cut_by_bytes() -> None:
    assert choose_block_rows([], 1024, 10**6) == FLEXIBLE_BLOCK_NBYTES // 1024
    assert choose_block_rows([], 10**9, 10**6) == 1
