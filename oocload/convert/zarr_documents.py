"""The metadata files of a Zarr hierarchy, changed in memory: lengths of arrays, wherever they are written down."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_Change = Callable[[Any], None]


class Documents:
    """Changes to the metadata of a hierarchy.

    A length stands in the metadata of its array, and in the consolidated metadata of every group above it, those
    above the store included.

    Parameters
    ----------
    root
        The directory.

    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[Path, tuple[bytes, Any]] = {}

    def set_length(self, array: str, n_rows: int) -> None:
        """Set the length of axis 0 of an array, given its path in the hierarchy."""

        def change(metadata: Any) -> None:
            metadata["shape"][0] = n_rows

        folder = self._root / array
        is_v3 = (folder / "zarr.json").exists()
        file = "zarr.json" if is_v3 else ".zarray"
        change(self._document(folder / file))
        self._change_above(folder, "" if is_v3 else file, change)

    def set_sparse_rows(self, group: str, n_rows: int) -> None:
        """Set the number of rows in the attributes of a group that is a sparse matrix."""

        def change(attributes: Any) -> None:
            for name in ("shape", "h5sparse_shape"):
                if name in attributes:
                    attributes[name][0] = n_rows

        def change_node(node: Any) -> None:
            change(node["attributes"])

        folder = self._root / group
        if (folder / "zarr.json").exists():
            change_node(self._document(folder / "zarr.json"))
            self._change_above(folder, "", change_node)
            return
        change(self._document(folder / ".zattrs"))
        self._change_above(folder, ".zattrs", change)
        if (folder / ".zmetadata").exists():  # of a group that was consolidated itself
            change(self._document(folder / ".zmetadata")["metadata"].get(".zattrs", {}))

    def changed(self) -> Iterator[tuple[Path, bytes, bytes]]:
        """Yield each file with what it holds and what it is to hold."""
        for path, (before, document) in self._read.items():
            after = json.dumps(document, indent=2, ensure_ascii=False).encode()
            if json.loads(before) != document:
                yield path, before, after

    def _document(self, path: Path) -> Any:
        if path not in self._read:
            content = path.read_bytes()
            self._read[path] = content, json.loads(content)
        return self._read[path][1]

    def _change_above(self, folder: Path, file: str, change: _Change) -> None:
        """Change a node in the consolidated metadata of the groups above it; ``file`` is that of v2, or empty."""
        for above in folder.parents:
            named = [name for name in ("zarr.json", ".zgroup", ".zmetadata") if (above / name).exists()]
            if not named and not above.is_relative_to(self._root):
                return
            path = os.path.relpath(folder, above).replace(os.sep, "/")
            if not file and "zarr.json" in named:
                _change_consolidated(self._document(above / "zarr.json"), path, change)
            if file and ".zmetadata" in named:
                metadata = self._document(above / ".zmetadata")["metadata"]
                if f"{path}/{file}" in metadata:
                    change(metadata[f"{path}/{file}"])


def _change_consolidated(node: Any, path: str, change: _Change) -> None:
    """Change a node of Zarr v3 wherever consolidated metadata shows it: at its group, and within groups of that."""
    consolidated = node.get("consolidated_metadata")
    metadata = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    for name, below in (metadata or {}).items():
        if name == path:
            change(below)
        elif path.startswith(f"{name}/"):
            _change_consolidated(below, path[len(name) + 1 :], change)
