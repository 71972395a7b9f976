"""What a conversion says while it runs, and when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from oocload.convert.footprint import Footprint
from oocload.convert.sources.skipped import Skipped
from oocload.units import format_bytes

_SKIPPED_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a conversion is.

    Attributes
    ----------
    n_rows
        Rows taken so far, with those of a run that was resumed.
    n_rows_total
        Rows in all; None where the source does not tell.
    nbytes
        Bytes of them, decoded.
    stored_nbytes
        Bytes of the chunks written so far.
    seconds
        Since this run began.
    n_rows_before
        Rows that a run before this one had written.

    """

    n_rows: int
    n_rows_total: int | None
    nbytes: int
    stored_nbytes: int
    seconds: float
    n_rows_before: int = 0

    @property
    def rows_per_second(self) -> float:
        """Rows per second of this run."""
        return (self.n_rows - self.n_rows_before) / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest will take, at this run's pace; None where nothing tells."""
        if self.n_rows_total is None or not self.rows_per_second:
            return None
        return (self.n_rows_total - self.n_rows) / self.rows_per_second


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion did.

    Attributes
    ----------
    path
        The new store.
    n_rows
        Rows of it.
    fields
        Names of its fields.
    nbytes
        Bytes of its arrays, decoded.
    stored_nbytes
        Bytes on disk.
    seconds
        Wall time of this run.
    n_rows_before
        Rows that were there already, of a run that was resumed.
    peak_nbytes
        The most memory that was resident in this process beyond what it had when rows began to be read. Where it has
        had more before, the most of what was seen after each piece of rows.
    codec
        The codec of its chunks, and its level.
    tried
        With ``codec="auto"``, a table of the codecs that were tried.
    skipped
        With ``on_error="skip"``, what could not be read: where it is, and why.
    seed
        With ``shuffle=True``, its seed.

    """

    path: str
    n_rows: int
    fields: tuple[str, ...]
    nbytes: int
    stored_nbytes: int
    seconds: float
    n_rows_before: int = 0
    peak_nbytes: int = 0
    codec: str = ""
    tried: str = ""
    skipped: tuple[Skipped, ...] = ()
    seed: int | None = None

    @property
    def ratio(self) -> float:
        """Decoded bytes per byte on disk."""
        return self.nbytes / self.stored_nbytes if self.stored_nbytes else 0.0

    def __str__(self) -> str:
        resumed = f" ({self.n_rows_before:,} of them before)" if self.n_rows_before else ""
        shuffled = "" if self.seed is None else f" in an order drawn by seed {self.seed}"
        tried = f"\n{self.tried}" if self.tried else ""
        shown = [f"\n  {where}: {reason}" for where, reason in self.skipped[:_SKIPPED_SHOWN]]
        more = len(self.skipped) - len(shown)
        skipped = f"\nskipped {len(self.skipped):,}:{''.join(shown)}" if shown else ""
        skipped += f"\n  and {more:,} more" if more else ""
        return (
            f"wrote {self.path}: {self.n_rows:,} rows{resumed} of {', '.join(self.fields)}{shuffled}; "
            f"{format_bytes(self.nbytes)} in {format_bytes(self.stored_nbytes)} on disk (ratio {self.ratio:.1f}, "
            f"{self.codec}), {self.seconds:.1f} s, peak memory +{format_bytes(self.peak_nbytes)}{tried}{skipped}"
        )


Callback = Callable[[Progress], Any]


class Reporter:
    """Shows a bar on a terminal, or calls back.

    Parameters
    ----------
    name
        What is made.
    n_rows_total
        Rows in all, where known.
    progress
        True and False for a bar and none, None for one on a terminal, or what is called after each piece of rows.
    n_rows_before
        Rows that are there.
    nbytes_before, stored_nbytes_before
        Bytes of them.

    """

    def __init__(
        self,
        name: str,
        n_rows_total: int | None,
        progress: bool | Callback | None,
        n_rows_before: int = 0,
        nbytes_before: int = 0,
        stored_nbytes_before: int = 0,
    ) -> None:
        self._callback = progress if callable(progress) else None
        self._total = n_rows_total
        self._before = (n_rows_before, nbytes_before, stored_nbytes_before)
        self._began = time.perf_counter()
        self._footprint = Footprint()
        self._bar = tqdm(
            total=n_rows_total,
            initial=n_rows_before,
            unit=" rows",
            unit_scale=True,
            desc=name,
            disable=None if progress is None else progress is not True,
        )

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return time.perf_counter() - self._began

    @property
    def peak_nbytes(self) -> int:
        """The most memory that was resident since the beginning, beyond what was there."""
        return self._footprint.peak_nbytes

    def update(self, n_rows: int, nbytes: int, stored_nbytes: int) -> None:
        """Say how far it is, in rows and bytes from the very beginning."""
        self._footprint.look()
        seconds = max(self.seconds, 1e-9)
        if self._callback is not None:
            self._callback(Progress(n_rows, self._total, nbytes, stored_nbytes, seconds, self._before[0]))
        if not self._bar.disable:
            taken = (nbytes - self._before[1]) / seconds / 1e9
            put = (stored_nbytes - self._before[2]) / seconds / 1e9
            ratio = nbytes / stored_nbytes if stored_nbytes else 0.0
            self._bar.set_postfix_str(f"{taken:.2f} GB/s in, {put:.2f} GB/s out, ratio {ratio:.1f}", refresh=False)
            self._bar.update(n_rows - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
