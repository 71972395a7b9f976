"""Text as numbers of tokens, held against plain loops; anything that is a sequence of text will do."""

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.convert.sources.arrow_values import RowError
from oocload.convert.sources.tokens import TokenIds, TokenWords
from oocload.errors import InvalidArgumentError
from oocload.sources import Text

pa = pytest.importorskip("pyarrow")

TEXTS = ["The cat  sat", None, "", " on the\tmat ", "THE Cât\u2028ж🙂"]


def found(text: Text, values: Any = TEXTS) -> tuple[tuple[str, ...], list[list[int]]]:
    words = TokenWords(text)
    words.add(values)
    known = text.known if text.known is not None else words.vocabulary()
    rows = TokenIds(text, known).rows(values)
    if text.maxlen is not None:
        return known, rows.tolist()
    return known, [rows.values[a:b].tolist() for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]


def test_words() -> None:
    known, rows = found(Text())
    assert known == ("", "[UNK]", "the", "cat", "cât", "mat", "on", "sat", "ж🙂")
    assert rows == [[2, 3, 7], [], [], [6, 2, 5], [2, 4, 8]]
    assert found(Text(max_tokens=3)) == (known[:3], [[2, 1, 1], [], [], [1, 2, 1], [2, 1, 1]])
    assert found(Text(lowercase=False, vocabulary=["THE"]))[1][4] == [2, 1, 1]
    assert found(Text(vocabulary=["", "[UNK]", "cat"], maxlen=2))[1] == [[1, 2], [0, 0], [0, 0], [1, 1], [1, 1]]


@given(st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=12)), max_size=6))
def test_as_a_plain_loop(values: list[str | None]) -> None:
    """White space is that of `str.split`; characters are code points."""
    known, rows = found(Text(lowercase=False), values)
    assert [[known[i] for i in row] for row in rows] == [
        [word if word not in ("[UNK]",) else "[UNK]" for word in (value or "").split()] for value in values
    ]
    known, rows = found(Text("characters", lowercase=False), pa.array(values, pa.string()))
    assert ["".join(known[i] for i in row) for row in rows] == [value or "" for value in values]


@pytest.mark.parametrize("end", [" ", "\t", "  ", "\u2028", "\u00a0", "\x1c", "\u3000", ""])
def test_nothing_behind_the_last_text_is_looked_at(end: str) -> None:
    """pyarrow 26 looks at the bytes behind a text that ends in white space, to see whether that ends there."""
    data, offsets = f"a bc{end}".encode(), np.array([0, 1, 4 + len(end.encode())], "int32")
    behind = pa.py_buffer(data + b"\xff" * 8).slice(0, len(data))
    values = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), behind)
    assert found(Text(lowercase=False), values) == (("", "[UNK]", "a", "bc"), [[2], [3]])


def test_hashing() -> None:
    known, rows = found(Text("hashing", vocabulary=None, n_buckets=50))
    assert known == ()
    assert rows[0] == [1 + zlib.crc32(word) % 49 for word in (b"the", b"cat", b"sat")]
    assert rows[1] == []


def test_functions() -> None:
    assert found(Text(lambda text: [len(word) for word in text.split()])) == (
        (),
        [[3, 3, 3], [], [], [2, 3, 3], [3, 3, 2]],
    )
    known, rows = found(Text(lambda text: text.split("t"), max_tokens=4))
    assert len(known) == 4
    assert len(rows[0]) == 3
    with pytest.raises(RowError, match="must become a list of words or of whole numbers by tokens=, got \\[1.5\\]"):
        found(Text(lambda text: [1.5]))
    with pytest.raises(RowError, match="must have tokens whose numbers fit into int32"):
        found(Text(lambda text: [2**40]))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_any_column_of_text(kind: Any) -> None:
    array = pa.chunked_array([pa.array(TEXTS[:2], kind), pa.array(["x", *TEXTS[2:]], kind)[1:]])
    assert found(Text(), array)[1] == found(Text())[1]
    assert found(Text("characters", maxlen=5), array)[1] == found(Text("characters", maxlen=5))[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "syllables"}, "tokens must be 'words', 'characters', 'hashing' or a function, got 'syllables'"),
        ({"maxlen": 0}, "maxlen must be a whole number of at least 1, got 0"),
        ({"max_tokens": 2}, "max_tokens must be a whole number of at least 3, got 2"),
        ({"vocabulary": "abc"}, "vocabulary must be a list of words, got 'abc'"),
        ({"vocabulary": ["a", "b", "a"]}, "vocabulary must hold each word once, got 'a' twice"),
        ({"vocabulary": ["a", "b"], "max_tokens": 3}, "at most max_tokens=3 words with the two special ones, got 4"),
        ({"tokens": "hashing", "vocabulary": ["a"]}, "vocabulary must be left out with tokens='hashing'"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Text(**options)


def test_what_tells_them_apart() -> None:
    assert Text().describe() != Text(maxlen=3).describe()
    assert Text(str.split).describe()["tokens"].endswith("str.split")
    assert np.dtype(np.int32) == TokenIds(Text(), ()).rows([]).values.dtype
