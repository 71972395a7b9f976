"""How much of what was padded is padding."""

from __future__ import annotations

import threading


class Tally:
    """Counts items and padding; thread-safe."""

    def __init__(self) -> None:
        self.items = 0
        self.padding = 0
        self._lock = threading.Lock()

    def add(self, items: int, padding: int) -> None:
        """Note some padded rows."""
        with self._lock:
            self.items += items
            self.padding += padding

    @property
    def share(self) -> float:
        """Padding per item delivered, 0 to 1."""
        total = self.items + self.padding
        return self.padding / total if total else 0.0
