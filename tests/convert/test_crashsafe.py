"""HDF5 files that are killed at any moment: what is there afterwards is what h5py read at the last commit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from oocload.convert import crashsafe
from oocload.convert.crashsafe import CrashSafeFile
from oocload.stores.redo import recover

State = dict[str, Any]


def plain(value: Any) -> Any:
    """Return what compares by value, of attributes of variable length as well."""
    return plain(value[0]) if np.asarray(value).dtype.hasobject else np.asarray(value).tolist()


def state(file: h5py.File) -> State:
    """Read all of a file: the content of its datasets and of their attributes."""
    found: State = {}
    for name, dataset in sorted(file.items()):
        found[name] = dataset[()].tolist()
        found[f"{name}@"] = {key: plain(value) for key, value in sorted(dataset.attrs.items())}
    found["@"] = {key: plain(value) for key, value in sorted(file.attrs.items())}
    return found


def check(path: Path, log: Path, expected: State | None, work: Path) -> None:
    """Recover a copy of what is on disk, as after a crash; compare it, and write to it with h5py itself."""
    copy, copied_log = work / "copy.h5", work / "copy.redo"
    for source, target in ((path, copy), (log, copied_log)):
        target.unlink(missing_ok=True)
        if source.exists():
            shutil.copy(source, target)
    note = recover(str(copy), str(copied_log))
    if expected is None:
        assert note is None
        return
    with h5py.File(copy, "r+") as file:
        assert state(file) == expected
        file.create_dataset("added later", data=np.arange(1000), chunks=(10,), compression="gzip")
    with h5py.File(copy) as file:
        assert file["added later"][999] == 999


class Program:
    """Random operations of h5py on one file."""

    def __init__(self, file: h5py.File, seed: int) -> None:
        self.file = file
        self.rng = random.Random(seed)
        self.bytes = np.random.default_rng(seed)

    def step(self) -> None:
        names = list(self.file)
        steps = [self.grow, self.chunk, self.overwrite, self.attribute, self.group_attribute] if names else []
        step = self.rng.choice([self.create, *steps * 3, *([self.delete, self.shrink] if names else [])])
        step()

    def dataset(self) -> h5py.Dataset:
        return self.file[self.rng.choice(sorted(self.file))]

    def create(self) -> None:
        name = f"d{self.rng.randrange(8)}"
        if name not in self.file:
            rows = self.rng.choice([1, 7, 64])
            self.file.create_dataset(
                name, (0, 20), "u2", chunks=(rows, 20), maxshape=(None, 20), compression="gzip", shuffle=False
            )

    def random(self, n: int) -> np.ndarray:
        return self.bytes.integers(0, self.rng.choice([2, 65536]), (n, 20), dtype="u2")  # of few bytes, or many

    def grow(self) -> None:
        dataset, n = self.dataset(), self.rng.randrange(200)
        start = len(dataset)
        dataset.resize(start + n, axis=0)
        dataset[start:] = self.random(n)

    def shrink(self) -> None:
        dataset = self.dataset()
        dataset.resize(len(dataset) // 2, axis=0)

    def chunk(self) -> None:
        dataset = self.dataset()
        height = dataset.chunks[0]
        start = self.rng.randrange(len(dataset) // height + 1) * height
        dataset.resize(max(len(dataset), start + height), axis=0)
        stored = zlib.compress(self.random(height).tobytes(), self.rng.choice([0, 9]))
        dataset.id.write_direct_chunk((start, 0), stored)

    def overwrite(self) -> None:
        dataset = self.dataset()
        start = self.rng.randrange(len(dataset) + 1)
        dataset[start : start + 50] = self.random(len(dataset[start : start + 50]))

    def attribute(self) -> None:
        key = f"k{self.rng.randrange(3)}"
        blob = np.empty(1, object)
        blob[0] = self.bytes.integers(0, 256, self.rng.choice([10, 5000, 100_000]), dtype="u1")
        attrs = self.dataset().attrs
        attrs.pop(key, None)
        attrs.create(key, blob, dtype=h5py.vlen_dtype("u1"))

    def group_attribute(self) -> None:
        self.file.attrs[f"g{self.rng.randrange(30)}"] = self.rng.random()

    def delete(self) -> None:
        del self.file[self.rng.choice(sorted(self.file))]


@pytest.mark.parametrize("libver", ["earliest", "v110"])
@pytest.mark.parametrize("seed", range(4))
def test_random_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, libver: str) -> None:
    path, log = tmp_path / "x.h5", tmp_path / "redo"
    rng = random.Random(seed)
    last: State | None = None
    now: State = {}

    def write_redo(*args: Any) -> None:
        check(path, log, last, tmp_path)  # killed before the log appears
        real_write(*args)
        check(path, log, now, tmp_path)  # and right after

    def apply(fd: int, end: int, pages: list[Any]) -> None:
        half = pages[: rng.randrange(len(pages) + 1)]
        real_apply(fd, os.fstat(fd).st_size, half)
        check(path, log, now, tmp_path)  # half-way
        real_apply(fd, end, pages)

    real_write, real_apply = crashsafe.write_redo, crashsafe.apply
    monkeypatch.setattr(crashsafe, "write_redo", write_redo)
    monkeypatch.setattr(crashsafe, "apply", apply)
    held = 0
    with CrashSafeFile(path, log) as raw:
        with h5py.File(raw, "w", libver=(libver, "v110")) as file:
            program = Program(file, seed)
            for _ in range(150):
                program.step()
                if rng.random() < 0.05:
                    file.flush()  # puts all of HDF5's own memory on disk, uncommitted
                if rng.random() < 0.1:
                    check(path, log, last, tmp_path)
                held = max(held, raw.held_nbytes)
                if rng.random() < 0.08:
                    file.flush()
                    now = state(file)
                    raw.commit(b"note")
                    assert raw.held_nbytes == 0
                    last = now
            now = state(file)
        raw.commit()
    check(path, log, now, tmp_path)
    assert held > 0
    with h5py.File(path) as file:  # without recovery too
        assert state(file) == now


def test_an_existing_file_of_h5py_is_changed_whole_or_not_at_all(tmp_path: Path) -> None:
    path, log = tmp_path / "x.h5", tmp_path / "redo"
    with h5py.File(path, "w") as file:
        program = Program(file, 1)
        for _ in range(60):
            program.step()
        before = state(file)
    content = path.read_bytes()
    with CrashSafeFile(path, log) as raw:
        with h5py.File(raw, "r+") as file:
            assert state(file) == before
            program = Program(file, 2)
            for _ in range(60):
                program.step()
            after = state(file)
        assert path.read_bytes()[: len(content)] == content
        with h5py.File(path) as file:
            assert state(file) == before
        raw.commit()
    assert recover(str(path), str(log)) == b""
    with h5py.File(path) as file:
        assert state(file) == after


def test_like_a_file(tmp_path: Path) -> None:
    """Random writes, reads, truncations and commits, against bytes in memory."""
    rng = random.Random(0)
    path, log = tmp_path / "file", tmp_path / "redo"
    model, committed = bytearray(), b""
    with CrashSafeFile(path, log) as raw:
        for _ in range(3000):
            offset, n = rng.randrange(40_000), rng.randrange(9000)
            match rng.choice(["write", "write", "read", "read", "truncate", "commit", "crash"]):
                case "write":
                    data = rng.randbytes(n)
                    raw.seek(offset)
                    assert raw.write(data) == n
                    if n:
                        model.extend(bytes(max(0, offset - len(model))))
                        model[offset : offset + n] = data
                case "read":
                    raw.seek(offset)
                    assert raw.read(n) == bytes(model[offset : offset + n])
                case "truncate":
                    raw.truncate(offset)
                    model.extend(bytes(max(0, offset - len(model))))
                    del model[offset:]
                case "commit":
                    raw.commit()
                    committed = bytes(model)
                    assert path.read_bytes() == committed
                case "crash":
                    assert path.read_bytes()[: len(committed)] == committed
            assert raw.seek(0, os.SEEK_END) == len(model)


def test_what_is_read_beyond_the_end_is_zeros(tmp_path: Path) -> None:
    with CrashSafeFile(tmp_path / "file", tmp_path / "redo") as raw:
        raw.write(b"abc")
        buffer = bytearray(b"x" * 6)
        raw.seek(1)
        assert raw.readinto(buffer) == 2
        assert buffer == b"bc" + bytes(4)
        raw.seek(100)
        assert raw.readinto(buffer) == 0
        assert buffer == bytes(6)


def test_after_abandon_nothing_reaches_the_disk(tmp_path: Path) -> None:
    path, log = tmp_path / "x.h5", tmp_path / "redo"
    with CrashSafeFile(path, log) as raw:
        with h5py.File(raw, "w") as file:
            program = Program(file, 3)
            for _ in range(30):
                program.step()
            file.flush()
            raw.commit(b"here")
            before = state(file)
            content = path.read_bytes()
            raw.abandon()
            for _ in range(60):
                program.step()
            after = state(file)
            file.flush()
            assert state(file) == after
        assert path.read_bytes() == content
        with pytest.raises(ValueError, match="an abandoned file must not be committed"):
            raw.commit()
    check(path, log, before, tmp_path)


def test_close_leaves_to_recovery_what_a_commit_did_not_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, log = tmp_path / "file", tmp_path / "redo"

    def fails(*args: Any) -> None:
        raise OSError(5, "Input/output error")

    with CrashSafeFile(path, log) as raw:
        raw.write(b"abc")
        raw.commit()
        raw.seek(0)
        raw.write(b"xyzdef")
        with monkeypatch.context() as patched:
            patched.setattr(crashsafe, "apply", fails)
            with pytest.raises(OSError, match="Input/output error"):
                raw.commit(b"n")
        with pytest.raises(OSError, match="Input/output error"):
            raw.commit(b"again")
    assert path.read_bytes() == b"abcdef"
    assert recover(path, log) == b"n"
    assert path.read_bytes() == b"xyzdef"


def test_close_twice_and_loses_what_was_not_committed(tmp_path: Path) -> None:
    path, log = tmp_path / "file", tmp_path / "redo"
    raw = CrashSafeFile(path, log)
    raw.write(b"abc")
    raw.commit(b"n")
    raw.write(b"def")
    raw.seek(0)
    raw.write(b"x")
    raw.close()
    assert path.read_bytes() == b"abc"
    raw.close()
    assert recover(str(path), str(log)) == b"n"
    assert path.read_bytes() == b"abc"


KILLED = """
import sys, h5py, numpy as np
from oocload.convert.crashsafe import CrashSafeFile
raw = CrashSafeFile(sys.argv[1], sys.argv[2])
file = h5py.File(raw, "a")
if "x" not in file:
    file.create_dataset("x", (0,), "i8", chunks=(50,), maxshape=(None,), compression="gzip")
x = file["x"]
n = len(x)
while True:
    x.resize((n + 1333,))
    x[n:] = np.arange(n, n + 1333)
    n += 1333
    file.attrs["n"] = n
    file.attrs[f"a{n % 7}"] = bytes([n % 251 + 1]) * (n % 500)
    file.flush()
    raw.commit(str(n).encode())
    print(n, flush=True)
"""


def test_sigkill(tmp_path: Path) -> None:
    path, log = tmp_path / "x.h5", tmp_path / "redo"
    rng = random.Random(0)
    said = 0
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", KILLED, path, log], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 40)):
                said = int(process.stdout.readline())
            time.sleep(rng.random() / 100)
            process.send_signal(signal.SIGKILL)
            said = max([said, *map(int, process.stdout.read().split("\n")[:-1])])
        note = recover(str(path), str(log))
        assert note is not None
        assert int(note) in (said, said + 1333)
        with h5py.File(path) as file:
            assert len(file["x"]) == file.attrs["n"] == int(note)
            np.testing.assert_array_equal(file["x"][()], np.arange(int(note)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("needs to mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


FULL = """
import sys, h5py, numpy as np
from oocload.convert.crashsafe import CrashSafeFile
raw = CrashSafeFile(sys.argv[1], sys.argv[2])
file = h5py.File(raw, "w")
x = file.create_dataset("x", (0, 1000), "u1", chunks=(100, 1000), maxshape=(None, 1000), compression="gzip")
rng = np.random.default_rng(0)
try:
    for n in range(100, 100_000, 100):
        x.resize(n, axis=0)
        rows = rng.integers(0, 256, (100, 1000), "u1")
        if sys.argv[3] == "chunks":
            x.id.write_direct_chunk((n - 100, 0), rows.tobytes(), 1)
        else:
            x[n - 100 :] = rows
            file.attrs.create(f"a{n % 300}", rows[0, :n % 1000].tobytes().hex()[:500])
        raw.check()
        if n % 500 == 0:
            file.flush()
            raw.commit(str(n).encode())
            print(n)
except OSError as exc:
    assert exc is raw.failure
    print(exc)
raw.abandon()
file.close()
raw.close()
"""


@pytest.mark.parametrize("way", ["chunks", "rows"])
def test_a_full_disk(small_disk: Path, way: str) -> None:
    path, log = small_disk / "x.h5", small_disk / "redo"
    done = subprocess.run([sys.executable, "-c", FULL, path, log, way], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    size = path.stat().st_size
    *commits, error = done.stdout.splitlines()
    assert error == "[Errno 28] No space left on device"
    note = recover(str(path), str(log))
    assert note == commits[-1].encode()
    assert path.stat().st_size == size  # closing gave the space back
    with h5py.File(path, "r+") as file:
        assert len(file["x"]) == int(note)
        assert int(file["x"][()].sum()) == int(np.random.default_rng(0).integers(0, 256, (int(note), 1000), "u1").sum())
        file["x"].resize(int(note) + 100, axis=0)
        file["x"][-100:] = 7
    with h5py.File(path) as file:
        assert (file["x"][-100:] == 7).all()
