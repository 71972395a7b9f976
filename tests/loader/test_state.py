"""Stopping anywhere and resuming continues the identical stream."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.errors import InvalidArgumentError, MemoryCeilingError, StateError

Make = Callable[..., Path]


def take(loader: oocload.Loader, n: int) -> list[int]:
    """Return the rows of the next ``n`` batches, over epochs."""
    stream = loader.forever()
    rows = [row for _, y in itertools.islice(stream, n) for row in y.tolist()]
    stream.close()
    return rows


@given(
    n_rows=st.integers(2, 200),
    chunk_rows=st.integers(1, 40),
    window_rows=st.integers(1, 220),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    data=st.data(),
)
def test_resume_after_any_batch_continues_the_stream(
    make_store: Make,
    n_rows: int,
    chunk_rows: int,
    window_rows: int,
    shuffle: bool,
    drop_last: bool,
    data: st.DataObject,
) -> None:
    path = make_store(n_rows, chunk_rows, compression="lzf")
    options = {
        "batch_size": data.draw(st.integers(1, n_rows)),
        "shuffle": oocload.Shuffle(window_rows=window_rows) if shuffle else False,
        "drop_last": drop_last,
        "seed": 9,
    }
    with oocload.Loader(path, **options) as loader:
        n_batches = len(loader)
        whole = take(loader, 5 * n_batches)
    stop = data.draw(st.integers(0, 2 * n_batches))
    with oocload.Loader(path, **options) as loader:
        head = take(loader, stop) if stop else []
        state = json.loads(json.dumps(loader.state_dict()))
    assert len(state) < 20
    with oocload.Loader(path, **options) as loader:
        loader.load_state_dict(state)
        assert loader.state_dict() == state
        rest = take(loader, 5 * n_batches - stop)
    assert head + rest == whole


def test_resume_inside_a_for_and_three_epochs_after(make_store: Make) -> None:
    path = make_store()
    with oocload.Loader(path, 40, seed=2) as loader:
        epochs = [[y.tolist() for _, y in loader] for _ in range(5)]
    for stop in range(len(epochs[0]) + 1):
        with oocload.Loader(path, 40, seed=2) as loader, oocload.Loader(path, 40, seed=2) as again:
            list(map(len, loader))
            for _ in zip(range(stop), loader, strict=False):
                pass
            again.load_state_dict(loader.state_dict())
            if stop < len(epochs[0]):
                assert [y.tolist() for _, y in again] == epochs[1][stop:]
            for number in (2, 3, 4):
                assert [y.tolist() for _, y in again] == epochs[number]


def test_state_adopts_window_and_seed(make_store: Make) -> None:
    path = make_store()
    with oocload.Loader(path, 40, shuffle=oocload.Shuffle(window_rows=130)) as loader:
        rows = take(loader, 10)
        state = loader.state_dict()
        following = take_from(path, state)
        assert following == [y.tolist() for _, y in continue_from(loader, state)]
        assert len(rows) == 400


def take_from(path: Path, state: dict[str, object]) -> list[list[int]]:
    with oocload.Loader(path, 40) as other:  # another seed, another window
        other.load_state_dict(state)
        return [y.tolist() for _, y in other]


def continue_from(loader: oocload.Loader, state: dict[str, object]) -> oocload.Loader:
    loader.load_state_dict(state)
    return loader


def test_ceiling_too_small_for_the_states_window(make_store: Make) -> None:
    path = make_store(100_000, 100)
    with oocload.Loader(path, 40, seed=0, shuffle=oocload.Shuffle(window_rows=90_000)) as loader:
        state = loader.state_dict()
    with oocload.Loader(path, 40, seed=0, memory="7 MiB") as loader:
        with pytest.raises(MemoryCeilingError, match=r"memory must be at least \d+ bytes"):
            loader.load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "seed is 3 there and 4 here"),
        ({"batch_size": 41}, "batch_size is 40 there and 41 here"),
        ({"shuffle": False}, "shuffle is True there and False here"),
        ({"drop_last": True}, "drop_last is False there and True here"),
        ({"x": "x"}, "store is '[0-9a-f]+' there and '[0-9a-f]+' here"),
    ],
)
def test_state_of_other_options(make_store: Make, change: dict[str, object], message: str) -> None:
    path = make_store()
    options = {"batch_size": 40, "seed": 3}
    with oocload.Loader(path, **options) as loader, oocload.Loader(path, **{**options, **change}) as other:
        with pytest.raises(StateError, match=f"state must belong to this store and these options, but .*{message}"):
            other.load_state_dict(loader.state_dict())


def test_state_of_another_store(make_store: Make) -> None:
    with oocload.Loader(make_store(name="a.h5"), 40, seed=0) as loader:
        state = loader.state_dict()
    with oocload.Loader(make_store(999, name="b.h5"), 40, seed=0) as other:
        with pytest.raises(StateError, match="n_rows is 1003 there and 999 here"):
            other.load_state_dict(state)


@pytest.mark.parametrize("state", [None, {}, {"epoch": 1}, 7])
def test_something_else_than_a_state(make_store: Make, state: object) -> None:
    with oocload.Loader(make_store(), 40, seed=0) as loader:
        with pytest.raises(StateError, match="state must be what state_dict"):
            loader.load_state_dict(state)


def test_position_out_of_range(make_store: Make) -> None:
    with oocload.Loader(make_store(), 40, seed=0) as loader:
        for batch in (-1, 27, "3"):
            with pytest.raises(StateError, match="state must name a batch from 0 to 26"):
                loader.load_state_dict({**loader.state_dict(), "batch": batch})


def test_golden_stream(make_store: Make) -> None:
    """The stream of a store is a promise: a change here breaks every saved state."""
    with oocload.Loader(make_store(20, 3, compression="lzf"), 6, seed=0, shuffle=oocload.Shuffle(9)) as loader:
        assert [y.tolist() for _, y in loader] == [
            [13, 14, 6, 16, 9, 17],
            [8, 12, 7, 18, 10, 4],
            [5, 15, 11, 2, 3, 19],
            [0, 1],
        ]


def test_a_batch_whose_transform_fails_was_not_delivered(make_store: Make) -> None:
    calls = []

    def transform(batch: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("no")
        return batch

    with oocload.Loader(make_store(), 40, seed=0, transform=transform) as loader:
        with pytest.raises(ValueError, match="no"):
            list(loader)
        assert loader.state_dict()["batch"] == 2


def test_an_iteration_of_before_moves_nothing(make_store: Make) -> None:
    with oocload.Loader(make_store(), 40, seed=0) as loader:
        old = iter(loader)
        next(old)
        loader.load_state_dict(loader.state_dict(epoch=4, batch=9))
        next(old)
        assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (4, 9)
        next(iter(loader))
        list(old)
        assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (4, 10)


def test_numpy_integers_in_a_state(make_store: Make) -> None:
    with oocload.Loader(make_store(), 40, seed=0, shuffle=oocload.Shuffle(window_rows=np.int64(100))) as loader:
        state = loader.state_dict(epoch=np.int64(2), batch=np.int32(3))
        loader.load_state_dict({**state, "epoch": np.int64(2), "batch": np.int32(3)})
        assert json.loads(json.dumps(loader.state_dict())) == state


@pytest.mark.parametrize(
    ("position", "message"),
    [
        ({"epoch": 1}, "epoch and batch must be given together, got 1 and None"),
        ({"epoch": 0, "batch": 27}, "batch must be from 0 to 26, got 27"),
        ({"epoch": -1, "batch": 2}, "epoch must be a whole number of at least 0, got -1"),
    ],
)
def test_state_of_no_position(make_store: Make, position: dict[str, int], message: str) -> None:
    with oocload.Loader(make_store(), 40, seed=0) as loader:
        with pytest.raises(InvalidArgumentError, match=message):
            loader.state_dict(**position)
