"""How much memory this process may take: what the machine has, and what its control groups leave it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAX_DEFAULT_CEILING = 2 * 2**30

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_MEMINFO = Path("/proc/meminfo")


def default_ceiling() -> int:
    """Return a quarter of the memory that this process may still take, at most 2 GiB."""
    return min(_MAX_DEFAULT_CEILING, available_memory() // 4)


def available_memory() -> int:
    """Return the bytes that this process may still take: what its control groups leave, or what the machine has free.

    The page cache counts as free, as the kernel drops it when memory is asked for.
    """
    return max(1, min([_machine("MemAvailable"), *(group.left for group in _groups())]))


def total_memory() -> int:
    """Return the bytes that this process could ever take: the machine's memory, or the limit of a control group."""
    return max(1, min([_machine("MemTotal"), *(group.limit for group in _groups())]))


def _machine(key: str) -> int:
    """Return a line of /proc/meminfo in bytes; all memory where there is none."""
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


@dataclass(frozen=True, slots=True)
class _Version:
    """The files of a control group, and how the lines of its ``memory.stat`` begin that count pages of files."""

    limit: str
    used: str
    cached: tuple[str, str]


_V1 = _Version(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file ", "total_active_file ")
)  # cgroup-v1/memory.rst
_V2 = _Version("memory.max", "memory.current", ("inactive_file ", "active_file "))  # cgroup-v2.rst


@dataclass(frozen=True, slots=True)
class _Group:
    """A control group with a limit, in bytes."""

    limit: int
    used: int
    cached: int

    @property
    def left(self) -> int:
        """What may still be taken."""
        return self.limit - max(0, self.used - self.cached)


def _groups() -> Iterator[_Group]:
    """Yield the control groups that bound this process: its own, and those around it."""
    for version, mount, path in _memberships():
        own = mount / path.lstrip("/")
        inside = own if own.is_dir() else mount  # a container may see its group as the root, under another name
        for folder in (inside, *inside.parents):
            if folder.is_relative_to(mount) and (group := _read(folder, version)) is not None:
                yield group


def _memberships() -> Iterator[tuple[_Version, Path, str]]:
    """Yield (version, mount point, path of this process's group) of each hierarchy that counts memory."""
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield _V1, _CGROUPS / "memory", path
        elif not controllers:
            yield _V2, _CGROUPS if (_CGROUPS / "cgroup.controllers").exists() else _CGROUPS / "unified", path


def _read(folder: Path, version: _Version) -> _Group | None:
    """Return a group's figures, or None where it has no limit."""
    try:
        limit, used = ((folder / name).read_text().strip() for name in (version.limit, version.used))
        stat = (folder / "memory.stat").read_text().splitlines()
        cached = sum(int(line.split()[1]) for line in stat if line.startswith(version.cached))
        return None if limit == "max" else _Group(int(limit), int(used), cached)
    except (OSError, ValueError, IndexError):
        return None
