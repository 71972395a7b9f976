"""Which arrays of a store have checksums, and which had: the root lists them, so that one that is lost is missed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from oocload.errors import ChunkError, StoreFormatError
from oocload.layout import ChunkGrid, ChunkLocations, FieldLayout
from oocload.stores.base import Store
from oocload.stores.checksums import LIST_NAME, PREFIX
from oocload.verify.expected import Expected, Problem, expected_of, rows_of
from oocload.verify.report import BadChunk


@dataclass
class CheckedArray:
    """An array with checksums, and where its chunks lie."""

    name: str
    address: str
    layout: FieldLayout
    expected: Expected
    locations: ChunkLocations

    def bad(self, chunk: int, path: str | None, offset: int | None, why: str) -> BadChunk:
        """Return a chunk as the report names it."""
        return BadChunk(self.name, chunk, rows_of(self._grid, chunk), path or self.address, offset, why)

    @property
    def n_chunks(self) -> int:
        """Chunks that the array has now."""
        return self._grid.n_chunks

    @property
    def _grid(self) -> ChunkGrid:
        assert self.layout.chunks is not None
        return ChunkGrid(self.layout.shape, self.layout.chunks)


@dataclass
class Found:
    """The arrays of a store to check, those without checksums, and what is wrong before any byte is read."""

    arrays: list[CheckedArray] = field(default_factory=list)
    bad: list[BadChunk] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def find_arrays(store: Store, fields: Sequence[str] | None) -> Found:
    """Return what there is to check in a store.

    Raises
    ------
    UnknownFieldError
        If the store neither has nor had one of the fields.

    """
    found = Found()
    said = _listed(store)
    listed = said.arrays
    names = [name for name, layout in {**store.fields, **store.members}.items() if layout.ragged is None]
    chosen = _chosen(store, fields, {*names, *listed, *said.ragged})
    checked = set()
    for name in sorted(names):
        if not chosen(name):
            continue
        if name in listed or _has_checksums(store, name):
            checked.add(name)
            _look_at(store, name, found)
        elif not any(member.startswith(f"{name}/") for member in store.members):
            found.unchecked.append(_shown(store, name))
    for name in sorted(listed.difference(names)):
        if chosen(name):
            found.bad.append(_whole(store, name, "the array is missing, and had checksums"))
    found.bad.extend(_whole(store, name, why) for name, why in _lost_groups(store, said.ragged) if chosen(name))
    if checked and (trouble := store.trouble()):
        found.bad.append(_whole(store, "", trouble))
    if checked and not said.found:
        why = f"the list of its arrays that have checksums (attribute {LIST_NAME!r} of the root) is missing or damaged"
        found.bad.append(_whole(store, "", why))
    return found


@dataclass
class _Listed:
    """What the root of a store says has checksums, by the names here; and whether it says anything."""

    arrays: set[str] = field(default_factory=set)
    ragged: dict[str, int] = field(default_factory=dict)
    found: bool = False


def _listed(store: Store) -> _Listed:
    try:
        attribute = store.root_attribute(LIST_NAME)
    except StoreFormatError:  # the root cannot be read: the same as a list that is lost
        attribute = None
    if attribute is None:
        return _Listed()
    text, group = attribute
    try:
        said = json.loads(text)
        arrays = {_name_here(str(name), group) for name in said["arrays"]}
        ragged = {_name_here(str(name), group): int(n) for name, n in said["ragged"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return _Listed()
    ragged.pop("", None)
    return _Listed(arrays - {""}, ragged, found=True)


def _name_here(name: str, group: str) -> str:
    """Return a name of the root by its path below the group that was opened; empty where it is not in there."""
    if not group:
        return name
    return "x" if name == group else name.removeprefix(f"{group}/") if name.startswith(f"{group}/") else ""


def _lost_groups(store: Store, ragged: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield what was a ragged or sparse field and is none any more, with what is wrong."""
    for name, n_columns in ragged.items():
        layout = store.fields.get(name)
        if layout is not None and layout.read_path == "none":
            yield name, f"it cannot be read any more: {layout.reason}"
        elif layout is None or layout.ragged is None:
            yield name, "its arrays are no ragged or sparse field any more: the attributes of the group are damaged"
        elif layout.ragged.n_columns != n_columns:
            yield name, f"it has {layout.ragged.n_columns} columns, and had {n_columns}"


def _chosen(store: Store, fields: Sequence[str] | None, known: set[str]) -> Callable[[str], bool]:
    if fields is None:
        return lambda name: True
    names: set[str] = set()
    for one in fields:
        below = {name for name in known if name == one or name.startswith(f"{one}/")}
        names |= below
        if one in store.fields or not below:
            names |= _members(store.field(one))
    return names.__contains__


def _members(layout: FieldLayout) -> set[str]:
    ragged = layout.ragged
    parts = () if ragged is None else (ragged.values, ragged.offsets, ragged.columns)
    return {part.name for part in parts if part is not None} or {layout.name}


def _has_checksums(store: Store, name: str) -> bool:
    try:
        return bool(store.notes(name, PREFIX))
    except StoreFormatError:  # nothing of the kind that the list names
        return False


def _look_at(store: Store, name: str, found: Found) -> None:
    """Add an array with checksums to those to check, and what is wrong with it as a whole."""
    try:
        expected = expected_of(store, name)
        if expected is None:
            found.bad.append(_whole(store, name, "its checksums are missing"))
            return
        found.bad.extend(_as_bad(store, name, problem) for problem in expected.problems)
        if expected.comparable:
            array = CheckedArray(name, store.address, store.field(name), expected, store.locate(name))
            found.arrays.append(array)
            found.bad.extend(
                array.bad(chunk, None, None, "HDF5 does not find it by its index, which is damaged")
                for chunk in store.not_found(name, array.locations)
            )
    except (StoreFormatError, ChunkError) as exc:
        found.bad.append(_whole(store, name, str(exc)))


def _as_bad(store: Store, name: str, problem: Problem) -> BadChunk:
    layout = store.field(name)
    if problem.first is None or problem.stop is None or layout.chunks is None:
        return _whole(store, name, problem.why)
    grid = ChunkGrid(layout.shape, layout.chunks)
    first, last = problem.first, min(problem.stop, grid.n_chunks) - 1
    if last < first:
        return _whole(store, name, problem.why)
    rows = rows_of(grid, first)[0], rows_of(grid, last)[1]
    return BadChunk(name, first, rows, store.address, None, f"{problem.why} (those of chunks {first} to {last})")


def _whole(store: Store, name: str, why: str) -> BadChunk:
    return BadChunk(name, None, None, store.address, None, why)


def _shown(store: Store, name: str) -> str:
    return f"{store.address}{'/' if '::' in store.address else '::'}{name}"
