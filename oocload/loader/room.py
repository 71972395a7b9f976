"""The room under a loader's ceiling beside all that reading takes, for batches that are transformed ahead."""

from __future__ import annotations

import threading

from oocload.loader.budget import Budget

_PART = "transformed"


class Room:
    """Counts bytes in a budget, under "transformed".

    Parameters
    ----------
    budget
        Of the loader.
    needed
        Bytes of its ceiling that reading takes.
    condition
        Guards it.

    """

    def __init__(self, budget: Budget, needed: int, condition: threading.Condition) -> None:
        self._budget, self._needed = budget, needed
        self._condition = condition

    @property
    def left(self) -> int:
        """Bytes for which there is room; below 0 where too many are held."""
        budget = self._budget
        held, _ = budget.parts().get(_PART, (0, 0))
        return budget.ceiling - max(self._needed + held, budget.held)

    def take(self, n_bytes: int) -> None:
        """Note that more is held."""
        if n_bytes:
            self._budget.take(_PART, n_bytes)

    def give(self, n_bytes: int) -> None:
        """Note that less is held."""
        if n_bytes:
            self._budget.give(_PART, n_bytes)

    @property
    def locked_here(self) -> bool:
        """Whether this thread is in the middle of what the condition guards, where it must wait for nobody."""
        return bool(self._condition._is_owned())  # type: ignore[attr-defined]
