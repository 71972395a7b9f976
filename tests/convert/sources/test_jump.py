"""Rows from any row to any other are those of the whole, from every kind of source, with and without read-ahead."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oocload.convert.sources.resolve import resolve
from tests.convert.sources.kinds import KINDS, N_ROWS, Expected, Kind, assert_rows, gather


@pytest.fixture
def made(tmp_path: Path, kind: Kind) -> tuple[Any, Expected]:
    return kind(tmp_path)


PIECES = st.one_of(st.integers(1, 3000), st.just(2**20))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=12)
@given(data=st.data())
def test_any_rows(made: tuple[Any, Expected], data: st.DataObject) -> None:
    source, expected = made
    start = data.draw(st.integers(0, N_ROWS))
    stop = data.draw(st.one_of(st.none(), st.integers(start, N_ROWS + 5)))
    n_ahead, n_threads = data.draw(st.sampled_from([(0, None), (1, 1), (2, 2), (5, 3)]))
    got = gather(resolve(source, None).batches(data.draw(PIECES), start, stop, n_ahead, n_threads))
    if start < (N_ROWS if stop is None else min(stop, N_ROWS)):
        assert_rows(got, {name: rows[start:stop] for name, rows in expected.items()})
    else:
        assert not got


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_again(made: tuple[Any, Expected]) -> None:
    """A source may be gone through more than once."""
    source, expected = made
    rows = resolve(source, None)
    for n_ahead in (2, 0):
        assert_rows(gather(rows.batches(500, n_ahead=n_ahead)), expected)
