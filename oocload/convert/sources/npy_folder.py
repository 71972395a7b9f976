"""A folder of one ``.npy`` file per sample, with labels and named sets beside it: the recipe ``ID → ID.npy``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Scratch
from oocload.convert.fields import Spec
from oocload.convert.ragged import RaggedRows, RaggedSpec
from oocload.convert.sources.folders import check_folder, files_below, holds_files
from oocload.convert.sources.fresh import fresh_rows
from oocload.convert.sources.labels import (
    Table,
    encode_labels,
    encode_splits,
    labels_of,
    read_labels,
    read_partition,
    splits_of,
)
from oocload.convert.sources.npy_rows import NpyHead, NpyReader, read_head
from oocload.convert.sources.records import OnError, check_on_error
from oocload.convert.sources.sample_files import Read, SampleFiles
from oocload.convert.sources.samples import Samples
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError, StoreFormatError
from oocload.units import true_or_false

_SUFFIX = ".npy"
_ONE_EACH = "each file of a folder is one sample: give files of many samples as NAME=PATH"


class NpyFolderSource(SampleFiles):
    """One ``.npy`` file per sample: a row of ``x`` each, with the fields ``y``, ``id`` and ``split``.

    Rows are in natural order of the ids (``id-2`` before ``id-10``), whatever the order of the labels.

    Parameters
    ----------
    folder
        Where the files are, also in folders below. The id of a sample is the path of its file relative to ``folder``,
        without ``.npy``; names that begin with a dot are left out. Or a dict id → path, whose order the rows have.
    labels
        Id → label: a dict, or the path of a JSON file of one, or of a CSV file with the columns ``id`` and ``label``.
        Numbers, and arrays of one shape, keep their dtype; texts become codes of their sorted vocabulary,
        empty ones -1. None takes ``labels.json`` or ``labels.csv`` in the folder where one is; without, there is no
        ``y``.
    partition
        Named sets: a dict such as ``{"train": [ids], "validation": [ids]}``, the path of a JSON file of one, or of a
        CSV file with the columns ``id`` and ``split``. They become the field ``split``: codes in the order given, -1
        for samples in none. None takes ``partition.json`` or ``partition.csv`` in the folder where one is.
    ragged
        Whether rows differ in their first axis; they become a ragged field.
    on_error
        What becomes of files that cannot be read or have another shape: ``"raise"``, or ``"skip"`` to list them in the
        report.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, InvalidArgumentError
        If nothing is there or an option breaks its rule. When it is read: if labels, sets and files do not fit
        together, or a file is damaged, has another shape or dtype than the first, or holds pickled objects.

    Examples
    --------
    >>> import numpy as np, oocload
    >>> from pathlib import Path
    >>> Path("samples").mkdir()
    >>> for i in range(20):
    ...     np.save(f"samples/id-{i}.npy", np.full((4, 4), i, "float32"))
    >>> source = oocload.sources.NpyFolderSource(
    ...     "samples",
    ...     labels={f"id-{i}": "odd" if i % 2 else "even" for i in range(20)},
    ...     partition={"train": [f"id-{i}" for i in range(15)], "validation": [f"id-{i}" for i in range(15, 20)]},
    ... )
    >>> report = oocload.convert(source, "samples.h5")
    >>> report.n_rows, report.fields
    (20, ('x', 'y', 'id', 'split'))

    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
        *,
        labels: Table | None = None,
        partition: Table | None = None,
        ragged: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        check_on_error(on_error)
        self.on_error = on_error
        self._ragged = true_or_false("ragged", ragged)
        if isinstance(folder, Mapping):
            self.label, self._ids = "the given files", list(map(str, folder))
            self.paths = [os.path.abspath(path) for path in folder.values()]
            self._labels, self._partition = labels, partition
        else:
            self.label = os.fspath(folder)
            check_folder(self.label)
            names = files_below(self.label, [_SUFFIX])
            root = os.path.abspath(self.label)
            self._ids = [name[: -len(_SUFFIX)] for name in names]
            self.paths = [os.path.join(root, name) for name in names]
            self._labels = _beside(root, "labels") if labels is None else labels
            self._partition = _beside(root, "partition") if partition is None else partition
        if not self.paths:
            raise InvalidArgumentError(
                "folder must be a folder, or a dict id → path with at least one, got an empty dict"
            )

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether a path is a folder of ``.npy`` files."""
        return holds_files(path, [_SUFFIX])

    @classmethod
    def from_paths(cls, paths: Sequence[str]) -> Self:
        """Return the source of one folder."""
        if len(paths) > 1:
            raise InvalidArgumentError(
                f"source must be one folder of .npy files, got {len(paths)}; pass the folder above them, or a dict "
                "id → path as oocload.sources.NpyFolderSource({...})"
            )
        return cls(paths[0])

    @cached_property
    def samples(self) -> Samples:
        """Ids, labels and sets."""
        labels = splits = None
        if self._labels is not None:
            given = {name.removesuffix(_SUFFIX): label for name, label in read_labels(self._labels).items()}
            labels = encode_labels(labels_of(self._ids, given, self.label))
        if self._partition is not None:
            sets = {k: [i.removesuffix(_SUFFIX) for i in ids] for k, ids in read_partition(self._partition).items()}
            splits = encode_splits(splits_of(self._ids, sets, self.label), list(sets))
        return Samples(self._ids, labels, splits)

    @property
    def x_spec(self) -> Spec:
        """The shape and dtype of the first file."""
        _, head = self._first
        return RaggedSpec(head.shape[1:], head.dtype) if self._ragged else FieldSpec(head.shape, head.dtype)

    @property
    def costs(self) -> int | NDArray[np.int64]:
        """Bytes of a row, and a second time where it is not stored as rows lie in memory."""
        _, head = self._first
        times = 1 if head.is_plain else 2
        if not self._ragged:
            return times * head.nbytes
        sizes: NDArray[np.int64] = times * self.sizes
        return sizes

    @property
    def options(self) -> dict[str, Any]:
        """Whether rows are ragged."""
        return {"ragged": self._ragged}

    def read_files(self, start: int, stop: int, scratch: Scratch) -> Read:
        """Read files, each straight to its place."""
        del scratch
        return self._read_ragged(start, stop) if self._ragged else self._read_rows(start, stop)

    @cached_property
    def _first(self) -> tuple[str, NpyHead]:
        def read(path: str) -> tuple[str, NpyHead]:
            head = read_head(path)
            if self._ragged and not head.shape:
                raise StoreFormatError(
                    f"{path} must have an axis of items as ragged=True is given, and holds one number"
                )
            return path, head

        found: tuple[str, NpyHead] = self.first_readable(read)
        return found

    def _read_rows(self, start: int, stop: int) -> Read:
        head, n_files = self._first[1], stop - start
        rows = fresh_rows((n_files, *head.shape), head.dtype)
        places = rows.reshape(n_files, -1).view(np.uint8) if head.nbytes else np.empty((n_files, 0), np.uint8)
        reader = NpyReader(head.offset, self._check)
        kept, skipped = self.each(start, stop, lambda path, at: reader.read(path, places[at]))
        return Read(rows[: n_files - len(skipped)], kept, skipped)

    def _read_ragged(self, start: int, stop: int) -> Read:
        first = self._first[1]
        item_nbytes = max(1, np.dtype((first.dtype, first.shape[1:])).itemsize)
        room = fresh_rows((int(self.sizes[start:stop].sum()),), np.dtype(np.uint8))
        reader = NpyReader(first.offset, self._check)
        ends = [0]

        def read(path: str, at: int) -> None:
            head = reader.read(path, room[ends[at] * item_nbytes :])
            ends.append(ends[at] + head.shape[0])

        kept, skipped = self.each(start, stop, read)
        values = room[: ends[-1] * item_nbytes].view(first.dtype).reshape(-1, *first.shape[1:])
        return Read(RaggedRows(values, np.array(ends, np.int64)), kept, skipped)

    def _check(self, head: NpyHead, path: str) -> None:
        """Raise where an array is not of the shape and dtype of the first."""
        other, first = self._first
        if head.dtype != first.dtype:
            raise StoreFormatError(
                f"{path} must have the dtype of {other}, {first.dtype}, and has {head.dtype}; {_ONE_EACH}"
            )
        if head.shape == first.shape:
            return
        same_items = len(head.shape) == len(first.shape) > 0 and head.shape[1:] == first.shape[1:]
        if self._ragged and same_items:
            return
        wanted = f"(any, {', '.join(map(str, first.shape[1:]))})" if self._ragged else f"{first.shape}"
        todo = ", or NpyFolderSource(..., ragged=True) for rows of several lengths" if same_items else ""
        raise StoreFormatError(
            f"{path} must have the shape of {other}, {wanted}, and has {head.shape}; {_ONE_EACH}{todo}"
        )


def _beside(folder: str, name: str) -> str | None:
    """Return the JSON or CSV file of a name in a folder, or None.

    Raises
    ------
    InvalidArgumentError
        If there are both.

    """
    found = [path for suffix in (".json", ".csv") if os.path.exists(path := os.path.join(folder, name + suffix))]
    if len(found) > 1:
        raise InvalidArgumentError(f"{name} must be named where {found[0]} and {found[1]} are both there")
    return found[0] if found else None
