import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.convert.budget import share_out
from oocload.errors import MemoryCeilingError

MIB = 2**20


@given(
    memory=st.integers(1, 2**34),
    chunks=st.lists(st.integers(1, 64 * MIB), min_size=1, max_size=5),
    piece=st.integers(1, 256 * MIB),
    n_cores=st.integers(1, 128),
)
def test_shares_stay_below_the_ceiling(memory: int, chunks: list[int], piece: int, n_cores: int) -> None:
    try:
        budget = share_out(memory, chunks, piece, n_cores)
    except MemoryCeilingError:
        least = sum(chunks) + 6 * max(chunks) + 2 * piece
        assert memory < least
        return
    assert 1 <= budget.n_threads <= n_cores
    assert budget.piece_nbytes >= piece
    filled = sum(chunks)
    waiting = 2 * budget.pending_nbytes + 2 * budget.n_threads * max(chunks)
    assert filled + waiting + (budget.n_ahead + 2) * budget.piece_nbytes <= memory


def test_usual_chunks_in_a_usual_ceiling() -> None:
    budget = share_out(256 * MIB, [MIB // 2, MIB // 32], MIB, 8)
    assert (budget.n_threads, budget.n_ahead, budget.piece_nbytes) == (8, 8, 8 * MIB)
    assert share_out(16 * MIB, [MIB // 2, MIB // 32], MIB, 2).n_threads == 2


def test_a_chunk_above_the_ceiling() -> None:
    with pytest.raises(
        MemoryCeilingError,
        match=r"memory must be at least 450.0 MiB for chunks of 64.0 MiB read in pieces of 1.0 MiB, got 100.0 MiB; "
        "raise it, or make chunks smaller with chunk_bytes or chunk_rows",
    ):
        share_out(100 * MIB, [64 * MIB], MIB, 2)
