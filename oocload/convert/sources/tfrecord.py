"""TFRecord files of ``tf.train.Example``, read without TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

import oocload.stores as stores
from oocload.chunks.scratch import Scratch
from oocload.convert.fields import Spec
from oocload.convert.ragged import RaggedRows
from oocload.convert.sources.identity import Identity, file_facts
from oocload.convert.sources.records import OnError, Records, RecordSource, check_on_error
from oocload.convert.sources.skipped import Skipped
from oocload.convert.sources.tfrecord_example import BadRecordsError, Runs, find_runs
from oocload.convert.sources.tfrecord_features import Feature, infer_features, parse_features
from oocload.convert.sources.tfrecord_frames import FRAME_NBYTES, Block, blocks, is_framed
from oocload.errors import StoreFormatError, StoreNotFoundError
from oocload.layout import Meaning

M = TypeVar("M")
_NAMES = re.compile(r"\.(tfrecords?|tfrec)(\.gz|\.gzip|\.zlib)?(-\d+-of-\d+)?$", re.IGNORECASE)
_SHARD = re.compile(r"-\d+-of-\d+$")
_SAMPLED, _SAMPLED_NBYTES = 1000, 4 * 2**20  # records that tell the features, and bytes of them, unless one has more
_RUN_NBYTES = 100  # what finding a run takes
_FORM_NBYTES = 10  # and comparing a byte that is no value


class _Sample(NamedTuple):
    """What the first records tell."""

    features: list[Feature]
    growth: float  # bytes that are held for each byte of a file
    least_nbytes: int


class TFRecordSource(RecordSource[Block]):
    """TFRecord files of ``tf.train.Example`` messages, plain or compressed with GZIP or ZLIB.

    TensorFlow is not needed. Checksums of all records are checked. A feature becomes the field of its name: numbers
    of one length become rows of ``int64`` or ``float32``, scalars where that length is 1, and those of several lengths
    ragged rows; bytes become ragged ``uint8``, known as images where all begin as JPEG or PNG files do, else as text
    where all are UTF-8. The first 1000 records, or 4 MiB of them, tell which; ``features`` says it outright.

    Parameters
    ----------
    paths
        A file, a glob, or a list of files, whose records follow each other.
    features
        Feature → what it holds; those that are not named are left out. A dtype for one number in each record,
        ``"int64"``; ``(row_shape, dtype)`` for a fixed shape, where a record may also hold the bytes of the row, as
        `tf.io.decode_raw` reads them, ``((28, 28), "uint8")``; ``(None, dtype)`` for any length, none included; and
        for bytes ``"bytes"``, ``"text"`` or ``"image"``. None takes all.
    on_error
        What becomes of records that are damaged or lack a feature: ``"raise"``, or ``"skip"``, which lists them in the
        report. Where a length is damaged or the file ends too early, what follows in that file is skipped with it.

    Raises
    ------
    StoreNotFoundError
        If a file is not there.
    InvalidArgumentError
        If features are given in another way.

    Examples
    --------
    >>> import oocload
    >>> import tensorflow as tf  # only to have a file
    >>> with tf.io.TFRecordWriter("train-0.tfrecord") as writer:
    ...     for label in range(100):
    ...         image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(28 * 28)]))
    ...         number = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    ...         features = tf.train.Features(feature={"image": image, "label": number})
    ...         writer.write(tf.train.Example(features=features).SerializeToString())
    >>> features = {"image": ((28, 28), "uint8"), "label": "int64"}
    >>> source = oocload.sources.TFRecordSource("train-*.tfrecord", features=features)
    >>> oocload.convert(source, "records.zarr").n_rows
    100

    """

    skips = True

    def __init__(
        self, paths: stores.Paths, *, features: Mapping[str, Any] | None = None, on_error: OnError = "raise"
    ) -> None:
        check_on_error(on_error)
        self.on_error = on_error
        self._paths = [str(Path(path).absolute()) for path in stores.expand(paths, "source")]
        for path in self._paths:
            if not Path(path).is_file():
                raise StoreNotFoundError(f"paths must be files, got {path!r}; nothing lies there, or a folder")
        more = len(self._paths) - 1
        self.label = self._paths[0] + (f" and {more} more" if more else "")
        self._given = None if features is None else parse_features(features)
        self.least_piece_reason = f"{self.label} has records that take as much; raise memory="

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether a path is a TFRecord file: by its name, or of a numbered file by how it begins."""
        if not Path(path).is_file():
            return False
        if _NAMES.search(path):
            return True
        if not _SHARD.search(path):
            return False
        with open(path, "rb") as file:
            return is_framed(file.read(12))

    @classmethod
    def from_paths(cls, paths: Sequence[str]) -> Self:
        """Return the source of some files."""
        return cls(paths)

    @property
    def record_specs(self) -> Mapping[str, Spec]:
        """Field → spec."""
        return {feature.name: feature.spec for feature in self._features}

    @property
    def record_meanings(self) -> Mapping[str, Meaning]:
        """Field → whether it is text or images."""
        return {feature.name: feature.meaning for feature in self._features if feature.meaning != Meaning()}

    @property
    def least_piece_nbytes(self) -> int:
        """The largest of the first records, with what reading it takes."""
        return self._sample.least_nbytes

    def record_identity(self) -> Identity:
        """Return size and time of every file, and the features."""
        features = [[f.name, str(f.spec), f.meaning.content] for f in self._given or ()]
        return {"tfrecord": [file_facts(path) for path in self._paths], "features": features}

    def pieces(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[Block]:
        """Yield blocks of whole records."""
        del start, stop
        nbytes = max(FRAME_NBYTES, int(piece_nbytes / self._sample.growth))
        for path in self._paths:
            for block in blocks(path, nbytes):
                self._check_damage(block)
                yield block

    def read(self, piece: Block, scratch: Scratch) -> Records:
        """Return the rows of a block."""
        del scratch
        wanted = [f for f in self._features if self._chosen is None or f.name in self._chosen]
        rows, skipped = self._rows(piece, wanted)
        if piece.damage:
            skipped.append(Skipped(piece.where(len(piece.starts)), f"{piece.damage}; so is all that follows"))
        return Records(rows, skipped)

    @property
    def _features(self) -> list[Feature]:
        return self._sample.features if self._given is None else self._given

    def _rows(self, block: Block, features: list[Feature]) -> tuple[dict[str, Any], list[Skipped]]:
        """Return the rows of records that can be read, and which cannot."""

        def rows_of(found: Mapping[str, Runs], n: int) -> dict[str, Any]:
            return {f.name: f.rows(found, n, block.data) for f in features}

        rows, skipped = self._parsed(block, rows_of)
        return rows, skipped

    def _parsed(self, block: Block, make: Callable[[Mapping[str, Runs], int], M]) -> tuple[M, list[Skipped]]:
        """Return what is made of the runs of records that can be read, and which cannot."""
        left = np.arange(len(block.starts))
        skipped: dict[int, str] = {}
        bad: Mapping[int, str] = block.damaged()
        while True:
            if bad and self.on_error == "raise":
                first = min(bad)
                raise StoreFormatError(f"{block.where(int(left[first]))}: {bad[first]}")
            skipped |= {int(left[i]): reason for i, reason in bad.items()}
            left = np.delete(left, list(bad))
            try:
                made = make(find_runs(block.data, block.starts[left], block.ends[left]), len(left))
            except BadRecordsError as exc:
                bad = exc.reasons
                continue
            return made, [Skipped(block.where(i), reason) for i, reason in sorted(skipped.items())]

    def _check_damage(self, block: Block) -> None:
        if block.damage and self.on_error == "raise":
            raise StoreFormatError(
                f"{block.where(len(block.starts))}: {block.damage}; copy or write the file again, or skip what cannot "
                "be read with on_error='skip'"
            )

    @cached_property
    def _sample(self) -> _Sample:
        """What the first records tell."""
        for path in self._paths:
            for block in blocks(path, _SAMPLED_NBYTES):
                some = replace(block, starts=block.starts[:_SAMPLED], ends=block.ends[:_SAMPLED])
                if not len(some.starts):
                    self._check_damage(block)
                    continue
                found, _ = self._parsed(some, partial(self._sample_of, some))
                if found is not None:
                    return found
        raise StoreFormatError(f"{self.label} must hold at least one record that can be read, got none")

    def _sample_of(self, block: Block, found: Mapping[str, Runs], n_records: int) -> _Sample | None:
        """Return what some records tell; None where none could be read."""
        if not n_records:
            return None
        features = infer_features(found, n_records, block.data) if self._given is None else self._given
        if not features:
            raise BadRecordsError({0: "it has no features"})
        lengths = block.ends - block.starts + FRAME_NBYTES
        nbytes, values = int(lengths.sum()), sum(int((r.ends - r.starts).sum()) for r in found.values())
        n_runs = sum(len(runs.records) for runs in found.values())
        made = sum(_nbytes(feature.rows(found, n_records, block.data)) for feature in features)
        held = nbytes + values + made + _RUN_NBYTES * n_runs + _FORM_NBYTES * (nbytes - values)
        growth = max(2.0, held / nbytes)
        return _Sample(features, growth, int(growth * (int(lengths.max()) + 1)))


def _nbytes(rows: Any) -> int:
    return int(rows.values.nbytes + rows.offsets.nbytes) if isinstance(rows, RaggedRows) else int(rows.nbytes)
