"""Texts as numbers of tokens: the tokens of many texts at once, how often each occurs, and the number of each."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.convert.fields import Spec
from oocload.convert.ragged import RaggedRows, RaggedSpec
from oocload.convert.sources.arrow_values import RowError, as_strings, computed, items, items_or, mask_of, without_none
from oocload.convert.sources.text import PADDING, SPECIAL, UNKNOWN, Text
from oocload.convert.spec import FieldSpec
from oocload.layout import Meaning

_IDS = np.dtype(np.int32)
_N_CODE_POINTS = 0x110000


class _Tokens(NamedTuple):
    """Tokens of several texts: words (an Arrow array), code points (uint32), or their numbers (int64)."""

    values: Any
    offsets: NDArray[np.int64]


class TokenWords:
    """Counts the tokens of a column.

    Parameters
    ----------
    text
        What the tokens are.

    """

    def __init__(self, text: Text) -> None:
        self._text = text
        self._counts: Counter[str] = Counter()

    def add(self, values: Any) -> None:
        """Take texts: an Arrow array, or a sequence of text and None."""
        found = _tokens_of(self._text, as_strings(values)).values
        if isinstance(found, np.ndarray):
            if found.dtype == np.uint32:
                each, counts = np.unique(found, return_counts=True)
                self._counts.update(dict(zip(map(chr, each.tolist()), counts.tolist(), strict=True)))
            return
        pairs = found.value_counts()
        words, numbers = pairs.field("values").to_pylist(), pairs.field("counts").to_pylist()
        self._counts.update(dict(zip(words, numbers, strict=True)))

    def vocabulary(self) -> tuple[str, ...]:
        """Return the words so far, the most frequent first; empty where tokens are numbers already, or hashed."""
        if not self._counts or self._text.tokens == "hashing":
            return ()
        most = None if self._text.max_tokens is None else self._text.max_tokens - len(SPECIAL)
        known = sorted(((-n, word) for word, n in self._counts.items() if word not in SPECIAL))
        return (*SPECIAL, *(word for _, word in known[:most]))


class TokenIds:
    """Gives the numbers of the tokens of texts.

    Parameters
    ----------
    text
        What the tokens are, and how rows are made.
    vocabulary
        All words that have a number, with the two special ones; empty where tokens are numbers already.

    """

    def __init__(self, text: Text, vocabulary: Sequence[str]) -> None:
        self._text = text
        self.meaning = Meaning(vocabulary=tuple(vocabulary))

    @property
    def spec(self) -> Spec:
        """What the rows are."""
        return ids_spec(self._text)

    def rows(self, values: Any) -> Any:
        """Return the rows of texts: an Arrow array, or a sequence of text and None, which has no tokens.

        Raises
        ------
        RowError
            If a function returns something else than tokens.

        """
        tokens = _tokens_of(self._text, as_strings(values))
        ids = self._ids(tokens.values).astype(_IDS, copy=False)
        return RaggedRows(ids, tokens.offsets) if self._text.maxlen is None else _padded(ids, tokens, self._text.maxlen)

    @cached_property
    def _known(self) -> Any:
        return as_strings(self.meaning.vocabulary)

    def _ids(self, values: Any) -> NDArray[Any]:
        if isinstance(values, np.ndarray):
            return values if values.dtype != np.uint32 else self._numbers_of_characters[values]
        if self._text.tokens == "hashing":
            encoded = computed("dictionary_encode", values)
            n = self._text.n_buckets - 1
            hashes = [1 + zlib.crc32(word.encode()) % n for word in encoded.dictionary.to_pylist()]
            of_word = np.array(hashes, _IDS)
            hashed: NDArray[Any] = of_word[items(encoded.indices)]
            return hashed
        known = self._known.cast(values.type)
        return items_or(computed("index_in", values, value_set=known), UNKNOWN)

    @cached_property
    def _numbers_of_characters(self) -> NDArray[np.int32]:
        table = np.full(_N_CODE_POINTS, UNKNOWN, _IDS)
        for number, word in enumerate(self.meaning.vocabulary):
            if len(word) == 1:
                table[ord(word)] = number
        return table


def ids_spec(text: Text) -> Spec:
    """Return what rows of numbers of tokens are."""
    return RaggedSpec((), _IDS) if text.maxlen is None else FieldSpec((text.maxlen,), _IDS)


def _padded(ids: NDArray[Any], tokens: _Tokens, maxlen: int) -> NDArray[Any]:
    lengths = np.diff(tokens.offsets)
    rows = np.full((len(lengths), maxlen), PADDING, _IDS)
    places = np.arange(len(ids)) - np.repeat(tokens.offsets[:-1], lengths)
    kept = places < maxlen
    rows[np.repeat(np.arange(len(lengths)), lengths)[kept], places[kept]] = ids[kept]
    return rows


def _tokens_of(text: Text, strings: Any) -> _Tokens:
    strings = without_none(strings)
    if not isinstance(text.tokens, str):
        return _by_function(text, strings)
    if text.lowercase:
        strings = computed("utf8_lower", strings)
    return _characters(strings) if text.tokens == "characters" else _words(strings)


def _words(strings: Any) -> _Tokens:
    # after white space at its end, the last text would be split by what memory holds behind it
    lists = computed("utf8_split_whitespace", computed("utf8_rtrim_whitespace", strings))
    values = lists.flatten()
    filled = items(computed("binary_length", values)) > 0  # white space at the beginning leaves an empty word
    n_filled = np.concatenate([[0], np.cumsum(filled, dtype=np.int64)])
    starts = items(lists.offsets)
    return _Tokens(
        computed("filter", values, mask_of(filled)),
        n_filled[starts - starts[0]] if len(strings) else np.zeros(1, np.int64),
    )


def _characters(strings: Any) -> _Tokens:
    lengths = items(computed("utf8_length", strings))
    joined = "".join(strings.to_pylist())
    return _Tokens(np.frombuffer(joined.encode("utf-32-le"), np.uint32), np.concatenate([[0], np.cumsum(lengths)]))


def _by_function(text: Text, strings: Any) -> _Tokens:
    assert callable(text.tokens)
    rows = [text.tokens(value) for value in strings.to_pylist()]
    if not all(hasattr(row, "__len__") for row in rows):
        raise _no_tokens(rows)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    tokens = [token for row in rows for token in row]
    if all(isinstance(token, str) for token in tokens) and tokens:
        return _Tokens(as_strings(tokens), offsets)
    try:
        numbers = np.array(tokens, np.int64 if not tokens else None)
    except (ValueError, TypeError, OverflowError):
        numbers = np.array(["?"])
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise _no_tokens(rows)
    limits = np.iinfo(_IDS)
    if len(numbers) and (numbers.min() < limits.min or numbers.max() > limits.max):
        raise RowError(0, f"must have tokens whose numbers fit into int32, got {numbers.min()} to {numbers.max()}")
    return _Tokens(numbers.astype(np.int64), offsets)


def _no_tokens(rows: Sequence[Any]) -> RowError:
    bad = (i for i, row in enumerate(rows) if not hasattr(row, "__len__") or not all(isinstance(t, str) for t in row))
    first = next(bad, 0)
    return RowError(first, f"must become a list of words or of whole numbers by tokens=, got {rows[first]!r:.80}")
