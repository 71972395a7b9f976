"""A step that replaces several files of a directory at once: the redo log of Zarr stores.

The new files are made in a folder beside the store; a list of where they belong appears in it by one rename, which is
the moment from which the step counts as done; then each is renamed to its place. Whoever finds a list goes on with it.
Nothing is synced, as in `redo`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import google_crc32c

LIST = "moves"


class Move(NamedTuple):
    """One new file.

    Attributes
    ----------
    source
        Its path in the folder.
    target
        Where it belongs, from the root of the store.
    before, after
        The crc32c of the file there, and of the new one, where they tell whose list this is; else None.

    """

    source: str
    target: str
    before: int | None = None
    after: int | None = None


def write_moves(folder: Path, moves: Sequence[Move]) -> None:
    """Write the list; all files that it names must be there.

    Raises
    ------
    OSError
        If it cannot be written.

    """
    text = json.dumps(moves).encode()
    part = folder / f"{LIST}.new"
    part.write_bytes(b"%08x\n" % google_crc32c.value(text) + text)
    os.replace(part, folder / LIST)


def apply_moves(root: Path, folder: Path, moves: Sequence[Move]) -> None:
    """Rename every file to its place, in order; those that are there already are left out."""
    for move in moves:
        source, target = folder / move.source, root / move.target
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)


def recover_moves(root: Path, folder: Path) -> bool:
    """Finish the step whose list a folder holds, and remove the folder.

    Returns
    -------
    bool
        False, and nothing is touched, where there is no list, or it is torn, or not of this store.

    Raises
    ------
    OSError
        If a file cannot be renamed; recovery can be tried again.

    """
    moves = _read(folder)
    if moves is None or not all(_belongs(root, move) for move in moves):
        return False
    apply_moves(root, folder, moves)
    (folder / LIST).unlink()
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _read(folder: Path) -> list[Move] | None:
    """Return a list, or None where it is not whole."""
    try:
        head, _, text = (folder / LIST).read_bytes().partition(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if head != b"%08x" % google_crc32c.value(text):
        return None
    return [Move(*move) for move in json.loads(text)]


def _belongs(root: Path, move: Move) -> bool:
    if move.before is None:
        return True
    try:
        return google_crc32c.value((root / move.target).read_bytes()) in (move.before, move.after)
    except FileNotFoundError:
        return False
