"""Redo logs: what a crash leaves of log and file, and which logs are not to be applied."""

from __future__ import annotations

import os
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oocload.stores.redo import Page, apply, recover, write_redo

BEFORE = bytes(range(256)) * 64


@pytest.fixture
def paths(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "file").write_bytes(BEFORE)
    return str(tmp_path / "file"), str(tmp_path / "redo")


def page(offset: int, data: bytes) -> Page:
    return Page(offset, google_crc32c.value(BEFORE[offset : offset + len(data)]), data)


PAGES = [page(0, b"a" * 100), page(4096, b"b" * 4096), page(12000, b"c")]
AFTER = b"a" * 100 + BEFORE[100:4096] + b"b" * 4096 + BEFORE[8192:12000] + b"c" + BEFORE[12001:13000]


def test_pages_are_written_the_file_cut_and_the_note_returned(paths: tuple[str, str]) -> None:
    file, log = paths
    write_redo(log, 13000, PAGES, b"row 7")
    assert Path(file).read_bytes() == BEFORE
    for _ in range(2):  # a second time changes nothing
        assert recover(file, log) == b"row 7"
        assert Path(file).read_bytes() == AFTER


@given(n_applied=st.integers(0, 3), cut=st.booleans())
def test_half_applied_is_made_whole(tmp_path_factory: pytest.TempPathFactory, n_applied: int, cut: bool) -> None:
    folder = tmp_path_factory.mktemp("redo")
    file, log = folder / "file", folder / "redo"
    file.write_bytes(BEFORE)
    write_redo(str(log), 13000, PAGES)
    fd = os.open(file, os.O_RDWR)
    apply(fd, 13000 if cut else len(BEFORE), PAGES[:n_applied])
    os.close(fd)
    assert recover(str(file), str(log)) == b""
    assert file.read_bytes() == AFTER


def test_a_longer_file_is_cut_to_the_end_of_the_log(paths: tuple[str, str]) -> None:
    file, log = paths
    write_redo(log, len(BEFORE), [])
    Path(file).write_bytes(BEFORE + b"not committed")
    assert recover(file, log) == b""
    assert Path(file).read_bytes() == BEFORE


def test_no_log_no_file(paths: tuple[str, str], tmp_path: Path) -> None:
    file, log = paths
    assert recover(file, log) is None
    write_redo(log, 13000, PAGES)
    assert recover(str(tmp_path / "absent"), log) is None
    assert not (tmp_path / "absent").exists()


def test_a_torn_or_changed_log_is_ignored(paths: tuple[str, str]) -> None:
    file, log = paths
    write_redo(log, 13000, PAGES, b"note")
    whole = Path(log).read_bytes()
    rng = np.random.default_rng(0)
    broken = [whole[:n] for n in (0, 3, 20, 40, len(whole) - 1)] + [whole + b"x"]
    for at in rng.integers(0, len(whole), 50):
        broken.append(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
    for content in broken:
        Path(log).write_bytes(content)
        assert recover(file, log) is None
        assert Path(file).read_bytes() == BEFORE


def test_a_log_of_another_version_is_ignored(paths: tuple[str, str]) -> None:
    file, log = paths
    write_redo(log, 13000, PAGES)
    body = bytearray(Path(log).read_bytes()[:-4])
    body[8] = 99
    Path(log).write_bytes(bytes(body) + google_crc32c.value(bytes(body)).to_bytes(4, "little"))
    assert recover(file, log) is None


@pytest.mark.parametrize("other", [BEFORE[:12999], b"z" + BEFORE[1:], BEFORE[:12000] + b"z" + BEFORE[12001:]])
def test_a_log_of_another_file_is_ignored(paths: tuple[str, str], other: bytes) -> None:
    file, log = paths
    write_redo(log, 13000, PAGES)
    Path(file).write_bytes(other)
    assert recover(file, log) is None
    assert Path(file).read_bytes() == other


def test_a_log_that_cannot_be_written_leaves_the_last_one(paths: tuple[str, str], tmp_path: Path) -> None:
    file, log = paths
    write_redo(log, 13000, PAGES, b"first")
    (tmp_path / "redo.new").mkdir()
    with pytest.raises(OSError, match=r"redo\.new"):
        write_redo(log, 14000, [], b"second")
    assert recover(file, log) == b"first"
