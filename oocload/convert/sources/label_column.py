"""Words of a column as codes: which words there are, and where each word stands among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.convert.sources.arrow_values import RowError, as_strings, computed, items_or
from oocload.layout import Meaning


class LabelWords:
    """Gathers the words of a column: sorted, without the empty one, which stands for a row without a label."""

    def __init__(self) -> None:
        self._words: set[str] = set()

    def add(self, values: Any) -> None:
        """Take labels: an Arrow array, or a sequence of text and None."""
        self._words.update(word for word in as_strings(values).unique().to_pylist() if word)

    def vocabulary(self) -> tuple[str, ...]:
        """Return the words so far, sorted."""
        return tuple(sorted(self._words))


class LabelCodes:
    """Says of labels where they stand in a vocabulary.

    Parameters
    ----------
    vocabulary
        The words, each once.

    """

    dtype = np.dtype(np.int64)

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.meaning = Meaning(vocabulary=tuple(vocabulary))
        self._known = as_strings(vocabulary)

    def codes(self, values: Any) -> NDArray[np.int64]:
        """Return the code of each label; -1 for None, and for empty text that is no word of the vocabulary.

        Raises
        ------
        RowError
            If a word is not in the vocabulary.

        """
        words = as_strings(values)
        found = items_or(computed("index_in", words, value_set=self._known.cast(words.type)), -1)
        if len(found) and found.min() < 0:
            unknown = np.flatnonzero((found < 0) & (items_or(computed("binary_length", words), 0) > 0))
            if len(unknown):
                raise RowError(int(unknown[0]), self._refusal(words[int(unknown[0])].as_py()))
        codes: NDArray[np.int64] = found.astype(self.dtype)
        return codes

    def _refusal(self, word: str) -> str:
        known = ", ".join(map(repr, self.meaning.vocabulary[:8])) + (", ..." if len(self._known) > 8 else "")
        return f"must be a word of the vocabulary ({known}), got {word!r}; add it to the vocabulary"
