"""Rows that operations make, put to their places through every kind of target."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload import ops
from oocload.chunks.convert import Converter, UnfitLabelError
from oocload.chunks.prepared import PreparedTarget
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Dealt, Picked, Places
from oocload.ops.base import Draft
from oocload.ops.program import Program


def compiled(shape: tuple[int, ...], dtype: str, *chain: ops.Op) -> Program:
    draft = Draft("x", shape, np.dtype(dtype), lambda: pytest.fail("no statistics are asked for"))
    for op in chain:
        op.add_to(draft)
    return draft.finish("")


def converted(rows: np.ndarray, *chain: ops.Op) -> np.ndarray:
    """Return what a chain makes of rows, piece by piece, to consecutive places."""
    converter = Converter(compiled(rows.shape[1:], rows.dtype.str, *chain))
    out = np.empty((len(rows), *converter.program.shape), converter.program.dtype)
    scratch = Scratch()
    PreparedTarget(Places(out), converter, scratch, None).put(0, rows)
    assert scratch.nbytes <= sum(converter.scratch_needs.values())
    return out


@pytest.mark.parametrize(
    "shape", [(), (1,), (8,), (13, 7), (40, 30, 3), (3, 40, 30), (64, 64, 3), (90, 91, 3), (3, 100, 100), (127, 151, 3)]
)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_channels_of_every_shape(shape: tuple[int, ...], dtype: str) -> None:
    """Whatever the inner loops, the formula is the same."""
    rows = np.random.default_rng(0).integers(0, 256, (100, *shape)).astype("u1")
    axes = [i for i in (0, len(shape) - 1) if 0 <= i < len(shape)]
    for axis in dict.fromkeys(axes):
        mean, std = 100.0 + np.arange(shape[axis]), 50.0 + np.arange(shape[axis])
        got = converted(rows, ops.normalize(mean, std, dtype=dtype, axis=axis))
        along = [-1 if i == axis else 1 for i in range(len(shape))]
        work = np.float64 if dtype == "f8" else np.float32
        factor, offset = (v.astype(work).reshape(along) for v in (1 / std, -mean / std))
        np.testing.assert_array_equal(got, (rows.astype(work) * factor + offset).astype(dtype))
        exact = (rows - mean.reshape(along)) / std.reshape(along)
        np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-6 if dtype != "f2" else 2e-3)


def test_an_image_of_means() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (50, 40, 30, 3)).astype("u1")
    mean = np.random.default_rng(1).random((40, 30, 3)) * 255
    got = converted(rows, ops.normalize(mean, 50.0))
    np.testing.assert_allclose(got, (rows - mean) / 50, rtol=1e-5, atol=1e-6)


@given(
    n_rows=st.integers(1, 40),
    row=st.sampled_from([(), (3,), (4, 5), (4, 5, 2)]),
    kind=st.sampled_from(["in order", "scattered", "dealt", "picked"]),
    piece_rows=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 40), max_size=3),
    seed=st.integers(0, 99),
)
def test_every_target(
    n_rows: int, row: tuple[int, ...], kind: str, piece_rows: int, cuts: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 99, (n_rows, *row)).astype(">i2")
    converter = Converter(compiled(row, ">i2", ops.scale(0.5, 1.0)))
    converter.piece_rows = piece_rows
    want = rows * 0.5 + 1
    order = rng.permutation(n_rows)
    out = np.full((2 * n_rows + 9, *row), -7.0, "f4")
    picks = np.arange(n_rows)
    target: Any = Places(out, None, 4)
    index = np.arange(n_rows) + 4
    if kind == "scattered":
        target, index = Places(out, order), order
    elif kind == "picked":
        picks = np.sort(rng.integers(0, n_rows, n_rows))
        target, index = Picked(Places(out, order), picks), order
    elif kind == "dealt":
        half = rng.integers(0, n_rows + 1)
        target = Dealt((Places(out, order[:half]), Places(out, order[half:] + n_rows)), [half, n_rows])
        index = np.concatenate([order[:half], order[half:] + n_rows])

    def through(places: Any, numbers: Any) -> PreparedTarget:
        return PreparedTarget(places, converter, Scratch(), numbers)

    prepared = target.through(through)
    at = 0
    for stop in [*sorted(c for c in cuts if c < n_rows), n_rows]:
        prepared.behind(at).put(0, rows[at:stop]) if seed % 2 else prepared.put(at, rows[at:stop])
        at = stop
    np.testing.assert_array_equal(out[index], want[picks])
    prepared.fill(0, n_rows, np.array([6], ">i2"))
    assert (out[index] == 4).all()
    assert (np.delete(out, index, axis=0) == -7).all()


def test_labels_without_a_class_are_told_by_their_number() -> None:
    converter = Converter(compiled((1,), "i8", ops.one_hot(5)))
    out = np.empty((10, 5), "f4")
    target = Picked(Places(out), np.array([1, 3, 3, 8])).through(
        lambda t, n: PreparedTarget(t, converter, Scratch(), n)
    )
    target.put(0, np.array([9, 0, 9, 4])[:, None])
    with pytest.raises(UnfitLabelError) as caught:
        target.behind(4).put(0, np.array([9, 9, 0, 9, -2])[:, None])
    assert (caught.value.row, caught.value.label) == (8, -2)
    np.testing.assert_array_equal(out[:3], np.eye(5)[[0, 4, 4]])


def test_a_view_alone_is_copied() -> None:
    rows = np.arange(600).reshape(10, 4, 5, 3).astype("u2").view("S2")
    got = converted(rows, ops.crop(2, 3, top=0, left=1), ops.transpose("channels_first"))
    np.testing.assert_array_equal(got, rows[:, :2, 1:4].transpose(0, 3, 1, 2))


def test_threads_share_a_converter() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (300, 64, 64, 3)).astype("u1")
    converter = Converter(compiled((64, 64, 3), "u1", ops.normalize([1, 2, 3], [4, 5, 6])))
    out = np.empty(rows.shape, "f4")
    threads = [
        threading.Thread(
            target=PreparedTarget(Places(out), converter, Scratch(), None).put, args=(at, rows[at : at + 50])
        )
        for at in range(0, 300, 50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(out, converted(rows, ops.normalize([1, 2, 3], [4, 5, 6])))
