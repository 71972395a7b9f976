"""Words as codes: sorted, none for what is empty, and only those of the vocabulary."""

import pytest

from oocload.convert.sources.arrow_values import RowError
from oocload.convert.sources.label_column import LabelCodes, LabelWords

pa = pytest.importorskip("pyarrow")


def test_words_are_sorted() -> None:
    words = LabelWords()
    words.add(["b", None, "a", ""])
    words.add(pa.array(["c", "a", None]).dictionary_encode())
    assert words.vocabulary() == ("a", "b", "c")


def test_codes() -> None:
    codes = LabelCodes(["b", "a"])
    assert codes.codes(["a", None, "b", ""]).tolist() == [1, -1, 0, -1]
    assert codes.codes(pa.chunked_array([["a"], ["b", None]])).tolist() == [1, 0, -1]
    assert codes.codes([]).dtype == "i8"
    assert LabelCodes(["", "a"]).codes(["", "a"]).tolist() == [0, 1]
    assert codes.meaning.vocabulary == ("b", "a")


def test_a_word_that_is_not_there() -> None:
    message = r"must be a word of the vocabulary \('w0', .*'w7', ...\), got 'other'; add it to the vocabulary"
    with pytest.raises(RowError, match=message) as caught:
        LabelCodes([f"w{i}" for i in range(9)]).codes(["w1", "other"])
    assert caught.value.row == 1
