"""Any batch by its number: the window that holds it is decoded, and kept until another one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from numpy.typing import NDArray

from oocload.loader.runtime import Runtime
from oocload.loader.windows import Window, windows


class BatchAccess:
    """Batches in any order, reading ahead of nobody. Not thread-safe.

    Parameters
    ----------
    runtime
        Of the loader.

    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._windows: Generator[Window] | None = None
        self._window: Window | None = None

    def get(self, epoch: int, batch: int) -> Callable[[str], NDArray[Any]]:
        """Return a function field → fresh array of one batch of an epoch; views would change what is kept."""
        if not self._holds(epoch, batch):
            self._advance(epoch, batch)
        window = self._window
        assert window is not None
        start, stop = window.span(batch)
        return lambda name: window.arrays[name][start:stop].copy()

    def close(self) -> None:
        """Stop the threads and let go of the window."""
        if self._windows is not None:
            self._windows.close()
        self._windows = self._window = None

    def _holds(self, epoch: int, batch: int) -> bool:
        w = self._window
        if w is None or w.epoch != epoch:
            return False
        return w.first_batch + w.skip <= batch < w.first_batch + w.n_batches

    def _advance(self, epoch: int, batch: int) -> None:
        """Go on to the next window where that is the one, else begin anew at the batch."""
        w = self._window
        follows = w is not None and w.epoch == epoch and w.first_batch + w.n_batches == batch
        self._window = w = None
        if follows and self._windows is not None:
            self._window = next(self._windows, None)
        if not self._holds(epoch, batch):
            self.close()
            self._windows = windows(self.runtime, epoch, batch, endless=False, ahead=0)
            self._window = next(self._windows)
