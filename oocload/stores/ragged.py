"""Groups whose arrays are one field: ragged rows, and sparse matrices by rows (CSR), told by their attributes.

Formats: docs/ragged.md, "On disk"; sparse arrays in anndata's "On-disk format". Only shapes and dtypes are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oocload.layout import NO_MEANING, Codec, FieldLayout, Meaning, RaggedLayout
from oocload.stores.base import unreadable
from oocload.stores.meaning import meaning_of

RAGGED_VERSION = 1
VALUES, OFFSETS = "values", "offsets"
CSR_DATA, CSR_INDICES, CSR_INDPTR = "data", "indices", "indptr"
_ALONE = "x"  # the field's name where the store is the group itself, as of one array alone


@dataclass(frozen=True, slots=True)
class Encoding:
    """What a group's attributes say of the arrays in it.

    Attributes
    ----------
    kind
        ``"ragged"``, ``"csr"`` or ``"csc"``.
    version
        Of the format ``"ragged"``.
    shape
        Of a sparse matrix, (rows, columns); None where there is none that can be.
    meaning
        What the items stand for.

    """

    kind: str
    version: int = RAGGED_VERSION
    shape: tuple[int, int] | None = None
    meaning: Meaning = NO_MEANING


def ragged_attributes() -> dict[str, Any]:
    """Return the attributes of a group of ragged rows."""
    return {"oocload_encoding": "ragged", "oocload_encoding_version": RAGGED_VERSION}


def csr_attributes(n_rows: int, n_columns: int) -> dict[str, Any]:
    """Return the attributes that anndata gives to the group of a CSR matrix."""
    return {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n_rows, n_columns]}


def encoding_of(attributes: Mapping[str, Any]) -> Encoding | None:
    """Return what a group's attributes say, or None where they say nothing of the kind."""
    if _text(attributes.get("oocload_encoding")) == "ragged":
        return Encoding("ragged", _whole(attributes.get("oocload_encoding_version")), meaning=meaning_of(attributes))
    named = _text(attributes.get("encoding-type"))
    if named in ("csr_matrix", "csc_matrix"):
        return Encoding(named[:3], shape=_shape(attributes.get("shape")))
    older = _text(attributes.get("h5sparse_format"))  # anndata before 0.7
    if older in ("csr", "csc"):
        return Encoding(older, shape=_shape(attributes.get("h5sparse_shape")))
    return None


def columns_of(attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return the groups, by name, whose attributes make them one field: its columns, 0 where it is ragged."""
    said = {group: encoding_of(found) for group, found in attributes.items()}
    return {group: e.shape[1] if e.shape else 0 for group, e in said.items() if e is not None}


def gather(
    arrays: Mapping[str, FieldLayout], groups: Mapping[str, Encoding]
) -> tuple[dict[str, FieldLayout], dict[str, FieldLayout]]:
    """Return a store's fields, and the arrays that are parts of one.

    Parameters
    ----------
    arrays
        Name → layout of every array.
    groups
        Name → encoding of the groups that are one field each; ``""`` is the store's own.

    Returns
    -------
    fields, members
        Name → layout, each sorted by name.

    """
    fields: dict[str, FieldLayout] = dict(arrays)
    members: dict[str, FieldLayout] = {}
    for group, encoding in groups.items():
        prefix = f"{group}/" if group else ""
        found = {part: fields.pop(prefix + part) for part in _parts(encoding) if prefix + part in fields}
        members |= {prefix + part: f for part, f in found.items()}
        name = group or _ALONE
        if name not in fields:
            fields[name] = _describe(name, encoding, found)
    return dict(sorted(fields.items())), dict(sorted(members.items()))


def _parts(encoding: Encoding) -> tuple[str, ...]:
    return (VALUES, OFFSETS) if encoding.kind == "ragged" else (CSR_DATA, CSR_INDPTR, CSR_INDICES)


def _describe(name: str, encoding: Encoding, found: Mapping[str, FieldLayout]) -> FieldLayout:
    problem = _problem_of_encoding(encoding) or _problem_of_parts(encoding, found)
    if problem:
        return unreadable(name, encoding.shape or (), problem)
    values, offsets, *columns = (found[part] for part in _parts(encoding))
    n_columns = encoding.shape[1] if encoding.shape else 0
    worst = next((f for f in (values, offsets, *columns) if f.read_path != "direct"), None)
    return FieldLayout(
        name=name,
        shape=encoding.shape or (offsets.n_rows - 1,),
        dtype=values.dtype,
        stored_dtype=values.stored_dtype,
        chunks=values.chunks,
        codecs=values.codecs,
        read_path="direct" if worst is None else worst.read_path,
        reason="" if worst is None else f"{worst.reason}, in {worst.name}",
        shards=values.shards,
        ragged=RaggedLayout(values, offsets, columns[0] if columns else None, n_columns),
        meaning=encoding.meaning,
    )


def _problem_of_encoding(encoding: Encoding) -> str:
    if encoding.kind == "csc":
        return "a sparse matrix stored by columns (CSC) cannot be read by rows; convert it to CSR"
    if encoding.kind == "csr" and encoding.shape is None:
        return "its attribute 'shape' must be (rows, columns)"
    if encoding.kind == "ragged" and encoding.version != RAGGED_VERSION:
        return f"its encoding has version {encoding.version}, and known is {RAGGED_VERSION}; update oocload"
    return ""


def _problem_of_parts(encoding: Encoding, found: Mapping[str, FieldLayout]) -> str:
    """Return what shapes and dtypes alone say against a field; the values of offsets are checked when they are read."""
    values_part, offsets_part, *columns_parts = _parts(encoding)
    for part in _parts(encoding):
        if part not in found:
            return f"it has no array {part!r}"
        if found[part].read_path == "none":
            return f"its {part} cannot be read: {found[part].reason}"
        if part != values_part and (len(found[part].shape) != 1 or found[part].dtype.kind not in "iu"):
            return f"its {part} must be whole numbers in one dimension, got {_shown(found[part])}"
    values, offsets = found[values_part], found[offsets_part]
    if not values.shape or values.dtype.hasobject or (columns_parts and len(values.shape) != 1):
        rule = "in one dimension" if columns_parts else "an array"
        return f"its {values_part} must be items of a fixed size, {rule}, got {_shown(values)}"
    if not offsets.n_rows:
        return f"its {offsets_part} must have an item more than there are rows, got none"
    for part in columns_parts:
        if found[part].n_rows != values.n_rows:
            return f"its {part} must be as many as its {values_part}, {values.n_rows}, got {found[part].n_rows}"
    if encoding.shape and encoding.shape[0] != offsets.n_rows - 1:
        return f"its attribute 'shape' says {encoding.shape[0]} rows, and its {offsets_part} {offsets.n_rows - 1}"
    return ""


def _shown(field: FieldLayout) -> str:
    return f"{field.dtype.name} of shape {field.shape}"


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _whole(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _shape(value: Any) -> tuple[int, int] | None:
    try:
        n_rows, n_columns = (int(n) for n in value)
    except (TypeError, ValueError):
        return None
    return (n_rows, n_columns) if n_rows >= 0 and n_columns >= 0 else None


def join_ragged(parts: Sequence[RaggedLayout]) -> RaggedLayout | None:
    """Return the facts of ragged rows that follow each other; None where there are none."""
    if not parts:
        return None
    columns = [p.columns for p in parts if p.columns is not None]
    return RaggedLayout(
        values=_end_to_end([p.values for p in parts]),
        offsets=_end_to_end([p.offsets for p in parts], shared=1),
        columns=_end_to_end(columns) if columns else None,
        n_columns=parts[0].n_columns,
    )


def problem_of_following(part: RaggedLayout | None, first: RaggedLayout | None) -> str:
    """Return why rows cannot follow others, whose shape and dtype they share; empty when they can."""
    if part is None or first is None:
        return "" if part is first else f"its rows are {_kind(part)}, in the first {_kind(first)}"
    if _kind(part) != _kind(first):
        return f"its rows are {_kind(part)}, in the first {_kind(first)}"
    here, there = part.values.row_shape, first.values.row_shape
    return "" if here == there else f"its items have shape {here}, in the first {there}"


def _kind(ragged: RaggedLayout | None) -> str:
    return "dense" if ragged is None else "ragged" if ragged.columns is None else "sparse"


def _end_to_end(members: Sequence[FieldLayout], shared: int = 0) -> FieldLayout:
    """Return the layout of members that follow each other, the first `shared` items of each but one left out."""
    first = members[0]
    dtype = np.result_type(*(m.dtype for m in members))
    other = next((m for m in members if m.read_path != "direct"), first)
    return FieldLayout(
        name=first.name,
        shape=(sum(m.n_rows - shared for m in members) + shared, *first.row_shape),
        dtype=dtype,
        stored_dtype=dtype,
        chunks=None,
        codecs=first.codecs if all(m.codecs == first.codecs for m in members) else (Codec("several"),),
        read_path=other.read_path,
        reason=other.reason,
    )
