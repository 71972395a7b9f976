"""Where records end, held against the csv module, byte for byte and cut anywhere."""

import csv
import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from oocload.convert.sources.csv_records import last_end, n_lines, record_ends

FIELDS = st.one_of(
    st.sampled_from(["a", "", 'say ""x""', "two\nlines", "a,b", '"']).map(lambda s: '"' + s.replace('"', '""') + '"'),
    st.sampled_from(["1", "", 'a"b', '5""', "x y", ' "z"']),
)
LINES = st.lists(st.lists(FIELDS, min_size=1, max_size=3).map(",".join), min_size=1, max_size=6)


@given(lines=LINES, newline=st.sampled_from(["\n", "\r\n"]), is_ended=st.booleans(), cut=st.integers(0, 200))
def test_ends(lines: list[str], newline: str, is_ended: bool, cut: int) -> None:
    text = newline.join(lines) + (newline if is_ended else "")
    data = np.frombuffer(text.encode(), np.uint8)
    wanted = np.cumsum([len((line + newline).encode()) for line in lines])
    wanted[-1] = len(data)
    ends = record_ends(data, ",", '"')
    assert ends.tolist() == [*dict.fromkeys(wanted.tolist())]
    assert len([*filter(None, csv.reader(io.StringIO(text, newline="")))]) == len([*filter(None, lines)])
    part = data[: min(cut, len(data))]
    whole = [int(end) for end in ends if end <= len(part) and text.encode()[:end].endswith(b"\n")]
    assert last_end(part, ",", '"') == (whole[-1] if whole else 0)


def test_without_quotes() -> None:
    data = np.frombuffer(b'a,"b\nc"\nd', np.uint8)
    assert record_ends(data, ",", None).tolist() == [5, 8, 9]
    assert last_end(data, ",", None) == 8
    assert n_lines(data) == 2
    long = np.frombuffer(b"x\n" + b"y" * 100_000, np.uint8)
    assert last_end(long, ",", '"') == 2
