"""The fields of an AnnData file or folder: which arrays there are, told by attributes, as anndata writes them.

Format: https://anndata.readthedocs.io/en/stable/fileformat-prose.html, and of categories that of anndata before 0.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import zarr

import oocload.stores as stores
from oocload.convert.sources.anndata_columns import Nullable, Recoded
from oocload.convert.sources.base import FieldSource
from oocload.convert.sources.one_field import of_field
from oocload.convert.sources.store import StoreField
from oocload.errors import StoreFormatError
from oocload.layout import Meaning
from oocload.stores.base import Store
from oocload.stores.zarr_members import attributes_of

Make = Callable[[], FieldSource]
_TYPE = "encoding-type"
_OLD_CATEGORIES = "__categories"


def is_anndata(path: str) -> bool:
    """Whether a path is an ``.h5ad`` file, or a Zarr folder that anndata has written."""
    found = Path(path)
    if found.is_dir():
        return _text(attributes_of(found).get(_TYPE)) == "anndata"
    return found.is_file() and path.lower().endswith(".h5ad")


class _Entry(NamedTuple):
    """A field: the array that holds it, or the group of one that is nullable, and the categories of codes."""

    array: str
    vocabulary: tuple[str, ...] | None = None
    is_nullable: bool = False


def fields_of_files(paths: Sequence[str]) -> dict[str, Make]:
    """Return field → what makes its source, of those that all files have.

    Raises
    ------
    StoreFormatError
        If a file is damaged, or has no ``obs``.

    """
    store = stores.open(paths[0] if len(paths) == 1 else list(paths))
    each = [_entries(path) for path in paths]
    common = [name for name in each[0] if all(name in entries for entries in each)]
    return {name: partial(_source, store, [entries[name] for entries in each], paths) for name in common}


def _source(store: Store, entries: Sequence[_Entry], paths: Sequence[str]) -> FieldSource:
    """Return the source of a field of one file, or of several whose rows follow each other."""
    first = entries[0]
    for path, entry in zip(paths, entries, strict=True):
        if entry._replace(vocabulary=None) != first._replace(vocabulary=None):
            raise StoreFormatError(f"{path} must have {first.array!r} as {paths[0]} has it, got {entry.array!r}")
    if first.is_nullable:
        return Nullable(store, first.array)
    vocabularies = [entry.vocabulary for entry in entries if entry.vocabulary is not None]
    if len(set(vocabularies)) > 1:
        return Recoded([_codes(path, first.array) for path in paths], vocabularies)
    source = of_field(store, first.array)
    if first.vocabulary is not None:
        source.meaning = Meaning(vocabulary=first.vocabulary)
    return source


def _codes(path: str, name: str) -> StoreField:
    """Return codes of one file, whose dtype goes by the number of its categories."""
    store = stores.open(path)
    return StoreField(store, store.field(name))


def _entries(path: str) -> dict[str, _Entry]:
    """Return field → where it lies, of one file."""
    with _root(path) as root:
        if not _is_group(root.get("obs")):
            raise StoreFormatError(f"{path} must be an AnnData file, and has no group 'obs'")
        found = {"X": _Entry("X")} if "X" in root else {}
        for group in ("layers", "obsm"):
            for name in root.get(group, ()):
                found |= _one(path, root[group][name], f"{group}/{name}")
        return found | _frame(path, root["obs"], "obs")


@contextmanager
def _root(path: str) -> Iterator[Any]:
    """Open the root, for its attributes."""
    if Path(path).is_dir():
        yield zarr.open_group(path, mode="r")
        return
    try:
        file = h5py.File(path, "r")
    except OSError as exc:
        raise StoreFormatError(f"{path} must be an HDF5 file, and cannot be opened: {exc}") from exc
    with file:
        yield file


def _one(path: str, node: Any, name: str) -> dict[str, _Entry]:
    """Return an array, a sparse matrix, or the columns of a frame."""
    if _text(node.attrs.get(_TYPE)) == "dataframe":
        return _frame(path, node, name)
    return {name: _Entry(name)}


def _frame(path: str, node: Any, name: str) -> dict[str, _Entry]:
    """Return the columns of a frame, and of ``obs`` the index."""
    index = _text(node.attrs.get("_index")) or "_index"
    order = [_text(column) for column in node.attrs.get("column-order", ())]
    columns = [column for column in (order or sorted(node)) if column not in (index, _OLD_CATEGORIES)]
    found: dict[str, _Entry] = {}
    for column in columns:
        if column not in node:
            raise StoreFormatError(f"{path}: {name} must have the column {column!r}, which is missing")
        found[f"{name}/{column}"] = _column(path, node, column, f"{name}/{column}")
    if name == "obs" and index in node:
        found["id"] = _column(path, node, index, f"{name}/{index}")
    return found


def _column(path: str, frame: Any, column: str, name: str) -> _Entry:
    node = frame[column]
    kind = _text(node.attrs.get(_TYPE))
    if kind == "categorical":
        if "codes" not in node or "categories" not in node:
            raise StoreFormatError(f"{path}: {name} must have codes and categories, and some are missing")
        return _Entry(f"{name}/codes", _vocabulary(node["categories"]))
    if _OLD_CATEGORIES in frame and column in frame[_OLD_CATEGORIES]:
        return _Entry(name, _vocabulary(frame[_OLD_CATEGORIES][column]))
    if kind == "nullable-string-array":
        return _Entry(f"{name}/values")
    return _Entry(name, is_nullable=kind in ("nullable-integer", "nullable-boolean"))


def _vocabulary(categories: Any) -> tuple[str, ...]:
    if _is_group(categories):  # of text of which some may be missing
        categories = categories["values"]
    return tuple(_text(value) for value in categories[...].tolist())


def _is_group(node: Any) -> bool:
    return hasattr(node, "keys")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)
