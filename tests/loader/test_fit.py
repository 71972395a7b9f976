"""What fits under a ceiling, the smallest that works, and reading with one slab less than reading ahead takes."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.errors import MemoryCeilingError
from oocload.loader.fit import Costs, Wish, fit, smallest
from tests.conftest import check_rows

Make = Callable[..., Path]
MIB = 2**20


_ALL_BLOCKS = 30  # of the store: a window of all of them is one slab, and leaves nothing over


def costs(fixed: int, per_thread: int, batch: int, block: int, dealing: bool, opening: int = 0) -> Costs:
    return Costs(
        fixed=fixed,
        per_thread=per_thread,
        batch=lambda blocks, deal: batch + blocks,
        slab=lambda blocks, deal: blocks * block + batch,
        left_over=lambda blocks, deal: int(blocks < _ALL_BLOCKS),
        shuffle=lambda blocks, deal: blocks,
        dealt=lambda blocks, deal: dealing and deal and blocks < _ALL_BLOCKS,
        opening=opening,
    )


@given(
    fixed=st.integers(0, 1000),
    per_thread=st.integers(0, 300),
    batch=st.integers(1, 300),
    block=st.integers(1, 300),
    dealing=st.booleans(),
    opening=st.integers(0, 3000),
    wish=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)).map(sorted),
    ceiling=st.integers(1, 60_000),
    n_threads=st.integers(1, 8),
    deal=st.sampled_from([None, True, False]),
)
def test_what_fits_stays_below_the_ceiling_and_is_found_from_the_smallest_on(
    fixed: int,
    per_thread: int,
    batch: int,
    block: int,
    dealing: bool,
    opening: int,
    wish: list[int],
    ceiling: int,
    n_threads: int,
    deal: bool | None,
) -> None:
    c = costs(fixed, per_thread, batch, block, dealing, opening)
    least, passable, blocks = wish
    w = Wish(blocks, passable, least, deal)
    if ceiling < smallest(c, w):
        with pytest.raises(MemoryCeilingError, match=f"memory must be at least {smallest(c, w)} bytes"):
            fit(c, ceiling, w, n_threads)
        return
    found, _ = fit(c, ceiling, w, n_threads)
    assert found.needed <= ceiling
    assert least <= found.window_blocks <= blocks
    assert 1 <= found.n_threads <= n_threads
    assert deal is None or found.deal is deal
    assert found.n_slabs >= 2 + c.dealt(found.window_blocks, found.deal) - found.tight
    # one more thread would not fit, nor would one more block with as many threads as windows are chosen for
    at = (found.window_blocks, found.deal, found.tight)
    assert found.n_threads == n_threads or c.fit(*at, found.n_threads + 1).needed > ceiling
    more = range(found.window_blocks + 1, blocks + 1)
    assert all(c.fit(n, found.deal, found.tight, 4).needed > ceiling for n in more)
    if found.tight:
        assert c.fit(least, False if deal is None else deal, False, 1).needed > ceiling


def test_the_window_does_not_depend_on_the_threads() -> None:
    c = costs(100, 50, 10, 100, dealing=True)
    found = {fit(c, 5000, Wish(40, 16, 1), n)[0].window_blocks for n in range(1, 16)}
    assert len(found) == 1


def test_that_window_is_taken_that_mixes_the_most() -> None:
    """Three slabs of one block mix two of them, two slabs of three mix three."""
    c = costs(0, 0, 100, 100, dealing=True)
    assert fit(c, 1000, Wish(40, 16, 1), 1)[0].window_blocks == 3
    assert not fit(c, 1000, Wish(40, 16, 1), 1)[0].deal
    assert fit(c, 6000, Wish(40, 16, 1), 1)[0].deal


KINDS: dict[str, dict[str, Any]] = {
    "gzip": {},
    "raw": {},
    "in order": {"shuffle": False},
    "window": {"shuffle": oocload.Shuffle(window_rows=260)},
    "streams": {"shuffle": oocload.Shuffle(window_rows=260, streams=4)},
    "long streams": {"shuffle": oocload.Shuffle(window_rows=960, streams=2)},
    "weights": {"weights": np.arange(1003) + 1.0, "shuffle": oocload.Shuffle(window_rows=260)},
    "balanced": {"balanced": "label", "shuffle": oocload.Shuffle(window_rows=260)},
    "drop_last": {"drop_last": True, "shuffle": oocload.Shuffle(window_rows=260)},
}
TIGHT = [kind for kind, options in KINDS.items() if kind not in ("gzip", "raw", "in order")]


@pytest.fixture
def numbered_store(tmp_path: Path) -> Callable[[str], Path]:
    def make(compression: str) -> Path:
        import h5py

        y = np.arange(1003)
        path = tmp_path / f"{compression}.h5"
        with h5py.File(path, "w") as file:
            rows = ((y[:, None, None] * 31 + np.arange(35).reshape(7, 5)) % 251).astype("uint8")
            for name, data in (("x", rows), ("y", y), ("label", y % 4)):
                options = {} if compression == "raw" else {"compression": compression}
                file.create_dataset(name, data=data, chunks=(13, *data.shape[1:]), **options)
        return path

    return make


def make(path: Path, kind: str, memory: int | None = None) -> oocload.Loader:
    return oocload.Loader(path, 20, x="x", y="y", seed=3, memory=memory, threads=2, **KINDS[kind])


@pytest.mark.filterwarnings("ignore::oocload.errors.ShuffleQualityWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_ceiling_works_and_a_byte_less_does_not(numbered_store: Callable[[str], Path], kind: str) -> None:
    path = numbered_store("raw" if kind == "raw" else "lzf")
    with make(path, kind) as loader:
        least = loader.min_memory()
        assert isinstance(least, int)
    with make(path, kind, least) as loader:
        for _ in range(3):
            for x, y in loader:
                check_rows(x, y)
        assert loader.min_memory() == least
        assert loader.stats.memory.peak <= least
    with pytest.raises(MemoryCeilingError, match=rf"memory must be at least {least} bytes"):
        make(path, kind, least - 1)


@pytest.mark.parametrize("kind", TIGHT)
def test_one_slab_and_a_part_give_the_same_batches(numbered_store: Callable[[str], Path], kind: str) -> None:
    """No batch is kept, so nothing is served from beyond the ceiling; that would be a warning, and an error here."""
    path = numbered_store("lzf")
    with make(path, kind) as roomy:
        state = roomy.state_dict()
        with make(path, kind, roomy.min_memory()) as tight:
            assert tight._runtime.fit.tight
            assert "no room to read ahead" in repr(tight)
            dealt = tight._runtime.options.deal
        with make(path, kind) as same:
            same.load_state_dict({**state, "deal": dealt})
            expected = [[(x.copy(), y.copy()) for x, y in same] for _ in range(3)]
    with make(path, kind, tight.min_memory()) as tight:
        for epoch in expected:
            for (x, y), (expected_x, expected_y) in zip(tight, epoch, strict=True):
                assert np.array_equal(x, expected_x)
                assert np.array_equal(y, expected_y)
                del x, y
        parts = tight.stats.memory.parts()
        assert tight.stats.memory.peak <= tight.memory
        assert parts["slabs"][1] == tight._runtime.fit.n_slabs * tight._runtime._resources.pool.slab_nbytes


@pytest.mark.parametrize("kind", ["window", "streams"])
def test_one_slab_and_a_part_resume_and_index(numbered_store: Callable[[str], Path], kind: str) -> None:
    path = numbered_store("lzf")
    with make(path, kind) as roomy:
        least = roomy.min_memory()
    with make(path, kind, least) as tight:
        whole = [y.tolist() for _ in range(2) for _, y in tight]
        for stop in range(0, len(tight), 3):
            with make(path, kind, least) as first:
                stream = iter(first)
                for _ in range(stop):
                    next(stream)
                state = first.state_dict()
            with make(path, kind, least) as again:
                again.load_state_dict(state)
                rest = [y.tolist() for _, y in again]
                assert again.stats.memory.peak <= least
            assert rest == whole[stop : len(tight)]
    with make(path, kind, least) as tight:
        for number in [0, 12, 13, 12, 0, len(tight) - 1, 25, 26]:
            assert tight[number][1].tolist() == whole[number]
            assert tight.batch_rows(number).tolist() == whole[number]


def test_a_state_whose_rows_are_dealt_goes_to_a_tight_loader(numbered_store: Callable[[str], Path]) -> None:
    path = numbered_store("lzf")
    with make(path, "window") as roomy:
        assert roomy._runtime.options.dealt
        stream = iter(roomy)
        for _ in range(7):
            next(stream)
        state = roomy.state_dict()
        rest = [y.tolist() for _, y in stream]
        least = roomy.min_memory()  # without dealing
    with make(path, "window", least) as tight:
        with pytest.raises(MemoryCeilingError, match=r"at least \d+ bytes") as error:
            tight.load_state_dict(state)
        ceiling = int(str(error.value).split("at least ")[1].split()[0])
        assert sum(len(y) for _, y in tight) == 1003  # it goes on as it was
    with make(path, "window", ceiling) as tight:
        tight.load_state_dict(state)
        assert (tight._runtime.fit.tight, tight._runtime.fit.n_slabs) == (True, 2)
        assert [y.tolist() for _, y in tight] == rest
        assert tight.stats.memory.peak <= ceiling


def test_a_mix_of_tight_loaders(numbered_store: Callable[[str], Path]) -> None:
    path = numbered_store("lzf")
    with make(path, "window") as roomy:
        least = roomy.min_memory()
    with oocload.mix([make(path, "window", least), make(path, "drop_last", least)], weights=[0.7, 0.3]) as mixed:
        assert all(loader._runtime.fit.tight for loader in mixed.loaders)
        for x, y in mixed:
            check_rows(x, y)
        assert all(stats.memory.peak <= least for stats in mixed.stats)
        own = mixed.memory - 2 * least
        assert own == 6 * (20 * (35 + 8) + 36)  # six batches, each field at a multiple of 64 bytes
        assert mixed.min_memory() == own + sum(loader.min_memory() for loader in mixed.loaders)


@pytest.mark.framework
def test_frameworks_on_a_tight_loader(numbered_store: Callable[[str], Path]) -> None:
    pytest.importorskip("tensorflow")
    path = numbered_store("lzf")
    with make(path, "window") as roomy:
        least = roomy.min_memory()
    with make(path, "window", least) as tight:
        expected = [y.tolist() for _ in range(3) for _, y in tight]
    with make(path, "window", least) as tight:
        got = [y.numpy().tolist() for _ in range(2) for _, y in tight.to_tf()]
        data = tight.to_keras()
        got += [data[i][1].tolist() for i in range(len(data))]
        assert tight.stats.memory.peak <= least
    assert got == expected


def test_a_tight_loader_pickles(numbered_store: Callable[[str], Path]) -> None:
    path = numbered_store("lzf")
    with make(path, "window") as roomy:
        least = roomy.min_memory()
    with make(path, "window", least) as tight, pickle.loads(pickle.dumps(tight)) as copy:
        assert copy._runtime.fit == tight._runtime.fit
        assert [y.tolist() for _, y in copy] == [y.tolist() for _, y in tight]


@pytest.mark.filterwarnings("ignore::oocload.errors.ShuffleQualityWarning")
def test_a_chunk_above_the_ceiling_is_named(tmp_path: Path) -> None:
    rows = np.zeros((5000, 1000), "uint8")
    import h5py

    with h5py.File(tmp_path / "one.h5", "w") as file:
        file.create_dataset("images", data=rows, chunks=(2500, 1000), compression="gzip")
    with pytest.raises(
        MemoryCeilingError,
        match=r"memory must be at least \d+ bytes .* where field 'images' has chunks of 2\.4 MiB, which are decoded "
        r"whole, got 2\.0 MiB; run oocload convert",
    ) as error:
        oocload.Loader(tmp_path / "one.h5", 10, memory="2 MiB")
    with pytest.raises(MemoryCeilingError, match=r"where field 'images' has chunks of 2\.4 MiB"):
        oocload.Loader([tmp_path / "one.h5"] * 2, 10, memory="2 MiB")
    least = int(str(error.value).split("at least ")[1].split()[0])
    oocload.Loader(tmp_path / "one.h5", 10, memory=least).close()


def test_chunks_that_rows_are_cut_into_are_named(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "grid.h5", "w") as file:
        file.create_dataset("t", data=np.zeros((2500, 1000), "uint8"), chunks=(2500, 10), compression="gzip")
    with pytest.raises(MemoryCeilingError, match=r"where field 't' has chunks of 2\.4 MiB.* run oocload convert"):
        oocload.Loader(tmp_path / "grid.h5", 10, memory="2 MiB")
