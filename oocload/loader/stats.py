"""What a loader did and who waited for whom; always on, one addition per batch."""

from __future__ import annotations

import time
from collections.abc import Mapping

from oocload.layout import FieldLayout
from oocload.loader.budget import Budget
from oocload.loader.tally import Tally
from oocload.units import format_bytes


class Stats:
    """Counters of one loader since it was made; print it.

    Attributes
    ----------
    rows, batches
        Delivered so far.
    blocks
        Blocks read so far, each as often as it was.
    decoded_bytes
        Bytes that came out of decoders (or were read, where nothing is encoded).
    wait_s
        Seconds that the consumer waited in ``next()`` for rows, and for transforms that run ahead of it.
    elapsed_s
        Seconds from the first ``next()`` of each pass to its last.
    busy_s
        Seconds of worker threads spent reading, decoding and scattering, summed over threads.
    transform_s
        Seconds spent in transforms, summed over threads and processes.
    memory
        The `Budget`: bytes held by part, and their peaks.
    padded
        Of ragged rows that were padded: ``items`` and items of ``padding`` beside them.

    """

    def __init__(
        self,
        fields: Mapping[str, FieldLayout],
        resident: frozenset[str],
        budget: Budget,
        blocks_per_row: float,
        read_row_nbytes: int,
        padded: Tally,
    ) -> None:
        self.rows = 0
        self.blocks = 0
        self.batches = 0
        self.decoded_bytes = 0
        self.wait_s = 0.0
        self.elapsed_s = 0.0
        self.busy_s = 0.0
        self.transform_s = 0.0
        self.memory = budget
        self.padded = padded
        self._fields = fields
        self._resident = resident
        self._blocks_per_row = blocks_per_row
        self._row_nbytes = read_row_nbytes
        self._mark = 0.0

    def begin_pass(self) -> None:
        """Note that a consumer asked for its first batch."""
        self._mark = time.perf_counter()

    def add_decoded(self, n_bytes: int, n_blocks: int, busy_s: float) -> None:
        """Note a finished read."""
        self.blocks += n_blocks
        self.decoded_bytes += n_bytes
        self.busy_s += busy_s

    def add_batch(self, n_rows: int, n_batches: int = 1) -> None:
        """Note delivered rows."""
        now = time.perf_counter()
        self.elapsed_s += now - self._mark
        self._mark = now
        self.rows += n_rows
        self.batches += n_batches

    @property
    def paths(self) -> dict[str, str]:
        """Field → how it is read: "direct", or the library and why; "resident" fields say so too."""
        paths = {}
        for name, f in self._fields.items():
            path = f.read_path if not f.reason else f"{f.read_path} ({f.reason})"
            paths[name] = f"resident, {path}" if name in self._resident else path
        return paths

    @property
    def wait_share(self) -> float:
        """Share of the time for which the consumer waited for data, 0 to 1."""
        return min(1.0, self.wait_s / self.elapsed_s) if self.elapsed_s else 0.0

    @property
    def rows_per_s(self) -> float:
        """Rows delivered per second of the consumer's time."""
        return self.rows / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def amplification(self) -> float:
        """Bytes decoded per byte delivered, as it is stored; a little above 1 while windows are read ahead."""
        delivered = self.rows * self._row_nbytes
        return self.decoded_bytes / delivered if delivered else 0.0

    @property
    def reads_per_block(self) -> float:
        """How often a block was read for as many rows as an epoch has; a little above 1 while windows are read ahead.

        More where blocks are cut by the borders of ranks, or rows are drawn again (``weights``, ``balanced``).
        """
        return self.blocks / (self.rows * self._blocks_per_row) if self.rows else 0.0

    @property
    def padded_share(self) -> float:
        """Share of padding in ragged rows that were padded, 0 to 1."""
        return self.padded.share

    def __repr__(self) -> str:
        lines = [
            f"{self.rows:,} rows in {self.batches:,} batches, {self.rows_per_s:,.0f} rows/s",
            f"waited for data {self.wait_share:.1%} of {self.elapsed_s:.2f} s; "
            f"threads were busy for {self.busy_s:.2f} s",
            *([f"transforms ran for {self.transform_s:.2f} s"] if self.transform_s else []),
            f"decoded {format_bytes(self.decoded_bytes)}, {self.amplification:.2f} per byte delivered; "
            f"each block was read {self.reads_per_block:.2f} times an epoch",
            *([f"padding is {self.padded_share:.1%} of the rows that were padded"] if self.padded.items else []),
            f"memory: {self.memory!r}",
            *(f"field {name!r}: {path}" for name, path in self.paths.items()),
        ]
        return "\n".join(lines)
