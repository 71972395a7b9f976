"""Any batch by its number: the slab that holds it is filled, and kept until another one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from oocload.loader.filled import Slab, SlabStream
from oocload.loader.runtime import Runtime


class BatchAccess:
    """Batches in any order, reading ahead of nobody. Not thread-safe.

    Parameters
    ----------
    runtime
        Of the loader.

    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._slabs: SlabStream | None = None
        self._slab: Slab | None = None

    def get(self, epoch: int, batch: int) -> Callable[[str], NDArray[Any]]:
        """Return a function field → fresh array of one batch of an epoch; views would change what is kept."""
        if not self._holds(epoch, batch):
            self._advance(epoch, batch)
        slab = self._slab
        assert slab is not None
        start, stop = slab.span(batch)
        return lambda name: slab.arrays[name][start:stop].copy()

    def close(self) -> None:
        """Stop the threads and let go of the slab."""
        if self._slabs is not None:
            self._slabs.close()
        self._slabs = self._slab = None

    def _holds(self, epoch: int, batch: int) -> bool:
        w = self._slab
        if w is None or w.epoch != epoch:
            return False
        return w.first_batch + w.skip <= batch < w.first_batch + w.n_batches

    def _advance(self, epoch: int, batch: int) -> None:
        """Go on to the next slab where that is the one, else begin anew at the batch."""
        w = self._slab
        follows = w is not None and w.epoch == epoch and w.first_batch + w.n_batches == batch
        self._slab = w = None
        if follows and self._slabs is not None:
            self._slab = next(self._slabs, None)
        if not self._holds(epoch, batch):
            self.close()
            self._slabs = SlabStream(self.runtime, epoch, batch, endless=False, ahead=0)
            self._slab = next(self._slabs)
