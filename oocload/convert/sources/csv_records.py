"""Where records of delimited text end: at line ends that stand outside of quotes. Positions of bytes only.

A quote opens only at the beginning of a field, as RFC 4180 has it and pyarrow reads it; elsewhere it is a character.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

Data = NDArray[np.uint8]
_NEWLINE, _RETURN = ord("\n"), ord("\r")


def n_lines(data: Data) -> int:
    """Return how many lines end in some bytes."""
    return int(np.count_nonzero(data == _NEWLINE))


def last_end(data: Data, delimiter: str, quote: str | None) -> int:
    """Return where the last whole record ends; 0 where none does."""
    view = memoryview(data)
    ranges = quoted_ranges(data, delimiter, quote)
    limit = len(data)
    while (newline := _rfind_newline(view, limit)) >= 0:
        before = int(np.searchsorted(ranges[:, 0], newline)) - 1
        if before < 0 or newline >= ranges[before, 1]:
            return newline + 1
        limit = int(ranges[before, 0])
    return 0


def record_ends(data: Data, delimiter: str, quote: str | None) -> NDArray[np.int64]:
    """Return where each record ends; the last one ends with the data."""
    newlines = np.flatnonzero(data == _NEWLINE)
    ranges = quoted_ranges(data, delimiter, quote)
    if len(ranges):
        before = np.searchsorted(ranges[:, 0], newlines) - 1
        newlines = newlines[(before < 0) | (newlines >= ranges[before, 1])]
    ends = newlines + 1
    return ends if len(ends) and ends[-1] == len(data) else np.append(ends, len(data))


def quoted_ranges(data: Data, delimiter: str, quote: str | None) -> NDArray[np.int64]:
    """Return where quotes open and close, of data that begins with a record; one that never closes ends behind it."""
    if quote is None:
        return np.empty((0, 2), np.int64)
    quotes = np.flatnonzero(data == ord(quote))
    if not len(quotes):
        return np.empty((0, 2), np.int64)
    opens = quotes[0::2]
    may_precede = np.zeros(256, bool)
    may_precede[[ord(delimiter), _NEWLINE, _RETURN, ord(quote)]] = True
    first = 1 if len(opens) and opens[0] == 0 else 0
    if not may_precede[data[opens[first:] - 1]].all():
        return _ranges_one_by_one(data, delimiter, quote)
    closes = quotes[1::2]
    if len(closes) < len(opens):
        closes = np.append(closes, len(data) + 1)
    return np.stack([opens, closes], axis=1)


def _ranges_one_by_one(data: Data, delimiter: str, quote: str) -> NDArray[np.int64]:
    """Return the same where quotes stand inside of fields as well, so that counting them does not do."""
    q, d = re.escape(quote.encode()), re.escape(delimiter.encode())
    field = re.compile(b"(?:\\A|(?<=[%s\\n\\r]))%s[^%s]*+(?:%s%s[^%s]*+)*+(%s?)" % (d, q, q, q, q, q, q))
    found = [(m.start(), m.end() - 1 if m[1] else len(data) + 1) for m in field.finditer(data)]
    return np.array(found, np.int64).reshape(-1, 2)


def _rfind_newline(view: memoryview, stop: int) -> int:
    """Return the place of the last line end before one."""
    step = 4096
    while stop > 0:
        start = max(0, stop - step)
        found = bytes(view[start:stop]).rfind(b"\n")
        if found >= 0:
            return start + found
        stop, step = start, step * 4
    return -1
