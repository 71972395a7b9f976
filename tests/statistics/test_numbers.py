"""Moments of a block against NumPy's, and where NumPy's own would lose digits against exact fractions."""

import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.chunks.scratch import Scratch
from oocload.statistics.channels import Channels, choose_channels
from oocload.statistics.moments import Moments
from oocload.statistics.numbers import reduce_block

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def moments_of(block: np.ndarray, axis: Any = "auto") -> Moments:
    channels = choose_channels("x", block.shape[1:], axis)
    with np.errstate(all="ignore"):
        return reduce_block(block, channels, Scratch())


def as_channels(block: np.ndarray, channels: Channels) -> list[np.ndarray]:
    apart = block.reshape(-1, channels.n, channels.inner)
    return [apart[:, i].ravel() for i in range(channels.n)]


def check(found: Moments, columns: list[np.ndarray]) -> None:
    """Compare with the functions of NumPy that leave out NaN, in float64."""
    means, deviations = found.means(), found.deviations()
    for i, values in enumerate(columns):
        least = values.min() if values.dtype.kind in "iu" and values.dtype.itemsize == 8 else values.dtype.type(0)
        floats = (values.astype(object) - int(least)).astype(np.float64) if least else values.astype(np.float64)
        assert found.n_nan[i] == np.isnan(floats).sum()
        assert found.n_infinite[i] == np.isinf(floats).sum()
        assert found.count[i] == np.isfinite(floats).sum()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mean = float(least) + np.nanmean(floats)
            np.testing.assert_allclose(means[i], mean, rtol=1e-12, atol=1e-12 * np.nanmax(np.abs(floats)))
            np.testing.assert_allclose(deviations[i], np.nanstd(floats), rtol=1e-9, atol=1e-7)
            expected = (np.nanmin(values), np.nanmax(values)) if len(values) else (np.nan, np.nan)
        np.testing.assert_array_equal([found.low[i], found.high[i]], expected)
        assert found.low.dtype == values.dtype


@st.composite
def blocks(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = (draw(st.integers(1, 300)), *draw(st.lists(st.integers(1, 5), max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    if dtype.kind == "f":
        values = rng.normal(draw(st.sampled_from([0, 100])), draw(st.sampled_from([1, 30])), shape).astype(dtype)
        for odd in (np.nan, np.inf, -np.inf):
            share = draw(st.sampled_from([0, 0, 0.02, 0.3]))
            values[rng.random(shape) < share] = odd
        return values
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    limits = np.iinfo(dtype)
    low, high = draw(st.sampled_from([(limits.min, limits.max), (0, 9), (limits.max - 9, limits.max)]))
    return rng.integers(low, high, shape, dtype, endpoint=True)


@given(blocks(), st.data())
def test_blocks_as_numpy_has_them(block: np.ndarray, data: st.DataObject) -> None:
    axes = st.sampled_from(["auto", None, *range(block.ndim - 1)])
    axis = data.draw(axes)
    channels = choose_channels("x", block.shape[1:], axis)
    check(moments_of(block, axis), as_channels(block, channels))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((70_001,), None), ((90, 33, 31, 3), 2), ((40, 3, 60, 60), 0), ((9, 3, 101, 127), 0), ((20, 1500), 0),
     ((3, 300, 70), 0), ((70, 40, 40), None)],
)  # fmt: skip
def test_blocks_of_many_pieces(dtype: str, shape: tuple[int, ...], axis: int | None) -> None:
    rng = np.random.default_rng(0)
    block = rng.normal(50, 20, shape).astype(dtype) if dtype[0] == "f" else rng.integers(0, 100, shape).astype(dtype)
    channels = choose_channels("x", shape[1:], axis)
    check(moments_of(block, axis), as_channels(block, channels))
    if dtype[0] == "f":
        block[rng.random(shape) < 0.1] = np.nan
        check(moments_of(block, axis), as_channels(block, channels))


@pytest.mark.parametrize("value", [-128, 127, 0, 255, 2**16 - 1, -(2**15)])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2"])
def test_sums_of_the_largest_small_integers_do_not_overflow(dtype: str, value: int) -> None:
    value = int(np.clip(value, np.iinfo(dtype).min, np.iinfo(dtype).max))
    found = moments_of(np.full((3000, 700), value, dtype), None)
    assert (found.means()[0], found.deviations()[0]) == (value, 0)


def exactly(values: np.ndarray) -> tuple[float, float]:
    """Return mean and deviation of numbers, from fractions."""
    fractions = [Fraction(v) for v in values.tolist()]
    mean = sum(fractions) / len(fractions)
    variance = sum((v - mean) ** 2 for v in fractions) / len(fractions)
    return float(mean), float(variance) ** 0.5


HARD = {
    "float64, 1e9 and a little": 1e9 + np.random.default_rng(0).normal(0, 1e-3, 3000),
    "float64, 1e15 and ones": 1e15 + np.random.default_rng(0).integers(0, 2, 3000),
    "float32, 1e9 and a little": (1e9 + np.random.default_rng(0).normal(0, 200, 3000)).astype("f4"),
    "int64 near 2**62": 2**62 + np.random.default_rng(0).integers(-5, 5, 3000),
    "uint64 near 2**64": 2**64 - 1 - np.random.default_rng(0).integers(0, 5, 3000).astype("u8"),
    "int64 of both ends": np.random.default_rng(0).choice([-(2**63), 2**63 - 1], 3000),
    "int32 near 2**31": (2**31 - 1 - np.random.default_rng(0).integers(0, 5, 3000)).astype("i4"),
    "sorted": np.sort(1e6 + np.random.default_rng(0).normal(size=3000)),
    "an outlier first": np.concatenate([[0.0], 1e9 + np.random.default_rng(0).normal(size=2999)]),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("n_blocks", [1, 7])
def test_a_large_mean_takes_no_digits_from_a_small_deviation(name: str, n_blocks: int) -> None:
    values = HARD[name]
    found = Moments.none(1, values.dtype)
    for part in np.array_split(values, n_blocks):
        found.merge(moments_of(part))
    mean, deviation = exactly(values)
    assert found.means()[0] == pytest.approx(mean, rel=1e-15, abs=1e-14 * deviation)
    assert found.deviations()[0] == pytest.approx(deviation, rel=1e-10)
