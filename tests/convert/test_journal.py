import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.convert.journal import Journal, Mark

ARRAYS = ("x", "y")


def begun(path: Path) -> Journal:
    return Journal.begin(path, {"codec": "gzip"}, ARRAYS)


def test_what_is_committed_comes_back(tmp_path: Path) -> None:
    journal = begun(tmp_path / "journal")
    journal.add("x", 0, 100, 1, 2, skipped=3)
    journal.add("y", 1, 50, 4, 5)
    assert not journal.records["x"].has(0)  # before the commit it does not count
    mark = Mark(7, {"x": 7, "y": 3}, {"y": b"head"})
    journal.commit(mark)
    journal.commit(whole={"inode": 5})
    journal.close()
    journal.close()

    read = Journal.load(tmp_path / "journal")
    assert read is not None
    read.close()
    assert (read.recipe, read.mark, read.whole) == ({"codec": "gzip"}, mark, {"inode": 5})
    assert (read.records["x"].has(0), read.records["x"].raw(0), read.records["x"].has(1)) == (True, 2, False)
    assert (read.records["y"].has(0), read.records["y"].has(1), read.records["y"].n_chunks) == (False, True, 2)
    assert read.records["y"].nbytes.tolist() == [2**64 - 1, 50]
    assert (read.stored_nbytes, read.n_commits) == (150, 1)


@given(cut=st.floats(0, 1), flip=st.booleans())
def test_what_a_kill_tears_off_was_never_written(tmp_path: Path, cut: float, flip: bool) -> None:
    path = tmp_path / "journal"
    journal, ends = begun(path), []
    for chunk in range(5):
        journal.add("x", chunk, 10, chunk, chunk)
        ends.append(journal.commit(Mark(chunk + 1, {"x": chunk + 1, "y": 0}, {"y": bytes(chunk)})))
    journal.close()
    content = bytearray(path.read_bytes())
    at = int(cut * (len(content) - 1))
    if flip:
        content[at] ^= 1
    else:
        del content[at:]
    path.write_bytes(content)

    read = Journal.load(path)
    whole = sum(end <= at for end in ends)
    if read is None:
        assert whole == 0
        return
    assert read.records["x"].n_chunks == read.mark.n_rows == whole
    read.add("x", whole, 10, 99, 99)  # and it is gone on with from there
    read.commit()
    read.close()
    again = Journal.load(path)
    assert again is not None
    again.close()
    assert again.records["x"].n_chunks == whole + 1
    assert again.records["x"].raw(whole) == 99


def test_a_journal_is_read_up_to_a_byte(tmp_path: Path) -> None:
    journal = begun(tmp_path / "journal")
    journal.add("x", 0, 10, 0, 0)
    end = journal.commit()
    journal.add("x", 1, 10, 0, 0)
    journal.commit()
    journal.close()
    read = Journal.load(tmp_path / "journal", end)
    assert read is not None
    assert read.records["x"].n_chunks == 1
    read.close()


@pytest.mark.parametrize("content", [b"", b"something else", b"OOCJ" + bytes(40)])
def test_what_is_no_journal(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal").write_bytes(content)
    assert Journal.load(tmp_path / "journal") is None
    assert Journal.load(tmp_path / "nothing") is None


def test_many_chunks_in_any_order(tmp_path: Path) -> None:
    journal, rng = begun(tmp_path / "journal"), np.random.default_rng(0)
    for chunk in rng.permutation(1000).tolist():
        journal.add("y", chunk, chunk, chunk, chunk)
        if not chunk % 7:
            journal.commit()
    journal.commit()
    journal.close()
    assert journal.records["y"].nbytes.tolist() == journal.records["y"].crc.tolist() == list(range(1000))


def test_it_need_not_fit_into_memory(tmp_path: Path) -> None:
    journal = begun(tmp_path / "journal")
    for n in range(50):
        journal.commit(Mark(n, {"x": n, "y": 0}, {"x": bytes(2**18)}))
    journal.close()
    tracemalloc.start()
    try:
        read = Journal.load(tmp_path / "journal")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read is not None
    read.close()
    assert read.mark.n_rows == 49
    assert peak < 4 * 2**20
