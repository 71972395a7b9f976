"""What frameworks ask of ragged fields: arrays, or arrays of one shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oocload.errors import InvalidArgumentError
from oocload.loader.padding import Pad

if TYPE_CHECKING:
    from oocload.loader.source import BatchSource


def check_arrays(loader: BatchSource, whose: str, static: bool = False) -> None:
    """Refuse ragged fields that are not padded, where nothing else makes arrays of them.

    Parameters
    ----------
    loader
        Gives the batches.
    whose
        Who asks.
    static
        Whether rows must be of the same length in all batches.

    Raises
    ------
    InvalidArgumentError
        If a field is not padded, or not to one length.

    """
    if loader.transform is not None and len(loader.transform.stages) > 1:
        return
    for name, rule in loader.assembled.items():
        if rule == "sparse":
            raise InvalidArgumentError(
                f"sparse must be False for {whose}, which has no sparse arrays; without it field {name!r} is dense"
            )
        if not isinstance(rule, Pad) or (static and not rule.static):
            raise InvalidArgumentError(
                f"ragged must say how rows of field {name!r} are padded for {whose}, whose shapes must be static; pass "
                "ragged=oocload.Pad(maxlen=...) to the loader"
                + (", or use to_tf(), which takes batches of any length" if static else "")
            )
