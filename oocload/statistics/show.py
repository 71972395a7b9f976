"""Statistics as text: one line for each channel, then labels and lengths of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from oocload.units import counted

if TYPE_CHECKING:
    from oocload.statistics.result import FieldStatistics

_TITLES = ("field", "shape", "dtype", "channel", "count", "NaN", "inf", "mean", "std", "min", "max")
_N_TEXT = 4  # columns that are text
_SHOWN_CHANNELS = 8
_SHOWN_LABELS = 8


def show(fields: Sequence[FieldStatistics]) -> str:
    """Return an aligned table, and what else there is to say of each field."""
    rows = [_TITLES, *(row for field in fields for row in _channels(field))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_TITLES))]
    table = [_aligned(row, widths) for row in rows]
    return "\n".join([*table, *(f"  {line}" for field in fields for line in _notes(field))])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.ljust(width) if i < _N_TEXT else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return ("  " + "  ".join(cells)).rstrip()


def _channels(field: FieldStatistics) -> Iterator[tuple[str, ...]]:
    shown = field.n_channels if field.n_channels <= _SHOWN_CHANNELS + 1 else _SHOWN_CHANNELS
    head = (field.name, " × ".join(map(str, field.shape)), field.dtype.name)
    for channel in range(shown):
        yield (*head, *_channel(field, channel))
        head = ("", "", "")
    if shown < field.n_channels:
        yield ("", "", "", f"… {field.n_channels - shown} more", *[""] * (len(_TITLES) - _N_TEXT))


def _channel(field: FieldStatistics, i: int) -> tuple[str, ...]:
    number = "" if field.n_channels == 1 else str(i)
    counts = (f"{int(n):,}" for n in (field.count[i], field.n_nan[i], field.n_infinite[i]))
    values = ("" if a is None else _number(a[i]) for a in (field.mean, field.std, field.min, field.max))
    return (number, *counts, *values)


def _number(value: Any) -> str:
    return f"{value:.6g}" if value.dtype.kind == "f" else str(value)


def _notes(field: FieldStatistics) -> Iterator[str]:
    if field.lengths is not None:
        low, mean, high = field.lengths
        yield f"{field.name}: rows of {low:,} to {high:,} items, {mean:,.1f} on average"
    run = field.longest_run
    if run is None:
        return
    longest = f"longest run {run.length:,} × {run.label!r} from row {run.first_row:,}"
    if field.histogram is None:
        yield f"{field.name}: too many labels to count; {longest}"
        return
    most = sorted(field.histogram.items(), key=lambda item: -item[1])[:_SHOWN_LABELS]
    top = ", ".join(f"{label!r}: {n:,} ({n / field.n_rows:.1%})" for label, n in most)
    more = "" if len(most) == len(field.histogram) else f", … {len(field.histogram) - len(most):,} more"
    yield f"{field.name}: {counted(len(field.histogram), 'label')}: {top}{more}; {longest}"
