"""The same batches in tf.data, by the real TensorFlow."""

import gc
from pathlib import Path

import numpy as np
import pytest

import oocload
from oocload.errors import InvalidArgumentError, OocloadError
from tests.adapters.frameworks import BATCH, N_ROWS, WINDOW, assert_same, stream, write
from tests.conftest import our_threads

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.framework


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "t.h5")


def batches(dataset: "tf.data.Dataset") -> list[tuple[np.ndarray, np.ndarray]]:
    return [(x.numpy(), y.numpy()) for x, y in dataset]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("shuffle", [WINDOW, False])
def test_stream_is_that_of_the_iterator(path: Path, threads: int, shuffle: object) -> None:
    with (
        oocload.Loader(path, BATCH, seed=1, shuffle=shuffle) as plain,
        oocload.Loader(path, BATCH, seed=1, shuffle=shuffle, threads=threads) as loader,
    ):
        dataset = loader.to_tf()
        got = [batch for _ in range(3) for batch in batches(dataset)]
        assert_same(stream(plain, 3), got)
        assert loader.epoch == 3


def test_spec_and_cardinality_are_exact(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1) as loader, oocload.Loader(path, BATCH, drop_last=True) as even:
        x, y = loader.to_tf().element_spec
        assert (x.shape.as_list(), x.dtype) == ([None, 12], tf.float32)
        assert (y.shape.as_list(), y.dtype) == ([None], tf.int64)
        assert loader.to_tf().cardinality().numpy() == len(loader) == 63
        x, _ = even.to_tf().element_spec
        assert x.shape.as_list() == [BATCH, 12]
        assert even.to_tf().cardinality().numpy() == 62
        assert all(len(x) == BATCH for x, _ in even.to_tf())


def test_slabs_are_not_copied(path: Path) -> None:
    """Row 0 of a batch lies inside the slab: what is written there shows in the tensor."""
    from oocload.adapters.tf_data import _as_tensor
    from oocload.chunks.scratch import aligned_empty

    slab = aligned_empty(6400).view("float32").reshape(100, 16)
    tensor = _as_tensor(slab)
    slab[3, 5] = 123.0
    assert tensor.numpy()[3 * 16 + 5] == 123.0


def test_dicts_and_tuples_keep_their_form(path: Path) -> None:
    with oocload.Loader(path, BATCH, x=["x", "w"], y="y", sample_weight="w", shuffle=False) as loader:
        inputs, _, weight = next(iter(loader.to_tf()))
        assert sorted(inputs) == ["w", "x"]
        assert weight.shape == (BATCH,)
    with oocload.Loader(path, BATCH, x="y", shuffle=False) as loader:
        assert next(iter(loader.to_tf())).numpy().tolist() == list(range(BATCH))


@pytest.mark.filterwarnings("ignore::oocload.KeptBatchesWarning")  # two iterators hold a slab each
def test_take_repeat_prefetch_and_two_iterators(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        assert len(list(loader.to_tf().take(5))) == 5
        rows = [y for _, y in batches(loader.to_tf().repeat(2).prefetch(2))]
        for epoch in (rows[:63], rows[63:]):
            assert np.array_equal(np.sort(np.concatenate(epoch)), np.arange(N_ROWS))
    with oocload.Loader(path, BATCH, seed=1, memory="64 MiB") as loader:
        pairs = list(zip(loader.to_tf(), loader.to_tf(), strict=True))
        for side in (0, 1):
            assert np.array_equal(np.sort(np.concatenate([p[side][1] for p in pairs])), np.arange(N_ROWS))


def test_an_iterator_dropped_in_mid_epoch_leaves_nothing(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        dataset = loader.to_tf()
        for _ in range(20):
            iterator = iter(dataset)
            next(iterator)
            del iterator
            gc.collect()
        assert len(our_threads()) <= loader._runtime.fit.n_threads


def test_resume_in_mid_epoch(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
        whole = stream(plain, 2)
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        for _ in zip(range(17), loader, strict=False):
            pass
        state = loader.state_dict()
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        early = loader.to_tf()
        loader.load_state_dict(state)
        assert_same(whole[17:], [b for _ in range(2) for b in batches(loader.to_tf())])
        loader.load_state_dict(state)
        with pytest.raises(tf.errors.OpError, match=r"state must be loaded before to_tf\(\)"):
            list(early)


def test_transform(path: Path) -> None:
    with oocload.Loader(path, BATCH, shuffle=False, transform=lambda b: (b[0] / 2, b[1])) as loader:
        dataset = loader.to_tf()
        assert dataset.cardinality().numpy() == 63
        got = batches(dataset)
        assert got[0][0][3, 0] == 1.5
        assert sum(len(y) for _, y in got) == N_ROWS


def test_memory_stays_below_the_ceiling(tmp_path: Path) -> None:
    rows = np.arange(400_000, dtype="int64")
    oocload.convert({"x": np.repeat(rows[:, None], 16, 1), "y": rows}, tmp_path / "m.h5", chunk_bytes="64 KiB")
    with oocload.Loader(tmp_path / "m.h5", 256, seed=0, memory="12 MiB") as loader:
        for _ in range(2):
            total = sum(int(tf.reduce_sum(y)) for _, y in loader.to_tf())
            assert total == int(rows.sum())
        assert loader.stats.memory.peak <= 12 * 2**20
        assert loader.stats.rows == 2 * len(rows)


def test_dtype_that_tensorflow_lacks(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["x"] = np.array([b"ab", b"cd"])
    with (
        oocload.Loader(tmp_path / "s.h5", 1, x="x") as loader,
        pytest.raises(InvalidArgumentError, match=r"field 'x' must have a dtype that TensorFlow has, got \|S2"),
    ):
        loader.to_tf()


def test_damaged_chunk_is_named(path: Path) -> None:
    import h5py

    with h5py.File(path) as file:
        at = file["x"].id.get_chunk_info(40).byte_offset
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    with (
        oocload.Loader(path, BATCH, shuffle=False) as loader,
        pytest.raises((tf.errors.OpError, OocloadError), match=r"field 'x', chunk \(40, 0\): deflate cannot decode"),
    ):
        list(loader.to_tf())
