"""From the batch indices that Keras asks for to the loader's own order.

Keras permutes batch indices with a global generator, asks for a few batches before training to learn their shapes,
and ends its epochs in the middle of a pass when ``steps_per_epoch`` is below the number of batches. The n-th request of
a pass gets its n-th batch, so that a pass yields every batch exactly once and decodes each window once. Where indices
come in order and begin again with 0, the pass does too: that is a second ``predict`` or ``evaluate``.
"""

from __future__ import annotations

from typing import NamedTuple

# Requests that Keras makes at most to learn shapes: two for the spec, one or two more to build the model.
_MAX_PROBES = 4


class Ticket(NamedTuple):
    """Which pass over the data a request belongs to, and which of its batches it gets."""

    n_pass: int
    batch: int
    rewound: bool  # this request begins the same pass again


class Tickets:
    """Assigns batches to requested indices. Not thread-safe.

    Parameters
    ----------
    n_batches
        Batches of one pass.

    """

    def __init__(self, n_batches: int) -> None:
        self._n_batches = n_batches
        self._issued: set[int] = set()
        self._count = 0
        self._in_order = True
        self._pass = 0
        self._at_boundary = False
        self._may_rewind = True

    def boundary(self) -> None:
        """Note that Keras began or ended one of its epochs."""
        self._at_boundary = True

    def take(self, index: int) -> Ticket:
        """Return the batch for a requested index."""
        rewound = False
        if self._begins_anew(index):
            rewound = self._may_rewind and 0 < self._count <= _MAX_PROBES
            if rewound:
                self._may_rewind = False
            else:
                self._pass += 1
            self._issued.clear()
            self._count, self._in_order = 0, True
        self._at_boundary = False
        ticket = Ticket(self._pass, self._count, rewound)
        self._in_order = self._in_order and index == self._count
        self._issued.add(index)
        self._count += 1
        if self._count > _MAX_PROBES:
            self._may_rewind = True
        return ticket

    def _begins_anew(self, index: int) -> bool:
        few = 0 < self._count <= _MAX_PROBES
        again = index in self._issued and (few or (self._in_order and index == 0))
        return self._count == self._n_batches or again or (self._at_boundary and few)
