"""The ceiling: what it allows, what it refuses, and what the process really takes."""

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import oocload
from oocload.available import available_memory, default_ceiling
from oocload.errors import KeptBatchesWarning, MemoryCeilingError, ShuffleQualityWarning
from oocload.loader.settle import settle
from tests.conftest import check_rows

Make = Callable[..., Path]
MIB = 2**20


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("memory", [9 * MIB, 15 * MIB, 60 * MIB])
def test_held_memory_stays_below_the_ceiling(make_store: Make, compression: str | None, memory: int) -> None:
    path = make_store(300_000, 500, compression=compression)
    with oocload.Loader(path, 100, seed=0, memory=memory) as loader:
        for _ in range(2):
            for x, y in loader:
                check_rows(x[:1], y[:1])
        assert loader.memory == memory
        assert 0 < loader.stats.memory.peak <= memory


def test_a_smaller_ceiling_shrinks_the_default_window_only(make_store: Make) -> None:
    path = make_store(300_000, 100, compression="lzf")
    with (
        oocload.Loader(path, 1000, seed=0, memory="4 MiB") as small,
        oocload.Loader(path, 1000, seed=0) as large,
    ):
        assert small.window_rows < large.window_rows
    how = oocload.Shuffle(window_rows=1000)
    with (
        oocload.Loader(path, 100, shuffle=how, memory="1 MiB") as small,
        oocload.Loader(path, 100, shuffle=how) as large,
    ):
        assert small.window_rows == large.window_rows == 1000


def test_ceiling_too_small_names_the_smallest_that_works(make_store: Make) -> None:
    path = make_store(100_000, 1000, compression="gzip")
    with pytest.raises(
        MemoryCeilingError, match=r"memory must be at least (\d+) bytes \(.* KiB\).*got 10\.0 KiB"
    ) as error:
        oocload.Loader(path, 100, seed=0, memory=10 * 1024)
    smallest = int(str(error.value).split("at least ")[1].split()[0])
    with pytest.warns(ShuffleQualityWarning):
        with oocload.Loader(path, 100, seed=0, memory=smallest) as loader:
            assert len(np.unique(np.concatenate([y.copy() for _, y in loader]))) == 100_000
            assert loader.stats.memory.peak <= smallest
    with pytest.raises(MemoryCeilingError):
        oocload.Loader(path, 100, seed=0, memory=smallest - 1)


def test_window_that_mixes_poorly_is_warned_about(make_store: Make) -> None:
    path = make_store(100_000, 1000, compression="gzip")
    with pytest.warns(
        ShuffleQualityWarning, match=r"the window has \d blocks? only .*, so rows mix poorly .* raise memory="
    ) as warned:
        oocload.Loader(path, 100, seed=0, memory="500 KiB").close()
    assert warned[0].filename == __file__  # the user's line, not one of ours


def test_kept_batches_are_served_from_new_memory_and_told_once(make_store: Make) -> None:
    path = make_store(5000, 50, compression="lzf")
    with oocload.Loader(path, 100, shuffle=oocload.Shuffle(window_rows=200), seed=0) as loader:
        with pytest.warns(KeptBatchesWarning, match="batches are kept .* copy what you keep") as warned:
            kept = list(loader)
        assert len(warned) == 1
        assert warned[0].filename == __file__
        rows = np.concatenate([y for _, y in kept])
        assert np.array_equal(np.sort(rows), np.arange(5000))
        for x, y in kept:
            check_rows(x, y)
        peak = loader.stats.memory.peak
        del kept, x, y
        held = loader.stats.memory.held
        assert held < peak
        for x, y in loader:
            check_rows(x, y)


def test_kept_text_is_told_too(tmp_path: Path) -> None:
    """Python objects lie beside the slab that stands for them."""
    texts = np.array([f"message {n}" for n in range(2000)], object)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("text", data=texts, dtype=h5py.string_dtype(), chunks=(50,))
    how = oocload.Shuffle(window_rows=200)
    with oocload.Loader(tmp_path / "t.h5", 50, x="text", shuffle=how, seed=0) as loader:
        for _ in loader:
            pass
        del _
        with pytest.warns(KeptBatchesWarning, match="copy what you keep"):
            kept = list(loader)
        assert len({text for batch in kept for text in batch}) == 2000


def test_slabs_are_not_recycled_under_a_live_view(make_store: Make) -> None:
    path = make_store(5000, 50, compression="lzf")
    with oocload.Loader(path, 100, shuffle=oocload.Shuffle(window_rows=1000), seed=0) as loader:
        kept = None
        for i, (x, _) in enumerate(loader):
            if i == 3:
                kept, before = x[7], x[7].copy()
        del x, _
        for _ in loader:
            pass
        assert np.array_equal(kept, before)


def test_default_ceiling_is_a_quarter_of_what_is_available() -> None:
    assert default_ceiling() <= 2 * 2**30
    assert default_ceiling() <= available_memory() // 4 * 1.1 + MIB


def test_memory_is_given_back_on_close(make_store: Make) -> None:
    loader = oocload.Loader(make_store(compression="gzip"), 100, seed=0)
    list(map(len, loader))
    assert loader.stats.memory.held > 0
    memory = loader.stats.memory
    loader.close()
    held = {part: held for part, (held, _) in memory.parts().items() if held}
    assert held == {"order": 24 * 78}  # the blocks, so that len() and batch_rows() go on
    assert loader.batch_rows(0).shape == (100,)
    loader.close()
    assert memory.held == 24 * 78
    del loader
    gc.collect()
    assert memory.held == 0


def test_parts_keep_their_slabs_between_passes_until_they_rest(make_store: Make) -> None:
    path = make_store(100_000, 500, compression="gzip")
    with oocload.Loader(path, 100, seed=0, memory="9 MiB") as loader:
        train, val = loader.split(0.5, 0.5)
        with train, val:
            budgets = [part.stats.memory for part in (train, val)]
            for part in (train, val, train, val):
                assert sum(len(y) for _, y in part) == part.n_rows
                assert part.stats.memory.peak <= loader.memory
            assert all(budget.parts()["slabs"][0] > 0 for budget in budgets)
            val.rest()
            assert [budget.parts()["slabs"][0] > 0 for budget in budgets] == [True, False]


def test_two_runtimes_are_never_held_whole(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state with another window makes the loader anew: what the old one can make again goes before."""
    path = make_store(5000, 50, compression="gzip")
    state = oocload.Loader(path, 100, seed=0, shuffle=oocload.Shuffle(window_rows=500)).state_dict()
    with oocload.Loader(path, 100, seed=0) as loader:
        list(map(len, loader))
        assert {"slabs", "scratch"} <= {part for part, (held, _) in loader.stats.memory.parts().items() if held}
        memory, seen = loader.stats.memory, []

        def look(*args: object) -> object:
            seen.append({part: held for part, (held, _) in memory.parts().items()})
            return settle(*args)

        monkeypatch.setattr("oocload.loader.loader.settle", look)
        loader.load_state_dict(state)
        assert [(held["slabs"], held["scratch"]) for held in seen] == [(0, 0)]
        assert sum(map(len, (y for _, y in loader))) == 5000


@pytest.mark.parametrize("kind", ["close", "forget"])
def test_memory_goes_when_the_last_batch_does(make_store: Make, kind: str) -> None:
    loader = oocload.Loader(make_store(5000, 50, compression="gzip"), 100, x="x", seed=0)
    budget = loader.stats.memory
    stream = iter(loader)
    batch, before = next(stream), None
    before = batch.copy()
    if kind == "close":
        loader.close()
    del loader, stream
    gc.collect()
    assert 0 < budget.held == budget.parts()["slabs"][0]  # the slab of the batch that is kept
    assert np.array_equal(batch, before)
    del batch
    assert budget.held == 0


def test_every_part_is_counted(make_store: Make) -> None:
    how = oocload.Shuffle(window_rows=200)
    weights = np.ones(5000)
    with oocload.Loader(make_store(5000, 50, compression="gzip"), 30, weights=weights, shuffle=how, seed=0) as loader:
        for _ in loader:
            pass
        del _
        peaks = {part: peak for part, (_, peak) in loader.stats.memory.parts().items()}
        assert set(peaks) == {"slabs", "copies", "scratch", "permuting", "order", "selection", "index"}
        assert min(peaks.values()) > 0
        assert sum(peaks.values()) <= loader._runtime.fit.needed
        assert max(peaks.values()) <= loader.stats.memory.peak <= sum(peaks.values())
        for part in peaks:
            assert f"{part} " in repr(loader.stats.memory)


def test_what_a_library_takes_is_counted(make_store: Make) -> None:
    path = make_store(5000, 50, compression="szip")
    with oocload.Loader(path, 100, seed=0, x="x", threads=2) as loader:
        assert loader.stats.paths["x"].startswith("h5py")
        for _ in loader:
            pass
        needs = loader._runtime._resources.readers["x"].scratch_needs["library"]
        assert loader.stats.memory.parts()["scratch"][1] in (needs, 2 * needs)  # of one thread, or of both


MEASURE = """
import json, sys
import numpy as np, h5py, zarr, imagecodecs, oocload

def status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) * 1024

path, ceiling = sys.argv[1], int(sys.argv[2])
# Codecs are loaded when they are first used: that counts as import.
imagecodecs.deflate_decode(imagecodecs.deflate_encode(b"x" * 100), out=bytearray(100))
imagecodecs.zstd_decode(imagecodecs.zstd_encode(b"x" * 100), out=bytearray(100))
imports = status("VmRSS")
total = 0
with oocload.Loader(path, 256, seed=0, memory=ceiling) as loader:
    for _ in range(2):
        for x, y in loader:
            total += int(y.sum())
    peak = loader.stats.memory.peak
print(json.dumps({"rss": status("VmHWM") - imports, "held": peak, "total": total}))
"""


@pytest.mark.parametrize("name", ["raw.h5", "gzip.h5", "zstd.zarr", "sharded.zarr"])
def test_rss_of_a_store_eight_times_the_ceiling(tmp_path: Path, name: str) -> None:
    """Peak RSS above imports is at most the ceiling, a tenth of it, and 16 MiB."""
    ceiling = 32 * MIB
    n_rows = 8 * ceiling // 3072
    path = tmp_path / name
    codec = {"raw": "none", "gzip": "gzip"}.get(path.stem, "zstd")
    fields = {"x": ((32, 32, 3), "uint8"), "y": "int64"}
    options = {"chunks_per_shard": 8} if path.stem == "sharded" else {}
    rng = np.random.default_rng(0)
    with oocload.create(path, fields, codec=codec, level=None if codec == "none" else 1, **options) as writer:
        for start in range(0, n_rows, 8192):
            numbers = np.arange(start, min(n_rows, start + 8192))
            writer.append(x=rng.integers(0, 4, (len(numbers), 32, 32, 3), dtype=np.uint8), y=numbers)
    assert oocload.open(path).fields["x"].nbytes > 7.99 * ceiling
    command = [sys.executable, "-c", MEASURE, str(path), str(ceiling)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert result["total"] == 2 * (n_rows * (n_rows - 1) // 2)
    assert result["held"] <= ceiling
    assert result["rss"] <= 1.1 * ceiling + 16 * MIB, f"peak RSS {result['rss'] / MIB:.0f} MiB"


def test_rss_of_narrow_rows(tmp_path: Path) -> None:
    """Two bytes a row: the permutation takes several times what the rows do."""
    ceiling = 64 * MIB
    n_rows = 32 * 2**20
    y = np.arange(n_rows, dtype="uint16")
    oocload.convert({"x": y, "y": y}, tmp_path / "n.h5", codec="gzip", level=1)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "n.h5"), str(ceiling)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert result["total"] == 2 * int(y.sum(dtype="int64"))
    assert result["held"] <= ceiling
    assert result["rss"] <= 1.1 * ceiling + 16 * MIB, f"peak RSS {result['rss'] / MIB:.0f} MiB"


def test_a_shard_index_is_counted_once_a_shard(tmp_path: Path) -> None:
    import zarr

    rows = np.zeros((100_000, 4), "u1")
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    group.create_array("x", data=rows, chunks=(10, 4), shards=(100_000, 4))
    with oocload.Loader(tmp_path / "s.zarr", 100, x="x", seed=0, memory="8 MiB") as loader:
        assert sum(map(len, loader)) == 100_000


def test_read_amplification_is_warned_about(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, height in (("a", 1009), ("b", 997)):
            options = {"chunks": (height, 4096), "compression": "gzip"}
            file.create_dataset(name, (20_000, 4096), "u1", **options)
    with pytest.warns(oocload.ReadAmplificationWarning, match=r"field 'b' has chunks of 997 rows, .* oocload convert"):
        oocload.Loader(tmp_path / "a.h5", 10).close()
