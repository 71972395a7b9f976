"""The arrays of a new store: one for each field, or those of the group that a ragged or sparse field becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oocload.convert.chunking import (
    ITEM_CHUNKS,
    align_heights,
    chunk_heights,
    default_chunks_per_shard,
    items_height,
)
from oocload.convert.fields import Spec
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError

# Of a ragged row, before the first one is there: it settles the chunk height of labels that stand beside it alone.
_ASSUMED_ROW_NBYTES = 1024


@dataclass(frozen=True, slots=True)
class NewArray:
    """One array of a store to be written.

    Attributes
    ----------
    spec
        Shape and dtype of what axis 0 counts.
    height
        Rows per chunk.
    chunks_per_shard
        Chunks in one file, of Zarr; 1 where each has its own.

    """

    spec: FieldSpec
    height: int
    chunks_per_shard: int = 1

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk."""
        return (self.height, *self.spec.row_shape)

    @property
    def chunk_nbytes(self) -> int:
        """Decoded bytes of a chunk."""
        return self.height * self.spec.row_nbytes

    @property
    def shard_height(self) -> int:
        """Rows of a shard."""
        return self.height * self.chunks_per_shard


def parts_of(name: str, spec: Spec) -> dict[str, FieldSpec]:
    """Return array → spec of one field; of several, the last holds the offsets."""
    if isinstance(spec, FieldSpec):
        return {name: spec}
    return {f"{name}/{part}": found for part, found in spec.parts.items()}


def plan_arrays(
    fields: Mapping[str, Spec],
    chunk_nbytes: int,
    chunk_rows: int | None = None,
    n_rows: int | None = None,
    chunks_per_shard: int | None = None,
    has_shards: bool = False,
    batch_size: int | None = None,
) -> dict[str, NewArray]:
    """Return every array of a store, in the order of its fields.

    Parameters
    ----------
    fields
        Name → spec.
    chunk_nbytes, chunk_rows
        Decoded bytes of a chunk of the largest field, or its rows where given.
    n_rows
        Rows of the store where known.
    chunks_per_shard
        Chunks of dense fields in one file, and eight times as many of items, whose chunks are small. None chooses for
        each array by its length.
    has_shards
        Whether the format has shards.
    batch_size
        Where given, the heights of chunks are multiples or divisors of it; not of items, and not beside ``chunk_rows``.

    Raises
    ------
    InvalidArgumentError
        If a field has the name of an array of another.

    """
    dense = {name: spec for name, spec in fields.items() if isinstance(spec, FieldSpec)}
    items = {name: parts_of(name, spec) for name, spec in fields.items() if name not in dense}
    offsets = {list(parts)[-1]: list(parts.values())[-1] for parts in items.values()}
    heights = _heights({**dense, **offsets}, bool(items), chunk_nbytes, chunk_rows, n_rows, batch_size)
    for parts in items.values():
        item_nbytes = max(spec.row_nbytes for array, spec in parts.items() if array not in offsets)
        heights |= {array: items_height(item_nbytes, chunk_nbytes) for array in parts if array not in offsets}
    arrays: dict[str, NewArray] = {}
    for name, spec in fields.items():
        for array, part in parts_of(name, spec).items():
            if array in arrays or (array != name and array in fields):
                raise InvalidArgumentError(
                    f"fields must have names of their own, got {array!r} beside {name!r}, a group that holds it"
                )
            is_items = name in items and array not in offsets
            per_shard = 1
            if has_shards and chunks_per_shard is not None:
                per_shard = chunks_per_shard * (ITEM_CHUNKS if is_items else 1)
            elif has_shards:
                per_shard = default_chunks_per_shard(None if is_items else n_rows, heights[array], part.row_nbytes)
            arrays[array] = NewArray(part, heights[array], per_shard)
    return arrays


def _heights(
    specs: Mapping[str, FieldSpec],
    has_ragged: bool,
    chunk_nbytes: int,
    chunk_rows: int | None,
    n_rows: int | None,
    batch_size: int | None,
) -> dict[str, int]:
    row_nbytes = {name: spec.row_nbytes for name, spec in specs.items()}
    if has_ragged:
        row_nbytes[""] = _ASSUMED_ROW_NBYTES  # no field has this name
    if chunk_rows is not None:
        return align_heights(row_nbytes, chunk_rows, n_rows)
    return chunk_heights(row_nbytes, chunk_nbytes, n_rows, batch_size)
