"""A field whose chunks are located: finds and fetches their bytes, and says where something went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.fetch import Files
from oocload.chunks.scratch import Bytes
from oocload.errors import ChunkError
from oocload.layout import ChunkGrid, FieldLayout
from oocload.stores.base import Store


class LocatedField:
    """What both direct readers stand on.

    Attributes
    ----------
    layout
        The field's layout.
    grid
        Its chunks; one where it is contiguous.
    locations
        Where they lie.
    files
        The files that they lie in.
    native
        Whether stored items are delivered as they are.
    fill_item
        One item of a chunk that was never written, shape (1,).

    """

    def __init__(self, store: Store, field: FieldLayout, keep_open: int) -> None:
        self.layout = field
        self.grid = ChunkGrid(field.shape, field.chunks or tuple(max(1, n) for n in field.shape))
        self.locations = store.locate(field.name)
        self.native = field.stored_dtype == field.dtype
        self._where = f"{store.address}, field {field.name!r}"
        self.fill_item = np.frombuffer(field.fill, field.stored_dtype)
        self.files = Files(keep_open, self.locations.stamp)

    @property
    def held_nbytes(self) -> int:
        """Bytes of the chunk index."""
        return self.locations.nbytes

    @contextmanager
    def opened(self, path: str, chunk: int) -> Iterator[int]:
        """Open a file that holds chunks, for some reads.

        Raises
        ------
        ChunkError
            If the file cannot be read, ends too early, or changed since the store was opened.

        """
        try:
            with self.files.opened(path) as descriptor:
                yield descriptor
        except ChunkError:
            raise
        except OSError as exc:
            raise self.error(chunk, f"cannot read {path}: {exc}") from exc

    def as_rows(self, decoded: Bytes) -> NDArray[Any]:
        """Return decoded bytes as rows, in the byte order of the store."""
        return decoded.view(self.layout.stored_dtype).reshape(-1, *self.layout.row_shape)

    def error(self, chunk: int, what: str) -> ChunkError:
        """Return the error that something is wrong with a chunk."""
        return ChunkError(f"{self._where}, chunk {self.grid.corner(chunk)}: {what}")

    def close(self) -> None:
        """Close the descriptors."""
        self.files.close()
