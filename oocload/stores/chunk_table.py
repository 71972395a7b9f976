"""Byte addresses of all chunks of one HDF5 dataset, and a cache of them on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from array import array
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from oocload.errors import StoreFormatError
from oocload.layout import ByteRange, ChunkGrid, FileStamp

_CACHE_VERSION = 3
_MOST_NBYTES = 2**62  # a file cannot be as large, whatever its header claims
_PIECE_CHUNKS = 2**14  # of the index that are looked at together
_DENSE_SHARE = 0.5  # from this share of chunks that were written, a table by chunk number is the smaller one


class ChunkTable:
    """Flat arrays of addresses: 16 bytes a chunk that was written, 24 where some were not, 4 more for filter masks.

    Parameters
    ----------
    path
        The file.
    stamp
        Of the file, when it was opened.
    offsets, sizes
        Of each chunk; an offset of -1 stands for a chunk that was never written.
    masks
        Filter mask of each, or None where no chunk has one.
    numbers
        Sorted numbers of the chunks that the arrays describe, or None where they describe all.

    """

    __slots__ = ("_masks", "_numbers", "_offsets", "_sizes", "path", "stamp")

    def __init__(
        self,
        path: str,
        stamp: FileStamp | None,
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        masks: NDArray[np.uint32] | None = None,
        numbers: NDArray[np.int64] | None = None,
    ) -> None:
        self.path = path
        self.stamp = stamp
        self._offsets = offsets
        self._sizes = sizes
        self._masks = masks
        self._numbers = numbers

    @classmethod
    def contiguous(cls, path: str, stamp: FileStamp, offset: int | None, nbytes: int) -> Self:
        """One range that holds the whole field; offset None where nothing was ever written."""
        sizes = np.array([min(nbytes, _MOST_NBYTES)], np.int64)
        return cls(path, stamp, np.array([-1 if offset is None else offset], np.int64), sizes)

    @classmethod
    def chunked(cls, path: str, stamp: FileStamp, dataset: h5py.Dataset, grid: ChunkGrid) -> Self:
        """Read the chunk index once; `get_chunk_info` in a loop would be quadratic (kerchunk#331)."""
        n_written = dataset.id.get_num_chunks()
        dense = n_written >= _DENSE_SHARE * grid.n_chunks
        room = grid.n_chunks if dense else n_written
        offsets, sizes = np.full(room, -1, np.int64), np.zeros(room, np.int64)
        masks, numbers = np.zeros(room, np.uint32), np.zeros(0 if dense else room, np.int64)
        filled = 0

        def keep(piece: _Piece) -> None:
            nonlocal filled
            found, inside = piece.numbers(grid)
            places: Any = found if dense else slice(filled, filled + len(found))
            offsets[places], sizes[places], masks[places] = (
                np.array(column, np.int64)[inside] for column in (piece.offsets, piece.sizes, piece.masks)
            )
            if not dense:
                numbers[places] = found
            filled += len(found)

        _walk(dataset, keep)
        every = masks if masks.any() else None
        if dense:
            return cls(path, stamp, offsets, sizes, every)
        order = np.argsort(numbers[:filled], kind="stable")
        return cls(path, stamp, offsets[order], sizes[order], None if every is None else every[order], numbers[order])

    def check_against_file(self, where: str) -> None:
        """Raise where a chunk ends behind the end of the file."""
        file_nbytes = os.stat(self.path).st_size
        ends = np.where(self._offsets >= 0, self._offsets + self._sizes, 0)
        if len(ends) and int(ends.max()) > file_nbytes:
            place = int(ends.argmax())
            chunk = place if self._numbers is None else int(self._numbers[place])
            raise StoreFormatError(
                f"{where}: chunk {chunk} ends at byte {int(ends[place])}, but {self.path} has {file_nbytes} bytes; "
                "the file is truncated: copy or write it again"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the index holds."""
        arrays = (self._offsets, self._sizes, self._masks, self._numbers)
        return sum(a.nbytes for a in arrays if a is not None)

    @property
    def max_stored_nbytes(self) -> int | None:
        """Size of the largest stored chunk."""
        return int(self._sizes.max()) if len(self._sizes) else 0

    def find(self, chunk: int) -> ByteRange | None:
        """Return where a chunk's bytes lie, or None where it was never written."""
        if self._numbers is not None:
            place = int(np.searchsorted(self._numbers, chunk))
            if place == len(self._numbers) or self._numbers[place] != chunk:
                return None
            chunk = place
        offset = int(self._offsets[chunk])
        if offset < 0:
            return None
        skipped = 0 if self._masks is None else int(self._masks[chunk])
        return ByteRange(self.path, offset, int(self._sizes[chunk]), skipped)

    def save(self, file: Path) -> None:
        """Write the table to a file of a cache, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {"offsets": self._offsets, "sizes": self._sizes, "masks": self._masks, "numbers": self._numbers}
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            try:
                np.savez(part, **{name: a for name, a in arrays.items() if a is not None})  # type: ignore[arg-type]
                part.close()
                os.replace(part.name, file)
            except BaseException:
                os.unlink(part.name)
                raise

    @classmethod
    def load(cls, file: Path, path: str, stamp: FileStamp, n_chunks: int) -> Self | None:
        """Return the table that a file of a cache holds, or None where there is none that can be read."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            table = cls(path, stamp, found["offsets"], found["sizes"], found.get("masks"), found.get("numbers"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        n_written = len(table._offsets)
        even = all(len(a) == n_written for a in found.values())
        whole = even and ("numbers" in found or n_written == n_chunks)
        return table if whole else None


class _Piece:
    """Some chunks as the file lists them: corner, address, stored size and filter mask of each."""

    def __init__(self) -> None:
        self.corners, self.offsets, self.sizes, self.masks = array("q"), array("q"), array("q"), array("q")

    def numbers(self, grid: ChunkGrid) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the numbers of those that lie in the dataset, and which do: a shrunk one may keep others."""
        index = np.array(self.corners, np.int64).reshape(-1, len(grid.chunks)) // np.array(grid.chunks)
        inside = (index < np.array(grid.counts)).all(axis=1)
        numbers = np.zeros(int(inside.sum()), np.int64)
        for axis, count in enumerate(grid.counts):
            numbers *= count
            numbers += index[inside, axis]
        return numbers, inside


def _walk(dataset: h5py.Dataset, keep: Callable[[_Piece], None]) -> None:
    """Hand over a dataset's chunk index piece by piece, so that it is never held twice."""
    piece = _Piece()
    user_block = dataset.file.userblock_size
    left_out = user_block if user_block and _leaves_out_user_block() else 0

    def note(info: Any) -> None:
        nonlocal piece
        piece.corners.extend(info.chunk_offset)
        piece.offsets.append(info.byte_offset + left_out)
        piece.sizes.append(info.size)
        piece.masks.append(info.filter_mask)
        if len(piece.offsets) == _PIECE_CHUNKS:
            keep(piece)
            piece = _Piece()

    dataset.id.chunk_iter(note)
    keep(piece)


@cache
def _leaves_out_user_block() -> bool:
    """Whether HDF5 tells where chunks lie from the end of the user block on, as 1.14.2 does and 1.14.4 does not."""
    offsets = []
    for nbytes in (0, 512):
        with h5py.File("probe", "w", driver="core", backing_store=False, userblock_size=nbytes) as file:
            dataset = file.create_dataset("x", data=[0], chunks=(1,))
            file.flush()
            offsets.append(dataset.id.get_chunk_info(0).byte_offset)
    return bool(offsets[0] == offsets[1])


def cache_file(folder: Path, path: str, stamp: FileStamp, name: str) -> Path:
    """Return the file of a cache that belongs to one dataset of one file, as it is now."""
    key = repr((_CACHE_VERSION, path, tuple(stamp), name))
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
