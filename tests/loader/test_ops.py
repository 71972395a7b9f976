"""Fields with operations through the loader: the rows of NumPy, by every way to a slab."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import oocload
from oocload import ops
from oocload.errors import InvalidArgumentError
from tests.conftest import check_rows

N_ROWS = 203
MEAN, STD = [100.0, 120.0, 130.0], [50.0, 60.0, 70.0]
OPS = {
    "x": [ops.crop(6, 4, left=0), ops.normalize(MEAN, STD), ops.transpose("channels_first")],
    "y": ops.one_hot(7),
}
WAYS: dict[str, dict[str, Any]] = {
    "chunks": {"chunks": (13, 8, 6, 3)},
    "gzip": {"chunks": (13, 8, 6, 3), "compression": "gzip", "shuffle": True},
    "cut": {"chunks": (13, 3, 6, 2), "compression": "lzf"},
    "contiguous": {},
    "by the library": {"chunks": (13, 8, 6, 3), "compression": "szip"},
    "compact": {"compact": True},
}
HOW: dict[str, dict[str, Any]] = {
    "in order": {"shuffle": False},
    "shuffled": {"shuffle": oocload.Shuffle(window_rows=60)},
    "one window": {"shuffle": True},
    "weights": {"weights": "w"},
    "balanced": {"balanced": "y", "batch_size": 14},
    "a rank of two": {"rank": 1, "world_size": 2},
}


def images(dtype: str = "u1") -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).integers(0, 256, (N_ROWS, 8, 6, 3)).astype(dtype)
    return x, np.arange(N_ROWS) % 7


def write(path: Path, dtype: str = "u1", compact: bool = False, **options: Any) -> Path:
    x, y = images(dtype)
    with h5py.File(path, "w") as file:
        if compact:
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple(x.shape)
            h5py.h5d.create(file.id, b"x", h5py.h5t.py_create(x.dtype), space, properties).write(space, space, x)
        else:
            file.create_dataset("x", data=x, **options)
        file.create_dataset("y", data=y, chunks=(50,), compression="gzip")
        file.create_dataset("w", data=1.0 + np.arange(N_ROWS) % 3)
    return path


def expected(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what `OPS` make of rows, by plain NumPy in float64."""
    rows = (x[:, 1:7, :4].astype("f8") - MEAN) / STD
    return rows.transpose(0, 3, 1, 2), np.eye(7)[y]


def check(loader: oocload.Loader, batches: Any) -> None:
    x, y = images()
    for number, (got_x, got_y) in enumerate(batches):
        rows = loader.batch_rows(number)
        want_x, want_y = expected(x[rows], y[rows])
        assert (got_x.dtype, got_y.dtype) == (np.float32, np.float32)
        np.testing.assert_allclose(got_x, want_x, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(got_y, want_y)


@pytest.mark.parametrize("how", list(HOW.values()), ids=list(HOW))
@pytest.mark.parametrize("way", [w for w in WAYS if w != "compact"])
def test_every_way_to_a_slab(tmp_path: Path, way: str, how: dict[str, Any]) -> None:
    path = write(tmp_path / "t.h5", **WAYS[way])
    with oocload.Loader(path, **{"batch_size": 20, "seed": 1, "x": "x", "y": "y", "ops": OPS, **how}) as loader:
        epoch = loader.epoch
        got = [(x.copy(), y.copy()) for x, y in loader]
        loader.go_to(epoch, 0)
        check(loader, got)
        check(loader, [loader[i] for i in range(len(loader))])
        assert loader.fields["x"].shape == (N_ROWS, 3, 6, 4)
        assert loader.fields["y"].dtype == np.float32
        assert loader.stats.memory.peak <= loader.memory


def test_rows_in_the_metadata(tmp_path: Path) -> None:
    path = write(tmp_path / "t.h5", **WAYS["compact"])
    with oocload.Loader(path, 20, seed=1, x="x", y="y", ops=OPS) as loader:
        check(loader, [loader[i] for i in range(len(loader))])


@pytest.mark.parametrize("dtype", ["<u2", ">i4", ">f4", "<f8", "<i8", "<f2"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_byte_order(tmp_path: Path, dtype: str, shuffle: bool) -> None:
    path = write(tmp_path / "t.h5", dtype, chunks=(13, 8, 6, 3), compression="lzf")
    with oocload.Loader(path, 20, seed=1, x="x", y="y", shuffle=shuffle, ops=OPS) as loader:
        check(loader, [loader[i] for i in range(len(loader))])


@pytest.mark.parametrize("format", ["h5", "zarr"])
def test_chunks_that_were_never_written(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"t.{format}"
    file: Any = h5py.File(path, "w") if format == "h5" else zarr.open_group(path, mode="w")
    fill = {"fillvalue": 9} if format == "h5" else {"fill_value": 9}
    x = (
        file.create_dataset("x", shape=(N_ROWS, 8, 6, 3), chunks=(13, 8, 6, 3), dtype="u1", **fill)
        if format == "h5"
        else file.create_array("x", shape=(N_ROWS, 8, 6, 3), chunks=(13, 8, 6, 3), dtype="u1", **fill)
    )
    x[20:60] = images()[0][20:60]
    values = np.asarray(x[...])
    if format == "h5":
        file.close()
    for shuffle in (True, False):
        with oocload.Loader(path, 50, seed=1, x="x", shuffle=shuffle, ops={"x": OPS["x"]}) as loader:
            for number in range(len(loader)):
                want, _ = expected(values[loader.batch_rows(number)], np.zeros(1, int))
                np.testing.assert_allclose(loader[number], want, rtol=1e-5, atol=1e-6)


def test_joined_stores(tmp_path: Path) -> None:
    x, y = images()
    paths = []
    for number, part in enumerate((slice(0, 90), slice(90, None))):
        paths.append(tmp_path / f"{number}.h5")
        with h5py.File(paths[-1], "w") as file:
            file.create_dataset("x", data=x[part], chunks=(13, 8, 6, 3), compression=("gzip", None)[number])
            file.create_dataset("y", data=y[part])
    with oocload.Loader(paths, 20, seed=1, ops=OPS) as loader:
        check(loader, [loader[i] for i in range(len(loader))])


def test_the_same_bits_whatever_the_order_threads_and_store(tmp_path: Path) -> None:
    found = []
    for number, (way, how) in enumerate((w, h) for w in ("gzip", "contiguous", "cut") for h in (False, True)):
        path = write(tmp_path / f"{number}.h5", **WAYS[way])
        for threads in (1, 3):
            with oocload.Loader(path, 20, seed=1, x="x", shuffle=how, threads=threads, ops={"x": OPS["x"]}) as loader:
                rows = np.empty((N_ROWS, 3, 6, 4), "f4")
                for i in range(len(loader)):
                    rows[loader.batch_rows(i)] = loader[i]
                found.append(rows.tobytes())
    assert len(set(found)) == 1


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"compression": None}, {"chunk_rows": None}])
def test_order_and_state_are_those_without(make_store: Callable[..., Path], options: dict[str, Any]) -> None:
    path = make_store(3000, **options)
    makes = {"x": ops.cast("float64"), "y": ops.scale(1.0, dtype="float64")}
    with oocload.Loader(path, 64, seed=3) as plain, oocload.Loader(path, 64, seed=3, ops=makes) as loader:
        assert loader.state_dict() == plain.state_dict()
        assert loader.window_rows == plain.window_rows
        for (x, y), (made_x, made_y) in zip(plain, loader, strict=True):
            assert made_x.dtype == made_y.dtype == np.float64
            np.testing.assert_array_equal(x, made_x)
            np.testing.assert_array_equal(y, made_y)
        next(iter(plain))
        loader.load_state_dict(json.loads(json.dumps(plain.state_dict())))
        x, y = next(iter(loader))
        check_rows(x.astype("u1"), y.astype(int))
        assert loader.stats.amplification < 2


def test_parts_copies_and_mixes(tmp_path: Path) -> None:
    path = write(tmp_path / "t.h5", **WAYS["gzip"])
    with oocload.Loader(path, 20, seed=1, x="x", y="y", ops=OPS) as loader:
        for part in loader.split(0.3, 0.7, by="rows"):
            check(part, [part[i] for i in range(len(part))])
            part.close()
        with pickle.loads(pickle.dumps(loader)) as copy:
            check(copy, [copy[i] for i in range(len(copy))])
        with oocload.Loader(path, 20, seed=2, x="x", y="y", ops=OPS) as other, oocload.mix([loader, other]) as mixed:
            x, y = next(iter(mixed))
            assert (x.shape[1:], x.dtype, y.shape[1:]) == ((3, 6, 4), np.float32, (7,))


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"compression": None}])
def test_the_smallest_ceiling_holds(make_store: Callable[..., Path], options: dict[str, Any]) -> None:
    path = make_store(100_000, 500, **options)
    makes = {"x": [ops.cast("int16"), ops.scale(1 / 255, dtype="float16")], "y": ops.cast("float32")}
    with oocload.Loader(path, 100, seed=0, ops=makes, shuffle=oocload.Shuffle(window_rows=2000)) as loader:
        memory = loader.min_memory()
    with oocload.Loader(
        path, 100, seed=0, ops=makes, memory=memory, shuffle=oocload.Shuffle(window_rows=2000)
    ) as loader:
        for _ in loader:
            pass
        assert loader.stats.memory.peak <= memory


def test_labels_are_looked_at_as_they_are_stored(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((20_000, 4), "f4"), chunks=(100, 4), compression="gzip")
        file.create_dataset("y", data=np.repeat(np.arange(10), 2000))
    how = {"shuffle": oocload.Shuffle(window_rows=500), "seed": 0, "ops": {"y": ops.one_hot(10)}}
    with pytest.warns(oocload.ShuffleQualityWarning, match="equal labels of field 'y'"):
        loader = oocload.Loader(tmp_path / "t.h5", 50, **how)
    loader.close()


@pytest.mark.parametrize("how", [{"shuffle": False}, {"shuffle": True}, {"weights": "w"}, {"chunks": None}])
@pytest.mark.parametrize("label", [-1, 7])
def test_a_label_without_a_class(tmp_path: Path, how: dict[str, Any], label: int) -> None:
    chunks = how.pop("chunks", (10,)) if "chunks" in how else (10,)
    y = np.arange(100) % 7
    y[57] = label
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("y", data=y, chunks=chunks)
        file.create_dataset("w", data=np.ones(100))
    with oocload.Loader(tmp_path / "t.h5", 10, x="y", seed=0, ops={"y": ops.one_hot(7)}, **how) as loader:
        where = rf"field 'y'.* ops.one_hot\(7\), got {label} at row 57{' .chunk 5.' if chunks else ''}"
        bad = (
            next(i for i in range(10) for _ in range(3) if 57 in loader.batch_rows(i)) if "weights" not in how else None
        )
        with pytest.raises(InvalidArgumentError, match=where):
            for _ in range(20):
                for batch in loader:
                    assert batch.shape == (10, 7)
        if bad is not None:
            with pytest.raises(InvalidArgumentError, match=where):
                loader[bad]


@pytest.mark.parametrize(
    ("given_ops", "message"),
    [
        ([ops.cast("f4")], "ops must be a dict of field → operations from oocload.ops, got"),
        ({"x": "cast"}, "ops of field 'x' must be one or several operations .* got 'cast'"),
        ({"x": []}, r"ops of field 'x' must be one or several operations .* got \[\]"),
        ({"z": ops.cast("f4")}, "ops must name fields of a batch, x, y; got 'z'"),
        ({"x": ops.normalize([1, 2], [1, 1])}, r"ops.normalize\(\[1, 2\], \[1, 1\]\) of field 'x' must have one number "
         r"for each channel \(it has 2\), got rows of uint8 and shape \(8, 6, 3\); give as many"),
        ({"x": ops.crop(9, 2)}, r"ops.crop\(9, 2\) of field 'x' must lie inside the first two axes"),
        ({"x": ops.one_hot(3)}, "must be given one whole number a row, got rows of uint8"),
        ({"x": ops.transpose((1, 0))}, "must have as many axes as a row"),
        ({"y": ops.transpose("channels_first")}, "must be given rows of at least two axes"),
        ({"y": [ops.one_hot(9), ops.crop([slice(0, 2)])]}, "must come before one_hot"),
        ({"y": [ops.cast("f4"), ops.one_hot(9)]}, r'cast labels with ops.cast\("int64"\) before it'),
        ({"x": ops.normalize()}, r"ops.normalize\(\) must find statistics, or be given mean and std: statistics of "
         r".*t.h5 must have been saved in .*t.h5.stats.json; run oocload.stats\(store, save=True\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, given_ops: Any, message: str) -> None:
    path = write(tmp_path / "t.h5", **WAYS["chunks"])
    with pytest.raises(InvalidArgumentError, match=message):
        oocload.Loader(path, 20, x="x", y="y", ops=given_ops)


@pytest.mark.parametrize("dtype", ["S3", h5py.string_dtype(), "c8"])
def test_fields_that_are_no_numbers(tmp_path: Path, dtype: Any) -> None:
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("x", data=np.zeros(10, dtype) if dtype == "c8" else ["abc"] * 10, dtype=dtype)
    with pytest.raises(InvalidArgumentError, match=r"ops\.normalize\(0, 1\) of field 'x' must|holds Python objects"):
        oocload.Loader(tmp_path / "t.h5", 2, ops={"x": ops.normalize(0, 1)})


Chained = tuple[list[ops.Op], Callable[[np.ndarray], np.ndarray]]


@st.composite
def chains(draw: st.DrawFn, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Chained:
    """Draw operations whose arithmetic is exact in float32, and what plain NumPy does instead."""
    chain: list[ops.Op] = []
    steps: list[Callable[[np.ndarray], np.ndarray]] = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["cast", "scale", "normalize", "crop", "slices", "transpose"]))
        if kind == "cast":
            dtype = np.dtype(draw(st.sampled_from(["f2", "f4", "f8", "i4", "i8"])))
            chain.append(ops.cast(dtype))
            steps.append(lambda rows, d=dtype: np.trunc(rows) if d.kind == "i" else rows)
        elif kind in ("scale", "normalize"):
            dtype = np.dtype(draw(st.sampled_from(["f2", "f4", "f8"])))
            axis = draw(st.sampled_from([None, *range(len(shape))]))
            length = 1 if axis is None else shape[axis]
            numbers = [draw(st.sampled_from([0.25, 0.5, 1.0, 2.0])) for _ in range(length)], np.arange(length) - 3.0
            along = (-1, *[1] * (len(shape) - 1 - (axis or 0))) if axis is not None else ()
            a, b = (np.asarray(n).reshape(along) for n in numbers)
            if kind == "scale":
                chain.append(ops.scale(*(numbers if axis is not None else (a, b)), dtype, axis))
                steps.append(lambda rows, a=a, b=b: rows * a + b)
            else:
                chain.append(ops.normalize(*(numbers[::-1] if axis is not None else (b, a)), dtype, axis))
                steps.append(lambda rows, a=a, b=b: (rows - b) / a)
        elif kind == "crop" and len(shape) >= 2:
            height, width = (draw(st.integers(1, n)) for n in shape[:2])
            top, left = (shape[0] - height) // 2, draw(st.integers(0, shape[1] - width))
            chain.append(ops.crop(height, width, left=left))
            steps.append(lambda rows, t=top, h=height, f=left, w=width: rows[:, t : t + h, f : f + w])
            shape = (height, width, *shape[2:])
        elif kind == "slices" and shape:
            cuts = [slice(n // 3, None, draw(st.integers(1, 2))) for n in shape[: draw(st.integers(1, len(shape)))]]
            chain.append(ops.crop(cuts))
            steps.append(lambda rows, c=tuple(cuts): rows[(slice(None), *c)])
            shape = np.empty(shape)[tuple(cuts)].shape
        elif kind == "transpose" and shape:
            axes = draw(st.permutations(range(len(shape))))
            chain.append(ops.transpose(axes))
            steps.append(lambda rows, a=axes: rows.transpose(0, *(i + 1 for i in a)))
            shape = tuple(shape[i] for i in axes)

    def plain(rows: np.ndarray) -> np.ndarray:
        rows = rows.astype("f8")
        for step in steps:
            rows = step(rows)
        return rows.astype(dtype)

    return chain or [ops.cast(dtype)], plain


@given(data=st.data())
def test_random_chains_are_those_of_numpy(tmp_path: Path, data: st.DataObject) -> None:
    row = tuple(data.draw(st.lists(st.integers(1, 6), max_size=3)))
    dtype = np.dtype(data.draw(st.sampled_from(["u1", "i2", ">u2", "<i4", ">f4", "<f8", "?"])))
    n_rows = data.draw(st.integers(2, 60))
    chain, plain = data.draw(chains(row, dtype.newbyteorder("=")))
    path = tmp_path / "random.h5"
    with h5py.File(path, "w") as file:
        values = np.random.default_rng(0).integers(0, 100, (n_rows, *row)).astype(dtype)
        chunks = data.draw(st.sampled_from([None, (min(7, n_rows), *row)]))
        file.create_dataset(
            "x", data=values, chunks=chunks, compression=chunks and data.draw(st.sampled_from([None, "lzf"]))
        )
    with h5py.File(path) as file:
        stored = file["x"][...]
    how = data.draw(st.sampled_from([False, True, oocload.Shuffle(window_rows=9)]))
    with oocload.Loader(path, min(n_rows, 8), x="x", seed=0, shuffle=how, ops={"x": chain}) as loader:
        for number, batch in enumerate(loader):
            want = plain(stored[loader.batch_rows(number) if loader.epoch == 0 else []])
            assert (batch.dtype, batch.shape) == (want.dtype, want.shape)
            np.testing.assert_array_equal(batch, want)
        assert loader.fields["x"].shape == (n_rows, *want.shape[1:])


def test_statistics_that_are_stored_normalise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (300, 8, 6, 3), dtype="uint8")
    path = tmp_path / "stored.h5"
    oocload.convert({"x": x}, path)
    oocload.stats(path, save=True)
    with oocload.Loader(path, 50, x="x", shuffle=False, ops={"x": ops.normalize()}) as loader:
        found = np.concatenate([batch.copy() for batch in loader])
    expected = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    oocload.convert({"x": x[:100]}, path, overwrite=True)
    with pytest.raises(InvalidArgumentError, match=r"ops.normalize\(\) must find statistics.* has changed since"):
        oocload.Loader(path, 50, x="x", ops={"x": ops.normalize()})
