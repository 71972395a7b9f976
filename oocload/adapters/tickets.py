"""From the batch indices that Keras asks for to the loader's own order.

Keras permutes batch indices with a global generator, asks for a few batches before training to learn their shapes,
and ends its epochs in the middle of a pass when ``steps_per_epoch`` is below the number of batches. The n-th new
index of a pass gets the n-th batch, so that a pass yields every batch exactly once and decodes each window once.
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
        self._pass = 0
        self._at_boundary = False
        self._may_rewind = True

    def boundary(self) -> None:
        """Note that Keras began or ended one of its epochs."""
        self._at_boundary = True

    def take(self, index: int) -> Ticket:
        """Return the batch for a requested index."""
        rewound = False
        complete = len(self._issued) == self._n_batches
        if index in self._issued or complete or self._only_probes_before_boundary():
            rewound = self._may_rewind and 0 < len(self._issued) <= _MAX_PROBES
            if rewound:
                self._may_rewind = False
            else:
                self._pass += 1
            self._issued.clear()
        self._at_boundary = False
        ticket = Ticket(self._pass, len(self._issued), rewound)
        self._issued.add(index)
        if len(self._issued) > _MAX_PROBES:
            self._may_rewind = True
        return ticket

    def _only_probes_before_boundary(self) -> bool:
        return self._at_boundary and 0 < len(self._issued) <= _MAX_PROBES
