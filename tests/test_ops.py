"""Operations as they are declared: what they refuse, how they show, and what a chain comes down to."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from oocload import ops
from oocload.errors import InvalidArgumentError
from oocload.ops.base import Draft, Statistics
from oocload.ops.program import Affine, Program

STATISTICS = Statistics(np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0, 4.0]), 2)


def compiled(*chain: ops.Op, shape: tuple[int, ...] = (4, 5, 3), dtype: str = "u1") -> Program:
    draft = Draft("x", shape, np.dtype(dtype), lambda: STATISTICS)
    for op in chain:
        op.add_to(draft)
    return draft.finish("")


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: ops.cast("text"), "dtype must be of real numbers, got 'text'"),
        (lambda: ops.cast("c8"), "dtype must be of real numbers, got 'c8'"),
        (lambda: ops.normalize(1.0), "std must be given with mean, got None; give both, or neither"),
        (lambda: ops.normalize(std=1.0), "mean must be given with std, got None"),
        (lambda: ops.normalize(0, [1, 0]), r"std must be above 0 everywhere, got \[1, 0\]"),
        (lambda: ops.normalize([np.nan], 1), r"mean must be finite, got \[nan\]"),
        (lambda: ops.normalize("a", 1), "mean must be a number or an array of numbers, got 'a'"),
        (lambda: ops.normalize(0, 1, dtype="i4"), "dtype must be float16, float32 or float64, got 'i4'"),
        (lambda: ops.scale(2, axis=True), "axis must be one of a row's axes or None, got True"),
        (lambda: ops.one_hot(0), "n_classes must be a whole number of at least 1, got 0"),
        (lambda: ops.one_hot(2.5), "n_classes must be a whole number of at least 1, got 2.5"),
        (lambda: ops.crop(0, 3), "height must be a whole number of at least 1, got 0"),
        (lambda: ops.crop(3), "width must be a whole number of at least 1, got None"),
        (lambda: ops.crop(3, 3, top=-1), "top must be a whole number of at least 0, got -1"),
        (lambda: ops.crop([slice(3)], 3), "width, top and left must not be given beside slices"),
        (lambda: ops.crop([3, 4]), r"height must be a number or slices, got \(3, 4\)"),
        (lambda: ops.transpose((0, 2)), "axes must be a permutation of the axes of a row, 'channels_first' or"),
        (lambda: ops.transpose("last"), "axes must be a permutation of the axes of a row"),
    ],
)
def test_what_is_refused_when_declared(declare: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        declare()


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ([ops.normalize(np.zeros((2, 3)), 1.0)], r"broadcast to rows \(its numbers have shape \(2, 3\)\)"),
        ([ops.normalize([0, 0], 1, axis=1)], r"one number for each item of axis 1 \(it has 2\)"),
        ([ops.normalize([0, 0, 0], 1, axis=7)], "one number for each item of axis 7"),
        ([ops.transpose((2, 0, 1)), ops.crop([slice(0, 1), slice(0, 3), slice(0, 3)]), ops.scale([1, 2, 3], axis=0)],
         "one number for each item of axis 0"),
        ([ops.crop([slice(None), slice(0, 3)]), ops.crop([slice(0, 3)]), ops.scale([1, 2, 3])],
         "say which of two axes of 3 is that of the channels"),
        ([ops.crop([slice(None)] * 4)], "have at most a slice for each axis"),
        ([ops.crop([slice(3, 3)])], "take at least one item of each axis, in order"),
        ([ops.crop([slice(None, None, -1)])], "take at least one item of each axis, in order"),
        ([ops.scale(2), ops.normalize()], "come before what changes values"),
        ([ops.crop([slice(0, 1), slice(0, 1), slice(0, 1)]), ops.crop(1, 1, top=1)], "lie inside the first two axes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_rows(chain: list[ops.Op], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        compiled(*chain)


def test_arithmetic_becomes_one_step() -> None:
    program = compiled(ops.cast("f4"), ops.scale(1 / 255), ops.normalize(0.5, 0.25), ops.scale(2, 1), ops.cast("f2"))
    (step,) = program.steps
    assert isinstance(step, Affine)
    assert step.factor == np.float32(2 / 0.25 / 255)
    assert step.offset == np.float32(-0.5 / 0.25 * 2 + 1)
    assert (step.work, step.dtype) == (np.float32, np.float16)


@pytest.mark.parametrize(
    ("source", "dtype", "work"),
    [
        ("u1", "f4", "f4"),
        ("i2", "f2", "f4"),
        ("f4", "f4", "f4"),
        ("i4", "f4", "f8"),
        ("f8", "f4", "f8"),
        ("u1", "f8", "f8"),
    ],
)
def test_what_may_not_fit_float32_is_computed_in_float64(source: str, dtype: str, work: str) -> None:
    (step,) = compiled(ops.scale(0.5, dtype=dtype), dtype=source).steps
    assert isinstance(step, Affine)
    assert step.work == work


def test_channels_move_with_the_axes() -> None:
    program = compiled(
        ops.scale([1, 2, 3]), ops.crop([slice(None), slice(None), slice(1, 3)]), ops.transpose((2, 0, 1))
    )
    (step,) = program.steps
    assert isinstance(step, Affine)
    assert step.factor is not None
    assert (step.factor.shape, step.factor.ravel().tolist()) == ((2, 1, 1), [2, 3])
    assert (program.cuts, program.axes, program.shape) == (
        (slice(0, 4, 1), slice(0, 5, 1), slice(1, 3, 1)), (2, 0, 1), (2, 4, 5),
    )  # fmt: skip


def test_stored_statistics_follow_their_axis() -> None:
    program = compiled(ops.transpose("channels_first"), ops.crop([slice(1, 3)]), ops.cast("f4"), ops.normalize())
    (step,) = program.steps
    assert isinstance(step, Affine)
    assert step.factor is not None
    assert step.offset is not None
    assert step.factor.ravel().tolist() == [1, 0.25]  # a deviation of 0 counts as 1
    assert step.offset.ravel().tolist() == [-2, -0.75]


def test_cuts_of_cuts() -> None:
    program = compiled(ops.crop([slice(1, 20, 3)]), ops.crop([slice(1, 6, 2)]), shape=(20,))
    (cut,) = program.cuts
    assert list(range(20))[cut] == list(range(20))[1:20:3][1:6:2]


@pytest.mark.parametrize(
    "op",
    [
        ops.cast("float16"),
        ops.scale(0.5, [1, 2]),
        ops.normalize(np.zeros(9), np.ones(9)),
        ops.normalize(),
        ops.one_hot(3),
        ops.crop(3, 4, top=1),
        ops.transpose("channels_last"),
    ],
)
def test_they_pickle_and_show_what_they_are(op: ops.Op) -> None:
    assert str(pickle.loads(pickle.dumps(op))) == str(op)
    assert str(op).startswith("ops.")
