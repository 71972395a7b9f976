"""Several loaders as one, at fixed proportions."""

import itertools
import json
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.errors import InvalidArgumentError, KeptBatchesWarning, StateError
from tests.conftest import check_rows, numbered

Make = Callable[..., Path]
SIZES = (300, 170, 90)


def write(path: Path, n_rows: int, source: int) -> Path:
    """Write numbered rows, whose source can be told by a field."""
    with h5py.File(path, "w") as file:
        for name, rows in {**numbered(n_rows), "source": np.full(n_rows, source)}.items():
            file.create_dataset(name, data=rows, chunks=(10, *rows.shape[1:]), compression="lzf")
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("mix")
    return [write(folder / f"{i}.h5", n_rows, i) for i, n_rows in enumerate(SIZES)]


def make(paths: list[Path], batch_size: int = 10, **options: object) -> list[oocload.Loader]:
    options = {"x": "x", "y": ["y", "source"], "seed": 5, **options}
    return [oocload.Loader(path, batch_size, **options) for path in paths]


def pairs(batch: object) -> list[tuple[int, int]]:
    """Return (source, row) of each row of a batch, having checked its content."""
    x, y = batch
    check_rows(x, y["y"])
    return list(zip(y["source"].tolist(), y["y"].tolist(), strict=True))


def take(stream: Iterator[object], n: int) -> list[list[tuple[int, int]]]:
    return [pairs(batch) for batch in itertools.islice(stream, n)]


def test_kept_batches_are_told_once_and_counted(paths: list[Path]) -> None:
    with oocload.mix(make(paths), weights=[5, 3, 2]) as mixed:
        for _ in mixed:
            assert mixed.budget.peak <= mixed.budget.ceiling
        with pytest.warns(KeptBatchesWarning, match="batches are kept .* copy what you keep") as warned:
            kept = list(mixed)
        assert len(warned) == 1
        assert warned[0].filename == __file__
        assert mixed.budget.peak > mixed.budget.ceiling
        rows = [pair for batch in kept for pair in pairs(batch)]
        assert len(set(rows)) == len(rows) == 450
        del kept, _
        assert mixed.budget.held == mixed.budget.ceiling  # what is used again
    assert mixed.budget.held == 0


def test_a_forked_child_mixes_in_memory_of_its_own(paths: list[Path]) -> None:
    mixed = oocload.mix(make(paths), weights=[5, 3, 2])
    expected = take(iter(mixed), 20)
    mixed.load_state_dict({**mixed.state_dict(), "epoch": 0, "batch": 0})

    def read(queue: Any) -> None:
        got = [pairs(batch) for batch in itertools.islice(iter(mixed), 20)]
        queue.put((got, mixed.budget.peak <= mixed.budget.ceiling))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=read, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == (expected, True)
    child.join()
    mixed.close()


def test_every_batch_has_its_proportions(paths: list[Path]) -> None:
    with oocload.mix(make(paths), weights=[5, 3, 2]) as mixed:
        assert len(mixed) == 45  # 90 rows of the last, two a batch
        epoch = take(iter(mixed), 100)
        assert [np.bincount([s for s, _ in batch]).tolist() for batch in epoch] == [[5, 3, 2]] * 45
        rows = [pair for batch in epoch for pair in batch]
        assert len(set(rows)) == len(rows)
        assert {row for source, row in rows if source == 2} == set(range(90))
        assert any([s for s, _ in batch] != sorted(s for s, _ in batch) for batch in epoch)
        following = [pair for batch in take(iter(mixed), 100) for pair in batch]
        assert following != rows
        assert {row for source, row in following if source == 2} == set(range(90))
        assert "225 rows (50.0%) of Loader(" in repr(mixed)


def test_until_the_last_is_exhausted(paths: list[Path]) -> None:
    with oocload.mix(make(paths), until="last", batch_size=9) as mixed:
        assert len(mixed) == 100
        rows = [pair for batch in mixed for pair in pairs(batch)]
        for source, n_rows in enumerate(SIZES):
            of_source = [row for s, row in rows if s == source]
            assert len(of_source) == 300
            counts = np.bincount(of_source, minlength=n_rows)
            assert set(counts.tolist()) <= {300 // n_rows, 300 // n_rows + 1}


@pytest.mark.parametrize("until", ["first", "last"])
def test_by_batches(paths: list[Path], until: str) -> None:
    with oocload.mix(make(paths), weights=[0.5, 0.3, 0.2], by="batches", until=until) as mixed:
        turns, rows = [], []
        for batch in take(iter(mixed), 1000):
            assert len({source for source, _ in batch}) == 1
            turns.append(batch[0][0])
            rows += batch
        assert len(turns) == len(mixed)
        assert turns[:10] == [0, 1, 2, 0, 0, 1, 0, 2, 1, 0]
        if until == "first":
            assert len(set(rows)) == len(rows)
        else:
            assert set(rows) == {(s, r) for s, n in enumerate(SIZES) for r in range(n)}


@given(
    stop=st.integers(0, 120),
    by=st.sampled_from(["rows", "batches"]),
    until=st.sampled_from(["first", "last"]),
    batch_size=st.integers(7, 23),
    window_rows=st.integers(1, 200),
)
def test_resume_after_any_batch(
    paths: list[Path], stop: int, by: str, until: str, batch_size: int, window_rows: int
) -> None:
    def fresh() -> oocload.Mix:
        loaders = make(paths, batch_size, shuffle=oocload.Shuffle(window_rows=window_rows))
        return oocload.mix(loaders, weights=[3, 2, 1], by=by, until=until)

    with fresh() as mixed, fresh() as first, fresh() as second:
        stream = mixed.forever()
        whole = take(stream, 130)
        stream.close()
        stream = first.forever()
        head = take(stream, stop)
        stream.close()
        state = json.loads(json.dumps(first.state_dict()))
        second.load_state_dict(state)
        assert second.state_dict() == state
        stream = second.forever()
        assert head + take(stream, 130 - stop) == whole
        stream.close()


@pytest.mark.parametrize("by", ["rows", "batches"])
def test_any_batch_alone(paths: list[Path], by: str) -> None:
    with oocload.mix(make(paths), weights=[3, 2, 1], by=by) as mixed:
        alone = [pairs(mixed[i]) for i in (0, 3, len(mixed) - 1, -1)]
        epoch = take(iter(mixed), 1000)
        assert alone == [epoch[i] for i in (0, 3, -1, -1)]
        with pytest.raises(IndexError, match="index must be from"):
            mixed[len(mixed)]


def test_a_batch_that_is_kept_stays(paths: list[Path]) -> None:
    with oocload.mix(make(paths)) as mixed:
        with pytest.warns(KeptBatchesWarning):
            kept = list(mixed)
        copies = [(x.copy(), y["y"].copy()) for x, y in kept]
        for x, y in mixed:
            check_rows(x, y["y"])
        for (x, y), (x_before, y_before) in zip(kept, copies, strict=True):
            assert np.array_equal(x, x_before)
            assert np.array_equal(y["y"], y_before)


def test_transform(paths: list[Path]) -> None:
    with oocload.mix(make(paths), transform=lambda batch: len(batch[0])) as mixed:
        assert set(mixed) == {10}
        assert mixed[0] == 10


def test_mix_of_parts_and_ranks(paths: list[Path]) -> None:
    seen = []
    for rank in range(2):
        loaders = make(paths[:2], rank=rank, world_size=2, uneven="drop")
        with loaders[0].select(np.arange(100)) as part, oocload.mix([part, loaders[1]], [1, 1]) as mixed:
            seen += [pair for batch in mixed for pair in pairs(batch)]
        loaders[0].close()
    assert len(seen) == len(set(seen))
    assert all(row < 100 for source, row in seen if source == 0)


@pytest.mark.framework
def test_frameworks(paths: list[Path]) -> None:
    pytest.importorskip("tensorflow")
    with oocload.mix(make(paths, 12), weights=[3, 2, 1]) as mixed, oocload.mix(make(paths, 12), [3, 2, 1]) as again:
        expected = [y["y"].copy().tolist() for _, y in mixed]
        dataset = again.to_tf()
        assert int(dataset.cardinality()) == len(expected)
        assert [y["y"].numpy().tolist() for _, y in dataset] == expected
        assert again.budget.peak <= again.budget.ceiling
        following = [y["y"].copy().tolist() for _, y in mixed]
        keras_dataset = again.to_keras()
        assert [keras_dataset[i][1]["y"].copy().tolist() for i in range(len(keras_dataset))] == following


def test_state_of_another_mix(paths: list[Path], make_store: Make) -> None:
    with oocload.mix(make(paths)) as mixed:
        state = mixed.state_dict()
        for others, options in ((paths[:2], {}), (paths, {"weights": [1, 2, 3]}), (paths, {"by": "batches"})):
            with oocload.mix(make(others), **options) as other:
                with pytest.raises(
                    StateError, match="state must belong to a mix of these . loaders with these weights"
                ):
                    other.load_state_dict(state)
        with oocload.mix(make(paths, seed=6)) as other:
            with pytest.raises(
                StateError, match="loader 0 of the mix: state must belong .* seed is 5 there and 6 here"
            ):
                other.load_state_dict(state)
        with pytest.raises(StateError, match=r"state must be what state_dict\(\) of a mix returned, got NoneType"):
            mixed.load_state_dict(None)
        with pytest.raises(StateError, match="state must name a batch from 0 to"):
            mixed.load_state_dict({**state, "batch": 10**6})
        with pytest.raises(StateError, match="state must belong to a mix of these 3 loaders .* of 0 there"):
            mixed.load_state_dict({**state, "loaders": 3})


def test_a_refused_state_changes_nothing(paths: list[Path]) -> None:
    narrow = oocload.Shuffle(window_rows=40)
    with oocload.mix(make(paths)) as mixed, oocload.mix(make(paths, shuffle=narrow)) as other:
        state = other.state_dict()
        state["loaders"][2]["n_rows"] += 1
        before = [loader.window_rows for loader in mixed.loaders]
        with pytest.raises(
            StateError, match="loader 2 of the mix: state must belong .* n_rows is 91 there and 90 here"
        ):
            mixed.load_state_dict(state)
        assert [loader.window_rows for loader in mixed.loaders] == before


def test_indices_in_order_decode_each_block_once(paths: list[Path]) -> None:
    with oocload.mix(make(paths)) as mixed:
        expected = take(iter(mixed), 100)
        first = mixed.stats[0].blocks
    with oocload.mix(make(paths)) as mixed:
        assert [pairs(mixed[i]) for i in range(len(mixed))] == expected
        assert mixed.stats[0].blocks <= 2 * first


def test_a_mix_pickles(paths: list[Path]) -> None:
    with oocload.mix(make(paths), [3, 2, 1]) as mixed:
        take(iter(mixed), 5)
        with pickle.loads(pickle.dumps(mixed)) as again:
            assert take(iter(again), 100) == take(iter(mixed), 100)


@pytest.mark.framework
def test_batches_of_unlike_size_to_tensorflow(paths: list[Path]) -> None:
    pytest.importorskip("tensorflow")
    loaders = [make([path], size)[0] for path, size in zip(paths, (32, 20, 7), strict=True)]
    with oocload.mix(loaders, by="batches") as mixed:
        sizes = [len(x) for x, _ in mixed]
        assert sum(sizes) == mixed.epoch_rows
        assert [len(x) for x, _ in mixed.to_tf()] != []
        again = [len(x) for x, _ in mixed.to_tf()]
        assert sorted(again) == sorted(sizes)


def test_bad_mixes(paths: list[Path], tmp_path: Path) -> None:
    loaders = make(paths)
    other = oocload.Loader(paths[0], 10, x="x", y="y")
    narrow = tmp_path / "narrow.h5"
    with h5py.File(narrow, "w") as file:
        file["x"], file["y"], file["source"] = np.zeros((50, 3)), np.arange(50), np.arange(50)
    bad = make([narrow])[0]
    changed = oocload.Loader(paths[0], 10, x="x", y=["y", "source"], transform=len)
    cases = [
        (([],), {}, "loaders must be a list of at least one Loader"),
        (([loaders[0], loaders[0]],), {}, "loaders must differ, and one comes more than once"),
        (([loaders[0], other],), {}, r"loaders must give the same fields, and 0 gives .* but 1 \('x', 'y'\)"),
        (([loaders[0], bad],), {}, r"field 'x' must be the same in all loaders, and is uint8 .* but float64 of \(3,\)"),
        (([loaders[0], changed],), {}, r"loader 1 must have no transform; give it to mix\(transform=\)"),
        ((loaders, 0.5), {}, "weights must be a list of one number per loader, got 0.5"),
        ((loaders, ["a", 1, 2]), {}, "weights must be a list of one number per loader, got"),
        ((loaders, [1, 2]), {}, "weights must be one for each of the 3 loaders, got 2"),
        ((loaders, [1, 2, -3]), {}, r"weights must be finite and above 0, got -3\.0"),
        ((loaders,), {"by": "row"}, "by must be 'rows' or 'batches', got 'row'"),
        ((loaders,), {"until": "never"}, "until must be 'first' or 'last', got 'never'"),
        ((loaders,), {"batch_size": 1}, "batch_size must be at least 2 to have rows of each of 3 loaders"),
        ((loaders,), {"batch_size": 5, "by": "batches"}, "batch_size must not be given where by='batches'"),
        ((loaders,), {"transform": 3}, "transform must be a function of one batch, got 3"),
    ]
    for args, options, message in cases:
        with pytest.raises(InvalidArgumentError, match=message):
            oocload.mix(*args, **options)
    for loader in (*loaders, other, bad, changed):
        loader.close()
