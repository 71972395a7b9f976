"""Cutting rows and sharing bytes, against slow obvious versions."""

from hypothesis import given
from hypothesis import strategies as st

from oocload.convert.sources.cut import band_rows, pieces_of, shares
from oocload.layout import Segment


@st.composite
def segments(draw: st.DrawFn) -> tuple[Segment, ...]:
    at, found = 0, []
    for n_rows, height in draw(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 12)), min_size=1, max_size=5)):
        origin = at - (draw(st.integers(0, height - 1)) if height else 0)
        found.append(Segment(at, at + n_rows, height, origin))
        at += n_rows
    return tuple(found)


@given(segments=segments(), step=st.integers(1, 40), data=st.data())
def test_pieces(segments: tuple[Segment, ...], step: int, data: st.DataObject) -> None:
    n_rows = segments[-1].stop
    start = data.draw(st.integers(0, n_rows))
    stop = data.draw(st.integers(start, n_rows))
    found = list(pieces_of(segments, start, stop, step))
    assert [row for piece in found for row in range(*piece)] == list(range(start, stop))
    begins = {row for s in segments for row in range(s.start, s.stop) if s.height and (row - s.origin) % s.height == 0}
    begins |= {s.start for s in segments} | {row for s in segments if not s.height for row in range(s.start, s.stop)}
    for first, last in found:
        assert 0 < last - first <= step
        if last < stop and last not in begins:  # a chunk larger than the step, and none ends within it
            assert not any(row in begins for row in range(first + 1, last + 1))
    if step >= band_rows(segments):
        assert all(last in begins for _, last in found[:-1])


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 500)), min_size=1, max_size=4),
    st.integers(0, 5000),
)
def test_shares(fields: list[tuple[int, int]], nbytes: int) -> None:
    rates, leasts = zip(*fields, strict=True)
    found = shares(nbytes, rates, leasts)
    assert all(share >= least for share, least in zip(found, leasts, strict=True))
    assert sum(found) <= max(nbytes, sum(leasts))
    if sum(rates) and sum(leasts) <= nbytes:
        n_rows = min(share // rate for share, rate in zip(found, rates, strict=True) if rate)
        assert sum(max(least, (n_rows + 1) * r) for r, least in zip(rates, leasts, strict=True)) > nbytes
