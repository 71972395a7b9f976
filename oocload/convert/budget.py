"""How a memory ceiling is shared between reading, gathering, encoding and writing; integers only."""

from __future__ import annotations

from dataclasses import dataclass

from oocload.errors import MemoryCeilingError
from oocload.units import format_bytes

# Rows are read in pieces of this size where there is room; larger ones are no faster: benchmarks/convert.py.
_PIECE_NBYTES = 8 * 2**20
_PENDING_CHUNKS = 4  # for each thread, so that none waits while another chunk is put


@dataclass(frozen=True, slots=True)
class Budget:
    """What a conversion may hold.

    Attributes
    ----------
    n_threads
        Threads that encode.
    pending_nbytes
        Bytes of rows that wait for being encoded or put.
    piece_nbytes
        Bytes of rows that are read at a time.
    n_ahead
        Pieces that are read ahead of the one that is written.

    """

    n_threads: int
    pending_nbytes: int
    piece_nbytes: int
    n_ahead: int


def share_out(
    memory: int,
    chunk_nbytes: list[int],
    piece_nbytes: int,
    n_cores: int,
    piece_reason: str = "",
    wanted_piece_nbytes: int = 0,
) -> Budget:
    """Share a ceiling out.

    Parameters
    ----------
    memory
        The ceiling, in bytes.
    chunk_nbytes
        Decoded bytes of a chunk of each array.
    piece_nbytes
        The smallest piece in which the source can be read.
    n_cores
        Threads that would be used if there were room.
    piece_reason
        Why it is no smaller, for messages.
    wanted_piece_nbytes
        The piece that serves the source best, where there is room.

    Raises
    ------
    MemoryCeilingError
        If not even one thread fits.

    """
    piece_nbytes = max(1, piece_nbytes)  # rows may have no values
    least = _needed(chunk_nbytes, 1, 2 * max(chunk_nbytes)) + 2 * piece_nbytes
    if memory < least:
        todo = "raise it, or make chunks smaller with chunk_bytes or chunk_rows"
        raise MemoryCeilingError(
            f"memory must be at least {format_bytes(least)} for chunks of {format_bytes(max(chunk_nbytes))} read in "
            f"pieces of {format_bytes(piece_nbytes)}, got {format_bytes(memory)}; "
            f"{piece_reason if piece_reason and piece_nbytes > max(chunk_nbytes) else todo}"
        )
    largest = max(chunk_nbytes)
    n_threads, pending = 1, 2 * largest
    for n in range(1, n_cores + 1):
        if _needed(chunk_nbytes, n, _PENDING_CHUNKS * n * largest) + 3 * piece_nbytes <= memory:
            n_threads, pending = n, _PENDING_CHUNKS * n * largest
    rest = memory - _needed(chunk_nbytes, n_threads, pending)
    n_ahead = max(0, min(n_threads, rest // piece_nbytes - 2))
    most = max(_PIECE_NBYTES, wanted_piece_nbytes)
    return Budget(n_threads, pending, max(piece_nbytes, min(most, rest // (n_ahead + 2))), n_ahead)


def _needed(chunk_nbytes: list[int], n_threads: int, pending_nbytes: int) -> int:
    """Return bytes of the chunks that are filled, of those that wait with what they became, and of encoders."""
    return sum(chunk_nbytes) + 2 * pending_nbytes + 2 * n_threads * max(chunk_nbytes)
