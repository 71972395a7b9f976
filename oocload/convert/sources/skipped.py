"""What a conversion leaves out where it is told to."""

from __future__ import annotations

from typing import NamedTuple


class Skipped(NamedTuple):
    """A record that could not be read: where it is (a file, a line), and why."""

    where: str
    reason: str
