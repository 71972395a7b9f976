"""Where rows are cut into pieces, and how a number of bytes is shared among fields: integers only."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from oocload.layout import Segment


def pieces_of(segments: Sequence[Segment], start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield consecutive ranges of at most ``step`` rows, that end where chunks end unless a chunk is larger.

    ::

        chunks   |-----|-----|-----|-----|--|       step of 14, chunks of 6 from row 0
        pieces   |-----------|-----------|--|

    """
    stops = [s.stop for s in segments]
    while start < stop:
        end = min(stop, start + step)
        segment = segments[bisect_left(stops, end)]
        if end < min(stop, segment.stop) and segment.height:
            whole = max(segment.start, segment.origin + (end - segment.origin) // segment.height * segment.height)
            end = whole if whole > start else end
        yield start, end
        start = end


def band_rows(segments: Sequence[Segment]) -> int:
    """Return the rows of the tallest chunk that must be decoded whole; 1 where there is none."""
    return max((min(s.height, s.stop - s.start) for s in segments), default=1) or 1


def shares(nbytes: int, rates: Sequence[int], leasts: Sequence[int]) -> list[int]:
    """Return how many of some bytes each field gets, so that all can hold about as many rows.

    Parameters
    ----------
    nbytes
        To be shared; what comes out is no more, unless the least of all are.
    rates
        Bytes of a row of each.
    leasts
        What each gets at least.

    """

    def for_rows(n_rows: int) -> list[int]:
        return [max(least, n_rows * rate) for rate, least in zip(rates, leasts, strict=True)]

    low, high = 0, nbytes // max(1, sum(rates))
    while low < high:
        middle = (low + high + 1) // 2
        if sum(for_rows(middle)) <= nbytes:
            low = middle
        else:
            high = middle - 1
    return for_rows(low)
