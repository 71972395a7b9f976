"""Where a model is in its data, counted in integers as Keras runs: what a checkpoint keeps, and how to go on from it.

Keras makes passes of ``n_batches`` over the data, one after the other, and epochs of at most ``steps``: an epoch ends
with its steps or with the pass, and a pass may have several epochs::

    pass   |.........................|.........................|      n_batches = 25
    epoch  |..........|..........|...|..........|..........|...|      steps = 10
"""

from __future__ import annotations

from dataclasses import dataclass

from oocload.adapters.replay import Base


@dataclass
class Progress:
    """Position of a model, after the batches that it has been trained on.

    Attributes
    ----------
    n_batches, steps
        Of a pass; of an epoch of Keras', at most.
    base
        Where the pass under way began.
    in_pass
        Batches of that pass that are done.
    epoch, step
        Keras' epoch, and the batches of it that are done.

    """

    n_batches: int
    steps: int
    base: Base
    in_pass: int = 0
    epoch: int = 0
    step: int = 0

    @property
    def position(self) -> Base:
        """Of the loader: the next batch."""
        return self.base.plus(self.in_pass, self.n_batches)

    @property
    def left(self) -> int:
        """Batches that the epoch under way still has."""
        return min(self.steps - self.step, self.n_batches - self.in_pass)

    def advance(self, n_done: int) -> None:
        """Go on by batches of this epoch."""
        self.step, self.in_pass = self.step + n_done, self.in_pass + n_done

    def end_epoch(self) -> None:
        """Go on to the next epoch, and to the next pass where this one is done."""
        self.epoch, self.step = self.epoch + 1, 0
        if self.in_pass >= self.n_batches:
            self.base, self.in_pass = self.base.plus(self.n_batches, self.n_batches), 0

    def lengths(self) -> dict[tuple[int, int], int]:
        """Return the lengths of the passes with which Keras comes from here to where passes are whole again.

        Keras begins them at the next batch, each after the one before. The first ends with the epoch under way, if that
        has begun. The second is the rest of the pass; but where epochs divide passes, Keras would take its end for an
        epoch without batches, and it is as long as any other, as are all that follow.
        """
        lengths: dict[tuple[int, int], int] = {}
        at, in_pass = self.position, self.in_pass
        if self.step:
            lengths[at] = self.left
            at, in_pass = at.plus(self.left, self.n_batches), in_pass + self.left
        if 0 < in_pass < self.n_batches:
            lengths[at] = self.n_batches if self.n_batches % self.steps == 0 else self.n_batches - in_pass
        return lengths
