"""The folder beside a destination in which a store is made: one process at a time, and one rename at the end.

``.NAME.oocload`` holds the store in the making under its own name, its journal, HDF5's log of the last commit, and the
rows of a shuffle.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from pathlib import Path

from oocload.errors import ConversionError, TargetExistsError
from oocload.stores.recovery import discard

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


_JOURNAL = "journal"
_SCRATCH = "shuffle.rows"


class Workplace:
    """Makes the folder, and holds it until `close`.

    Parameters
    ----------
    destination
        Where the store will be.

    Raises
    ------
    ConversionError
        If another process holds it, or it cannot be made.

    """

    def __init__(self, destination: Path) -> None:
        destination = destination.absolute()  # the program may change its directory
        self.destination = followed(destination)
        self.folder = _folder_of(destination)
        self.store = self.folder / destination.name
        self.journal = journal_of(destination)
        self.redo = self.folder / "redo"
        self.scratch = scratch_of(destination)
        self._lock = -1
        try:
            self._hold()
        except OSError as exc:
            raise ConversionError(
                f"target's folder must be writable, got {os.fspath(destination.parent)!r}: {exc.strerror}; choose "
                "another place"
            ) from exc

    def clear(self) -> None:
        """Remove what an earlier conversion has left; a store that it was about to replace goes back to its name.

        The journal goes first: a kill in between must not leave one that speaks of chunks that are gone.
        """
        self.journal.unlink(missing_ok=True)
        replaced = self.folder / "replaced"
        if replaced.exists() and not self.destination.exists():
            os.rename(replaced, self.destination)
        kept = {self.scratch, self.scratch.with_suffix(".index")}  # of a shuffle, that knows whether they are its own
        for path in self.folder.iterdir():
            if path not in kept:
                remove(path)

    def is_published(self, inode: int) -> bool:
        """Whether the store that was made here has its name already: what may lie here is what it replaced."""
        return not self.store.exists() or os.stat(self.store).st_ino != inode

    def publish(self, overwrite: bool) -> None:
        """Give the store its name by one rename, in place of what is there if ``overwrite``.

        Raises
        ------
        TargetExistsError
            If something appeared there meanwhile, and ``overwrite`` is False.

        """
        check_target(self.destination, overwrite)
        if not self.destination.is_dir() and not (self.destination.exists() and self.store.is_dir()):
            os.replace(self.store, self.destination)  # a file, or a directory where nothing stands
        elif not _exchange(self.store, self.destination):
            os.rename(self.destination, self.folder / "replaced")
            os.rename(self.store, self.destination)
        discard(self.destination)  # an append to what was there before must not be finished in an equal store

    def remove(self) -> None:
        """Remove the folder, the journal last: a kill in between leaves what says that the store is whole."""
        try:
            if self._lock >= 0 and self._holds(self._lock):
                for path in self.folder.iterdir():
                    if path != self.journal:
                        remove(path)
                shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the folder; what is in it stays."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _holds(self, descriptor: int) -> bool:
        """Whether what a descriptor has locked is the folder that is there."""
        try:
            return os.path.samestat(os.stat(self.folder), os.fstat(descriptor))
        except FileNotFoundError:  # removed
            return False

    def _hold(self) -> None:
        while True:
            self.folder.mkdir(exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._holds(descriptor):  # or the other process had finished, and removed it
                    self._lock = descriptor
                    return
            except BlockingIOError as exc:
                raise ConversionError(
                    f"target must be written by one process at a time, and another is writing {self.destination}; "
                    "wait for it, or choose another place"
                ) from exc
            finally:
                if self._lock != descriptor:
                    os.close(descriptor)


def journal_of(destination: Path) -> Path:
    """Return where the journal lies of what is made for a destination."""
    return _folder_of(destination) / _JOURNAL


def scratch_of(destination: Path) -> Path:
    """Return where a shuffle writes all rows meanwhile."""
    return _folder_of(destination.absolute()) / _SCRATCH


def check_target(path: Path, overwrite: bool) -> None:
    """Raise where the destination is taken, or its folder is not there."""
    if path.exists() and not overwrite:
        raise TargetExistsError(
            f"target must not exist, got {os.fspath(path)!r}; pass overwrite=True (--overwrite) to replace it"
        )
    if not path.parent.is_dir():
        raise ConversionError(f"target's folder must exist, got {os.fspath(path.parent)!r}; make it first")


def remove(path: Path) -> None:
    """Remove a file or a directory."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def followed(path: Path) -> Path:
    """Return where a link leads, so that a store is made there, and the link stays; else the path."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _folder_of(destination: Path) -> Path:
    destination = followed(destination)
    return destination.with_name(f".{destination.name}.oocload")


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step, by Linux's renameat2; False where the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # an old C library
        return False
    if not rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code), os.fspath(other))
