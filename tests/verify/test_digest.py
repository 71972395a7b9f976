"""Digests of rows: the same in any order and any pieces, another one for whatever else there is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.convert.ragged import RaggedRows
from oocload.verify.digest import Digest, RowHash

HASH = RowHash()
RNG = np.random.default_rng(0)


def ragged(rows: list[np.ndarray], dtype: str = "u1") -> RaggedRows:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return RaggedRows(np.concatenate([np.empty(0, dtype), *rows]).astype(dtype), offsets)


def dense_rows(n: int) -> dict:
    return {
        "a": RNG.integers(0, 9, (n, 3, 5), "u1"),
        "b": RNG.normal(size=n).astype("f4"),
        "c": RNG.integers(0, 9, (n, 9001), "i2"),  # of several blocks
        "s": np.array([f"r{i}" for i in range(n)], "S7"),
    }


def every(n: int) -> dict:
    lengths = [0, 1, 2, 3, 4, 5, 4095, 4096, 4097, 16384, 16385, 40_000]
    rows = [RNG.integers(0, 9, lengths[i % len(lengths)], "u1") for i in range(n)]
    columns = RaggedRows(np.arange(n, dtype="f4"), np.arange(n + 1), np.arange(n, dtype="i4"))
    return {**dense_rows(n), "r": ragged(rows), "m": columns, "t": ragged([row[:50] for row in rows], "i8")}


def taken(rows: dict, order: np.ndarray) -> dict:
    found = {}
    for name, some in rows.items():
        if isinstance(some, RaggedRows):
            parts = [some[int(i) : int(i) + 1] for i in order]
            columns = None if some.columns is None else np.concatenate([p.columns for p in parts])
            lengths = [len(p.values) for p in parts]
            found[name] = RaggedRows(
                np.concatenate([p.values for p in parts]), np.concatenate([[0], np.cumsum(lengths)]), columns
            )
        else:
            found[name] = some[order]
    return found


def test_any_order_and_any_pieces() -> None:
    n = 40
    rows = every(n)
    whole = HASH.digest(rows)
    assert whole.n_rows == n
    assert HASH.digest(taken(rows, RNG.permutation(n))) == whole
    one_by_one = Digest()
    for i in range(n):
        one_by_one += HASH.digest({name: some[i : i + 1] for name, some in rows.items()})
    assert one_by_one == whole
    assert RowHash().digest(rows) != whole


def test_many_rows_are_digested_in_parts() -> None:
    rows = {"y": np.arange(20_000), "r": RaggedRows(np.arange(20_000), np.arange(20_001))}
    halves = HASH.digest({n: r[:777] for n, r in rows.items()}) + HASH.digest({n: r[777:] for n, r in rows.items()})
    assert halves == HASH.digest(rows)


@pytest.mark.parametrize("name", ["a", "b", "c", "s", "r", "m", "t"])
def test_any_byte_counts(name: str) -> None:
    rows = every(12)
    whole = HASH.digest(rows)
    given_rows = rows[name]
    values = given_rows.values if isinstance(given_rows, RaggedRows) else given_rows
    flat = values.reshape(-1).view(np.uint8)
    for place in RNG.integers(0, len(flat), 30):
        flat[place] ^= 1 << RNG.integers(8)
        assert HASH.digest(rows) != whole
        flat[place] = 0
        whole = HASH.digest(rows)


def test_what_belongs_together_counts() -> None:
    rows = {"x": np.arange(10), "y": np.arange(10)}
    whole = HASH.digest(rows)
    assert HASH.digest({"x": np.arange(10), "y": np.arange(10)[::-1].copy()}) != whole
    assert HASH.digest({"x": np.repeat(np.arange(5), 2), "y": np.repeat(np.arange(5), 2)}) != whole


def test_lengths_count() -> None:
    one, other = [np.zeros(3), np.zeros(5)], [np.zeros(4), np.zeros(4)]
    assert HASH.digest({"r": ragged(one)}) != HASH.digest({"r": ragged(other)})
    assert HASH.digest({"r": ragged([np.zeros(0)])}) != HASH.digest({"r": ragged([np.zeros(1)])})


def test_columns_count() -> None:
    offsets, values = np.array([0, 2]), np.ones(2, "f4")
    rows = [{"m": RaggedRows(values, offsets, np.array(columns, "i4"))} for columns in ([0, 1], [0, 2])]
    assert HASH.digest(rows[0]) != HASH.digest(rows[1])


def test_gaps_between_members_do_not_count() -> None:
    dtype = np.dtype([("a", "u1"), ("b", "f8")], align=True)
    rows = np.zeros(5, dtype)
    filled = np.frombuffer(b"\xff" * rows.nbytes, dtype).copy()
    for name in dtype.names:
        filled[name] = rows[name]
    assert filled.tobytes() != rows.tobytes()
    assert HASH.digest({"x": filled}) == HASH.digest({"x": rows})


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_equal_just_where_sorted_rows_are(one: list[int], other: list[int]) -> None:
    rows = [{"x": np.array(some, np.int64)} for some in (one, other)]
    assert (HASH.digest(rows[0]) == HASH.digest(rows[1])) == (sorted(one) == sorted(other))
