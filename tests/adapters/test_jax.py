"""The same batches as JAX arrays, by the real JAX."""

import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from oocload.adapters.floats import Floats
from oocload.chunks.scratch import aligned_empty
from oocload.errors import ChunkError, InvalidArgumentError, MissingPackageError
from tests.adapters.frameworks import BATCH, N_BATCHES, N_ROWS, WINDOW, assert_same, damage, stream, write
from tests.conftest import our_threads

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.framework

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "t.h5", np.arange(N_ROWS, dtype="int32"))


@pytest.fixture
def x64() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def address(array: Any) -> int:
    return array.addressable_data(0).unsafe_buffer_pointer()


def rows_of(array: Any) -> list[int]:
    return np.asarray(array).tolist()


# The stream


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("shuffle", [WINDOW, False])
def test_stream_is_that_of_the_iterator(path: Path, threads: int, shuffle: object) -> None:
    with (
        oocload.Loader(path, BATCH, seed=1, shuffle=shuffle) as plain,
        oocload.Loader(path, BATCH, seed=1, shuffle=shuffle, threads=threads) as loader,
    ):
        batches = loader.to_jax()
        assert len(batches) == len(loader)
        assert batches.loader is loader
        got = [batch for _ in range(3) for batch in batches]
        assert all(isinstance(part, jax.Array) for batch in got for part in batch)
        assert_same(stream(plain, 3), got)
        assert loader.epoch == 3
    assert not our_threads()


@pytest.mark.parametrize("ahead", [0, 1, 2, 100])
@pytest.mark.parametrize("stop", [0, 1, 17, N_BATCHES - 1])
def test_resume(path: Path, ahead: int, stop: int) -> None:
    """A state saved after so many batches were given, whatever was on the device already."""
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
        whole = stream(plain, 2)
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        for _, _ in zip(range(stop), loader.to_jax(ahead=ahead), strict=False):
            pass
        state = loader.state_dict()
        assert (state["epoch"], state["batch"]) == (0, stop)
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        loader.load_state_dict(state)
        batches = loader.to_jax(ahead=ahead)
        got = [batch for _ in range(2) for batch in batches]
        assert_same(whole[stop:], got)


@pytest.mark.parametrize("ahead", [0, 2, N_BATCHES + 1])
def test_position_is_that_of_the_batch_given(path: Path, ahead: int) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        batches = loader.to_jax(ahead=ahead)
        for epoch in range(2):
            for number, _ in enumerate(batches):
                state = loader.state_dict()
                done = (epoch, number + 1) if number + 1 < N_BATCHES else (epoch + 1, 0)
                assert (state["epoch"], state["batch"]) == done
            assert loader.stand()[:2] == (epoch + 1, 0)
            assert loader.epoch == epoch + 1


def test_a_loop_left_early_goes_on_with_the_next_epoch(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
            whole = stream(plain, 3)
        batches = loader.to_jax()
        for _ in batches:
            break
        assert not our_threads()
        assert loader.stand()[:2] == (1, 0)
        assert_same(whole[N_BATCHES : 2 * N_BATCHES], list(batches))
        assert_same(whole[2 * N_BATCHES :], stream(loader, 1))


def test_a_stale_iterator_does_not_move_the_position(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, memory="64 MiB") as loader:
        stale = iter(loader.to_jax())
        next(stale)
        loader.load_state_dict(loader.state_dict(epoch=5, batch=7))
        for _ in range(3):
            next(stale)
        assert loader.stand()[:2] == (5, 7)
        fresh = iter(loader.to_jax())
        next(fresh)
        assert sum(1 for _ in stale) == N_BATCHES - 4
        state = loader.state_dict()
        assert (state["epoch"], state["batch"]) == (5, 8)
        del fresh, stale


def test_dicts_and_tuples_keep_their_form(path: Path) -> None:
    with oocload.Loader(path, BATCH, x=["x", "w"], y="y", sample_weight="w", shuffle=False) as loader:
        inputs, _, weight = next(iter(loader.to_jax()))
        assert list(inputs) == ["x", "w"]
        assert inputs["x"].shape == (BATCH, 12)
        assert weight is inputs["w"]  # put there once
    with oocload.Loader(path, BATCH, x="y", shuffle=False) as loader:
        assert rows_of(next(iter(loader.to_jax()))) == list(range(BATCH))


def test_transform_may_return_any_tree(path: Path) -> None:
    room = aligned_empty(BATCH * 48).view("float32").reshape(BATCH, 12)

    def transform(batch: tuple[np.ndarray, np.ndarray]) -> dict[str, object]:
        x, y = batch
        room[: len(x)] = x + 1  # the same memory for each batch, also for those ahead
        return {"pair": [room[: len(x)], (y.astype("int64"), None)], "here": jax.numpy.asarray(y) * 2}

    with oocload.Loader(path, BATCH, shuffle=False, transform=transform, transform_workers=0) as loader:
        for number, batch in enumerate(loader.to_jax()):
            x, (y, nothing) = batch["pair"]
            assert nothing is None
            assert y.dtype == np.int32
            assert rows_of(y)[0] == number * BATCH
            assert rows_of(batch["here"]) == [2 * row for row in rows_of(y)]
            assert rows_of(x[:, 0]) == [row + 1 for row in rows_of(y)]
        assert number + 1 == N_BATCHES


@pytest.mark.parametrize("by", ["rows", "batches"])
def test_mix(path: Path, by: str) -> None:
    loaders = [oocload.Loader(path, size, seed=1, shuffle=WINDOW) for size in (32, 50)]
    with oocload.mix(loaders, by=by) as mixed, oocload.mix(loaders, by=by) as again:
        expected = [(x.copy(), y.copy()) for _ in range(2) for x, y in mixed]
        batches = again.to_jax()
        assert_same(expected, [batch for _ in range(2) for batch in batches])
        assert again.stand()[:2] == (2, 0)
        assert again.budget.peak <= again.budget.ceiling


def test_a_mix_of_loaders_without_room(path: Path) -> None:
    with oocload.Loader(path, BATCH, shuffle=WINDOW, seed=1) as roomy:
        least = roomy.min_memory()
    loaders = [oocload.Loader(path, BATCH, shuffle=WINDOW, seed=seed, memory=least) for seed in (1, 2)]
    with oocload.mix(loaders, by="batches") as mixed:
        assert mixed.tight
        kept = list(mixed.to_jax())
        assert all(x.stats.memory.peak <= least for x in loaders)
        assert len(kept) == len(mixed)
    with oocload.mix([oocload.Loader(path, BATCH, memory=least, shuffle=WINDOW)], by="rows") as mixed:
        assert not mixed.tight


def test_ranks_are_disjoint(path: Path) -> None:
    got: list[int] = []
    for rank in (0, 1):
        options = {"seed": 1, "shuffle": WINDOW, "rank": rank, "world_size": 2, "uneven": "drop"}
        with oocload.Loader(path, BATCH, **options) as plain, oocload.Loader(path, BATCH, **options) as loader:
            batches = list(loader.to_jax())
            assert_same(stream(plain, 1), batches)
            got += [row for _, y in batches for row in rows_of(y)]
    assert len(set(got)) == len(got) == N_ROWS - 1


# Ahead


@pytest.mark.parametrize(("ahead", "more"), [({}, 2), ({"ahead": 0}, 0), ({"ahead": np.int64(5)}, 5)])
def test_batches_are_put_on_the_device_ahead(path: Path, ahead: dict[str, int], more: int) -> None:
    made = []
    with oocload.Loader(
        path, BATCH, shuffle=False, transform=lambda b: made.append(1) or b, transform_workers=0
    ) as loader:
        for number, _ in enumerate(loader.to_jax(**ahead)):
            assert len(made) == min(N_BATCHES, number + 1 + more)


def test_batches_ahead_are_not_counted_meanwhile(path: Path) -> None:
    """Also while the first are put there: a signal may come any time."""
    stands = []

    def transform(batch: object) -> object:
        stands.append(loader.state_dict()["batch"])
        return batch

    with oocload.Loader(path, BATCH, shuffle=False, transform=transform, transform_workers=0) as loader:
        for _ in loader.to_jax(ahead=2):
            pass
    assert stands == [0, 0, 0, *range(1, N_BATCHES - 2)]


def broken(batch: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    if 325 in batch[1]:
        raise ZeroDivisionError
    return batch


@pytest.mark.parametrize("ahead", [0, 2, 50])
def test_an_error_met_ahead_comes_at_its_batch(path: Path, ahead: int) -> None:
    with oocload.Loader(path, BATCH, shuffle=False, transform=broken) as loader:
        iterator = iter(loader.to_jax(ahead=ahead))
        for number in range(10):
            _, y = next(iterator)
            assert rows_of(y)[0] == number * BATCH
        assert loader.state_dict()["batch"] == 10
        with pytest.raises(ZeroDivisionError) as error:
            next(iterator)
        assert error.value.__notes__ == ["raised by transform 'broken' at batch 10 of epoch 0"]
        assert loader.state_dict()["batch"] == 10
        assert not our_threads()
        with pytest.raises(StopIteration):
            next(iterator)


def test_damaged_chunk_is_named(path: Path) -> None:
    damage(path, 40)
    with (
        oocload.Loader(path, BATCH, shuffle=False) as plain,
        oocload.Loader(path, BATCH, shuffle=False) as loader,
    ):
        counts = []
        for batches in (plain, loader.to_jax(ahead=5)):
            counts.append(0)
            with pytest.raises(ChunkError, match=r"field 'x', (chunk \(40, 0\)|rows 1000 to 1025): "):
                for _ in batches:
                    counts[-1] += 1
        assert counts[0] == counts[1]
    assert not our_threads()


# Memory


def test_batches_look_at_the_slab_where_it_is_free(tmp_path: Path) -> None:
    """What was decoded is not copied again, where batches lie aligned and are let go of."""
    rows = np.arange(64 * 4096, dtype="float32").reshape(4096, 64)
    oocload.convert({"x": rows}, tmp_path / "a.h5", chunk_rows=64)
    shuffle = oocload.Shuffle(window_rows=1024)
    with oocload.Loader(tmp_path / "a.h5", 16, x="x", seed=0, shuffle=shuffle) as plain:
        slabs = plain.slabs()
        spans = {(slab["x"].ctypes.data, slab["x"].ctypes.data + slab["x"].nbytes) for slab in slabs}
        iterator = iter(plain.to_jax())
        inside = sum(any(low <= address(x) < high for low, high in spans) for x in iterator)
        assert inside > 0.7 * len(plain)


def test_a_batch_that_is_kept_does_not_change(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
        expected = stream(plain, 1)
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        batches = loader.to_jax()
        kept = [next(iter(batches)), *(batch for n, batch in enumerate(batches) if n in (0, 30, 62))]
        view = np.asarray(kept[0][0])
        for _ in range(5):
            for _ in batches:
                pass
        gc.collect()
        assert_same(expected[:1], kept[:1])
        assert view.tobytes() == expected[0][0].tobytes()
        assert len(our_threads()) == 0


@pytest.mark.parametrize("memory", ["12 MiB", "200 MiB"])
def test_memory_stays_below_the_ceiling(tmp_path: Path, memory: str) -> None:
    """All batches may be kept, which no warning says anything about: copies are JAX's."""
    rows = np.arange(100_000, dtype="int32")
    oocload.convert({"x": np.repeat(rows[:, None], 16, 1), "y": rows}, tmp_path / "m.h5", chunk_bytes="64 KiB")
    with oocload.Loader(tmp_path / "m.h5", 256, seed=0, memory=memory) as loader:
        batches = loader.to_jax()
        for _ in range(2):
            assert sum(int(y.sum()) for _, y in batches) == int(rows.sum())
        kept = list(batches)
        assert sum(int(y.sum()) for _, y in kept) == int(rows.sum())
        assert loader.stats.memory.peak <= loader.memory
        assert loader.stats.rows == 3 * len(rows)


def test_no_room_to_read_ahead(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as roomy:
        least = roomy.min_memory()
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, memory=least) as plain:
        expected = stream(plain, 2)
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW, memory=least) as loader:
        assert loader.tight
        batches = loader.to_jax()
        assert_same(expected, [batch for _ in range(2) for batch in batches])
        assert loader.stats.memory.peak <= least


def test_batches_ahead_and_steps_under_way_do_not_use_up_slabs(path: Path) -> None:
    """JAX runs steps later than they are called, and holds their batches until then; a slab has one batch or two."""
    with oocload.Loader(path, BATCH, seed=1, shuffle=oocload.Shuffle(window_rows=BATCH), memory="1 MiB") as loader:
        step = jax.jit(lambda total, x: total + (x @ jax.numpy.ones((12, 40_000))).mean())
        total = jax.numpy.zeros(())
        for x, _ in loader.to_jax(ahead=5):
            total = step(total, x)
        assert np.isfinite(float(total))
        assert loader.stats.memory.peak <= loader.memory


def test_batches_may_be_donated(path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as plain:
        expected = [2 * x + 1 for x, _ in stream(plain, 2)]
    step = jax.jit(lambda x: 2 * x + 1, donate_argnums=0)
    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        batches = loader.to_jax()
        got = [step(x) for _ in range(2) for x, _ in batches]
    assert all(a.tobytes() == np.asarray(b).tobytes() for a, b in zip(expected, got, strict=True))


def test_many_iterators_leave_nothing(path: Path) -> None:
    import psutil

    with oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW) as loader:
        batches = loader.to_jax()
        process = psutil.Process()
        for turn in range(100):
            if turn == 30:
                before = process.memory_info().rss, process.num_fds(), process.num_threads()
            if turn % 3 == 0:
                iterator = iter(batches)
                next(iterator)
                del iterator
                assert not our_threads()
            else:
                for number, _ in enumerate(batches):
                    if number == turn:
                        break
        after = process.memory_info().rss, process.num_fds(), process.num_threads()
        assert after[0] - before[0] < 32 * 2**20
        assert after[1] <= before[1] + 1
        assert after[2] <= before[2] + 2
        assert loader.stats.memory.peak <= loader.memory
        del _
        gc.collect()
        budget = loader.stats.memory
    assert budget.parts()["slabs"][0] == 0


# Floats on the device


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    fields = {"x": rng.integers(0, 256, (100, 6, 5, 3)).astype("uint8"), "y": rng.integers(0, 1000, (100, 4), "int16")}
    oocload.convert(fields, tmp_path / "i.h5", chunk_rows=10)
    return tmp_path / "i.h5"


def test_floats(images: Path) -> None:
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    normal = Floats(mean=mean, std=std)
    with oocload.Loader(images, 32, seed=0) as plain, oocload.Loader(images, 32, seed=0) as loader:
        for (x, _), (a, b) in zip(plain, loader.to_jax(floats=normal), strict=True):
            assert a.dtype == np.float32
            np.testing.assert_allclose(a, (x / 255 - mean) / std, rtol=1e-5, atol=1e-5)
            assert b.dtype == np.int16
        hows = {"x": Floats("float16"), "y": Floats("bfloat16", scale=0.5)}
        for (x, y), (a, b) in zip(plain, loader.to_jax(floats=hows), strict=True):
            assert np.array_equal(a, (x.astype("float32") * np.float32(1 / 255)).astype("float16"))
            assert np.array_equal(b, (y * np.float32(0.5)).astype(jax.numpy.bfloat16))
        x, _ = next(iter(loader.to_jax(floats=True)))
        assert x.dtype == np.float32
        assert 0 <= float(x.min()) < float(x.max()) <= 1


def test_floats_are_compiled_once(images: Path) -> None:
    with oocload.Loader(images, 32, seed=0) as loader:
        batches = loader.to_jax(floats=True)
        for _ in range(3):
            for _ in batches:
                pass
        assert batches._floats["x"]._cache_size() == 2  # whole batches, and the last


def test_floats_of_64_bits(images: Path, x64: None) -> None:
    with oocload.Loader(images, 32, shuffle=False) as plain, oocload.Loader(images, 32, shuffle=False) as loader:
        given, _ = next(iter(loader.to_jax(floats=Floats("float64"))))
        assert given.dtype == np.float64
        np.testing.assert_allclose(given, next(iter(plain))[0] / 255, rtol=1e-14)
        jax.config.update("jax_enable_x64", False)
        with pytest.raises(InvalidArgumentError, match=r"got float64 for 'x'; take float32, or call jax.config.update"):
            loader.to_jax(floats=Floats("float64"))


# Dtypes


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "<i4", ">i4", "u8", "f2", ">f4", "f8", "c8", ">c16"])
def test_dtypes(tmp_path: Path, dtype: str) -> None:
    rows = (np.arange(300).reshape(100, 3) % 120).astype(dtype)
    np.save(tmp_path / "d.npy", rows)
    with oocload.Loader(tmp_path / "d.npy", 7, shuffle=False) as loader:
        field = next(iter(loader.fields))
        got = [batch[field] if isinstance(batch, dict) else batch for batch in loader.to_jax()]
    expected = np.asarray(rows, jax.dtypes.canonicalize_dtype(rows.dtype.newbyteorder("=")))
    assert np.concatenate(got).tobytes() == expected.tobytes()
    assert got[0].dtype == expected.dtype


@pytest.mark.parametrize("dtype", ["longdouble", "M8[s]", "S3", "U2", "V4", [("a", "i4")]])
def test_dtypes_that_jax_lacks(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "o.npy", np.zeros(8, dtype))
    with oocload.Loader(tmp_path / "o.npy", 2) as loader:
        with pytest.raises(
            InvalidArgumentError, match="field '.*' must have a dtype that JAX has, got .*; choose other fields with x="
        ):
            loader.to_jax()


def test_dtypes_of_a_transform(path: Path) -> None:
    import ml_dtypes

    with oocload.Loader(path, BATCH, transform=lambda b: b[0].astype(ml_dtypes.float8_e4m3fn)) as loader:
        assert next(iter(loader.to_jax())).dtype == ml_dtypes.float8_e4m3fn
    with oocload.Loader(path, BATCH, transform=lambda b: {"text": b[1].astype(str)}) as loader:
        with pytest.raises(InvalidArgumentError, match=r"array \['text'\] must have a dtype that JAX has, got <U"):
            next(iter(loader.to_jax()))


@pytest.mark.parametrize(
    ("dtype", "least", "most"), [("int64", 0, 2**31), ("int64", -(2**31) - 1, 5), ("uint64", 0, 2**32)]
)
def test_numbers_that_32_bits_do_not_hold(tmp_path: Path, dtype: str, least: int, most: int) -> None:
    rows = np.repeat(np.arange(10), 10).astype(dtype)
    rows[70:80] = least
    rows[75] = most
    oocload.convert({"ids": rows}, tmp_path / "n.h5")
    with oocload.Loader(tmp_path / "n.h5", 10, x="ids", shuffle=False) as loader:
        iterator = iter(loader.to_jax())
        assert [rows_of(next(iterator))[0] for _ in range(7)] == [0, 1, 2, 3, 4, 5, 6]
        message = f"field 'ids' must have values that fit {dtype[:-2]}32, .*{dtype}.* got {least} to {most}; call "
        with pytest.raises(InvalidArgumentError, match=message + r'jax.config.update\("jax_enable_x64", True\)'):
            next(iterator)
        assert not our_threads()
    transform = {"transform": lambda batch: {"a": [batch]}}
    with oocload.Loader(tmp_path / "n.h5", 100, x="ids", shuffle=False, **transform) as loader:
        with pytest.raises(InvalidArgumentError, match=r"array \['a'\]\[0\] must have values that fit"):
            next(iter(loader.to_jax()))


def test_numbers_of_64_bits(tmp_path: Path, x64: None) -> None:
    oocload.convert({"ids": np.arange(100) + 2**40}, tmp_path / "n.h5")
    with oocload.Loader(tmp_path / "n.h5", 10, x="ids", shuffle=False) as loader:
        got = np.concatenate(list(loader.to_jax()))
    assert np.array_equal(got, np.arange(100) + 2**40)


# Arguments


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ahead": -1}, "ahead must be a whole number of at least 0, got -1"),
        ({"ahead": 1.5}, "ahead must be a whole number of at least 0, got 1.5"),
        ({"device": "cpu"}, r"device must be one of jax.devices\(\), or None, got 'cpu'"),
        ({"sharding": "data"}, "sharding must be a jax.sharding.Sharding, or None, got 'data'; make one with"),
        ({"floats": 3}, "floats must be True, an oocload.Floats or a dict of them, got 3"),
    ],
)
def test_arguments_that_break_their_rule(path: Path, given: dict[str, object], message: str) -> None:
    with oocload.Loader(path, BATCH) as loader, pytest.raises(InvalidArgumentError, match=message):
        loader.to_jax(**given)


def test_device_or_sharding(path: Path) -> None:
    device = jax.devices()[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    with oocload.Loader(path, BATCH, shuffle=False) as loader:
        with pytest.raises(InvalidArgumentError, match="device must not be given beside sharding"):
            loader.to_jax(device=device, sharding=sharding)
        for given in ({"device": device}, {"sharding": sharding}):
            x, y = next(iter(loader.to_jax(**given)))
            assert y.devices() == {device}
            assert y.sharding == sharding
            assert y.committed


def test_jax_is_not_installed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "oocload.adapters.jax", raising=False)
    monkeypatch.delattr("oocload.adapters.jax", raising=False)
    with oocload.Loader(path, BATCH) as loader:
        with pytest.raises(
            MissingPackageError, match=r"to_jax\(\) needs the package 'jax', .*; run: pip install jax \("
        ):
            loader.to_jax()


# Several devices and processes


def run(code: str, *arguments: object, devices: int) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


SHARDED = """
import json, sys
import jax, numpy as np, oocload, pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from oocload.adapters.floats import Floats
from oocload.errors import InvalidArgumentError

path = sys.argv[1]
mesh = Mesh(np.array(jax.devices()), ("data",))
data = NamedSharding(mesh, P("data"))
kept, expected = [], []
with oocload.Loader(path, 32, seed=1, drop_last=True) as plain, oocload.Loader(path, 32, seed=1, drop_last=True) as one:
    expected = [(x.copy(), y.copy()) for x, y in plain]
    kept = list(one.to_jax(sharding=data))
    for (x, y), (a, b) in zip(expected, kept, strict=True):
        assert a.sharding == b.sharding == data
        assert [s.data.shape for s in a.addressable_shards] == [(16, 12)] * 2
        assert x.tobytes() == np.asarray(a).tobytes() and y.tobytes() == np.asarray(b).tobytes()
    for (x, y), (a, b) in zip(plain, one.to_jax(sharding=data, floats=Floats(scale=2)), strict=True):
        assert a.sharding.is_equivalent_to(data, 2)
        assert np.array_equal(a, x * 2)
    x, y = next(iter(one.to_jax(device=jax.devices()[1])))
    assert x.devices() == {jax.devices()[1]}
    with pytest.raises(InvalidArgumentError, match="sharding must suit all arrays .* field 'y'.* axis 0 only"):
        one.to_jax(sharding=NamedSharding(mesh, P(None, "data")))
with oocload.Loader(path, 32, seed=1) as loader:
    with pytest.raises(InvalidArgumentError, match="last batch must have rows .*, got 19 .*drop_last=True"):
        loader.to_jax(sharding=data)
    assert len(list(loader.to_jax(sharding=NamedSharding(mesh, P())))) == 63
with oocload.Loader(path, 33, seed=1) as loader:
    with pytest.raises(InvalidArgumentError, match="batch_size must be .*, got 33 .* a multiple of 2 always is"):
        loader.to_jax(sharding=data)
with oocload.Loader(path, 32, x="x", seed=1, drop_last=True) as loader:
    columns = NamedSharding(mesh, P(None, "data"))
    assert next(iter(loader.to_jax(sharding=columns))).addressable_shards[0].data.shape == (32, 6)
with oocload.Loader(path, 32, seed=1, drop_last=True, transform=lambda b: (b[0], 1.0)) as loader:
    with pytest.raises(InvalidArgumentError, match="sharding must divide every array of a batch, got"):
        next(iter(loader.to_jax(sharding=data)))
print(json.dumps(len(kept)))
"""


def test_sharded_over_two_devices(path: Path) -> None:
    assert result(run(SHARDED, path, devices=2)) == 62


PROCESS = """
import json, sys
import jax, numpy as np

path, rank, port = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)
import oocload, pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from oocload.adapters.floats import Floats
from oocload.errors import InvalidArgumentError

mesh = Mesh(np.array(jax.devices()), ("data",))
data = NamedSharding(mesh, P("data"))
total, rows = jax.jit(lambda y: y.sum()), []
options = {"seed": 1, "rank": rank, "world_size": 2, "uneven": "drop"}
with oocload.Loader(path, 32, drop_last=True, **options) as loader:
    for x, y in loader.to_jax(sharding=data, floats=Floats(scale=2)):
        assert x.shape == (64, 12) and y.shape == (64,)
        local = [np.asarray(s.data) for s in y.addressable_shards]
        assert [len(part) for part in local] == [16, 16]
        for s in x.addressable_shards:
            rows += (np.asarray(s.data)[:, 0] / 2).astype(int).tolist()
        rows_sum = int(total(y))
    alone = NamedSharding(Mesh(np.array(jax.local_devices()), ("data",)), P("data"))
    assert next(iter(loader.to_jax(sharding=alone)))[1].shape == (32,)
    assert next(iter(loader.to_jax()))[1].devices() == {jax.local_devices()[0]}
with oocload.Loader(path, 32, **options) as loader:
    with pytest.raises(InvalidArgumentError, match="last batch must have rows that the sharding divides, got 9 "):
        loader.to_jax(sharding=data)
print(json.dumps([len(rows) // 32, rows, rows_sum]))
jax.distributed.shutdown()
"""


def test_two_processes_build_global_arrays(path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (n_first, first, total), (n_second, second, same) = map(
        result, [run(PROCESS, path, rank, port, devices=2) for rank in (0, 1)]
    )
    assert n_first == n_second == 31
    assert len({*first, *second}) == len(first) + len(second) == 2 * 31 * 32
    assert total == same == sum(first[-32:]) + sum(second[-32:])
