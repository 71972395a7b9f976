"""Ragged and sparse rows: padded, as values and offsets, dense and as CSR, against the slow and obvious way."""

import gc
import json
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import oocload
from oocload import Loader, Pad, Ragged
from tests.loader.ragged_stores import RaggedRows, padded, write_csr, write_ragged

LENGTHS = st.one_of(
    st.lists(st.integers(0, 12), min_size=1, max_size=90),
    st.builds(lambda n, length: [length] * n, st.integers(1, 60), st.integers(0, 9)),  # all equal
    st.builds(lambda n, at: [2] * at + [3000] + [1] * n, st.integers(0, 40), st.integers(0, 40)),  # one huge
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ragged")


@pytest.fixture(scope="module")
def rows() -> RaggedRows:
    return RaggedRows.of(np.random.default_rng(5).integers(0, 40, 3000))


@pytest.fixture(scope="module")
def store(folder: Path, rows: RaggedRows) -> Path:
    return write_ragged(folder / "rows.h5", {"x": rows, "y": np.arange(len(rows))}, chunk=2000)


def batches(loader: Any) -> Iterator[tuple[Any, Any]]:
    """Yield batches of an epoch, each row of which must come once, and close."""
    seen = []
    with loader:
        for x, y in loader:
            seen.append(y.copy())
            yield x, y
            del x
    assert sorted(np.concatenate(seen).tolist()) == list(range(loader.n_rows))


@settings(max_examples=40, deadline=None)
@given(
    lengths=LENGTHS,
    dtype=st.sampled_from(["int32", "uint8", "float32", "float64", ">i2"]),
    item_shape=st.sampled_from([(), (3,), (1, 2)]),
    chunk=st.integers(1, 400),
    gzip=st.booleans(),
    suffix=st.sampled_from([".h5", ".zarr"]),
    batch_size=st.integers(1, 20),
    shuffle=st.booleans(),
    pad=st.builds(
        Pad,
        maxlen=st.none() | st.integers(1, 20),
        padding=st.sampled_from(["pre", "post"]),
        truncating=st.sampled_from(["pre", "post"]),
        value=st.sampled_from([0, 7]),
        beside=st.sampled_from([None, "lengths", "mask"]),
    )
    | st.builds(Pad, maxlen=st.integers(1, 20), static=st.just(False))
    | st.just("values"),
)
def test_rows_are_those_of_the_obvious_way(
    folder: Path, lengths: list[int], dtype: str, item_shape: tuple[int, ...], chunk: int, gzip: bool, suffix: str,
    batch_size: int, shuffle: bool, pad: Any,
) -> None:  # fmt: skip
    rows = RaggedRows.of(lengths, dtype, item_shape)
    path = write_ragged(folder / f"drawn{suffix}", {"x": rows, "y": np.arange(len(rows))}, chunk, 7, gzip)
    batch_size = min(batch_size, len(rows))
    loader = Loader(path, batch_size, shuffle=shuffle, seed=1, ragged=pad, threads=2)
    for x, y in batches(loader):
        expected = rows.rows(y)
        if isinstance(x, Ragged):
            assert x.values.dtype == rows.values.dtype.newbyteorder("=")
            np.testing.assert_array_equal(x.offsets, np.concatenate([[0], np.cumsum([len(r) for r in expected])]))
            np.testing.assert_array_equal(x.values, np.concatenate(expected))
            continue
        beside = None
        if pad.beside:
            assert set(x) == {"x", f"x_{pad.beside}"}
            beside, x = x[f"x_{pad.beside}"], x["x"]
        kept = [min(len(r), pad.maxlen or len(r)) for r in expected]
        width = pad.maxlen if pad.static else max(1, *kept, 0)
        assert x.shape == (len(y), width, *item_shape)
        np.testing.assert_array_equal(x, padded(expected, width, pad, rows.values.dtype, item_shape))
        if pad.beside == "lengths":
            np.testing.assert_array_equal(beside, kept)
        if pad.beside == "mask":
            places = np.arange(width)
            mask = [places >= width - k if pad.padding == "pre" else places < k for k in kept]
            np.testing.assert_array_equal(beside, mask)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 80), st.integers(1, 30)),
    density=st.floats(0, 1),
    dtype=st.sampled_from(["float32", "int64", "uint8", "float64"]),
    chunk=st.integers(1, 300),
    suffix=st.sampled_from([".h5ad", ".zarr"]),
    as_sparse=st.booleans(),
    shuffle=st.booleans(),
    batch_size=st.integers(1, 12),
)
def test_sparse_rows_are_those_of_scipy(
    folder: Path, shape: tuple[int, int], density: float, dtype: str, chunk: int, suffix: str, as_sparse: bool,
    shuffle: bool, batch_size: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(0)
    dense = np.where(rng.random(shape) < density, rng.integers(1, 100, shape), 0).astype(dtype)
    matrix = sparse.csr_matrix(dense)
    path = write_csr(folder / f"matrix{suffix}", matrix, chunk=chunk, y=np.arange(shape[0]))
    loader = Loader(path, min(batch_size, shape[0]), x="X", y="y", seed=2, shuffle=shuffle, sparse=as_sparse)
    for x, y in batches(loader):
        assert sparse.issparse(x) == as_sparse
        assert x.dtype == dtype
        np.testing.assert_array_equal(x.toarray() if as_sparse else x, dense[y])


def test_items_of_one_place_are_summed_as_scipy_does(folder: Path) -> None:
    matrix = sparse.csr_matrix((np.array([1.0, 2, 4, 8]), np.array([3, 1, 3, 0]), np.array([0, 3, 4])), shape=(2, 5))
    path = write_csr(folder / "summed.h5ad", matrix)
    with Loader(path, 2, x="X", shuffle=False) as loader:
        (x,) = loader
        np.testing.assert_array_equal(x, matrix.toarray())


def test_padding_is_that_of_keras(store: Path, rows: RaggedRows) -> None:
    keras = pytest.importorskip("keras")
    for padding in ("pre", "post"):
        for truncating in ("pre", "post"):
            pad = Pad(15, padding=padding, truncating=truncating, value=9)  # type: ignore[arg-type]
            for x, y in batches(Loader(store, 100, seed=0, ragged=pad)):
                lists = [row.tolist() for row in rows.rows(y)]
                expected = keras.utils.pad_sequences(
                    lists, maxlen=15, dtype="int32", padding=padding, truncating=truncating, value=9
                )
                np.testing.assert_array_equal(x, expected)


def test_vlen_rows_are_padded_too(folder: Path) -> None:
    path = folder / "vlen.h5"
    rows = RaggedRows.of([3, 0, 5, 1] * 50, "float32")
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", (len(rows),), h5py.vlen_dtype("float32"))
        for number in range(len(rows)):
            dataset[number] = rows.row(number)
        file["text"] = ["ham", "spam!"] * 100
        file["y"] = np.arange(len(rows))
    for rule in (Pad(4, padding="pre"), Pad(beside="lengths"), "values"):
        for x, y in batches(Loader(path, 32, x="x", y="y", seed=0, ragged=rule)):
            expected = rows.rows(y)
            if isinstance(x, Ragged):
                np.testing.assert_array_equal(x.values, np.concatenate(expected))
            elif isinstance(x, dict):
                np.testing.assert_array_equal(x["x"], padded(expected, 5, rule, "float32"))
                np.testing.assert_array_equal(x["x_lengths"], [len(r) for r in expected])
            else:
                np.testing.assert_array_equal(x, padded(expected, 4, rule, "float32"))
    with Loader(path, 32, x=["x", "text"], y="y", seed=0, ragged=Pad(4)) as loader:
        x, y = next(iter(loader))
        assert x["text"].tolist() == [b"spam!" if n % 2 else b"ham" for n in y]
    with wrong("value of the padding must be one that field 'x' of dtype float32 holds, got 'none'"):
        Loader(path, 32, x="x", ragged=Pad(4, value="none"))


def fingerprint(batch: Any) -> Any:
    """Return what two equal batches have in common."""
    if isinstance(batch, dict):
        return {name: fingerprint(array) for name, array in batch.items()}
    if isinstance(batch, tuple):
        return tuple(fingerprint(array) for array in batch)
    return batch.tobytes(), batch.shape


RULES = [Pad(12), Pad(beside="mask"), "values"]


@pytest.mark.parametrize(
    ("rule", "bucket"), [(Pad(12), False), *((rule, b) for rule in RULES[1:] for b in (False, True))]
)
def test_a_state_goes_on_at_the_very_batch(store: Path, rule: Any, bucket: bool) -> None:
    options: dict[str, Any] = {
        "seed": 4, "ragged": rule, "bucket_by_length": bucket, "shuffle": oocload.Shuffle(window_rows=400)
    }  # fmt: skip
    with Loader(store, 64, **options) as loader:
        stream = [fingerprint(batch) for _ in range(2) for batch in loader]
        assert len({y for _, y in stream}) == len(stream)
        for at in range(0, len(loader), 5):
            with Loader(store, 64, **options) as other:
                for number, _ in enumerate(other):
                    if number == at:
                        break
                state = json.loads(json.dumps(other.state_dict()))
            with Loader(store, 64, **options) as resumed:
                resumed.load_state_dict(state)
                rest = [fingerprint(b) for b in resumed] + [fingerprint(b) for b in resumed]
                assert rest == stream[at + 1 :]
        copied = pickle.loads(pickle.dumps(loader))
        loader.load_state_dict({**loader.state_dict(), "epoch": 0, "batch": 0})
        assert [fingerprint(loader[i]) for i in range(len(loader))] == stream[: len(loader)]
        for number, (_, y) in enumerate(loader):
            np.testing.assert_array_equal(y, loader.batch_rows(number))
        copied.close()


def test_a_state_of_other_buckets_is_refused(store: Path) -> None:
    with Loader(store, 64, seed=0, ragged=Pad(), bucket_by_length=True) as loader:
        state = loader.state_dict()
    with Loader(store, 64, seed=0, ragged=Pad()) as plain, pytest.raises(oocload.StateError, match="bucket_by_length"):
        plain.load_state_dict(state)
    with Loader(store, 64, seed=0, ragged=Pad()) as plain:
        state = plain.state_dict()
    with Loader(store, 64, seed=0, ragged=Pad(5)) as plain:
        with pytest.raises(oocload.StateError, match="assembled is"):
            plain.load_state_dict(state)
        state = plain.state_dict()
        del state["bucket_by_length"], state["assembled"]  # as it was before there were any
        plain.load_state_dict(state)


@pytest.mark.parametrize("rule", RULES)
def test_ranks_and_parts_are_disjoint_and_complete(store: Path, rows: RaggedRows, rule: Any) -> None:
    seen: list[int] = []
    for rank in range(3):
        with Loader(store, 50, seed=0, rank=rank, world_size=3, uneven="drop", ragged=rule) as loader:
            seen += [n for _, y in loader for n in y.tolist()]
    assert sorted(seen) == list(range(len(rows)))
    for by in ("blocks", "rows"):
        with Loader(store, 16, seed=0, ragged=rule) as whole:
            parts = whole.split(0.7, 0.3, by=by)  # type: ignore[call-overload]
            seen = []
            for part in parts:
                for x, y in part:
                    seen += y.tolist()
                    if isinstance(x, Ragged):
                        np.testing.assert_array_equal(x.values, np.concatenate(rows.rows(y)))
                part.close()
            assert sorted(seen) == list(range(len(rows)))


@pytest.mark.filterwarnings("ignore::oocload.errors.ShuffleQualityWarning")
@pytest.mark.parametrize("rule", [Pad(), "values"])
@pytest.mark.parametrize(("uneven", "streams"), [("pad", 2), ("drop", 4), ("pad", 6)])
def test_streams_that_share_a_block_have_room_for_all_of_it(folder: Path, rule: Any, uneven: Any, streams: int) -> None:
    some = RaggedRows.of(np.arange(75) % 9)
    path = write_ragged(folder / "one_block.h5", {"x": some, "y": np.arange(75)}, chunk=10)
    shuffle = oocload.Shuffle(streams=streams)
    found = []
    for rank in range(2):
        share: Any = {"rank": rank, "world_size": 2, "uneven": uneven, "shuffle": shuffle}
        with Loader(path, streams, seed=1, ragged=rule, **share) as least:
            memory = least.min_memory()
        with Loader(path, streams, seed=1, ragged=rule, memory=memory, **share) as loader:
            for x, y in loader:
                found.append(y.copy())
                for i, row in enumerate(some.rows(y)):
                    got = x.values[x.offsets[i] : x.offsets[i + 1]] if isinstance(x, Ragged) else x[i, : len(row)]
                    np.testing.assert_array_equal(got, row)
            del x, y
            assert loader.stats.memory.peak <= memory
    assert len(np.unique(np.concatenate(found))) == (75 if uneven == "pad" else 75 - 75 % streams)


def test_files_join(folder: Path, rows: RaggedRows) -> None:
    half = len(rows) // 2
    cut = int(rows.offsets[half])
    first = RaggedRows(rows.values[:cut], rows.offsets[: half + 1])
    second = RaggedRows(rows.values[cut:], rows.offsets[half:] - cut)
    paths = [
        write_ragged(folder / "part-1.h5", {"x": first, "y": np.arange(half)}),
        write_ragged(folder / "part-2.zarr", {"x": second, "y": np.arange(half, len(rows))}, chunk=300),
    ]
    for rule in RULES:
        for x, y in batches(Loader(paths, 64, seed=0, ragged=rule)):
            if isinstance(x, Ragged):
                np.testing.assert_array_equal(x.values, np.concatenate(rows.rows(y)))


def test_drawn_rows_are_padded(store: Path, rows: RaggedRows) -> None:
    weights = np.where(np.arange(len(rows)) < 100, 50.0, 1.0)
    with Loader(store, 64, seed=0, weights=weights, ragged=Pad(9)) as loader:
        for x, y in loader:
            np.testing.assert_array_equal(x, padded(rows.rows(y), 9, Pad(9), "int32"))
    with pytest.raises(oocload.InvalidArgumentError, match=r"ragged must pad to one length where weights"):
        Loader(store, 64, seed=0, weights=weights, ragged=Pad())


# Memory


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("lengths", ["sorted", "one huge", "many empty"])
@pytest.mark.filterwarnings("ignore::oocload.ShuffleQualityWarning")  # with the smallest window there is
def test_the_ceiling_holds_whatever_the_lengths(folder: Path, rule: Any, lengths: str) -> None:
    rng = np.random.default_rng(0)
    of = {
        "sorted": np.sort(rng.integers(0, 2000, 4000)),
        "one huge": np.where(np.arange(4000) == 1234, 500_000, 300),
        "many empty": np.where(rng.random(60_000) < 0.02, 2000, 0),
    }[lengths]
    rows = RaggedRows.of(of)
    path = write_ragged(folder / "ceiling.h5", {"x": rows, "y": np.arange(len(rows))}, chunk=16384, offsets_chunk=2000)
    with Loader(path, 8, seed=0, ragged=rule, memory="4 GiB") as loader:
        least = loader.min_memory()
    for memory in (least, 2 * least):
        with Loader(path, 8, seed=0, ragged=rule, memory=memory, threads=2) as loader:
            n_rows = 0
            for x, y in loader:
                n_rows += len(y)
                del x, y
            assert n_rows == len(rows)
            assert loader.stats.memory.peak <= memory
        gc.collect()


@pytest.mark.filterwarnings("ignore::oocload.errors.ShuffleQualityWarning")
@pytest.mark.parametrize("rule", [Pad(8), Pad(), "values"])
def test_ragged_targets_are_no_labels(folder: Path, rule: Any) -> None:
    some = RaggedRows.of(np.arange(400) % 9)
    path = write_ragged(folder / "targets.h5", {"x": np.arange(400), "y": some}, chunk=10)
    with Loader(path, 10, seed=0, ragged=rule, shuffle=oocload.Shuffle(window_rows=50)) as loader:
        assert sum(len(x) for x, _ in loader) == 400
        assert loader.shuffle_quality().label_entropy is None


@pytest.mark.filterwarnings("ignore::oocload.errors.ShuffleQualityWarning")
def test_small_ragged_rows_beside_large_ones_are_read(folder: Path) -> None:
    some = RaggedRows.of(np.full(400, 25), "uint8")
    path = write_ragged(folder / "beside.h5", {"t": some}, chunk=1)
    with h5py.File(path, "a") as file:
        file.create_dataset("x", data=np.zeros((400, 900), "uint8"), chunks=(30, 900), compression="gzip")
    with Loader(path, 20, seed=0, x="x", y="t") as least:
        memory = least.min_memory()
    with Loader(path, 20, seed=0, x="x", y="t", memory=memory) as loader:
        assert loader.stats.paths["t"] == "direct"
        assert sum(t.n_rows for _, t in loader) == 400
        assert loader.stats.memory.peak <= memory


def test_bytes_bound_a_window(folder: Path) -> None:
    short, long = RaggedRows.of([10] * 4000), RaggedRows.of([1000] * 4000)
    windows = []
    for rows in (short, long):
        path = write_ragged(folder / "window.h5", {"x": rows}, chunk=2000)
        with Loader(path, 16, x="x", seed=0, memory="12 MiB") as loader:
            windows.append(loader.window_rows)
    assert windows[0] == len(short)
    assert windows[1] < len(long) / 2


# Rows of like length


def test_buckets_make_padding_small(store: Path, rows: RaggedRows) -> None:
    shares = {}
    for bucket in (False, True):
        loader = Loader(store, 50, seed=0, ragged=Pad(), bucket_by_length=bucket)
        orders = []
        for x, y in batches(loader):
            np.testing.assert_array_equal(x, padded(rows.rows(y), x.shape[1], Pad(), "int32"))
            orders.append(x.shape[1])
        shares[bucket] = loader.stats.padded_share
        assert f"padding is {shares[bucket]:.1%}" in repr(loader.stats)
        lengths = np.diff(rows.offsets)
        assert loader.stats.padded.items == lengths.sum()
        assert orders != sorted(orders)
    assert shares[True] < 0.1 < 0.3 < shares[False]


def test_epochs_have_other_batches_of_like_length(store: Path) -> None:
    with Loader(
        store, 50, seed=0, ragged=Pad(), bucket_by_length="x", shuffle=oocload.Shuffle(window_rows=600)
    ) as loader:
        first, second = ({frozenset(y.tolist()) for _, y in loader} for _ in range(2))
        assert not first & second


# What is wrong


def wrong(match: str, error: Any = oocload.InvalidArgumentError) -> Any:
    return pytest.raises(error, match=match)


def test_wrong_arguments(store: Path) -> None:
    with wrong("maxlen must be a whole number of at least 1, got 0"):
        Pad(0)
    with wrong("padding must be 'pre' or 'post', got 'left'"):
        Pad(5, padding="left")  # type: ignore[arg-type]
    with wrong("truncating must be 'pre' or 'post'"):
        Pad(5, truncating=None)  # type: ignore[arg-type]
    with wrong("beside must be 'lengths', 'mask' or None"):
        Pad(5, beside="len")  # type: ignore[arg-type]
    with wrong("maxlen must be given where static is True"):
        Pad(static=True)
    with wrong("value must be one number"):
        Pad(5, value=[1, 2])
    with wrong(r"value of the padding must be one that field 'x' of dtype int32 holds, got 0.5"):
        Loader(store, 8, ragged=Pad(5, value=0.5))
    with wrong(r"ragged must be oocload.Pad\(...\), 'values'"):
        Loader(store, 8, ragged="pad")  # type: ignore[arg-type]
    with wrong("ragged must name fields of a batch that are ragged, 'x'; got 'y'"):
        Loader(store, 8, ragged={"y": Pad(3)})
    with wrong("ragged must be left out where no field is ragged"):
        Loader(store, 8, x="y", ragged=Pad(3))
    with wrong("sparse must be False where no field is a sparse matrix"):
        Loader(store, 8, sparse=True)
    with wrong("bucket_by_length must name a ragged field that is not padded to one length"):
        Loader(store, 8, ragged=Pad(7), bucket_by_length=True)
    with wrong("bucket_by_length must be False where shuffle is"):
        Loader(store, 8, ragged=Pad(), shuffle=False, bucket_by_length=True)
    with wrong("bucket_by_length must be True, False or the name of a field"):
        Loader(store, 8, ragged=Pad(), bucket_by_length=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("at", "value", "told"),
    [
        (50, 10**6, "row 49: offsets must not decrease, nor point past the"),
        (50, 0, "row 49: offsets must not decrease"),
    ],
)
@pytest.mark.parametrize("rule", RULES)
def test_damaged_offsets_come_at_their_batch(folder: Path, at: int, value: int, told: str, rule: Any) -> None:
    rows = RaggedRows.of([4] * 120)
    rows.offsets = rows.offsets.copy()
    rows.offsets[at] = value
    path = write_ragged(folder / "damaged.h5", {"x": rows, "y": np.arange(120)}, chunk=8, gzip=False)
    with Loader(path, 10, shuffle=oocload.Shuffle(window_rows=1), seed=0, ragged=rule) as loader:
        with wrong(rf"damaged.h5, field 'x', {told}", oocload.ChunkError):
            list(loader)


def test_columns_beyond_the_matrix_are_told(folder: Path) -> None:
    matrix = sparse.csr_matrix(np.eye(30, dtype="float32"))
    matrix.indices[7] = 31
    path = write_csr(folder / "columns.h5ad", matrix)
    for as_sparse in (False, True):
        with Loader(path, 4, x="X", shuffle=False, sparse=as_sparse) as loader:
            with wrong(r"field 'X', row 7: columns must be from 0 to 29, got 31", oocload.ChunkError):
                list(loader)


def test_a_row_beyond_the_ceiling_is_told(folder: Path) -> None:
    path = write_ragged(folder / "huge.h5", {"x": RaggedRows.of([3] * 50 + [2_000_000] + [3] * 50)}, chunk=16384)
    with wrong(
        r"longest row of field 'x' has 2,000,000 items \(7.6 MiB\), and a batch with it", oocload.MemoryCeilingError
    ) as told:
        Loader(path, 4, x="x", memory="6 MiB", ragged=Pad())
    least = int(str(told.value).split("at least ")[1].split(" bytes")[0])
    with Loader(path, 4, x="x", memory=least, ragged=Pad()) as loader:
        assert max(x.shape[1] for x in loader) == 2_000_000
    with Loader(path, 4, x="x", memory="6 MiB", ragged=Pad(maxlen=10)) as loader:
        assert sum(len(x) for x in loader) == 101


def test_truncated_rows_are_not_read_whole(folder: Path) -> None:
    rows = RaggedRows.of([7] * 300 + [2_000_000] + [9] * 300)
    path = write_ragged(folder / "long.h5", {"x": rows, "y": np.arange(601)}, chunk=16384)
    for pad in (Pad(20, static=False), Pad(20, truncating="pre", static=False)):
        loader = Loader(path, 32, seed=0, ragged=pad, memory="6 MiB")
        for x, y in batches(loader):
            np.testing.assert_array_equal(x, padded(rows.rows(y), x.shape[1], pad, "int32"))
        assert loader.stats.memory.peak <= loader.memory


@pytest.mark.parametrize("bucket", [False, True])
def test_what_planning_takes_is_in_the_ceiling(folder: Path, bucket: bool) -> None:
    rows = RaggedRows.of(np.ones(150_000, np.int64), "uint8")
    path = write_ragged(folder / "many.h5", {"x": rows}, chunk=65536, offsets_chunk=150_001)
    options: dict[str, Any] = {"x": "x", "seed": 0, "ragged": Pad(), "bucket_by_length": bucket}
    with Loader(path, 64, **options) as loader:
        least = loader.min_memory()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        loader = Loader(path, 64, memory=least, threads=1, **options)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    loader.close()
    assert peak <= least + 512 * 1024  # Python's own objects


def test_halves_have_no_sparse_arrays(folder: Path) -> None:
    matrix = sparse.csr_matrix(np.eye(5, dtype="float32"))
    matrix.data = matrix.data.astype("float16")
    path = write_csr(folder / "halves.h5ad", matrix)
    with wrong("sparse must be False for field 'X' of float16"):
        Loader(path, 2, x="X", sparse=True)
    with Loader(path, 5, x="X", shuffle=False) as loader:
        np.testing.assert_array_equal(next(iter(loader)), np.eye(5))
