"""Sources of one file per sample: pieces are ranges of files, and what is known beside a file goes with its row."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.convert.fields import Spec
from oocload.convert.sources.identity import Identity
from oocload.convert.sources.records import Records, RecordSource
from oocload.convert.sources.samples import Samples
from oocload.convert.sources.skipped import Skipped
from oocload.errors import StoreFormatError
from oocload.layout import Meaning

T = TypeVar("T")
Range = tuple[int, int]
Kept = NDArray[np.bool_]


class Read(NamedTuple):
    """What became of some files: rows of those that could be read, which these are, and what was left out."""

    rows: Any
    kept: Kept
    skipped: Sequence[Skipped]


class SampleFiles(RecordSource[Range]):
    """A source of files, each a row of the field ``x``.

    Attributes
    ----------
    paths
        The files, in the order of their rows.

    """

    skips: ClassVar[bool] = True
    can_jump = True
    paths: Sequence[str]

    @property
    @abstractmethod
    def samples(self) -> Samples:
        """What is known of them beside."""

    @property
    @abstractmethod
    def x_spec(self) -> Spec:
        """What their rows are."""

    @property
    @abstractmethod
    def costs(self) -> int | NDArray[np.int64]:
        """Bytes that reading a file takes beside what is known of it: of any, or of each."""

    @property
    def spare(self) -> int | NDArray[np.int64]:
        """Bytes that reading a file takes while it is read alone, such as the file itself: of any, or of each."""
        return 0

    @property
    def x_meaning(self) -> Meaning:
        """What the values of their rows stand for."""
        return Meaning()

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """What else the rows depend on."""

    @abstractmethod
    def read_files(self, start: int, stop: int, scratch: Scratch) -> Read:
        """Read some of the files, in any thread."""

    @property
    def record_specs(self) -> Mapping[str, Spec]:
        """Field → spec."""
        return {"x": self.x_spec, **self.samples.specs}

    @property
    def record_meanings(self) -> Mapping[str, Meaning]:
        """Field → what its values stand for."""
        return {"x": self.x_meaning, **self.samples.meanings}

    @property
    def n_records(self) -> int:
        """Files."""
        return len(self.paths)

    @property
    def least_piece_nbytes(self) -> int:
        """What the largest file takes."""
        return int(np.max(self.costs + self.spare)) + self.samples.row_nbytes

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each file; 0 of those that are gone."""
        return self._stamps()[:, 0]

    def record_identity(self) -> Identity:
        """Return options, and what tells files and labels from others."""
        return {
            "kind": type(self).__name__,
            **self.options,
            "n_files": len(self.paths),
            "files": hashlib.sha256(self._stamps().tobytes()).hexdigest(),
            "samples": self.samples.digest(),
        }

    def pieces(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[Range]:
        """Yield ranges of files."""
        stop = len(self.paths) if stop is None else min(stop, len(self.paths))
        most = max(1, piece_nbytes // (int(np.min(self.costs)) + self.samples.row_nbytes))
        while start < stop:
            end = min(start + most, stop)
            needed = np.cumsum(self._of(self.costs, start, end) + self.samples.row_nbytes)
            needed += np.maximum.accumulate(self._of(self.spare, start, end))
            n_files = max(1, int(np.searchsorted(needed, piece_nbytes, "right")))
            yield start, start + n_files
            start += n_files

    def read(self, piece: Range, scratch: Scratch) -> Records:
        """Return the rows of some files."""
        start, stop = piece
        read = self.read_files(start, stop, scratch)
        return Records({"x": read.rows, **self.samples.rows(start, stop, read.kept)}, read.skipped)

    def each(self, start: int, stop: int, read: Callable[[str, int], object]) -> tuple[Kept, list[Skipped]]:
        """Read some files, each with its path and how many were read before it, and return which of them were read.

        Raises
        ------
        StoreFormatError
            Of the first that cannot be read, where none are left out.

        """
        kept, skipped = np.ones(stop - start, np.bool_), list[Skipped]()
        for number, path in enumerate(self.paths[start:stop]):
            try:
                read(path, number - len(skipped))
            except StoreFormatError as exc:
                if self.on_error == "raise":
                    raise
                skipped.append(Skipped(path, str(exc).removeprefix(f"{path} ")))
                kept[number] = False
        return kept, skipped

    def first_readable(self, read: Callable[[str], T]) -> T:
        """Return what reading the first file gives, or the first that can be read where others are left out."""
        for path in self.paths:
            try:
                return read(path)
            except StoreFormatError:
                if self.on_error == "raise":
                    raise
        raise StoreFormatError(f"{self.label} must have a file that can be read, and none of {len(self.paths):,} can")

    def _of(self, nbytes: int | NDArray[np.int64], start: int, end: int) -> NDArray[np.int64]:
        """Return bytes of each of some files."""
        return np.full(end - start, nbytes, np.int64) if isinstance(nbytes, int) else nbytes[start:end]

    def _stamps(self) -> NDArray[np.int64]:
        """Return size and time of the last change of each file; of files that are gone, zeros."""
        found = np.zeros((len(self.paths), 2), np.int64)
        for number, path in enumerate(self.paths):
            try:
                status = os.stat(path)
            except OSError:
                continue  # reading it will tell, or leave it out
            found[number] = status.st_size, status.st_mtime_ns
        return found
