"""What ragged bytes are, by what they look like: text, images, or neither."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import Bytes
from oocload.convert.ragged import RaggedRows

_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_CONTROLS = np.setdiff1d(np.arange(32), [9, 10, 13])  # never in text, but for tabs and ends of lines


def content_of(rows: RaggedRows) -> Literal["", "text", "image"]:
    """Return what all rows are that are not empty; neither where there are none."""
    if not len(rows.values):
        return ""
    if all(is_image(rows.values[s:e].tobytes()) for s, e in _places(rows.offsets)):
        return "image"
    if np.isin(rows.values, _CONTROLS).any() or problems_of_text(rows.values, rows.offsets):
        return ""
    return "text"


def is_image(data: bytes) -> bool:
    """Whether bytes begin as JPEG or PNG files do."""
    return data.startswith(_IMAGES)


def problems_of_text(values: Bytes, offsets: NDArray[np.int64]) -> dict[int, str]:
    """Return number → what is wrong, of the rows that are not UTF-8."""
    begun = values[offsets[:-1][np.diff(offsets) > 0]]
    if not (begun & 0xC0 == 0x80).any() and _problem(values) == "":
        return {}
    problems = ((i, _problem(values[s:e])) for i, (s, e) in enumerate(pairwise(offsets)))
    return {i: problem for i, problem in problems if problem}


def _problem(values: Bytes) -> str:
    if not (values > 127).any():
        return ""
    try:
        values.tobytes().decode("utf-8")
    except UnicodeDecodeError as exc:
        return f"{exc.reason} at byte {exc.start}"
    return ""


def _places(offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    return [(s, e) for s, e in pairwise(offsets.tolist()) if s < e]
