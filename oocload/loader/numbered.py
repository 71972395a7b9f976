"""The batches of slabs one by one, with their numbers, as transforms get them."""

from __future__ import annotations

from collections.abc import Iterator

from oocload.loader.batch import Batch, Cut
from oocload.loader.filled import SlabStream
from oocload.loader.transform import Numbered


class NumberedBatches(Iterator[Numbered]):
    """Cuts slabs into batches; holds a slab for as long as batches of it are to come.

    Parameters
    ----------
    stream
        The slabs.
    cut
        Makes batches of their rows.

    """

    def __init__(self, stream: SlabStream, cut: Cut) -> None:
        self._stream, self._cut = stream, cut
        self._batches: Iterator[Batch] | None = None
        self._places: Iterator[tuple[int, int, int]] = iter(())
        self._place: tuple[int, int, int] | None = None
        self._epoch = 0

    @property
    def ready(self) -> bool:
        """Whether the next batch, or the end, can be had without waiting."""
        return self._place is not None or self._stream.ready

    def __next__(self) -> Numbered:
        if self._place is None:
            self._take_slab()
        assert self._place is not None
        assert self._batches is not None
        number, start, stop = self._place
        batch = next(self._batches)
        self._place = next(self._places, None)
        if self._place is None:
            self._batches, self._places = None, iter(())  # nobody but the consumer holds the slab from here on
        return Numbered(self._epoch, number, stop - start, batch)

    def _take_slab(self) -> None:
        slab = next(self._stream)
        self._epoch = slab.epoch
        self._batches, self._places = self._cut(slab.rows(), slab.batch_rows), slab.batches()
        self._place = next(self._places)
