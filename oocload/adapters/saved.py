"""A directory of checkpoints: one file each, whole or not there, of which the last few are kept.

A checkpoint is an ``.npz`` file (a ZIP archive of NumPy arrays, whose CRC-32s are verified on reading), with its facts
as JSON in the array ``facts``. It is written beside its name, forced to disk and renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from oocload.errors import CheckpointError, InvalidArgumentError

_SUFFIX = ".npz"
_PARTIAL = ".partial"
_VERSION = 1


class Saved(NamedTuple):
    """What a checkpoint holds: facts as JSON has them, and arrays."""

    path: Path
    facts: dict[str, Any]
    arrays: list[NDArray[Any]]


class Directory:
    """Checkpoints of one run, by name in the order in which they were made.

    Parameters
    ----------
    path
        Made when the first checkpoint is.
    keep
        How many stay.

    Raises
    ------
    InvalidArgumentError
        If the path is a file.

    """

    def __init__(self, path: str | os.PathLike[str], keep: int) -> None:
        self.path, self._keep = Path(path), keep
        if self.path.exists() and not self.path.is_dir():
            raise InvalidArgumentError(f"directory must not be a file, and {self.path} is one; name another")

    def save(self, name: str, facts: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> Path:
        """Write a checkpoint, then remove those beyond the last few; return its path."""
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / f"checkpoint-{name}{_SUFFIX}"
        partial = target.with_name(target.name + _PARTIAL)
        # NumPy's format knows its own dtypes alone: others (bfloat16) are kept as bytes, with their names
        kept = {f"array_{i}": np.frombuffer(a.tobytes(), np.uint8) for i, a in enumerate(arrays)}
        kinds = [{"dtype": str(a.dtype), "shape": a.shape} for a in arrays]
        text = json.dumps({"version": _VERSION, "arrays": kinds, **facts})
        with open(partial, "wb") as file:
            np.savez(file, facts=np.array(text), **kept)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
        _sync(self.path)
        for old in self._paths()[: -self._keep]:
            old.unlink(missing_ok=True)
        return target

    def newest(self) -> Saved | None:
        """Return the newest checkpoint; None where there is none. What a killed run left half written is removed.

        Raises
        ------
        CheckpointError
            If it is damaged.

        """
        for partial in self.path.glob(f"*{_PARTIAL}"):
            with suppress(OSError):
                partial.unlink()
        paths = self._paths()
        if not paths:
            return None
        path = paths[-1]
        try:
            return _read(path)
        except Exception as exc:  # a damaged archive may be anything, even encrypted
            before = f"to go on from {paths[-2].name}" if len(paths) > 1 else "to begin anew"
            raise CheckpointError(
                f"checkpoint must be whole, and {path} is damaged ({exc}); delete that file {before}"
            ) from exc

    def _paths(self) -> list[Path]:
        return sorted(self.path.glob(f"checkpoint-*{_SUFFIX}"))


def _read(path: Path) -> Saved:
    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
        facts = json.loads(str(file["facts"]))
        if facts["version"] != _VERSION:
            raise ValueError(f"version is {facts['version']}, not {_VERSION}")
        arrays = [
            file[f"array_{i}"].view(_dtype(kind["dtype"])).reshape(kind["shape"])
            for i, kind in enumerate(facts["arrays"])
        ]
    return Saved(path, facts, arrays)


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # comes with every framework that has these

        return cast("np.dtype[Any]", np.dtype(getattr(ml_dtypes, name)))


def _sync(directory: Path) -> None:
    """Force a directory's entries to disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
