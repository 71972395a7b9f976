"""Rows stored as they are: the kernel copies them straight to their places, or through a little scratch."""

from __future__ import annotations

from collections.abc import Mapping

from oocload.chunks.located import LocatedField
from oocload.chunks.scratch import Scratch, as_bytes
from oocload.chunks.target import Ranges, Target
from oocload.layout import FieldLayout
from oocload.stores.base import Store

# From this many bytes a row, the kernel's own scatter (one preadv with a buffer per row) beats reading into
# scratch and scattering from there (benchmarks/README.md).
_KERNEL_SCATTER_ROW_NBYTES = 4096
_PIECE_NBYTES = 2**17  # rows that need scratch pass through it in pieces of this size


class RawReader(LocatedField):
    """Reads any range of rows of an uncompressed field whose chunks hold whole rows.

    Parameters
    ----------
    store
        Tells where the chunks lie.
    field
        The field's layout.
    keep_open
        Whether a file that holds many chunks stays open.

    """

    def __init__(self, store: Store, field: FieldLayout, keep_open: bool = True) -> None:
        super().__init__(store, field, keep_open)
        self._row_nbytes = field.row_nbytes
        self._height = field.chunk_rows
        self._scatters = self.native and field.row_nbytes >= _KERNEL_SCATTER_ROW_NBYTES

    @property
    def scratch_needs(self) -> Mapping[str, int]:
        """Bytes of one piece."""
        return {"raw": min(self.layout.nbytes, max(_PIECE_NBYTES, self._row_nbytes))}

    def read(self, ranges: Ranges, target: Target, scratch: Scratch) -> int:
        """Put ranges of rows into a target, one after the other; return the bytes that were read for it.

        Raises
        ------
        ChunkError
            If a chunk cannot be read; names path, field and chunk.

        """
        buffers = target.row_buffers() if self._scatters and target.index is not None else None
        at = 0
        for start, stop in ranges:
            while start < stop:
                chunk, low = divmod(start, self._height)
                n_rows = min(stop - start, self._height - low)
                if (offset := self._find(chunk, low, n_rows)) is None:
                    target.fill(at, n_rows, self.fill_item)
                elif buffers is not None:
                    self.fetch(chunk, *offset, buffers[at : at + n_rows])
                else:
                    self._read_chunk(chunk, *offset, n_rows, at, target, scratch)
                start, at = start + n_rows, at + n_rows
        return at * self._row_nbytes

    def _find(self, chunk: int, low: int, n_rows: int) -> tuple[str, int] | None:
        """Return (path, offset) of rows of a chunk, from its row ``low``; None where it was never written."""
        place = self.locations.find(chunk)
        if place is None:
            return None
        wanted = (low + n_rows) * self._row_nbytes
        if place.nbytes < wanted:
            raise self.error(chunk, f"it has {place.nbytes} bytes, where {wanted} belong")
        return place.path, place.offset + low * self._row_nbytes

    def _read_chunk(
        self, chunk: int, path: str, offset: int, n_rows: int, at: int, target: Target, scratch: Scratch
    ) -> None:
        """Read rows that lie side by side: to consecutive places at once, to others through scratch."""
        row_nbytes = self._row_nbytes
        span = target.span(at, n_rows) if self.native else None
        if span is not None:
            self.fetch(chunk, path, offset, [as_bytes(span)])
            return
        step = max(1, _PIECE_NBYTES // row_nbytes)
        for done in range(0, n_rows, step):
            raw = scratch.get("raw", min(step, n_rows - done) * row_nbytes)
            self.fetch(chunk, path, offset + done * row_nbytes, [raw])
            target.put(at + done, self.as_rows(raw))
