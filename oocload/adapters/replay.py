"""A pass over a loader, of which the first batches can be had again.

Keras reads one or two batches to learn their shapes and then begins anew. They are kept until the third is asked for,
so that what was decoded for them is not decoded again.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, NamedTuple, cast

from oocload.loader.batch import Batch

if TYPE_CHECKING:
    from oocload.loader.source import BatchSource

_KEPT = 2


class Base(NamedTuple):
    """Where a pass begins."""

    epoch: int
    batch: int

    def plus(self, n_taken: int, n_batches: int) -> Base:
        """Return the position so many batches on, in epochs of ``n_batches``."""
        n_epochs, batch = divmod(self.batch + n_taken, n_batches)
        return Base(self.epoch + n_epochs, batch)


class Replay:
    """Batches of one pass, in order. Not thread-safe.

    Parameters
    ----------
    loader
        Is set to the position.
    base
        Where the pass begins.
    first
        The first batch wanted, counted from there.
    endless
        Whether the pass goes beyond an epoch's end.

    """

    def __init__(self, loader: BatchSource, base: Base, first: int, endless: bool) -> None:
        loader.go_to(*base.plus(first, len(loader)))
        batches = loader.forever() if endless else iter(loader)
        self._batches = cast("Generator[Batch]", batches)
        self._base = base
        self._next = first
        self._kept: list[Batch] = []
        self._keeps = first == 0

    def has(self, base: Base, index: int) -> bool:
        """Whether batch ``index`` of the pass that begins at ``base`` comes next, or is kept."""
        return base == self._base and (index == self._next or index < len(self._kept))

    def get(self, index: int) -> Batch:
        """Return a batch that it `has`."""
        if index < len(self._kept):
            return self._kept[index]
        self._keeps = self._keeps and index < _KEPT
        if not self._keeps:
            self._kept.clear()
        batch = next(self._batches)
        self._next += 1
        if self._keeps:
            self._kept.append(batch)
        return batch

    def close(self) -> None:
        """Stop the loader's threads and let go of what is kept."""
        self._kept.clear()
        self._batches.close()
