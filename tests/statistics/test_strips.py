import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.statistics.channels import Channels, choose_channels
from oocload.statistics.strips import n_lanes_at_most, strips

SHAPES = st.one_of(
    st.lists(st.integers(1, 6), max_size=4).map(tuple),
    st.sampled_from([(1031,), (3, 1031), (1031, 3), (40, 40), (3, 2500), (70, 130), (2, 5003), (700, 64), (3, 64, 64)]),
)


@given(SHAPES, st.integers(1, 40), st.data())
def test_each_value_is_in_one_piece_and_in_its_channel(
    shape: tuple[int, ...], n_rows: int, data: st.DataObject
) -> None:
    axis = data.draw(st.none() | st.integers(0, len(shape) - 1) if shape else st.none())
    channels = choose_channels("x", shape, axis)
    block = np.arange(n_rows * int(np.prod(shape)), dtype=np.int64).reshape(n_rows, *shape)
    by_channel = block.reshape(-1, channels.n, channels.inner)
    found: list[list[int]] = [[] for _ in range(channels.n)]
    for strip in strips(block, channels):
        assert np.shares_memory(strip.values, block)
        assert strip.values.size // strip.n_summed <= n_lanes_at_most(channels)
        for piece in strip.pieces(3000, 5):
            n_lanes = strip.values.size // strip.n_summed
            assert piece.size <= max(3000, n_lanes)
            assert piece.size <= 5 * n_lanes
            rows = piece if piece.ndim == 2 else piece.transpose(0, 2, 1, 3).reshape(-1, n_lanes)
            for lanes in rows:
                lanes = lanes.reshape(strip.fold)
                for channel in range(strip.low, strip.high):
                    found[channel] += lanes[:, channel - strip.low].ravel().tolist()
        assert strip.n_per_channel == strip.values.size // (strip.high - strip.low)
    for channel, values in enumerate(found):
        assert sorted(values) == sorted(by_channel[:, channel].ravel().tolist())


@pytest.mark.parametrize(("n", "inner"), [(1, 1), (3, 1), (3, 4096), (50_000, 1), (512, 1024)])
def test_lanes_are_many_enough_to_be_quick(n: int, inner: int) -> None:
    block = np.zeros((4096 if n * inner < 64 else 8, n, inner), np.uint8)
    first = next(iter(strips(block, Channels(0, 1, n, inner))))
    assert first.values.shape[-1] >= 64
