"""Fields with operations: what a loader's ``ops=`` makes of the feeds of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oocload.chunks.convert import Converter
from oocload.chunks.prepared import PreparedReader
from oocload.chunks.ragged import REFERENCE
from oocload.chunks.read import FieldReader
from oocload.errors import InvalidArgumentError
from oocload.layout import FieldLayout
from oocload.loader.feeds import Feed
from oocload.ops.base import Draft, Op, Statistics
from oocload.ops.program import Program
from oocload.statistics.stored import load_statistics
from oocload.stores.base import Store


@dataclass(frozen=True, slots=True)
class PreparedFeed:
    """A field of which operations make another while it is written to its places.

    Attributes
    ----------
    stored
        The field without them.
    program
        What they come down to.

    """

    stored: Feed
    program: Program

    @property
    def layout(self) -> FieldLayout:
        """The field as it is delivered; chunks, codecs and the way it is read are those of the stored one."""
        field, program = self.stored.layout, self.program
        chunks = (field.chunk_rows, *program.shape) if field.chunks and field.whole_rows else field.chunks
        return replace(
            field,
            shape=(field.n_rows, *program.shape),
            dtype=program.dtype,
            stored_dtype=program.dtype,
            chunks=chunks,
            pieces=field.segments,
        )

    @property
    def source(self) -> str:
        """The field of the store."""
        return self.stored.source

    @property
    def read_row_nbytes(self) -> int:
        """Bytes of a stored row."""
        return self.stored.read_row_nbytes

    @property
    def resident_nbytes(self) -> int:
        """Bytes of the stored field, in which form it is held, and of the operations' numbers."""
        return self.stored.resident_nbytes + Converter(self.program).nbytes

    @property
    def resident_needs(self) -> Mapping[str, int]:
        """Bytes for a piece of what is made of rows, by buffer."""
        return {**self.stored.resident_needs, **Converter(self.program).scratch_needs}

    @property
    def together(self) -> int:
        """Rows that should be read together, at least."""
        return self.stored.together

    def open(self, store: Store, resident: bool = False) -> FieldReader:
        """Return what reads stored rows and delivers what is made of them."""
        return PreparedReader(self.stored.open(store, resident), self.stored.layout, self.program)


def check_ops(ops: Any) -> dict[str, tuple[Op, ...]]:
    """Return field → operations.

    Raises
    ------
    InvalidArgumentError
        If that is not what is given.

    """
    if ops is None:
        return {}
    if not isinstance(ops, Mapping):
        raise InvalidArgumentError(f"ops must be a dict of field → operations from oocload.ops, got {ops!r}")
    found = {}
    for name, given in ops.items():
        chain = (given,) if isinstance(given, Op) else tuple(given) if isinstance(given, list | tuple) else (given,)
        wrong = [op for op in chain if not isinstance(op, Op)]
        if wrong or not chain:
            raise InvalidArgumentError(
                f"ops of field {name!r} must be one or several operations from oocload.ops, such as "
                f"ops.normalize(mean, std), got {wrong[0] if wrong else given!r}"
            )
        found[name] = chain
    return found


def prepared(feeds: Mapping[str, Feed], ops: Mapping[str, Sequence[Op]], store: Store) -> dict[str, Feed]:
    """Return the feeds of a batch, of which some fields pass through operations.

    Raises
    ------
    InvalidArgumentError
        If there is no such field, or operations do not fit its rows.

    """
    if unknown := [name for name in ops if name not in feeds]:
        raise InvalidArgumentError(f"ops must name fields of a batch, {', '.join(feeds)}; got {unknown[0]!r}")
    return {name: _prepared(feed, ops[name], store) if name in ops else feed for name, feed in feeds.items()}


def _prepared(feed: Feed, ops: Sequence[Op], store: Store) -> PreparedFeed:
    field = feed.layout
    if field.dtype.hasobject:
        raise InvalidArgumentError(
            f"ops must be given for fields of numbers, and {field.name!r} holds Python objects; use transform="
        )
    if field.dtype == REFERENCE:
        raise InvalidArgumentError(
            f"ops must be given for rows of one length, and {field.name!r} is ragged; pad it with "
            "ragged=oocload.Pad(maxlen=...), or use transform="
        )
    draft = Draft(field.name, field.row_shape, field.dtype, lambda: stored_statistics(store, feed.source))
    for op in ops:
        op.add_to(draft)
    return PreparedFeed(feed, draft.finish(", ".join(map(str, ops))))


def stored_statistics(store: Store, field: str) -> Statistics:
    """Return what `oocload.stats` has stored of a field's values beside the store.

    Raises
    ------
    InvalidArgumentError
        If that is nothing, or of the store as it was before it changed.

    """
    try:
        found = load_statistics(store, field)
    except InvalidArgumentError as exc:
        raise InvalidArgumentError(f"ops.normalize() must find statistics, or be given mean and std: {exc}") from exc
    if found.mean is None or found.std is None:
        raise InvalidArgumentError(f"ops.normalize() must have a mean, and field {field!r} has none; give mean and std")
    return Statistics(found.mean, found.std, found.channel_axis)


def as_stored(feed: Feed, reader: FieldReader) -> tuple[FieldLayout, FieldReader]:
    """Return layout and reader of a field without operations, given those it is delivered by."""
    if isinstance(feed, PreparedFeed) and isinstance(reader, PreparedReader):
        return feed.stored.layout, reader.stored
    return feed.layout, reader
