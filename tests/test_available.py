"""What this process may take: the machine's memory, and limits of control groups."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import oocload
from oocload import available
from oocload.available import available_memory, default_ceiling, total_memory
from oocload.units import format_bytes

GIB = 2**30
MIB = 2**20


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes up a machine with 16 GiB, 8 of them available, and its control groups."""

    def make(membership: str) -> Path:
        (tmp_path / "meminfo").write_text(f"MemTotal: {16 * 2**20} kB\nMemAvailable: {8 * 2**20} kB\n")
        (tmp_path / "membership").write_text(membership)
        monkeypatch.setattr(available, "_MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(available, "_MEMBERSHIP", tmp_path / "membership")
        monkeypatch.setattr(available, "_CGROUPS", tmp_path / "cgroup")
        return tmp_path / "cgroup"

    return make


def group(folder: Path, version: int, limit: int | str, used: int, inactive: int = 0, active: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    prefix = "" if version == 2 else "total_"
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"cache 1\n{prefix}inactive_file {inactive}\n{prefix}active_file {active}\n")


def test_without_groups_it_is_what_the_machine_has(machine: Callable[..., Path]) -> None:
    machine("")
    assert (available_memory(), total_memory(), default_ceiling()) == (8 * GIB, 16 * GIB, 2 * GIB)


@pytest.mark.parametrize(("version", "line"), [(1, "5:cpu,memory:/job/7"), (2, "0::/job/7")])
def test_the_tightest_group_counts_and_page_cache_is_free(
    machine: Callable[..., Path], version: int, line: str
) -> None:
    """A job that reads large files fills its group with page cache, which the kernel drops when it must."""
    root = machine(f"1:cpuset:/job/7\n{line}\n")
    root.mkdir(exist_ok=True)
    if version == 2:
        (root / "cgroup.controllers").write_text("memory")
    mount = root / "memory" if version == 1 else root
    group(mount / "job" / "7", version, 4 * GIB, used=3 * GIB, inactive=GIB, active=GIB)
    assert (available_memory(), total_memory()) == (3 * GIB, 4 * GIB)
    group(mount / "job", version, 2 * GIB, used=GIB + 512 * MIB)
    assert (available_memory(), total_memory()) == (512 * MIB, 2 * GIB)
    assert default_ceiling() == 128 * MIB
    group(mount / "job", version, "max" if version == 2 else 2**63 - 4096, used=GIB)
    assert total_memory() == 4 * GIB


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::\n", "1:memory\n0:a:b:c\n"])
def test_what_cannot_be_understood_is_no_limit(machine: Callable[..., Path], text: str) -> None:
    root = machine(text)
    root.mkdir(exist_ok=True)
    (root / "memory.max").write_text("lots\n")
    (root / "memory.current").write_text("few\n")
    (root / "memory.stat").write_text("inactive_file\n")
    assert (available_memory(), total_memory()) == (8 * GIB, 16 * GIB)


def test_a_container_sees_its_group_as_the_root(machine: Callable[..., Path]) -> None:
    root = machine("0::/kubepods/pod-1/container-2\n")
    root.mkdir(exist_ok=True)
    (root / "cgroup.controllers").write_text("memory")
    group(root, 2, GIB, used=0)
    assert total_memory() == GIB


@pytest.fixture
def real_group() -> Iterator[Path]:
    parent = Path("/sys/fs/cgroup/memory")
    folder = parent / f"oocload-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as exc:
        pytest.skip(f"needs a memory control group (v1), which cannot be made here: {exc}")
    try:
        (folder / "memory.limit_in_bytes").write_text(str(512 * MIB))
        yield folder
    finally:
        folder.rmdir()


def test_a_real_group(real_group: Path) -> None:
    code = (
        f"import os; open({str(real_group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        "from oocload.available import available_memory, default_ceiling, total_memory\n"
        "print(total_memory(), available_memory(), default_ceiling())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    total, left, ceiling = map(int, done.stdout.split())
    assert total == 512 * MIB
    assert 384 * MIB < left <= 512 * MIB
    assert 96 * MIB < ceiling <= 128 * MIB


def test_a_ceiling_above_what_the_machine_has_is_warned_about(
    machine: Callable[..., Path], make_store: Callable[..., Path]
) -> None:
    path = make_store()
    machine("")
    with pytest.warns(
        oocload.MemoryCeilingWarning,
        match=r"memory is 17\.0 GiB, and this process can have 16\.0 GiB at most: .* pass memory= from \d+ \(.*\) to "
        r"8589934592 bytes \(8\.0 GiB\)",
    ):
        oocload.Loader(path, 10, memory="17 GiB").close()
    oocload.Loader(path, 10, memory="16 GiB").close()  # which it needs no part of


@pytest.mark.parametrize(
    ("left", "remedy"),
    [
        (100_000, r"97\.7 KiB are available: .* pass memory= from \d+ \(.*\) to 100000 bytes \(97\.7 KiB\)"),
        (
            10_000,
            r"9\.8 KiB are available: .* even the least that works, .*, is more than the 9\.8 KiB available; lower",
        ),
    ],
)
def test_a_need_above_what_is_available_is_warned_about(
    machine: Callable[..., Path], make_store: Callable[..., Path], left: int, remedy: str
) -> None:
    path = make_store(5000, 50, compression="lzf")
    root = machine("0::/\n")
    root.mkdir(exist_ok=True)
    (root / "cgroup.controllers").write_text("memory")
    group(root, 2, 300 * MIB, used=300 * MIB - left)
    with pytest.warns(oocload.MemoryCeilingWarning, match=rf"of memory .* are needed, and {remedy}"):
        oocload.Loader(path, 100, memory="100 MiB").close()


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        (0, r"memory must be a size above zero, got 0; write bytes as an integer or text such as '512 MiB'"),
        (-1, "memory must be a size above zero, got -1; write bytes"),
        ("-5 MiB", "memory must be a size above zero, got '-5 MiB'; write bytes"),
        ("lots", "memory must be a size above zero, got 'lots'; write bytes as an integer or text such as '512 MiB'"),
        ("9" * 400, "memory must be a size above zero, got '999"),
        ("0 GiB", "memory must be a size above zero, got '0 GiB'"),
        ("5 XB", "memory must be a size above zero, got '5 XB'"),
        (1e9, r"memory must be a size above zero, got 1000000000\.0; write bytes as an integer"),
        (True, "memory must be a size above zero, got True"),
        (
            "1 KiB",
            r"memory must be at least \d+ bytes \(.*\) for this store and batch size, got 1\.0 KiB; raise memory=",
        ),
    ],
)
def test_bad_ceilings(make_store: Callable[..., Path], memory: object, message: str) -> None:
    with pytest.raises(oocload.InvalidArgumentError, match=message):
        oocload.Loader(make_store(), 10, memory=memory)


def test_numpys_integers_are_bytes(make_store: Callable[..., Path]) -> None:
    import numpy as np

    with oocload.Loader(make_store(), 10, memory=np.int64(2**22)) as loader:
        assert loader.memory == 2**22


def test_the_default_shows(make_store: Callable[..., Path]) -> None:
    with oocload.Loader(make_store(), 10) as loader:
        assert f"memory: ceiling {format_bytes(loader.memory)}, of which" in repr(loader)
