"""What a conversion adds to the memory of its process, whatever that held before."""

from __future__ import annotations

import os
import resource
from pathlib import Path

_KIB = 1024  # the unit of ru_maxrss on Linux: getrusage(2)
_STATM = Path("/proc/self/statm")


class Footprint:
    """The most memory that is resident, beyond what was when this was made.

    The kernel keeps the most since the process began. Where that has grown since, it is exact; where the process has
    had more before, it is the most of what `look` saw.
    """

    def __init__(self) -> None:
        self._before = self._seen = _resident_nbytes()
        self._most_before = _most_nbytes()

    def look(self) -> None:
        """Take note of what is resident now."""
        self._seen = max(self._seen, _resident_nbytes())

    @property
    def peak_nbytes(self) -> int:
        """The most so far, in bytes."""
        self.look()
        most = _most_nbytes()
        return max(0, (most if most > self._most_before else self._seen) - self._before)


def _resident_nbytes() -> int:
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _most_nbytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
