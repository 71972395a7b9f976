"""Ranks of a data-parallel job: equal steps, every row, and where the rank comes from."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.errors import InvalidArgumentError, StateError
from oocload.loader.world import detect
from tests.conftest import check_rows

Make = Callable[..., Path]
VARIABLES = ("RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE")


@pytest.fixture(autouse=True)
def nobody_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "SLURM_PROCID", "SLURM_NTASKS", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def epoch(path: Path, rank: int, world_size: int, **options: Any) -> list[np.ndarray]:
    with oocload.Loader(path, 32, seed=7, rank=rank, world_size=world_size, **options) as loader:
        batches = []
        for x, y in loader:
            check_rows(x, y)
            batches.append(y.copy())
        assert len(batches) == len(loader)
    with oocload.Loader(path, 32, seed=7, rank=rank, world_size=world_size, **options) as loader:
        assert np.array_equal(np.concatenate(batches), np.concatenate([loader[i][1] for i in range(len(loader))]))
    return batches


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"uneven": "drop"}, {"drop_last": True}])
@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_every_row_once_over_all_ranks(
    make_store: Make, world_size: int, compression: str | None, options: dict[str, Any]
) -> None:
    path = make_store(1003, 13, compression=compression)
    ranks = [epoch(path, rank, world_size, **options) for rank in range(world_size)]
    assert len({tuple(map(len, batches)) for batches in ranks}) == 1
    counts = Counter(np.concatenate([y for batches in ranks for y in batches]).tolist())
    if options.get("uneven") == "drop":
        assert set(counts.values()) == {1}
        assert len(counts) == 1003 - 1003 % world_size
    elif "drop_last" not in options:
        assert len(counts) == 1003
        assert sum(counts.values()) < 1003 + world_size


def test_more_ranks_than_blocks(make_store: Make) -> None:
    path = make_store(60, 50, compression="gzip")
    rows = []
    for rank in range(20):
        with oocload.Loader(path, 3, seed=0, rank=rank, world_size=20) as loader:
            rows += [r for _, y in loader for r in y.tolist()]
    assert sorted(rows) == list(range(60))


@pytest.mark.filterwarnings("ignore::oocload.ShuffleQualityWarning")
@pytest.mark.parametrize("shuffle", [True, False, oocload.Shuffle(streams=8)])
@pytest.mark.parametrize(("n_rows", "world_size"), [(50, 4), (50, 8), (3, 8)])
def test_ranks_of_fewer_rows_than_a_batch_have_one_batch_each(
    make_store: Make, n_rows: int, world_size: int, shuffle: bool | oocload.Shuffle
) -> None:
    path = make_store(n_rows, 13, compression="lzf")
    ranks = [epoch(path, rank, world_size, shuffle=shuffle) for rank in range(world_size)]
    assert len({tuple(map(len, batches)) for batches in ranks}) == 1
    assert {len(batches) for batches in ranks} == {1}
    assert set(np.concatenate([y for (y,) in ranks]).tolist()) == set(range(n_rows))


def test_resume_on_a_rank(make_store: Make) -> None:
    path = make_store(1003, 13, compression="lzf")
    whole = epoch(path, 1, 3)
    with oocload.Loader(path, 32, seed=7, rank=1, world_size=3) as loader:
        iterator = iter(loader)
        for _ in range(4):
            next(iterator)
        state = loader.state_dict()
        iterator.close()
    with oocload.Loader(path, 32, seed=7, rank=1, world_size=3) as loader:
        loader.load_state_dict(json.loads(json.dumps(state)))
        for (_, y), expected in zip(loader, whole[4:], strict=True):
            assert np.array_equal(y, expected)
    with oocload.Loader(path, 32, seed=7) as loader:
        with pytest.raises(InvalidArgumentError, match="world_size is 3 there and 1 here"):
            loader.load_state_dict(state)


def test_a_rank_reads_its_own_blocks(make_store: Make) -> None:
    path = make_store(10_000, 100, compression="gzip")
    with oocload.Loader(path, 100, seed=0, x="x", rank=0, world_size=4) as loader:
        for _ in loader:
            pass
        assert loader.stats.rows == 2500
        assert loader.stats.amplification < 1.1
        assert "2,500 rows in 25 batches of 100, shuffled with seed 0, rank 0 of 4" in repr(loader)


def test_bad_ranks(make_store: Make) -> None:
    path = make_store(100, 10)
    for arguments, message in [
        ({"rank": 1}, "rank and world_size must be given together, got rank=1 and world_size=None"),
        ({"rank": 2, "world_size": 2}, "rank must be from 0 to 1, got 2"),
        ({"rank": 0, "world_size": 2, "uneven": "keep"}, "uneven must be 'pad', 'drop' or 'error'"),
        ({"rank": 0, "world_size": 3, "uneven": "error"}, "world_size must divide the 100 rows"),
        ({"rank": "0", "world_size": 2}, "rank must be a whole number"),
        (
            {"rank": 0, "world_size": 20, "drop_last": True},
            "batch_size must be at most the rows of one of 20 ranks, 5, where drop_last .* got 10; lower batch_size",
        ),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            oocload.Loader(path, 10, seed=0, **arguments)
    with pytest.raises(InvalidArgumentError, match=r"seed must be given where there are ranks \(this is rank 0 of 2\)"):
        oocload.Loader(path, 10, rank=0, world_size=2)


class TestDetection:
    def test_alone(self) -> None:
        assert detect() == (0, 1)

    @pytest.mark.parametrize(
        "pair", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"), ("PMI_RANK", "PMI_SIZE")]
    )
    def test_launchers(self, monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str], make_store: Make) -> None:
        monkeypatch.setenv(pair[0], "2")
        monkeypatch.setenv(pair[1], "5")
        assert detect() == (2, 5)
        with oocload.Loader(make_store(1003, 13), 10, seed=0) as loader:
            assert "rank 2 of 5" in repr(loader)
        with oocload.Loader(make_store(1003, 13), 10, rank=0, world_size=1) as loader:
            assert loader.epoch_rows == 1003

    @pytest.mark.parametrize(
        ("task", "expected"),
        [
            ({"type": "chief", "index": 0}, (0, 4)),
            ({"type": "worker", "index": 2}, (3, 4)),
            ({"type": "evaluator", "index": 0}, (0, 1)),
        ],
    )
    def test_tensorflow(self, monkeypatch: pytest.MonkeyPatch, task: dict[str, Any], expected: tuple[int, int]) -> None:
        cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1", "d:1"]}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
        assert detect() == expected

    @pytest.mark.parametrize(
        ("variables", "message"),
        [
            ({"RANK": "5", "WORLD_SIZE": "5"}, "RANK and WORLD_SIZE says rank 5 of 5; pass rank="),
            ({"RANK": "a", "WORLD_SIZE": "5"}, "RANK and WORLD_SIZE must be whole numbers, got 'a' and '5'"),
            ({"TF_CONFIG": "{"}, "TF_CONFIG must be what tf.distribute takes"),
            ({"TF_CONFIG": "[1]"}, "TF_CONFIG must be what tf.distribute takes"),
        ],
    )
    def test_nonsense(self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(InvalidArgumentError, match=message):
            detect()


@given(
    n_rows=st.integers(64, 400),
    chunk_rows=st.integers(1, 40),
    parts=st.integers(1, 3),
    window_rows=st.integers(8, 400),
    shuffle=st.booleans(),
    sizes=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=2, max_size=4),
    data=st.data(),
)
def test_global_batches_do_not_depend_on_the_number_of_ranks(
    make_store: Make,
    n_rows: int,
    chunk_rows: int,
    parts: int,
    window_rows: int,
    shuffle: bool,
    sizes: list[int],
    data: st.DataObject,
) -> None:
    """Also where it changes in the middle of an epoch: every rank resumes from the state of any other."""
    path = make_store(n_rows, chunk_rows, compression="lzf")
    how = oocload.Shuffle(window_rows=window_rows, streams=8)

    def ranks(world_size: int) -> list[oocload.Loader]:
        return [
            oocload.Loader(path, 8 * parts // world_size, shuffle=how, seed=3, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]

    def take(loaders: list[oocload.Loader], n: int) -> list[list[int]]:
        streams = [loader.forever() for loader in loaders]
        batches = []
        for _ in range(n):
            batch = []
            for stream in streams:
                x, y = next(stream)
                check_rows(x, y)
                batch += y.tolist()
            batches.append(sorted(batch))
        for stream in streams:
            stream.close()
        return batches

    alone = ranks(1)
    n_batches = 2 * len(alone[0])
    whole = take(alone, n_batches)
    alone[0].close()
    state, changing = None, []
    for number, world_size in enumerate(sizes):
        loaders = ranks(world_size)
        if state is not None:
            for loader in loaders:
                loader.load_state_dict(state)
        left = n_batches - len(changing)
        n = left if number == len(sizes) - 1 else data.draw(st.integers(0, left))
        changing += take(loaders, n)
        states = [loader.state_dict() for loader in loaders]
        assert all(s == states[0] for s in states)
        state = states[0]
        for loader in loaders:
            loader.close()
    assert changing == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0, "world_size": 3}, "world_size must divide the 8 streams of the shuffle, got 3"),
        (
            {"rank": 0, "world_size": 2, "batch_size": 6},
            r"batch_size must be a multiple of the 4 streams of each rank .*",
        ),
        ({"rank": 2, "world_size": 2}, "rank must be from 0 to 1, got 2"),
        ({"uneven": "error"}, "streams must divide the 1003 rows where uneven='error', got 8"),
    ],
)
def test_streams_that_do_not_go_together(make_store: Make, options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        options = {"batch_size": 16, "seed": 0, "shuffle": oocload.Shuffle(streams=8), **options}
        oocload.Loader(make_store(), **options)


def test_state_of_other_streams(make_store: Make) -> None:
    path = make_store()
    with oocload.Loader(path, 16, seed=0, shuffle=oocload.Shuffle(streams=8)) as loader:
        with oocload.Loader(path, 16, seed=0, shuffle=oocload.Shuffle(streams=4)) as other:
            with pytest.raises(StateError, match="streams is 8 there and 4 here"):
                other.load_state_dict(loader.state_dict())
        with oocload.Loader(path, 16, seed=0, shuffle=oocload.Shuffle(streams=8), rank=0, world_size=2) as other:
            with pytest.raises(StateError, match="batch_size is 16 there and 32 here"):
                other.load_state_dict(loader.state_dict())
