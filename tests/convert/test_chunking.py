"""How high chunks are and how many share a file, as integers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.convert.arrays import plan_arrays
from oocload.convert.chunking import (
    SHARDED_ABOVE,
    align_heights,
    chunk_heights,
    default_chunks_per_shard,
    height_for_batches,
)
from oocload.convert.fields import parse_fields

ROWS = st.dictionaries(st.sampled_from("abc"), st.integers(1, 10**7), min_size=1)


@given(rows=ROWS, chunk=st.integers(1, 10**7), n_rows=st.one_of(st.none(), st.integers(1, 10**6)))
def test_heights(rows: dict[str, int], chunk: int, n_rows: int | None) -> None:
    heights = chunk_heights(rows, chunk, n_rows)
    largest = max(rows, key=lambda n: rows[n])
    assert all(h >= 1 for h in heights.values())
    assert heights[largest] * rows[largest] <= max(chunk, rows[largest])
    if n_rows is None:
        ordered = sorted(heights.values())
        assert all(b % a == 0 for a, b in pairwise(ordered))
    else:
        assert all(h <= n_rows for h in heights.values())


def test_small_fields_get_several_heights() -> None:
    assert align_heights({"x": 12288, "y": 8}, 85) == {"x": 85, "y": 85 * 32}
    assert align_heights({"x": 784, "y": 1}, 10) == {"x": 10, "y": 5120}
    assert align_heights({"x": 12288, "y": 8}, 85, n_rows=100) == {"x": 85, "y": 100}


@given(height=st.integers(1, 2000), batch_size=st.integers(1, 2000))
def test_heights_for_batches_are_the_nearest(height: int, batch_size: int) -> None:
    got = height_for_batches(height, batch_size)
    candidates = [d for d in range(1, batch_size + 1) if batch_size % d == 0]
    candidates += range(batch_size, height + 2 * batch_size, batch_size)
    assert got in candidates

    def distance(candidate: int) -> float:
        return max(candidate / height, height / candidate)

    assert distance(got) == pytest.approx(min(map(distance, candidates)))


def test_heights_for_batches_by_hand() -> None:
    assert [height_for_batches(h, 64) for h in (1, 3, 42, 46, 64, 90, 91, 1000)] == [1, 4, 32, 64, 64, 64, 128, 1024]
    assert [height_for_batches(h, 97) for h in (5, 10, 97, 300)] == [1, 97, 97, 291]


@given(rows=ROWS, chunk=st.integers(1, 10**6), batch_size=st.integers(1, 5000))
def test_every_field_fits_batches(rows: dict[str, int], chunk: int, batch_size: int) -> None:
    heights = chunk_heights(rows, chunk, batch_size=batch_size)
    assert all(h % batch_size == 0 or batch_size % h == 0 for h in heights.values())
    least = min(heights.values())
    assert all(h % least == 0 for h in heights.values())


@given(
    n_rows=st.one_of(st.none(), st.integers(1, 10**8)), height=st.integers(1, 10**5), row_nbytes=st.integers(0, 10**6)
)
def test_chunks_per_shard(n_rows: int | None, height: int, row_nbytes: int) -> None:
    per_shard = default_chunks_per_shard(n_rows, height, row_nbytes)
    assert per_shard in [2**i for i in range(9)]
    if n_rows is not None and n_rows <= SHARDED_ABOVE * height:
        assert per_shard == 1
    elif per_shard > 1:
        assert per_shard * height * row_nbytes <= 32 * 2**20
    else:
        assert 2 * height * row_nbytes > 32 * 2**20


def test_stores_are_sharded_above_a_size() -> None:
    row, height = 12288, 42
    at = [default_chunks_per_shard(n, height, row) for n in (1, SHARDED_ABOVE * height, SHARDED_ABOVE * height + 1)]
    assert [*at, default_chunks_per_shard(None, height, row)] == [1, 1, 64, 64]


@pytest.mark.parametrize(
    ("n_rows", "given_per_shard", "has_shards", "expected"),
    [
        (1000, None, True, [1, 256]),
        (10**6, None, True, [64, 256]),
        (None, None, True, [64, 256]),
        (None, None, False, [1, 1]),
        (10**6, 1, True, [1, 8]),
        (1000, 4, True, [4, 32]),
    ],
)
def test_plan_of_shards(n_rows: int | None, given_per_shard: int | None, has_shards: bool, expected: list[int]) -> None:
    fields = parse_fields({"x": ((64, 64, 3), "u1"), "t": (None, "i4")})
    arrays = plan_arrays(fields, 2**19, n_rows=n_rows, chunks_per_shard=given_per_shard, has_shards=has_shards)
    assert [arrays[name].chunks_per_shard for name in ("x", "t/values")] == expected


def test_plan_for_batches() -> None:
    fields = parse_fields({"x": ((64, 64, 3), "u1"), "y": "i8"})
    arrays = plan_arrays(fields, 2**19, batch_size=64)
    assert {name: array.height for name, array in arrays.items()} == {"x": 32, "y": 4096}
