from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.errors import InvalidArgumentError
from oocload.statistics.channels import auto_axis, choose_channels


@pytest.mark.parametrize(
    ("row_shape", "axis"),
    [
        ((), None),
        ((7,), 0),
        ((1,), 0),
        ((28, 28), None),
        ((64, 64, 3), 2),
        ((3, 64, 64), 0),
        ((3, 64, 4), 2),
        ((16, 64, 64), 2),
        ((2, 2, 2), 2),
        ((3, 8, 8, 8), 3),
        ((5, 3, 8, 8, 2), 4),
    ],
)
def test_what_nobody_describes(row_shape: tuple[int, ...], axis: int | None) -> None:
    assert auto_axis(row_shape) == axis
    assert choose_channels("x", row_shape, "auto").axis == axis


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_channels_have_all_values_of_a_row(row_shape: list[int], data: st.DataObject) -> None:
    shape = tuple(row_shape)
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    found = choose_channels("x", shape, axis)
    assert found.outer * found.n * found.inner == prod(shape)
    assert found.n == (1 if axis is None else shape[axis])
    assert found.axis == (None if axis is None else axis % len(shape))


def test_a_single_value_has_one_channel() -> None:
    assert choose_channels("y", (), 1).n == 1


@pytest.mark.parametrize("axis", [2, -3, "last", 1.0, True])
def test_an_axis_that_rows_have_not(axis: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"channel_axis must be 'auto', None or an axis of the rows of"):
        choose_channels("x", (4, 5), axis)
