"""The journal of a conversion: which chunks are in the store, and from which row to go on after a kill.

A file of blocks, each with a checksum of its own: what a kill has torn off at the end counts as never written. The
first block holds what is being made (`recipe`), each later one the chunks of a commit. Nothing is ever overwritten.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from oocload.stores.redo import write_at

_HEADER = struct.Struct("<4sIIII")  # magic; bytes of records, of heads and of the note; crc32c of all but itself
_CRC = struct.Struct("<I")
_MAGIC = b"OOCJ"
_RECORD = np.dtype(
    [("array", "<u2"), ("skipped", "<u2"), ("raw", "<u4"), ("crc", "<u4"), ("chunk", "<u8"), ("nbytes", "<u8")]
)
_ABSENT = np.uint64(2**64 - 1)


class Mark(NamedTuple):
    """A row from which the source can be read again.

    Attributes
    ----------
    n_rows
        Rows before it.
    lengths
        Array → its length at that row.
    heads
        Array → bytes of its last rows, from where a chunk begins that is not written yet. All others are.

    """

    n_rows: int
    lengths: dict[str, int]
    heads: dict[str, bytes]


@dataclass(slots=True)
class Records:
    """What is known of the chunks of one array, by number.

    ``raw`` is the crc32c of the rows, ``crc`` that of the stored bytes, ``skipped`` the mask of HDF5's filters.
    """

    known: NDArray[Any] = field(default_factory=lambda: np.empty(0, _RECORD))
    n_chunks: int = 0

    def add(self, records: NDArray[Any]) -> None:
        """Note chunks."""
        chunks = records["chunk"].astype(np.intp)
        stop = int(chunks.max()) + 1
        if stop > len(self.known):
            grown = np.zeros(max(64, stop, len(self.known) * 3 // 2), _RECORD)
            grown["nbytes"] = _ABSENT
            grown[: len(self.known)] = self.known
            self.known = grown
        self.known[chunks] = records
        self.n_chunks = max(self.n_chunks, stop)

    def has(self, chunk: int) -> bool:
        """Whether a chunk is written."""
        return chunk < self.n_chunks and self.known[chunk]["nbytes"] != _ABSENT

    def raw(self, chunk: int) -> int:
        """Return the crc32c of the rows of a chunk that is written."""
        return int(self.known[chunk]["raw"])

    @property
    def nbytes(self) -> NDArray[np.uint64]:
        """Stored bytes of each chunk."""
        return np.asarray(self.known["nbytes"][: self.n_chunks])

    @property
    def crc(self) -> NDArray[np.uint32]:
        """crc32c of the stored bytes of each chunk."""
        return np.asarray(self.known["crc"][: self.n_chunks])


class Journal:
    """Appends to the journal, and knows all that is in it.

    Parameters
    ----------
    path
        The file.
    recipe
        What is being made.
    arrays
        Names of its arrays; records have their places in it.

    """

    def __init__(self, path: Path, recipe: Mapping[str, Any], arrays: tuple[str, ...]) -> None:
        self.recipe = recipe
        self.mark = Mark(0, dict.fromkeys(arrays, 0), {})
        self.whole: Mapping[str, Any] | None = None
        self.records = {name: Records() for name in arrays}
        self.pending_nbytes = 0
        self.stored_nbytes = 0
        self.n_commits = 0
        self.heads_nbytes = 0
        self._numbers = {name: n for n, name in enumerate(arrays)}
        self._pending: list[tuple[int, ...]] = []
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._end = 0

    @classmethod
    def begin(cls, path: Path, recipe: Mapping[str, Any], arrays: tuple[str, ...]) -> Self:
        """Start a journal."""
        journal = cls(path, recipe, arrays)
        os.ftruncate(journal._file, 0)
        journal._append(b"", b"", {"recipe": recipe, "arrays": arrays})
        return journal

    @classmethod
    def load(cls, path: Path, stop: int | None = None) -> Self | None:
        """Return the journal that lies at a path, up to a byte where that is given; None where it holds nothing."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        with file:
            blocks = _blocks(file, path.stat().st_size if stop is None else stop)
            first = next(blocks, None)
            if first is None or "recipe" not in first.note:
                return None
            journal = cls(path, first.note["recipe"], tuple(first.note["arrays"]))
            journal._end = first.end
            for block in blocks:
                journal._apply(block)
                journal._end = block.end
        os.ftruncate(journal._file, journal._end)
        return journal

    def add(self, array: str, chunk: int, nbytes: int, crc: int, raw: int, skipped: int = 0) -> None:
        """Note a chunk; it counts from the next commit on."""
        self._pending.append((self._numbers[array], skipped, raw, crc, chunk, nbytes))
        self.pending_nbytes += nbytes
        self.stored_nbytes += nbytes

    def commit(self, mark: Mark | None = None, whole: Mapping[str, Any] | None = None) -> int:
        """Write what was noted; return the journal's length.

        Parameters
        ----------
        mark
            From where the source can be read again, all chunks noted so far being there.
        whole
            What is said of the finished store, which waits for its name.

        """
        note: dict[str, Any] = {}
        heads = b""
        if mark is not None:
            note["mark"] = [mark.n_rows, mark.lengths, {name: len(head) for name, head in mark.heads.items()}]
            heads = b"".join(mark.heads.values())
        if whole is not None:
            note["whole"] = whole
        records = np.array(self._pending, _RECORD)
        self._append(records.tobytes(), heads, note)
        self._pending.clear()
        self.pending_nbytes = 0
        self._note(records, heads, note)
        return self._end

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, records: bytes, heads: bytes, note: Mapping[str, Any]) -> None:
        text = json.dumps(note).encode()
        body = records + heads + text
        sizes = _HEADER.pack(_MAGIC, len(records), len(heads), len(text), 0)[: -_CRC.size]
        block = sizes + _CRC.pack(google_crc32c.value(sizes + body)) + body
        write_at(self._file, block, self._end)
        self._end += len(block)

    def _apply(self, block: _Block) -> None:
        records = np.frombuffer(block.records, _RECORD)
        self._note(records, block.heads, block.note)
        self.stored_nbytes += int(records["nbytes"].sum())

    def _note(self, records: NDArray[Any], heads: bytes, note: Mapping[str, Any]) -> None:
        for name, number in self._numbers.items():
            if len(some := records[records["array"] == number]):
                self.records[name].add(some)
        if "mark" in note:
            n_rows, lengths, sizes = note["mark"]
            self.heads_nbytes += len(heads)
            ends = np.cumsum(list(sizes.values())).tolist()
            self.mark = Mark(n_rows, lengths, {n: heads[e - sizes[n] : e] for n, e in zip(sizes, ends, strict=True)})
        self.whole = note.get("whole", self.whole)
        self.n_commits += bool(len(records))


def read_recipe(path: Path) -> Mapping[str, Any] | None:
    """Return what a journal is of, without touching it; None where there is none."""
    try:
        with path.open("rb") as file:
            first = next(_blocks(file, path.stat().st_size), None)
    except FileNotFoundError:
        return None
    recipe = None if first is None else first.note.get("recipe")
    return recipe if isinstance(recipe, Mapping) else None


class _Block(NamedTuple):
    records: bytes
    heads: bytes
    note: Mapping[str, Any]
    end: int


def _blocks(file: BinaryIO, stop: int) -> Iterator[_Block]:
    """Yield the whole blocks at the beginning, one at a time: a journal of days need not fit into memory."""
    at = 0
    while at + _HEADER.size <= stop:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return
        magic, n_records, n_heads, n_note, crc = _HEADER.unpack(header)
        end = at + _HEADER.size + n_records + n_heads + n_note
        if magic != _MAGIC or end > stop:
            return
        body = file.read(end - at - _HEADER.size)
        if google_crc32c.value(header[: -_CRC.size] + body) != crc:
            return
        at = end
        note = json.loads(body[n_records + n_heads :])
        yield _Block(body[:n_records], body[n_records : n_records + n_heads], note, at)
