"""The arrays below one node of a Zarr hierarchy, those among them that zarr-python cannot open included.

Beside them the groups whose attributes say that their arrays are one field.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore, StorePath

from oocload.errors import StoreFormatError
from oocload.stores.ragged import Encoding, encoding_of

_METADATA = ("zarr.json", ".zarray")


@dataclass(frozen=True)
class Member:
    """One array.

    Attributes
    ----------
    path
        Of the array inside the store.
    array
        As zarr opened it; None where it could not.
    dtype
        Of its items, where zarr knows them as unsigned integers only.
    problem
        Why there is no array.

    """

    path: str
    array: zarr.Array[Any] | None
    dtype: np.dtype[Any] | None = None
    problem: str = ""


def members(node: Any) -> tuple[dict[str, Member], dict[str, Encoding]]:
    """Return name → array of everything below a group, or the one array as ``x``; and the groups that are one field."""
    if isinstance(node, zarr.Array):
        return {"x": Member(node.path, node)}, {}
    found = node.members(max_depth=None)
    arrays = {name: Member(m.path, m) for name, m in found if isinstance(m, zarr.Array)}
    groups = [("", node), *((name, m) for name, m in found if isinstance(m, zarr.Group))]
    return arrays, {name: said for name, m in groups if (said := encoding_of(dict(m.attrs))) is not None}


def members_one_by_one(root: str, group: str) -> tuple[dict[str, Member], dict[str, Encoding]]:
    """Return what `members` does for a directory in which zarr-python stumbles over one of the arrays."""
    top = os.path.join(root, group)
    found: dict[str, Member] = {}
    groups: dict[str, Encoding] = {}
    for folder, _, files in os.walk(top):
        if (said := encoding_of(_attributes(folder, files))) is not None:
            groups["" if folder == top else _name(folder, top)] = said
        name = next((n for n in _METADATA if n in files), None)
        if name is None or not _is_array(os.path.join(folder, name)):
            continue
        member = _open_one(folder, name, _name(folder, root))
        found["x" if folder == top else _name(folder, top)] = member
    return found, groups


def attributes_of(folder: Path) -> Mapping[str, Any]:
    """Return the attributes of the group in a folder; none where there is no group, or its metadata is damaged."""
    return _attributes(str(folder), os.listdir(folder))


def _name(folder: str, top: str) -> str:
    return os.path.relpath(folder, top).replace(os.sep, "/")


def _attributes(folder: str, files: list[str]) -> Mapping[str, Any]:
    """Return a group's attributes; none where its metadata is damaged, which `_is_array` reports."""
    try:
        if "zarr.json" in files:
            metadata = _load(os.path.join(folder, "zarr.json"))
            found = metadata.get("attributes") if metadata.get("node_type") == "group" else {}
        else:
            found = _load(os.path.join(folder, ".zattrs")) if {".zgroup", ".zattrs"} <= set(files) else {}
        return found if isinstance(found, Mapping) else {}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _is_array(file: str) -> bool:
    if file.endswith(".zarray"):
        return True
    try:
        return bool(_load(file).get("node_type") == "array")
    except (ValueError, AttributeError, RecursionError) as exc:
        raise StoreFormatError(f"{file} must be the metadata of a Zarr array or group, and is damaged: {exc}") from exc


def _open_one(folder: str, name: str, path: str) -> Member:
    try:
        return Member(path, zarr.open_array(folder, mode="r"))
    except Exception as exc:  # zarr raises errors of many unrelated types for metadata that it does not know
        problem = f"zarr cannot open it: {one_line(exc)}"
    try:
        metadata = _load(os.path.join(folder, name))
        dtype = _extension_dtype(metadata.get("data_type") or metadata.get("dtype"))
        if dtype is None:
            return Member(path, None, problem=problem)
        as_integers = _with_integers(metadata, dtype)
        return Member(path, zarr.Array.from_dict(StorePath(LocalStore(folder, read_only=True)), as_integers), dtype)
    except ImportError:
        return Member(path, None, problem=f"{problem}; pip install ml_dtypes")
    except Exception:  # the same, or metadata that is no JSON object
        return Member(path, None, problem=problem)


def _extension_dtype(name: Any) -> np.dtype[Any] | None:
    """Return a data type that TensorStore writes and ml_dtypes defines: bfloat16 and the 8-bit floats."""
    if not isinstance(name, str) or not name.startswith(("bfloat16", "float8_")):
        return None
    import ml_dtypes

    kind = getattr(ml_dtypes, name, None)
    return None if kind is None else np.dtype(kind)


def _with_integers(metadata: dict[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return an array's metadata with unsigned integers in place of a data type that zarr lacks."""
    integer = np.dtype(f"<u{dtype.itemsize}")
    fill = metadata.get("fill_value")
    if isinstance(fill, str) and fill.startswith("0x"):
        bits = int(fill, 16)
    else:
        bits = int(np.array(float(fill or 0)).astype(dtype).view(integer))
    key = "data_type" if "data_type" in metadata else "dtype"
    return {**metadata, key: integer.name if key == "data_type" else integer.str, "fill_value": bits}


def one_line(exc: BaseException) -> str:
    """Return an exception as one line of text."""
    return f"{type(exc).__name__}: {' '.join(str(exc).split())}"


def _load(file: str) -> Any:
    with open(file, encoding="utf-8") as stream:
        return json.load(stream)


def paths_of_metadata(root: str, found: dict[str, Member]) -> Iterator[str]:
    """Yield the files that say what the arrays are."""
    for member in found.values():
        for name in _METADATA:
            file = os.path.join(root, member.path, name)
            if os.path.exists(file):
                yield file
