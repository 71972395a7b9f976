"""What the kernel is told to fetch from disk while something else is decoded."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec

import oocload
from oocload.chunks import decoded
from oocload.chunks.fetch import Files
from oocload.errors import ChunkError

Make = Callable[..., Path]
Seen = list[tuple[str, int]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What happens to which offset, in order: "announce" or "read"."""
    events: Seen = []
    read_all = decoded.read_all

    def advise(_: int, offset: int, __: int, advice: int) -> None:
        if advice == os.POSIX_FADV_WILLNEED:
            events.append(("announce", offset))

    def read(descriptor: int, offset: int, buffers: list[object]) -> None:
        events.append(("read", offset))
        read_all(descriptor, offset, buffers)

    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr(decoded, "read_all", read)
    return events


@pytest.fixture
def from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Files, "from_disk", True)


def offsets(path: Path) -> list[int]:
    with h5py.File(path) as file:
        x = file["x"].id
        return sorted(x.get_chunk_info(n).byte_offset for n in range(x.get_num_chunks()))


@pytest.mark.usefixtures("from_disk")
def test_each_chunk_is_announced_before_it_is_read(make_store: Make, seen: Seen) -> None:
    path = make_store(8192, 128, compression="gzip")
    with oocload.Loader(path, 32, x="x", seed=0, shuffle=oocload.Shuffle(window_rows=2048), threads=1) as loader:
        rows = np.sort(np.concatenate([loader.batch_rows(n) for n in range(len(loader))]))
        for _ in loader:
            pass
    assert np.array_equal(rows, np.arange(8192))
    announced = [offset for what, offset in seen if what == "announce"]
    assert sorted(announced) == offsets(path)
    for offset in announced:
        assert seen.index(("announce", offset)) < seen.index(("read", offset))


@pytest.mark.usefixtures("from_disk")
def test_a_chunk_is_announced_while_another_task_is_decoded(make_store: Make, seen: Seen) -> None:
    path = make_store(8192, 128, compression="gzip")
    how = oocload.Shuffle(window_rows=4096)  # 32 chunks, in 8 tasks of 4
    with oocload.Loader(path, 32, x="x", seed=0, shuffle=how, threads=1) as loader:
        for _ in loader:
            pass
    reads = [offset for what, offset in seen if what == "read"]
    ahead = [
        reads.index(offset) - sum(what == "read" for what, _ in seen[:n])
        for n, (what, offset) in enumerate(seen)
        if what == "announce"
    ]
    assert sorted(set(ahead)) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert np.median(ahead) >= 4


@pytest.mark.usefixtures("from_disk")
def test_parts_are_announced_by_the_files_they_lie_in(make_store: Make, seen: Seen) -> None:
    path = make_store(4096, 128, compression="gzip")
    with oocload.Loader([path, path], 32, x="x", seed=0, threads=1) as loader:
        for _ in loader:
            pass
    announced = sorted(offset for what, offset in seen if what == "announce")
    assert announced == sorted(offsets(path) * 2)


@pytest.mark.usefixtures("from_disk")
def test_what_is_read_in_order_is_left_to_the_kernel(make_store: Make, seen: Seen) -> None:
    path = make_store(4096, 128, compression="gzip")
    with oocload.Loader(path, 32, x="x", shuffle=False) as loader:
        for _ in loader:
            pass
    assert {what for what, _ in seen} == {"read"}


def test_what_is_in_memory_is_not_announced(make_store: Make, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oocload.chunks.fetch._SLOW", 0.0)  # whatever else this machine does
    path = make_store(4096, 128, compression="gzip")
    with oocload.Loader(path, 32, x="x", seed=0) as loader:
        for _ in loader:
            pass
    assert {what for what, _ in seen} == {"read"}


def test_reads_come_from_disk_until_many_were_fast() -> None:
    files = Files(keep_open=1)
    assert not files.from_disk
    files.note(1000, 1.0)  # too small to tell
    assert not files.from_disk
    files.note(10**6, 0.01)
    for _ in range(63):
        files.note(10**6, 0.0001)
        assert files.from_disk
    files.note(10**6, 0.0001)
    assert not files.from_disk


def test_a_damaged_chunk_is_an_error_of_its_own_batch(
    tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.arange(64)
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    group.create_array("x", data=rows, chunks=(4,), shards=(16,), compressors=ZstdCodec())
    shard = tmp_path / "s.zarr" / "x" / "c" / "3"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")  # the checksum of its index
    counts = []
    for from_disk in (False, True):
        monkeypatch.setattr(Files, "from_disk", from_disk)
        how, n_rows = oocload.Shuffle(window_rows=4), 0
        with oocload.Loader(tmp_path / "s.zarr", 4, x="x", seed=0, shuffle=how, memory="1 MiB", threads=1) as loader:
            with pytest.raises(ChunkError, match="s.zarr"):
                for batch in loader:
                    n_rows += len(batch)
        counts.append(n_rows)
    assert counts[0] == counts[1] > 0
    assert any(what == "announce" for what, _ in seen)
