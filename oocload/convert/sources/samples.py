"""What is known of samples beside their files: the fields ``y`` (labels), ``id`` and ``split`` (named sets)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.convert.fields import Spec
from oocload.convert.ragged import RaggedRows, RaggedSpec
from oocload.convert.spec import FieldSpec
from oocload.layout import Meaning

_MAKING_NBYTES = 128  # of each row: the text of an id, and its place in lists, on the way to be a row
_ID, _TEXT = "id", RaggedSpec((), np.dtype(np.uint8))

Column = tuple[NDArray[Any], Meaning]


class Samples:
    """Ids in order, and a value of each sample for other fields.

    Parameters
    ----------
    ids
        One for each sample.
    labels, splits
        Values and what they stand for, or None where there are none.

    """

    def __init__(self, ids: Sequence[str], labels: Column | None, splits: Column | None) -> None:
        self._ids = ids
        columns = {"y": labels, _ID: None, "split": splits}
        self._columns = {name: column for name, column in columns.items() if column is not None or name == _ID}

    @property
    def specs(self) -> dict[str, Spec]:
        """Field → spec."""
        return {
            name: _TEXT if column is None else FieldSpec(column[0].shape[1:], column[0].dtype.newbyteorder("="))
            for name, column in self._columns.items()
        }

    @property
    def meanings(self) -> dict[str, Meaning]:
        """Field → what its values stand for."""
        text = Meaning(content="text")
        return {name: text if column is None else column[1] for name, column in self._columns.items()}

    @cached_property
    def row_nbytes(self) -> int:
        """Bytes of the longest row of all fields, with what making it takes."""
        columns = sum(column[0][:1].nbytes for column in self._columns.values() if column is not None)
        return max(map(len, self._ids)) + columns + _MAKING_NBYTES

    def rows(self, start: int, stop: int, kept: NDArray[np.bool_]) -> dict[str, Any]:
        """Return those of some samples that are kept, of all fields."""
        ids = [name for name, keep in zip(self._ids[start:stop], kept, strict=True) if keep]
        return {
            name: text_rows(ids) if column is None else column[0][start:stop][kept]
            for name, column in self._columns.items()
        }

    def digest(self) -> str:
        """Return what tells them from others."""
        found = hashlib.sha256("\0".join(self._ids).encode("utf-8", "surrogateescape"))
        for name, column in self._columns.items():
            if column is not None:
                values, meaning = column
                found.update(json.dumps([name, values.dtype.str, values.shape, meaning.vocabulary]).encode())
                found.update(np.ascontiguousarray(values).tobytes())
        return found.hexdigest()


def text_rows(texts: Sequence[str]) -> RaggedRows:
    """Return texts as ragged rows of UTF-8."""
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return RaggedRows(np.frombuffer(b"".join(encoded), np.uint8), offsets)
