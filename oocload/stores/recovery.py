"""Finishing an append that a process did not live to finish: whoever opens the store next does it."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path

from oocload.errors import StoreFormatError
from oocload.stores.moves import LIST, recover_moves
from oocload.stores.redo import recover

_PATIENCE_S = 2.0  # an append that lives holds its log for milliseconds


def redo_of(path: str | os.PathLike[str]) -> Path:
    """Return where the redo log of a file lies, or the folder of that of a directory: beside it, hidden."""
    real = Path(os.path.realpath(path))
    return real.with_name(f".{real.name}.redo")


def lock(path: str | os.PathLike[str]) -> int:
    """Return a descriptor that holds the exclusive lock of a file or directory, until it is closed.

    Raises
    ------
    BlockingIOError
        If another holds it, or reads the file with h5py.
    OSError
        If the file cannot be written.

    """
    is_folder = os.path.isdir(path)
    fd = os.open(path, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_folder and not os.access(path, os.W_OK):
            raise PermissionError(f"{os.fspath(path)} cannot be written")
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_unfinished(path: str | os.PathLike[str]) -> bool:
    """Whether a log says that an append was not finished."""
    log = redo_of(path)
    return (log / LIST).exists() if os.path.isdir(path) else log.is_file()


def recover_store(path: str | os.PathLike[str]) -> bool:
    """Finish the append that a log describes, and remove the log; the caller holds the lock.

    Returns False, and touches nothing, where there is no log of this store.
    """
    log = redo_of(path)
    if os.path.isdir(path):
        return recover_moves(Path(os.path.realpath(path)), log)
    if recover(path, log) is None:
        return False
    log.unlink(missing_ok=True)
    return True


def discard(path: str | os.PathLike[str]) -> None:
    """Remove what is left of an append that did not come to its step, and a log that is not of this store."""
    log = redo_of(path)
    if os.path.isdir(path):
        shutil.rmtree(log, ignore_errors=True)
    else:
        log.unlink(missing_ok=True)
        log.with_name(f"{log.name}.new").unlink(missing_ok=True)


def finish_append(path: str) -> None:
    """Finish what an append has left, if any has; for those who are about to read.

    Raises
    ------
    StoreFormatError
        If it cannot be done here and now.

    """
    until = time.monotonic() + _PATIENCE_S
    while is_unfinished(path):
        try:
            fd = lock(path)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.01)
                continue
            raise StoreFormatError(
                f"{path} is in the middle of an append by another process; open it again when that is done"
            ) from None
        except OSError as exc:
            raise _unfinished(path, exc) from exc
        try:
            recover_store(path)
        except OSError as exc:
            raise _unfinished(path, exc) from exc
        finally:
            os.close(fd)
        return


def _unfinished(path: str, exc: OSError) -> StoreFormatError:
    return StoreFormatError(
        f"{path} was left in the middle of an append, which must be finished before it is read, and cannot be written "
        f"here: {exc}; open it once where it can"
    )
