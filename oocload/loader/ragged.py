"""Ragged and sparse fields of a batch: what lies in the slab of each, and what is left to do when a batch is cut.

Rows of one length lie in the slab as batches show them. Rows whose length depends on their batch, and those that are
not padded, lie there as references beside their items, and `loader/assemble.py` makes arrays of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from oocload.chunks.ragged import REFERENCE, Kept, items_together, open_ragged
from oocload.chunks.ragged_rows import DenseReader, LengthsReader, MaskReader, PaddedReader, ReferenceReader
from oocload.chunks.read import FieldReader
from oocload.errors import InvalidArgumentError
from oocload.layout import FieldLayout, Segment
from oocload.loader.batch import BatchForm
from oocload.loader.feeds import Feed, StoredFeed
from oocload.loader.padding import Pad, Rule, check_rule
from oocload.loader.prepared import PreparedFeed
from oocload.loader.tally import Tally
from oocload.plan.ranks import Share
from oocload.plan.shuffle import Shuffle
from oocload.stores.base import Store

Kind = Literal["padded", "lengths", "mask", "dense", "references"]


@dataclass(frozen=True, slots=True)
class RaggedFeed:
    """A field that is made of ragged rows.

    Attributes
    ----------
    layout
        As it lies in the slab.
    field
        As it is stored.
    kind
        What is made of the rows.
    pad
        How they are padded, where they are.
    tally
        Counts items and padding.

    """

    layout: FieldLayout
    field: FieldLayout
    kind: Kind
    pad: Pad | None = None
    tally: Tally | None = None

    @property
    def source(self) -> str:
        """The field of the store."""
        return self.field.name

    @property
    def kept(self) -> Kept:
        """How much of each row is wanted."""
        return Kept(self.pad.maxlen, self.pad.keeps_end) if self.pad is not None else Kept()

    @property
    def read_row_nbytes(self) -> int:
        """Bytes of what is read for a row, on average."""
        return self.layout.row_nbytes if self.kind in ("lengths", "mask") else self.field.row_nbytes

    @property
    def resident_needs(self) -> Mapping[str, int]:
        """Nothing is needed."""
        return {}

    @property
    def resident_nbytes(self) -> int:
        """Nothing: ragged rows are never resident, but perhaps for their offsets, which the reader counts."""
        return 0

    @property
    def together(self) -> int:
        """Rows that are read together, at least."""
        ragged = self.field.ragged
        if ragged is None or self.kind in ("lengths", "mask"):
            return 1
        return -(-items_together(ragged) * self.field.n_rows // max(1, ragged.values.n_rows))

    def open(self, store: Store, resident: bool = False) -> FieldReader:
        """Return what puts the rows into a slab."""
        return open_ragged(store, self.field, self._open_part)

    def _open_part(self, store: Store, field: FieldLayout, keep_open: int) -> FieldReader:
        pad = self.pad
        if self.kind == "references":
            return ReferenceReader(store, field, self.kept, keep_open)
        if self.kind == "dense":
            return DenseReader(store, field, keep_open=keep_open)
        assert pad is not None
        assert pad.maxlen is not None
        if self.kind == "lengths":
            return LengthsReader(store, field, self.kept, keep_open)
        if self.kind == "mask":
            return MaskReader(store, field, pad.maxlen, pad.pre, keep_open)
        note = Tally() if self.tally is None else self.tally
        return PaddedReader(store, field, pad.maxlen, pad.keeps_end, pad.pre, pad.value, note.add, keep_open)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What of a loader's fields lies in its slabs, and what is made of that when a batch is cut.

    Attributes
    ----------
    form
        The batch as it is cut from a slab.
    feeds
        Field → what puts its rows there.
    rules
        Of fields whose batches must be assembled: how.

    """

    form: BatchForm
    feeds: dict[str, Feed]
    rules: dict[str, Rule | Literal["sparse"]]


def deliver(form: BatchForm, fields: Mapping[str, FieldLayout], ragged: Any, sparse: Any) -> Delivery:
    """Return how the fields of a batch are delivered.

    Parameters
    ----------
    form, fields
        Of the batch.
    ragged, sparse
        As `Loader` takes them.

    Raises
    ------
    InvalidArgumentError
        If a rule is none, or belongs to no ragged field.

    """
    if not isinstance(sparse, bool):
        raise InvalidArgumentError(f"sparse must be True or False, got {sparse!r}")
    given = _rules(ragged, fields)
    feeds: dict[str, Feed] = {}
    rules: dict[str, Rule | Literal["sparse"]] = {}
    beside: dict[str, tuple[str, ...]] = {}
    for name, field in fields.items():
        rule = given.get(name)
        if field.ragged is None:
            feeds[name] = StoredFeed(field)
            if rule is not None:
                rules[name] = rule
        elif field.ragged.columns is not None:
            if sparse and field.dtype == np.float16:
                raise InvalidArgumentError(
                    f"sparse must be False for field {name!r} of float16, which SciPy's sparse arrays do not hold"
                )
            feeds[name] = _references(field) if sparse else _dense(field)
            rules |= {name: "sparse"} if sparse else {}
        elif isinstance(rule, Pad) and rule.static:
            made = _padded(field, rule)
            beside[name] = tuple(made)
            feeds |= made
        else:
            feeds[name] = _references(field, rule if isinstance(rule, Pad) else None)
            rules[name] = "values" if rule is None else rule
    if sparse and "sparse" not in rules.values():
        raise InvalidArgumentError(
            f"sparse must be False where no field is a sparse matrix, and none of {[*fields]} is"
        )
    _check_names(fields, feeds)
    return Delivery(form.with_beside(beside), feeds, rules)


def is_variable(field: FieldLayout) -> bool:
    """Whether a field's items are arrays of variable length, as HDF5 has them."""
    base = dict(field.dtype.metadata or {}).get("vlen")
    return field.dtype.hasobject and base is not None and base not in (str, bytes)


def _rules(ragged: Any, fields: Mapping[str, FieldLayout]) -> dict[str, Rule]:
    """Return the rule of each field that has one."""
    plain = [n for n, f in fields.items() if (f.ragged is not None and f.ragged.columns is None) or is_variable(f)]
    if ragged is None:
        return {}
    rules: dict[str, Rule] = {}
    if isinstance(ragged, Mapping):
        rules = {name: check_rule(rule) for name, rule in ragged.items()}
    else:
        rules = dict.fromkeys(plain, check_rule(ragged))
        if not plain:
            raise InvalidArgumentError(f"ragged must be left out where no field is ragged, as of {[*fields]} none is")
    for name, rule in rules.items():
        if name not in plain:
            known = ", ".join(map(repr, plain)) or "none"
            raise InvalidArgumentError(f"ragged must name fields of a batch that are ragged, {known}; got {name!r}")
        if isinstance(rule, Pad):
            rule.check_value(name, _item_dtype(fields[name]))
    return rules


def _item_dtype(field: FieldLayout) -> np.dtype[Any]:
    """Return the dtype of the items of a ragged field, or of one whose items are arrays of variable length."""
    return np.dtype(dict(field.dtype.metadata or {})["vlen"]) if field.ragged is None else field.ragged.values.dtype


def _references(field: FieldLayout, pad: Pad | None = None) -> RaggedFeed:
    layout = replace(_layout(field, field.name, (), REFERENCE), payload_nbytes=field.row_nbytes)
    return RaggedFeed(layout, field, "references", pad)


def _dense(field: FieldLayout) -> RaggedFeed:
    assert field.ragged is not None
    return RaggedFeed(_layout(field, field.name, (field.ragged.n_columns,), field.ragged.values.dtype), field, "dense")


def _padded(field: FieldLayout, pad: Pad) -> dict[str, Feed]:
    """Return a padded field, and what stands beside it."""
    assert field.ragged is not None
    assert pad.maxlen is not None
    values, name = field.ragged.values, field.name
    padded = _layout(field, name, (pad.maxlen, *values.row_shape), values.dtype)
    feeds: dict[str, Feed] = {name: RaggedFeed(padded, field, "padded", pad)}
    if pad.beside == "lengths":
        layout = _layout(field, f"{name}_lengths", (), np.dtype(np.int64))
        feeds[layout.name] = RaggedFeed(layout, field, "lengths", pad)
    if pad.beside == "mask":
        layout = _layout(field, f"{name}_mask", (pad.maxlen,), np.dtype(bool))
        feeds[layout.name] = RaggedFeed(layout, field, "mask", pad)
    return feeds


def _layout(field: FieldLayout, name: str, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> FieldLayout:
    """Return how a field lies in a slab. Any range of its rows can be read."""
    return replace(
        field,
        name=name,
        shape=(field.n_rows, *row_shape),
        dtype=dtype,
        stored_dtype=dtype,
        chunks=None,
        shards=None,
        ragged=None,
        pieces=tuple(Segment(s.start, s.stop, 0, s.start) for s in field.segments),
    )


def _check_names(fields: Mapping[str, FieldLayout], feeds: Mapping[str, Feed]) -> None:
    for name, feed in feeds.items():
        if name in fields and feed.source != name:
            raise InvalidArgumentError(
                f"beside must not be given where the batch has a field {name!r} already; leave that one out of x and y"
            )


def tallied(feeds: Mapping[str, Feed], tally: Tally) -> dict[str, Feed]:
    """Return feeds that count what they pad."""

    def counting(feed: Feed) -> Feed:
        if isinstance(feed, PreparedFeed):
            return replace(feed, stored=counting(feed.stored))
        return replace(feed, tally=tally) if isinstance(feed, RaggedFeed) else feed

    return {name: counting(feed) for name, feed in feeds.items()}


def references(feeds: Mapping[str, Feed]) -> dict[str, RaggedFeed]:
    """Return the fields that lie in slabs as references."""
    return {name: f for name, f in feeds.items() if isinstance(f, RaggedFeed) and f.kind == "references"}


def check_bucket(given: Any, delivery: Delivery, shuffle: bool | Shuffle, share: Share) -> str | None:
    """Return the field by whose lengths rows are put together in batches, or None.

    Raises
    ------
    InvalidArgumentError
        If there is no such field, or several, or nothing to shuffle.

    """
    if not isinstance(given, bool | str):
        raise InvalidArgumentError(f"bucket_by_length must be True, False or the name of a field, got {given!r}")
    if given is False:
        return None
    names = list(references(delivery.feeds))
    fitting = [given] if given in names else names if given is True else []
    if len(fitting) != 1:
        raise InvalidArgumentError(
            f"bucket_by_length must name a ragged field that is not padded to one length, of {names}, got {given!r}; "
            "with Pad(maxlen=..., static=False) batches are padded to their longest row"
        )
    if not shuffle:
        raise InvalidArgumentError("bucket_by_length must be False where shuffle is: it puts other rows into a batch")
    if len(share.own) > 1 or share.streams is not None:
        raise InvalidArgumentError(
            "bucket_by_length must be False where streams are given, of which batches take equal parts"
        )
    return fitting[0]
