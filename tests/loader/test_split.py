"""Splits and selections: disjoint, complete, fixed before any shuffle."""

import gc
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload.errors import InvalidArgumentError, StateError, UnknownFieldError
from oocload.loader.rows import SplitBy
from tests.conftest import check_rows, numbered

Make = Callable[..., Path]


def rows_of(loader: oocload.Loader) -> list[int]:
    """Return the rows of one epoch, having checked their content."""
    rows = []
    for x, y in loader:
        check_rows(x, y)
        rows += y.tolist()
    return rows


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A store with labels, and identifiers as bytes, as text and as numbers."""
    path = tmp_path / "labelled.h5"
    n_rows = 600
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name, rows in numbered(n_rows).items():
            file.create_dataset(name, data=rows, chunks=(25, *rows.shape[1:]), compression="lzf")
        file["label"] = rng.choice(4, n_rows, p=[0.6, 0.3, 0.07, 0.03])
        file["name"] = np.array([f"patient-{i}" for i in range(n_rows)], "S12")
        file.create_dataset("text", data=[f"é{i}" for i in range(n_rows)], dtype=h5py.string_dtype())
        file["number"] = np.arange(n_rows) * 7 + 1000
    return path


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("by", ["blocks", "rows"])
def test_a_part_smaller_than_a_batch_is_one_batch(labelled: Path, by: SplitBy, shuffle: bool) -> None:
    with oocload.Loader(labelled, 256, x="x", y="y", shuffle=shuffle, seed=0) as loader:
        train, val = loader.split(0.9, 0.1, by=by)
        with train, val:
            assert (len(train), len(val), val.batch_size, val.n_rows, val.even) == (3, 1, 256, 60, False)
            assert "60 rows in 1 batch of 60" in repr(val)
            epochs = [rows_of(val) for _ in range(3)]
            assert all(len(epoch) == 60 and sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
            assert sorted(rows_of(train) + epochs[0]) == list(range(600))
            assert val.batch_rows(0).tolist() == val[0][1].tolist()
            state = val.state_dict()
            assert state["batch_size"] == 256
            val.load_state_dict(state)
            with val.select(sorted(epochs[0])[:2]) as two:
                assert len(rows_of(two)) == 2


def test_memory_is_that_of_the_rows_not_of_the_batch(labelled: Path) -> None:
    with oocload.Loader(labelled, 10**9, x="x", y="y", seed=0, memory="4 MiB") as loader:
        assert sorted(rows_of(loader)) == list(range(600))
        assert loader.stats.memory.peak <= loader.memory


def test_a_part_without_a_full_batch_is_refused_where_others_are_left_out(labelled: Path) -> None:
    with oocload.Loader(labelled, 256, x="x", y="y", seed=0, drop_last=True) as loader:
        message = (
            "batch_size must be at most the rows of the selection, 60, where drop_last .*; lower batch_size, or pass"
        )
        with pytest.raises(InvalidArgumentError, match=message) as error:
            loader.split(0.9, 0.1)
        assert error.value.__notes__ == ["this is part 1 of the split, of 60 rows"]
        with pytest.raises(InvalidArgumentError, match=message) as error:
            loader.split({"train": 0.9, "val": 0.1})
        assert error.value.__notes__ == ["this is part 'val' of the split, of 60 rows"]


@given(
    n_rows=st.integers(20, 300),
    chunk_rows=st.one_of(st.none(), st.integers(1, 50)),
    compression=st.sampled_from([None, "lzf"]),
    by=st.sampled_from(["blocks", "rows"]),
    shuffle=st.booleans(),
    batch_size=st.integers(1, 4),
    window_rows=st.integers(1, 100),
)
def test_parts_share_no_row_over_epochs(
    make_store: Make,
    n_rows: int,
    chunk_rows: int | None,
    compression: str | None,
    by: str,
    shuffle: bool,
    batch_size: int,
    window_rows: int,
) -> None:
    chunk_rows = chunk_rows or (10 if compression else None)
    path = make_store(n_rows, chunk_rows, **({"compression": compression} if compression else {}))
    how = oocload.Shuffle(window_rows=window_rows) if shuffle else False
    with oocload.Loader(path, batch_size, shuffle=how, seed=1) as loader:
        parts = loader.split(0.6, 0.2, 0.2, by=by)
        seen = []
        for part in parts:
            with part:
                epochs = [rows_of(part) for _ in range(5)]
            assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
            assert len(set(epochs[0])) == len(epochs[0]) == part.n_rows == part.epoch_rows
            assert shuffle or all(epoch == sorted(epoch) for epoch in epochs)
            seen += epochs[0]
        assert sorted(seen) == list(range(n_rows))


def test_reads_no_block_for_two_parts_but_at_the_borders(make_store: Make) -> None:
    with oocload.Loader(make_store(10_000, 50, compression="lzf"), 20, seed=0) as loader:
        parts = loader.split(0.7, 0.2, 0.1)
        for part in parts:
            rows_of(part)
        assert sum(p.stats.blocks for p in parts) <= 200 + 2
        for part in parts:
            part.close()


@given(data=st.data(), shuffle=st.booleans())
def test_select(make_store: Make, data: st.DataObject, shuffle: bool) -> None:
    rows = data.draw(st.lists(st.integers(0, 499), min_size=3, max_size=200, unique=True))
    mask = np.isin(np.arange(500), rows)
    with oocload.Loader(make_store(500, 12, compression="lzf"), 3, seed=4, shuffle=shuffle) as loader:
        with loader.select(rows) as listed, loader.select(mask) as marked:
            assert listed.n_rows == len(rows)
            order = rows_of(listed)
            assert sorted(order) == sorted(rows)
            assert order == rows_of(marked)
            assert [listed.batch_rows(i).tolist() for i in range(len(listed))]
            batch = data.draw(st.integers(0, len(marked) - 1))
            assert marked[batch][1].tolist() == marked.batch_rows(batch).tolist()


def test_a_small_store_is_split_by_rows(make_store: Make) -> None:
    """One block: parts by blocks would be its first rows and its last."""
    with oocload.Loader(make_store(100, None), 5, seed=0) as loader:
        train, val = loader.split(0.8, 0.2)
        with train, val:
            assert sorted(rows_of(train) + rows_of(val)) == list(range(100))
            assert min(rows_of(val)) < 50
        by_blocks = loader.split(0.8, 0.2, by="blocks")[0]
        with by_blocks:
            assert sorted(rows_of(by_blocks)) == list(range(80))


def test_select_by_label_from_a_part(labelled: Path) -> None:
    with h5py.File(labelled) as file:
        label = file["label"][:]
    with oocload.Loader(labelled, 8, x="x", y="y", seed=0) as loader:
        train, val = loader.split(0.8, 0.2, by="rows")
        with train, val, train.select(label == 0) as zeros, zeros.split(0.5, 0.5)[0] as half:
            assert set(rows_of(zeros)) == set(np.flatnonzero(label == 0)) & set(rows_of(train))
            assert set(rows_of(half)) < set(rows_of(zeros))
            with pytest.raises(InvalidArgumentError, match="rows must be among those of this loader, and row"):
                train.select(val.batch_rows(0))
            val_rows = np.isin(np.arange(600), rows_of(val))
            with pytest.raises(InvalidArgumentError, match="a mask must mark at least one row of this loader"):
                train.select(val_rows)


def test_stratified(labelled: Path) -> None:
    with oocload.Loader(labelled, 8, x=["x", "y"], y="label", seed=0) as loader:
        counts = []
        for part in loader.split(0.8, 0.1, 0.1, stratify="label"):
            with part:
                counts.append(np.bincount(np.concatenate([y.copy() for _, y in part]), minlength=4))
        total = np.sum(counts, axis=0)
        assert total.sum() == 600
        for fraction, count in zip((0.8, 0.1, 0.1), counts, strict=True):
            assert (np.abs(count - fraction * total) <= 1).all()


@pytest.mark.parametrize(
    ("field", "make"),
    [
        (None, lambda i: i),
        ("name", lambda i: f"patient-{i}"),
        ("name", lambda i: f"patient-{i}".encode()),
        ("text", lambda i: f"é{i}"),
        ("number", lambda i: i * 7 + 1000),
    ],
)
def test_the_classic_partition(labelled: Path, field: str | None, make: Callable[[int], object]) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.permutation(600)
    partition = {"train": [make(i) for i in numbers[:400].tolist()], "validation": [make(i) for i in numbers[400:550]]}
    with oocload.Loader(labelled, 16, x="x", y="y", seed=0) as loader:
        parts = loader.split(partition, ids=field)
        assert list(parts) == ["train", "validation"]
        with parts["train"] as train, parts["validation"] as validation:
            assert sorted(rows_of(train)) == sorted(numbers[:400])
            assert sorted(rows_of(validation)) == sorted(numbers[400:550])
        listed = loader.split(list(partition["train"]), list(partition["validation"]), ids=field)
        with listed[0], listed[1]:
            assert sorted(rows_of(listed[1])) == sorted(numbers[400:550])


def test_large_unsigned_identifiers_are_told_apart(tmp_path: Path) -> None:
    """As floats, which NumPy compares signed and unsigned integers as, they are the same."""
    ids = np.uint64(2**60) + np.arange(40, dtype="u8")
    with h5py.File(tmp_path / "u.h5", "w") as file:
        file["x"], file["id"] = np.arange(40), ids
    with oocload.Loader(tmp_path / "u.h5", 4, x="x", seed=0) as loader:
        parts = loader.split({"a": ids[:7].astype("i8"), "b": ids[7:].tolist()}, ids="id")
        with parts["a"] as a, parts["b"] as b:
            assert sorted(np.concatenate([x.copy() for x in a])) == list(range(7))
            assert sorted(np.concatenate([x.copy() for x in b])) == list(range(7, 40))
        with pytest.raises(InvalidArgumentError, match="part 'a': 1 of 2 ids are not in field 'id', such as -1"):
            loader.split({"a": [-1, 2**60]}, ids="id")


def test_the_store_is_open_until_its_last_loader_is_closed(make_store: Make) -> None:
    train, val = oocload.Loader(make_store(), 10, seed=0).split(0.5, 0.5)  # nobody holds the first one
    gc.collect()
    assert len(rows_of(train)) + len(rows_of(val)) == 1003
    train.close()
    assert rows_of(val)
    val.close()


def test_a_split_is_the_same_whatever_the_seed(make_store: Make) -> None:
    path = make_store()
    parts = []
    for seed in (1, 2, None):
        with oocload.Loader(path, 10, seed=seed) as loader:
            train, val = loader.split(0.5, 0.5)
            with train, val:
                parts.append(sorted(rows_of(train)))
    assert parts[0] == parts[1] == parts[2]
    with oocload.Loader(path, 10, seed=1) as loader:
        train, val = loader.split(0.5, 0.5, seed=7)
        with train, val:
            assert sorted(rows_of(train)) != parts[0]


def test_state_of_a_part(make_store: Make) -> None:
    path = make_store()
    with oocload.Loader(path, 10, seed=1) as loader:
        train, val = loader.split(0.5, 0.5)
        with train, val:
            whole = [y.tolist() for _, y in train]
            for stop in (0, 1, 17, len(whole) - 1):
                state = train.state_dict(epoch=0, batch=stop)
                with loader.split(0.5, 0.5)[0] as again:
                    again.load_state_dict(state)
                    assert [y.tolist() for _, y in again] == whole[stop:]
            for other in (val, loader):
                with pytest.raises(StateError, match="rows is '[0-9a-f]+' there and .* here"):
                    other.load_state_dict(train.state_dict())


def test_ranks_of_a_part(make_store: Make) -> None:
    path = make_store()
    seen: list[int] = []
    for rank in range(3):
        with oocload.Loader(path, 10, seed=1, rank=rank, world_size=3, uneven="drop") as loader:
            train, val = loader.split(0.5, 0.5, by="rows")
            with train, val:
                seen += rows_of(train)
    assert len(seen) == len(set(seen)) == 501


def test_a_part_pickles(make_store: Make) -> None:
    with oocload.Loader(make_store(), 10, seed=1) as loader, loader.select(np.arange(0, 1003, 3)) as part:
        with pickle.loads(pickle.dumps(part)) as again:
            assert rows_of(again) == rows_of(part)


def test_parts_keep_the_ceiling(make_store: Make) -> None:
    path = make_store(60_000, 100, compression="lzf")
    with oocload.Loader(path, 100, seed=0, memory="16 MiB") as loader:
        for part in loader.split(0.5, 0.5, by="rows"):
            with part:
                for x, y in part:
                    check_rows(x, y)
                assert part.stats.memory.peak <= 16 * 2**20
                assert part.stats.memory.parts()["selection"][0] > 60_000 // 8


def test_fractions_by_name(make_store: Make) -> None:
    with oocload.Loader(make_store(), 10, seed=0) as loader:
        parts = loader.split({"train": 0.8, "validation": 0.2})
        with parts["train"] as train, parts["validation"] as validation:
            assert sorted(rows_of(train) + rows_of(validation)) == list(range(1003))


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 stay apart."""
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"], file["y"] = np.arange(40), np.array([b"\xff", b"\xfe"] * 20, "S1")
    with oocload.Loader(tmp_path / "b.h5", 4, x=["x"], y="x", balanced="y", seed=0) as loader:
        assert all((np.bincount(x % 2) == 2).all() for _, x in loader)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: x.split(0.8, 0.2, ids="name"),
            "ids must go with lists of identifiers, got ids='name' with fractions",
        ),
        (lambda x: x.split([1], stratify="label"), "stratify must go with fractions, got stratify='label' with lists"),
        (lambda x: x.split([1], by="rows"), "by must go with fractions, got by='rows' with lists of rows"),
        (lambda x: x.split(0.8, 0.2, by="blocks", stratify="label"), "by must not be 'blocks' where stratify is given"),
        (lambda x: x.split([0.8, 0.2]), r"part 0 must be a list of row numbers, .* give fractions one by one"),
        (
            lambda x: x.split([range(80), range(80, 600)]),
            r"part 0 must be a list of row numbers or identifiers, got \[range\(0, 80\), .* give parts one by one",
        ),
        (lambda x: x.split([1], None), "part 1 must be a list of row numbers or identifiers, got None"),
        (lambda x: x.split({"a": None}, ids="name"), "part 'a' must be a list of row numbers or identifiers, got None"),
        (lambda x: x.split({"a": "patient-1"}, ids="name"), "parts must be fractions, or lists of rows, or one dict"),
        (
            lambda x: x.split({"a": ["patient-1"] * 2}, ids="name"),
            "part 'a': ids must differ, and 'patient-1' comes more",
        ),
        (lambda x: x.split(0.8, 0.3), r"fractions must not exceed 1 together, got 0\.8 \+ 0\.3 = 1\.1"),
        (lambda x: x.split(0.5, 0.5, by="chunks"), "by must be 'blocks' or 'rows', got 'chunks'"),
        (
            lambda x: x.split(0.9, 0.1, stratify="y"),
            "of which every class has a row for each of the 2 parts, and class 0 of 'y'",
        ),
        (lambda x: x.split(0.9, 0.1, stratify="x"), r"stratify must be a field of one value for each of the 600 rows"),
        (lambda x: x.split(), "split must name at least one part, got none"),
        (lambda x: x.split({}), "split must name at least one part, got none"),
        (lambda x: x.split(0.5, [1, 2]), r"parts must be fractions, or lists of rows, or one dict of those, got"),
        (lambda x: x.split({"a": [1, 2], "b": [2, 3]}), "parts must share no row, and row 2 is in 'a' and 'b'"),
        (lambda x: x.split({"a": [1, 1]}), "part 'a': rows must differ, and row 1 comes more than once"),
        (lambda x: x.split({"a": [600]}), "part 'a': rows must be from 0 to 599, got 600"),
        (lambda x: x.split({"a": []}), "part 'a': rows must be at least one, got none"),
        (lambda x: x.split({"a": [0.5]}), r"part 'a' must be a list of row numbers, got float64 of shape \(1,\)"),
        (lambda x: x.split({"a": ["p-1"]}), "part 'a' must be a list of row numbers, .* name the field .* with ids="),
        (
            lambda x: x.split({"a": ["patient-1", "patient-x"]}, ids="name"),
            "part 'a': 1 of 2 ids are not in field 'name', such as 'patient-x'",
        ),
        (lambda x: x.split({"a": ["1"]}, ids="number"), "part 'a': field 'number' lists int64, got <U1"),
        (lambda x: x.split({"a": [0]}, ids="label"), "part 'a': id 0 is listed at more than one row of field 'label'"),
        (lambda x: x.select([1, 2, 2]), "rows must differ, and row 2 comes more than once"),
        (lambda x: x.select([True, False]), r"a mask must have one flag for each of the 600 rows of the store, got"),
    ],
)
def test_bad_parts(labelled: Path, call: Callable[[oocload.Loader], object], message: str) -> None:
    with oocload.Loader(labelled, 8, x="x", y="y", seed=0) as loader:
        with pytest.raises(InvalidArgumentError, match=message):
            call(loader)
        assert len(rows_of(loader)) == 600


def test_unknown_id_field(labelled: Path) -> None:
    with oocload.Loader(labelled, 8, x="x", y="y", seed=0) as loader:
        with pytest.raises(UnknownFieldError, match="nope"):
            loader.split({"a": [1]}, ids="nope")
