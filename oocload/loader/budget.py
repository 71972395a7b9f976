"""The memory budget: what every part holds, and its peak."""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager
from typing import Any

from oocload.units import format_bytes


class Budget:
    """Counts the bytes that oocload holds, by part; thread-safe, and safe inside a finalizer.

    A finalizer may run between any two steps of a method here, in the same thread. So changes are queued, and whoever
    is settling the queue already settles them too.

    Parameters
    ----------
    ceiling
        Bytes.
    lock
        The lock of whatever else finalizers reach; a lock of its own would invite deadlock.

    """

    def __init__(self, ceiling: int, lock: AbstractContextManager[Any]) -> None:
        self.ceiling = ceiling
        self._held: dict[str, int] = {}
        self._peaks: dict[str, int] = {}
        self._total = 0
        self._total_peak = 0
        self._changes: deque[tuple[str, int]] = deque()
        self._settling = False
        self._lock = lock

    def take(self, part: str, n_bytes: int) -> None:
        """Note that a part holds more."""
        self._changes.append((part, n_bytes))
        self._settle()

    def give(self, part: str, n_bytes: int) -> None:
        """Note that a part holds less."""
        self._changes.append((part, -n_bytes))
        self._settle()

    def _settle(self) -> None:
        with self._lock:
            if self._settling:
                return
            self._settling = True
            try:
                while self._changes:
                    part, change = self._changes.popleft()
                    self._held[part] = self._held.get(part, 0) + change
                    self._peaks[part] = max(self._peaks.get(part, 0), self._held[part])
                    self._total += change
                    self._total_peak = max(self._total_peak, self._total)
            finally:  # an interrupt from the keyboard may come anywhere
                self._settling = False

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._total

    @property
    def peak(self) -> int:
        """Most bytes held at once so far."""
        return self._total_peak

    def parts(self) -> dict[str, tuple[int, int]]:
        """Return part → (bytes held now, most bytes held so far)."""
        with self._lock:
            return {part: (held, self._peaks.get(part, 0)) for part, held in list(self._held.items())}

    def __repr__(self) -> str:
        parts = ", ".join(f"{p} {format_bytes(peak)}" for p, (_, peak) in self.parts().items() if peak)
        return f"peak {format_bytes(self.peak)} of {format_bytes(self.ceiling)} ({parts or 'nothing held'})"
