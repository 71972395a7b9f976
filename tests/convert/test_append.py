"""Appending: what h5py and zarr themselves read afterwards, after kills and full disks too."""

from __future__ import annotations

import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import oocload
from oocload import stores
from oocload.convert import append_zarr, crashsafe
from oocload.errors import (
    ClosedError,
    ConversionError,
    InvalidArgumentError,
    StoreFormatError,
    StoreNotFoundError,
    UnknownFieldError,
)
from oocload.layout import ChunkGrid
from oocload.stores import recovery
from oocload.stores.checksums import (
    ArrayChecksums,
    ChecksumBuilder,
    read_checksums,
    stored_crc32c,
    write_checksums_hdf5,
    write_checksums_zarr,
)
from oocload.stores.recovery import redo_of
from tests.convert.ragged import matrix_of, random_rows, rows_of

Rows = dict[str, np.ndarray]


def numbered(start: int, stop: int) -> Rows:
    """Return rows whose content tells their number."""
    y = np.arange(start, stop)
    return {"x": ((y[:, None, None] * 31 + np.arange(12).reshape(4, 3)) % 32749).astype("i2"), "y": y}


def hdf5(path: Path, n_rows: int, x: dict[str, Any] | None = None, y: dict[str, Any] | None = None) -> Path:
    """Write a store of numbered rows with h5py itself."""
    path = path / "store.h5"
    rows = numbered(0, n_rows)
    with h5py.File(path, "w") as file:
        x = {"chunks": (5, 4, 3), "maxshape": (None, 4, 3)} | (x or {})
        y = {"chunks": (16,), "maxshape": (None,)} | (y or {})
        file.create_dataset("x", data=rows["x"].astype(x.pop("dtype", "i2")), **x)
        file.create_dataset("y", data=rows["y"], **y)
    return path


def zarr_store(path: Path, n_rows: int, x: dict[str, Any] | None = None, y: dict[str, Any] | None = None) -> Path:
    """Write a store of numbered rows with zarr itself."""
    path, x = path / "store.zarr", dict(x or {})
    zarr_format = x.pop("zarr_format", 3)
    rows = numbered(0, n_rows)
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for name, more in (("x", {"chunks": (5, 4, 3)} | x), ("y", {"chunks": (16,)} | (y or {}))):
        array = group.create_array(
            name, shape=rows[name].shape, dtype=np.dtype(more.pop("dtype", rows[name].dtype)), **more
        )
        array[...] = rows[name]
    return path


def read(path: Path) -> Rows:
    """Read a store with h5py or zarr themselves."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return {name: file[name][()] for name in file}
    return {name: np.asarray(array[...]) for name, array in zarr.open_group(path, mode="r").arrays()}


def check(path: Path, n_rows: int) -> None:
    with oocload.open(path) as store:
        assert {f.n_rows for f in store.fields.values()} == {n_rows}
    assert not redo_of(path).exists()
    got, expected = read(path), numbered(0, n_rows)
    assert got.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_array_equal(got[name], rows)


STORES: dict[str, Callable[[Path, int], Path]] = {
    "hdf5": hdf5,
    "hdf5 gzip": lambda p, n: hdf5(p, n, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True}),
    "hdf5 lzf": lambda p, n: hdf5(p, n, {"compression": "lzf", "shuffle": True}, {"compression": "lzf"}),
    "hdf5 fletcher32": lambda p, n: hdf5(p, n, {"compression": "gzip", "fletcher32": True}, {"shuffle": True}),
    "hdf5 scaleoffset": lambda p, n: hdf5(p, n, {"scaleoffset": 0}),
    "hdf5 cut rows": lambda p, n: hdf5(p, n, {"chunks": (3, 2, 2), "compression": "gzip"}),
    "hdf5 big-endian": lambda p, n: hdf5(p, n, {"dtype": ">i4", "compression": "gzip", "shuffle": True}),
    "hdf5 fill": lambda p, n: hdf5(p, n, {"fillvalue": 7}, {"fillvalue": -1, "compression": "gzip"}),
    "zarr": zarr_store,
    "zarr raw": lambda p, n: zarr_store(p, n, {"compressors": None}),
    "zarr sharded": lambda p, n: zarr_store(p, n, {"shards": (20, 4, 3)}, {"shards": (32,)}),
    "zarr cut rows": lambda p, n: zarr_store(p, n, {"chunks": (3, 2, 2), "shards": (6, 4, 4)}),
    "zarr v2": lambda p, n: zarr_store(p, n, {"zarr_format": 2}),
    "zarr v2 order F": lambda p, n: zarr_store(p, n, {"zarr_format": 2, "order": "F", "dtype": ">i4"}),
}


@pytest.mark.parametrize("kind", STORES)
@settings(max_examples=7)
@given(n_rows=st.integers(1, 50), sizes=st.lists(st.integers(0, 45), max_size=4), reopen=st.booleans())
def test_appends_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, kind: str, n_rows: int, sizes: list[int], reopen: bool
) -> None:
    folder = tmp_path_factory.mktemp("append")
    path = STORES[kind](folder, n_rows)
    appender = oocload.open(path, mode="a")
    for n in sizes:
        assert appender.n_rows == n_rows
        appender.append(**numbered(n_rows, n_rows + n))
        n_rows += n
        if reopen:
            appender.close()
            check(path, n_rows)
            appender = oocload.open(path, mode="a")
    assert appender.fields["x"].shape == (n_rows, 4, 3)
    appender.close()
    check(path, n_rows)
    assert list(folder.iterdir()) == [path]
    shutil.rmtree(folder)


@pytest.mark.parametrize("target", ["made.h5", "made.zarr"])
def test_to_what_oocload_made(tmp_path: Path, target: str) -> None:
    path = tmp_path / target
    with oocload.create(path, {"x": ((4, 3), "i2"), "y": "i8"}, chunk_rows=8) as writer:
        writer.append(**numbered(0, 100))
    with oocload.open(path, mode="a") as appender:
        for start in range(100, 200, 33):
            appender.append(**numbered(start, start + 33))
    got = read(path)
    assert all(np.array_equal(got[name], rows) for name, rows in numbered(0, 232).items())


@pytest.mark.parametrize("kind", ["hdf5 gzip", "zarr", "zarr sharded"])
def test_whole_chunks_are_not_touched(tmp_path: Path, kind: str) -> None:
    path = STORES[kind](tmp_path, 90)

    def places() -> dict[Any, Any]:
        if path.is_dir():
            return {f: (f.stat().st_ino, f.stat().st_mtime_ns) for f in path.rglob("*/c/**/*") if f.is_file()}
        with h5py.File(path) as file:
            ids = {name: file[name].id for name in file}
            infos = {n: [i.get_chunk_info(k) for k in range(i.get_num_chunks())] for n, i in ids.items()}
            return {(n, c.chunk_offset): (c.byte_offset, c.size) for n, cs in infos.items() for c in cs}

    before = places()
    with oocload.open(path, mode="a") as appender:
        appender.append(**numbered(90, 190))
    after = places()
    changed = {key for key in before if before[key] != after[key]}
    assert len(changed) == (1 if kind != "zarr sharded" else 2)  # y has 16 rows in a chunk, x has 5
    check(path, 190)


@pytest.mark.parametrize("target", ["r.h5", "r.zarr"])
def test_ragged_and_sparse(tmp_path: Path, target: str) -> None:
    path, rng = tmp_path / target, np.random.default_rng(0)
    rows: list[np.ndarray] = []
    matrix = scipy.sparse.random(30, 17, 0.3, "csr", dtype="f4", random_state=1)
    with oocload.create(path, chunk_bytes=4096) as writer:
        rows += random_rows([3, 0, 900, *range(27)], item_shape=(2,))
        writer.append(r=rows[:], s=matrix, y=np.arange(30))
    with oocload.open(path, mode="a") as appender:
        for n in (1, 0, 40, 7):
            more = random_rows(rng.integers(0, 400, n).tolist(), item_shape=(2,), seed=n)
            part = scipy.sparse.random(n, 17, 0.3, "csr", dtype="f4", random_state=n)
            appender.append(r=more, s=part, y=np.arange(len(rows), len(rows) + n))
            rows += more
            matrix = scipy.sparse.vstack([matrix, part], "csr")
            assert appender.n_rows == len(rows)
            assert appender.fields["s"].shape == matrix.shape
    assert all(np.array_equal(a, b) for a, b in zip(rows_of(path, "r"), rows, strict=True))
    assert (matrix_of(path, "s") != matrix).nnz == 0
    with oocload.open(path) as store:
        assert {f.n_rows for f in store.fields.values()} == {78}


@pytest.mark.parametrize("target", ["r.h5", "r.zarr"])
def test_to_a_ragged_field_alone_in_its_group(tmp_path: Path, target: str) -> None:
    path = tmp_path / target
    with oocload.create(path) as writer:
        writer.append(r=[[1, 2], [3]], s=scipy.sparse.eye(2, 5, format="csr"))
    for name, rows in (("r", [[4], [], [5, 6]]), ("s", scipy.sparse.eye(3, 5, format="csr"))):
        with oocload.open(f"{path}::{name}", mode="a") as appender:
            appender.append(x=rows)
    assert [row.tolist() for row in rows_of(path, "r")] == [[1, 2], [3], [4], [], [5, 6]]
    assert matrix_of(path, "s").shape == (5, 5)


def test_offsets_that_would_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "small.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("s")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [2, 9]})
        for name, data in (("data", np.ones(120, "f4")), ("indices", np.zeros(120, "i4")), ("indptr", [0, 60, 120])):
            dtype = "i1" if name == "indptr" else None
            group.create_dataset(name, data=np.asarray(data, dtype), chunks=(8,), maxshape=(None,))
    content = path.read_bytes()
    with oocload.open(path, mode="a") as appender:
        with pytest.raises(InvalidArgumentError, match=r"must leave 's/indptr' within its dtype int8, got up to 129"):
            appender.append(s=_row(9))
        appender.append(s=_row(7))
    assert path.read_bytes() != content
    with h5py.File(path) as file:
        assert file["s/indptr"][()].tolist() == [0, 60, 120, 127]
        assert file["s"].attrs["shape"].tolist() == [3, 9]


def _row(n: int) -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix((np.ones(n, "f4"), np.arange(n), [0, n]), shape=(1, 9))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:Consolidated metadata:UserWarning")
def test_consolidated_metadata(tmp_path: Path, zarr_format: int) -> None:
    top = zarr.open_group(tmp_path / "top.zarr", mode="w", zarr_format=zarr_format)
    inner = top.create_group("a").create_group("b")
    inner.create_array("x", shape=(5,), chunks=(4,), dtype="i4")[:] = np.arange(5)
    sparse = inner.create_group("s")
    sparse.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [5, 9]})
    for name, n in (("data", 0), ("indices", 0), ("indptr", 6)):
        sparse.create_array(name, shape=(n,), chunks=(4,), dtype="i4")
    for group in ("a/b", "", "a"):
        zarr.consolidate_metadata(tmp_path / "top.zarr", path=group or None)
    with oocload.open(tmp_path / "top.zarr" / "a" / "b", mode="a") as appender:
        appender.append(x=np.arange(5, 12, dtype="i4"), s=scipy.sparse.csr_matrix(np.eye(7, 9, dtype="i4")))
    for group in ("", "a", "a/b"):
        opened = zarr.open_consolidated(tmp_path / "top.zarr", path=group or None, mode="r")
        found: Any = opened["a/b"[len(group) :].strip("/")] if group != "a/b" else opened
        np.testing.assert_array_equal(found["x"][:], np.arange(12))
        assert found["s"].attrs["shape"] == [12, 9]
        assert found["s/indptr"].shape == (13,)


def stored(store: Any, name: str) -> list[tuple[int, int]]:
    """Return the size and CRC of every chunk, as it lies on disk."""
    field, found = store.field(name), []
    locations = store.locate(name)
    for chunk in range(ChunkGrid(field.shape, field.chunks).n_chunks):
        place = locations.find(chunk)
        with open(place.path, "rb") as file:
            file.seek(place.offset)
            found.append((place.nbytes, stored_crc32c(file.read(place.nbytes), place.skipped)))
    return found


@pytest.mark.direct
@pytest.mark.parametrize("kind", ["hdf5 gzip", "hdf5 lzf", "hdf5 cut rows", "hdf5 fletcher32", "zarr", "zarr sharded"])
def test_checksums_go_on(tmp_path: Path, kind: str) -> None:
    path = STORES[kind](tmp_path, 60)
    with stores.open(path) as store:
        known = {}
        for name in ("x", "y"):
            builder = ChecksumBuilder(ArrayChecksums.describing(store.field(name)))
            for chunk, facts in enumerate(stored(store, name)):
                builder.add(chunk, *facts)
            known[name] = builder.build(store.field(name).shape)
    if path.is_dir():
        for name, checksums in known.items():
            write_checksums_zarr(path / name, checksums)
    else:
        with h5py.File(path, "r+") as file:
            for name, checksums in known.items():
                write_checksums_hdf5(file[name], checksums)
    with oocload.open(path, mode="a") as appender:
        appender.append(**numbered(60, 107))
        appender.append(**numbered(107, 110))
    check(path, 110)
    with stores.open(path) as store:
        for name in ("x", "y"):
            found = read_checksums(store, name)
            assert found is not None
            assert found == replace(known[name], shape=store.field(name).shape, segments=found.segments)
            pairs = [p for s in found.segments for p in zip(s.nbytes.tolist(), s.crc32c.tolist(), strict=True)]
            assert pairs == stored(store, name)


@pytest.mark.parametrize("kind", ["hdf5 gzip", "zarr sharded"])
@pytest.mark.parametrize("n_applied", [0, 1, 2])
def test_who_opens_next_finishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, n_applied: int) -> None:
    """An appender that dies when its step counts as done, and is not on disk yet or only half."""
    path = STORES[kind](tmp_path, 50)
    module: Any = append_zarr if path.is_dir() else crashsafe
    name = "apply_moves" if path.is_dir() else "apply"
    real = getattr(module, name)

    def dies(*args: Any) -> None:
        if path.is_dir():
            real(args[0], args[1], args[2][:n_applied])
        else:
            real(args[0], path.stat().st_size, args[2][:n_applied])
        raise KeyboardInterrupt

    with oocload.open(path, mode="a") as appender:
        with monkeypatch.context() as patched:
            patched.setattr(module, name, dies)
            with pytest.raises(KeyboardInterrupt):
                appender.append(**numbered(50, 80))
        assert recovery.is_unfinished(path)
        if n_applied == 2:
            assert appender.n_rows == 80  # it finds that out itself
            appender.append(**numbered(80, 85))
    check(path, 85 if n_applied == 2 else 80)


def test_an_unfinished_append_that_cannot_be_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zarr_store(tmp_path, 50)
    folder = redo_of(path)
    folder.mkdir()
    (folder / "moves").write_bytes(b"torn")
    fd = recovery.lock(path)
    monkeypatch.setattr(recovery, "_PATIENCE_S", 0)
    try:
        with pytest.raises(StoreFormatError, match="in the middle of an append by another process; open it again"):
            oocload.open(path)
    finally:
        os.close(fd)

    def refuse(path: object) -> int:
        raise PermissionError("read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(recovery, "lock", refuse)
        with pytest.raises(StoreFormatError, match=r"cannot be written here: read-only file system; open it once"):
            oocload.open(path)
    oocload.open(path).close()  # a torn list is nobody's
    with oocload.open(path, mode="a") as appender:
        appender.append(**numbered(50, 60))
    check(path, 60)


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_a_log_of_another_store_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = STORES[kind](tmp_path, 50)
    module: Any = append_zarr if path.is_dir() else crashsafe

    def dies(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, oocload.open(path, mode="a") as appender:
        patched.setattr(module, "apply_moves" if path.is_dir() else "apply", dies)
        with pytest.raises(KeyboardInterrupt):
            appender.append(**numbered(50, 80))
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    STORES[kind](tmp_path, 33)
    with oocload.open(path) as store:
        assert store.fields["x"].n_rows == 33
    with oocload.open(path, mode="a") as appender:
        appender.append(**numbered(33, 40))
    check(path, 40)


KILLED = """
import sys, numpy as np, oocload
def numbered(start, stop):
    y = np.arange(start, stop)
    return {"x": ((y[:, None, None] * 31 + np.arange(12).reshape(4, 3)) % 32749).astype("i2"), "y": y}
with oocload.open(sys.argv[1], mode="a") as appender:
    print(appender.n_rows, flush=True)
    while True:
        n = appender.n_rows
        appender.append(**numbered(n, n + 37))
        print(n + 37, flush=True)
"""


@pytest.mark.parametrize("kind", ["hdf5 gzip", "zarr sharded"])
def test_sigkill(tmp_path: Path, kind: str) -> None:
    path, rng = STORES[kind](tmp_path, 37), random.Random(0)
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 30)):
                said = int(process.stdout.readline())
            time.sleep(rng.random() / 50)
            process.send_signal(signal.SIGKILL)
            said = max([said, *map(int, process.stdout.read().split("\n")[:-1])])
        with oocload.open(path) as store:
            n_rows = store.fields["x"].n_rows
        assert n_rows in (said, said + 37)
        got = read(path)
        assert all(np.array_equal(got[name], rows) for name, rows in numbered(0, n_rows).items())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("needs to mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("kind", ["hdf5", "hdf5 gzip", "hdf5 cut rows", "zarr", "zarr sharded"])
def test_a_full_disk(small_disk: Path, kind: str) -> None:
    path = STORES[kind](small_disk, 50)
    content = b"" if path.is_dir() else path.read_bytes()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(700 * 2**10))
    with oocload.open(path, mode="a") as appender:
        with pytest.raises(ConversionError, match=r"the disk is full; free some space; the store is what it was"):
            appender.append(**noise(20_000))
        assert sorted(small_disk.iterdir()) == [ballast, path]
        assert path.is_dir() or path.read_bytes() == content
        assert appender.n_rows == 50
        ballast.unlink()
        appender.append(**numbered(50, 200))
    check(path, 200)


def noise(n: int) -> Rows:
    rng = np.random.default_rng(0)
    return {"x": rng.integers(0, 30_000, (n, 4, 3), "i2"), "y": rng.integers(0, 2**60, n)}


def test_fields_of_other_lengths_stay(tmp_path: Path) -> None:
    path = hdf5(tmp_path, 50)
    with h5py.File(path, "r+") as file:
        file["names"] = np.arange(3)
    with oocload.open(path, mode="a") as appender:
        assert appender.n_rows == 50
        appender.append(**numbered(50, 60))
        with pytest.raises(InvalidArgumentError, match=r"must have one length in .*: 'x' has 60, 'names' has 3"):
            appender.append(x=numbered(0, 1)["x"], names=[1])
        with pytest.raises(InvalidArgumentError, match=r"'names' of .* must be in chunks .* and is not in chunks"):
            appender.append(names=[1])
    assert {name: len(rows) for name, rows in read(path).items()} == {"names": 3, "x": 60, "y": 60}


def test_rows_that_do_not_fit(tmp_path: Path) -> None:
    path = hdf5(tmp_path, 50)
    content = path.read_bytes()
    rows = numbered(50, 60)
    x, y = rows["x"], rows["y"]
    with oocload.open(path, mode="a") as appender:
        for given, message in [
            ({"x": x}, r"all fields of the same length, and are missing for \['y'\]"),
            ({"x": x, "y": y, "z": y}, r"rows must be given for fields \['x', 'y'\], got \['z'\]"),
            ({}, r"rows must be given for fields \['x', 'y'\], got none"),
            ({"x": x, "y": y[1:]}, "equal numbers of rows: 'x' has 10, 'y' has 9"),
            (
                {"x": x[:, 1:], "y": y},
                r"rows of field 'x' must have shape \(4, 3\), got an array of shape \(10, 3, 3\)",
            ),
            ({"x": x.astype("f4"), "y": y}, "rows of field 'x' must have dtype int16, got float32, which may not fit"),
        ]:
            with pytest.raises(InvalidArgumentError, match=message):
                appender.append(**given)
        appender.append(x=x.astype("i1")[:0], y=y[:0])
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["store.h5"]


def test_what_cannot_be_appended_to(tmp_path: Path) -> None:
    def refused(path: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            oocload.open(path, mode="a")

    refused(tmp_path / "absent.h5", StoreNotFoundError, "nothing lies at that path, oocload.create makes one")
    refused([tmp_path / "a.h5"], InvalidArgumentError, "store must be one path to append to it")
    refused(str(tmp_path / "*.h5"), InvalidArgumentError, "store must be one path to append to it")
    np.save(tmp_path / "a.npy", np.zeros(3))
    refused(tmp_path / "a.npy", InvalidArgumentError, "must be an HDF5 file or a Zarr directory .* oocload convert")
    path = hdf5(tmp_path, 50)
    refused(f"{path}::nowhere", UnknownFieldError, "group 'nowhere'")
    with pytest.raises(InvalidArgumentError, match="mode must be 'r' or 'a', got 'w'; oocload.create makes new stores"):
        oocload.open(path, mode="w")  # type: ignore[call-overload]
    with h5py.File(path, "r+") as file:
        file["alias"] = file["x"]
    refused(path, InvalidArgumentError, "'alias' and 'x' of .* are links to one")
    for layout, problem in (
        ({"chunks": None, "maxshape": None}, "is not in chunks"),
        ({"maxshape": (99, 4, 3)}, "99 r"),
    ):
        refused(hdf5(tmp_path, 50, layout), InvalidArgumentError, f"unlimited length to append to it, and .*{problem}")
    with h5py.File(path, "w") as file:
        file.create_dataset("t", data=["a", "b"], chunks=(2,), maxshape=(None,))
    with oocload.open(path, mode="a") as appender:
        with pytest.raises(InvalidArgumentError, match="field 't' must be of a kind that rows can be appended to"):
            appender.append(t=["c"])
    assert not redo_of(path).exists()


def test_a_link_to_another_file(tmp_path: Path) -> None:
    hdf5(tmp_path, 50)
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["x"] = h5py.ExternalLink("store.h5", "x")
    with pytest.raises(InvalidArgumentError, match=r"field 'x' of .*links\.h5 must be in that file .* append to that"):
        oocload.open(tmp_path / "links.h5", mode="a")


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_open_elsewhere(tmp_path: Path, kind: str) -> None:
    path = STORES[kind](tmp_path, 50)
    with oocload.open(path, mode="a"), pytest.raises(ConversionError, match="is open elsewhere"):
        oocload.open(path, mode="a")
    if kind == "hdf5":
        with h5py.File(path), pytest.raises(ConversionError, match="is open elsewhere, to be read with h5py"):
            oocload.open(path, mode="a")
    with oocload.open(path, mode="a") as appender:
        appender.append(**numbered(50, 60))
    check(path, 60)


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_a_store_that_was_replaced(tmp_path: Path, kind: str) -> None:
    path = STORES[kind](tmp_path, 50)
    with oocload.open(path, mode="a") as appender:
        appender.append(**numbered(50, 55))
        oocload.convert(numbered(0, 60), path, overwrite=True)
        with pytest.raises(ConversionError, match=r"store\.\w+ was removed or replaced .*; open the store again"):
            appender.append(**numbered(60, 70))
    check(path, 60)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["store.h5", "store.zarr"])
def test_an_unfinished_append_to_what_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / name
    oocload.convert(numbered(0, 50), path, codec="none")

    def dies(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, oocload.open(path, mode="a") as appender:
        patched.setattr(append_zarr if path.is_dir() else crashsafe, "apply_moves" if path.is_dir() else "apply", dies)
        with pytest.raises(KeyboardInterrupt):
            appender.append(**numbered(50, 55))
    assert recovery.is_unfinished(path)
    oocload.convert(numbered(0, 50), path, codec="none", overwrite=True)
    check(path, 50)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = STORES[kind](tmp_path, 50)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with oocload.open(path.name, mode="a") as appender:
        appender.append(**numbered(50, 60))
        monkeypatch.chdir(tmp_path / "elsewhere")
        appender.append(**numbered(60, 70))
    check(path, 70)
    assert sorted(tmp_path.rglob("*.redo*")) == []


def test_bfloat16_to_raw_bytes(tmp_path: Path) -> None:
    """HDF5 has no bfloat16, and keeps its bytes."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rows = np.arange(10).astype(ml_dtypes.bfloat16)
    oocload.convert(rows, tmp_path / "store.h5")
    with oocload.open(tmp_path / "store.h5", mode="a") as appender:
        appender.append(x=rows[:3])
    with h5py.File(tmp_path / "store.h5") as file:
        assert file["x"][:].tobytes() == rows.tobytes() + rows[:3].tobytes()


@pytest.mark.parametrize("kind", ["hdf5 gzip", "zarr"])
def test_reading_between_appends(tmp_path: Path, kind: str) -> None:
    path = STORES[kind](tmp_path, 50)
    with oocload.open(path, mode="a") as appender:
        for n in (60, 70):
            appender.append(**numbered(n - 10, n))
            with oocload.open(path) as store:
                assert store.fields["x"].n_rows == n
                np.testing.assert_array_equal(store.read_rows("x", 0, n), numbered(0, n)["x"])


@pytest.mark.parametrize("name", [".store.h5.redo.new", ".store.zarr.redo/3/c/0"])
def test_what_a_killed_append_left_goes(tmp_path: Path, name: str) -> None:
    path = hdf5(tmp_path, 50) if "h5" in name else zarr_store(tmp_path, 50)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"half")
    oocload.open(path).close()
    assert (tmp_path / name).exists()
    oocload.open(path, mode="a").close()
    assert list(tmp_path.iterdir()) == [path]


def test_rows_that_were_never_written(tmp_path: Path) -> None:
    path = hdf5(tmp_path, 3, {"fillvalue": 7, "compression": "gzip"})
    with h5py.File(path, "r+") as file:
        file["x"].resize(53, axis=0)
        file["y"].resize(53, axis=0)
    with oocload.open(path, mode="a") as appender:
        appender.append(**numbered(53, 60))
    got = read(path)
    assert (got["x"][5:53] == 7).all()
    assert (got["y"][3:53] == 0).all()
    np.testing.assert_array_equal(got["x"][53:], numbered(53, 60)["x"])


@pytest.mark.parametrize("kind", ["zarr", "zarr sharded", "zarr v2"])
def test_rows_that_were_cut_off(tmp_path: Path, kind: str) -> None:
    path = STORES[kind](tmp_path, 50)
    group = zarr.open_group(path)
    for name in ("x", "y"):
        array: Any = group[name]
        array.resize((33, *array.shape[1:]))
        array[...] = np.zeros_like(array[...])
    with oocload.open(path, mode="a") as appender:
        appender.append(**{name: np.zeros_like(rows) for name, rows in numbered(0, 17).items()})
    assert all(rows.shape[0] == 50 and not rows.any() for rows in read(path).values())


@pytest.mark.parametrize("kind", ["hdf5 gzip", "zarr"])
def test_one_that_nobody_closed(tmp_path: Path, kind: str) -> None:
    path = STORES[kind](tmp_path, 50)
    for n in (60, 70):
        appender = oocload.open(path, mode="a")
        appender.append(**numbered(n - 10, n))
        del appender
        gc.collect()
    check(path, 70)


def test_closed(tmp_path: Path) -> None:
    path = hdf5(tmp_path, 50)
    appender = oocload.open(path, mode="a")
    assert repr(appender).startswith(f"appender to {path}\n  field  shape")
    appender.close()
    appender.close()
    assert repr(appender) == f"closed appender to {path}"
    with pytest.raises(ClosedError, match="appender must be open, and it was closed"):
        appender.append(**numbered(50, 60))
