"""Many small ``.npy`` files, each read straight to its place: one system call reads header and data.

NumPy writes the same header for the same shape and dtype, so that few headers need parsing; `np.load` parses each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from oocload.chunks.scratch import Bytes
from oocload.errors import StoreFormatError
from oocload.stores.npy import read_npy_header


class NpyHead(NamedTuple):
    """What the header of a ``.npy`` file says, and how long it is."""

    offset: int
    shape: tuple[int, ...]
    fortran: bool
    stored_dtype: np.dtype[Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype in native byte order."""
        return self.stored_dtype.newbyteorder("=")

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return prod(self.shape) * self.stored_dtype.itemsize

    @property
    def is_plain(self) -> bool:
        """Whether its bytes are those of a row in memory."""
        in_order = not self.fortran or sum(n > 1 for n in self.shape) < 2
        return in_order and self.stored_dtype == self.dtype

    def make_plain(self, data: Bytes) -> None:
        """Make bytes of the file those of a row in memory, in C order and native byte order, in place."""
        if self.is_plain:
            return
        stored = data.copy().view(self.stored_dtype)
        array = stored.reshape(self.shape[::-1]).T if self.fortran else stored.reshape(self.shape)
        data.view(self.dtype).reshape(self.shape)[...] = array


def read_head(path: str) -> NpyHead:
    """Return what the header of a file says.

    Raises
    ------
    StoreFormatError
        If it cannot be read, or the array holds Python objects.

    """
    try:
        with open(path, "rb") as file:
            shape, fortran, dtype = read_npy_header(file, path)
            head = NpyHead(file.tell(), shape, fortran, dtype)
    except OSError as exc:
        raise StoreFormatError(f"{path} cannot be read: {exc}") from exc
    if dtype.hasobject:
        raise StoreFormatError(
            f"{path} must hold numbers, and holds pickled Python objects, which are never unpickled; save numbers anew"
        )
    return head


class NpyReader:
    """Reads files one after the other. Not thread-safe.

    Parameters
    ----------
    head_nbytes
        Bytes of the header that most files have.
    check
        Called with each header that is met for the first time, and the path.

    """

    def __init__(self, head_nbytes: int, check: Callable[[NpyHead, str], object]) -> None:
        self._raw = bytearray(head_nbytes)
        self._check = check
        self._heads: dict[bytes, NpyHead] = {}

    def read(self, path: str, room: Bytes) -> NpyHead:
        """Read an array to the beginning of some room, as rows lie in memory.

        Raises
        ------
        StoreFormatError
            If the file cannot be read, is truncated, or is larger than the room.

        """
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                n_read = os.readv(file, [self._raw, room])
                known = self._heads.get(bytes(self._raw)) if n_read >= len(self._raw) else None  # else an older one's
                head = known or self._parse(path)
                in_place = n_read - len(self._raw) if head.offset == len(self._raw) else 0
                if in_place < head.nbytes:
                    _read_rest(file, head, room, max(0, in_place), path)
            finally:
                os.close(file)
        except OSError as exc:
            raise StoreFormatError(f"{path} cannot be read: {exc}") from exc
        head.make_plain(room[: head.nbytes])
        return head

    def _parse(self, path: str) -> NpyHead:
        head = read_head(path)
        self._check(head, path)
        if head.offset == len(self._raw):
            self._heads[bytes(self._raw)] = head
        return head


def _read_rest(file: int, head: NpyHead, room: Bytes, at: int, path: str) -> None:
    """Read what one call has not: a large array, or one with a header of another length."""
    missing = head.offset + head.nbytes - os.fstat(file).st_size
    if missing > 0:
        raise StoreFormatError(f"{path} is truncated: {missing} bytes are missing; copy or write it again")
    if head.nbytes > len(room):
        raise StoreFormatError(f"{path} has changed since its size was looked at; convert again when it is written")
    while at < head.nbytes:
        n_read = os.preadv(file, [room[at : head.nbytes]], head.offset + at)
        if not n_read:
            raise StoreFormatError(f"{path} is truncated: it ended while it was read")
        at += n_read
