"""Numbers as people write them: byte counts ("64 MiB") and whole numbers, checked and converted once, at the border."""

from __future__ import annotations

import operator
import re
from contextlib import suppress
from math import isinf
from typing import Any, SupportsIndex

from oocload.errors import InvalidArgumentError

_FACTORS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
    "t": 2**40,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_PATTERN = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z]*)\s*")


def parse_bytes(value: int | str, name: str) -> int:
    """Return a positive number of bytes.

    Parameters
    ----------
    value
        An integer, or text such as ``"64 MiB"`` (2**20) or ``"64 MB"`` (10**6).
    name
        The argument's name, for the error.

    Raises
    ------
    InvalidArgumentError
        If the value is not a size, or is not above zero.

    """
    n_bytes: int | None = None
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        n_bytes = operator.index(value)  # NumPy's integers too
    elif isinstance(value, str) and (match := _PATTERN.fullmatch(value)):
        factor = _FACTORS.get(match.group(2).lower())
        size = float(match.group(1))
        n_bytes = None if factor is None or isinf(size) else round(size * factor)
    if n_bytes is None or n_bytes <= 0:
        raise InvalidArgumentError(
            f"{name} must be a size above zero, got {value!r}; write bytes as an integer or text such as '512 MiB'"
        )
    return n_bytes


def counted(n: int, thing: str) -> str:
    """Return a number of things for people: ``"1 slab"``, ``"2 slabs"``."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def format_bytes(n_bytes: float) -> str:
    """Return a byte count for people, in binary units: ``"64.0 MiB"``."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def whole_number(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return an integer, also from NumPy's, within its bounds."""
    rule = f"of at least {low}" if high is None else f"from {low} to 2**64 - 1"
    number = None
    if not isinstance(value, bool):
        with suppress(TypeError):
            number = operator.index(value)
    if number is None or number < low or (high is not None and number > high):
        raise InvalidArgumentError(f"{name} must be a whole number {rule}, got {value!r}")
    return number


def true_or_false(name: str, value: Any) -> bool:
    """Return a bool, also from NumPy's; text such as "no", which Python takes for true, is refused."""
    if value not in (True, False) or isinstance(value, str):
        raise InvalidArgumentError(f"{name} must be True or False, got {value!r}")
    return bool(value)
