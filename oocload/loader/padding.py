"""How rows of several lengths become arrays: what the user says, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError
from oocload.units import whole_number

_SIDES = ("pre", "post")
_BESIDE = (None, "lengths", "mask")


class Ragged(NamedTuple):
    """The rows of a batch, one after the other: row ``i`` has ``values[offsets[i] : offsets[i + 1]]``.

    Attributes
    ----------
    values
        Items of all rows, shape (items, *item shape).
    offsets
        int64, shape (rows + 1,); the first is 0.

    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    @property
    def n_rows(self) -> int:
        """Rows of the batch."""
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of values and offsets."""
        return int(self.values.nbytes + self.offsets.nbytes)


@dataclass(frozen=True, slots=True)
class Pad:
    """Pad ragged rows to one length; pass it as ``Loader(..., ragged=Pad(...))``.

    Parameters
    ----------
    maxlen
        That length in items; longer rows are truncated. None pads each batch to its longest row.
    padding
        Whether padding stands before (``"pre"``) or behind (``"post"``) a row's items.
    truncating
        Whether items are cut off at the beginning (``"pre"``) or at the end (``"post"``) of a row that is too long.
    value
        Of the padding; a number that the field's dtype holds.
    beside
        What stands beside the padded rows: ``"lengths"`` (int64, shape (rows,), items of each row that are kept) or
        ``"mask"`` (bool, shape (rows, length), True where items are). The place of the field in a batch is then a
        dict, with ``"<field>_lengths"`` or ``"<field>_mask"`` in it.
    static
        Whether all batches are ``maxlen`` long, as JAX and compiled models want them; the default where ``maxlen`` is
        given. False pads each batch to its longest row, and truncates at ``maxlen``.

    Notes
    -----
    The first four are those of ``keras.utils.pad_sequences``, whose defaults for both sides are ``"pre"``.

    Raises
    ------
    InvalidArgumentError
        If one breaks its rule.

    """

    maxlen: int | None = None
    padding: Literal["pre", "post"] = "post"
    truncating: Literal["pre", "post"] = "post"
    value: Any = 0
    beside: Literal["lengths", "mask"] | None = None
    static: bool | None = None

    def __post_init__(self) -> None:
        if self.maxlen is not None:
            object.__setattr__(self, "maxlen", whole_number("maxlen", self.maxlen, 1))
        for name in ("padding", "truncating"):
            if getattr(self, name) not in _SIDES:
                raise InvalidArgumentError(f"{name} must be 'pre' or 'post', got {getattr(self, name)!r}")
        if self.beside not in _BESIDE:
            raise InvalidArgumentError(f"beside must be 'lengths', 'mask' or None, got {self.beside!r}")
        if self.static is None:
            object.__setattr__(self, "static", self.maxlen is not None)
        if self.static and self.maxlen is None:
            raise InvalidArgumentError("maxlen must be given where static is True: it is the length of all batches")
        if np.ndim(self.value):
            raise InvalidArgumentError(f"value must be one number, got {self.value!r}")

    @property
    def pre(self) -> bool:
        """Whether rows stand behind the padding."""
        return self.padding == "pre"

    @property
    def keeps_end(self) -> bool:
        """Whether the last items of a row that is too long are kept."""
        return self.truncating == "pre"

    def check_value(self, field: str, dtype: np.dtype[Any]) -> None:
        """Refuse a value that a field cannot hold."""
        given = np.asarray(self.value)
        with np.errstate(all="ignore"):
            try:
                held = given.astype(dtype)
                fits = bool(held == given) or (given.dtype.kind == "f" and dtype.kind in "fc")
            except (TypeError, ValueError, OverflowError):
                fits = False
        if not fits:
            raise InvalidArgumentError(
                f"value of the padding must be one that field {field!r} of dtype {dtype} holds, got {self.value!r}"
            )


Rule = Pad | Literal["values"]


def check_rule(rule: Any) -> Rule:
    """Return a rule.

    Raises
    ------
    InvalidArgumentError
        If it is none.

    """
    if isinstance(rule, Pad):
        return rule
    if isinstance(rule, str) and rule == "values":
        return "values"
    raise InvalidArgumentError(
        "ragged must be oocload.Pad(...), 'values' (values and offsets), or a dict of field → one of these, got "
        f"{rule!r}"
    )


__all__ = ["Pad", "Ragged", "Rule", "check_rule"]
