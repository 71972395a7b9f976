import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import oocload
from oocload.convert import workplace
from oocload.convert.workplace import Workplace
from oocload.errors import ConversionError, TargetExistsError


def make(path: Path, is_folder: bool, text: str) -> None:
    if is_folder:
        path.mkdir()
        path = path / "content"
    path.write_text(text)


def text_of(path: Path) -> str:
    return (path / "content" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("new_is_folder", [False, True])
@pytest.mark.parametrize("old", ["nothing", "file", "folder"])
@pytest.mark.parametrize("exchanges", [True, False])
def test_one_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_is_folder: bool, old: str, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(workplace, "_exchange", lambda one, other: False)
    place = Workplace(tmp_path / "store")
    make(place.store, new_is_folder, "new")
    inode = os.stat(place.store).st_ino
    if old != "nothing":
        make(tmp_path / "store", old == "folder", "old")
        with pytest.raises(TargetExistsError, match="target must not exist, got .*; pass overwrite=True"):
            place.publish(overwrite=False)
    assert not place.is_published(inode)
    place.publish(overwrite=True)
    assert place.is_published(inode)
    assert text_of(tmp_path / "store") == "new"
    place.remove()
    assert os.listdir(tmp_path) == ["store"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "store.h5")
    with pytest.raises(ConversionError, match=r"another is writing .*store\.h5; wait for it, or choose another place"):
        Workplace(tmp_path / "store.h5")
    place.close()
    place.close()
    other = Workplace(tmp_path / "store.h5")
    other.remove()
    assert os.listdir(tmp_path) == []


def test_what_was_about_to_be_replaced_comes_back(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "store")
    make(place.folder / "replaced", True, "old")  # killed between the two renames of a file system without exchange
    make(place.store, True, "new")
    place.clear()
    assert text_of(tmp_path / "store") == "old"
    assert os.listdir(place.folder) == []
    place.remove()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConversionError, match=r"target's folder must be writable, got '.*file': Not a directory; choose"
    ):
        Workplace(tmp_path / "file" / "store.h5")


def test_the_journal_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in between must not leave one that speaks of chunks that are gone."""
    place = Workplace(tmp_path / "store")
    make(place.store, True, "new")
    place.journal.write_text("")

    def remove(path: Path) -> None:
        assert not place.journal.exists()
        workplace.shutil.rmtree(path)

    monkeypatch.setattr(workplace, "remove", remove)
    place.clear()
    assert os.listdir(place.folder) == []
    place.remove()


def test_a_relative_path_whatever_becomes_of_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = Workplace(Path("store"))
    make(place.store, False, "new")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    place.publish(overwrite=False)
    place.remove()
    assert text_of(tmp_path / "store") == "new"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "store"]
    assert os.listdir(tmp_path / "elsewhere") == []


def test_what_others_have_begun_since_stays(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "store")
    shutil.rmtree(place.folder)  # the end of `remove`, in which it was interrupted
    other = Workplace(tmp_path / "store")
    other.journal.write_text("")
    place.remove()
    place.remove()
    assert os.listdir(other.folder) == ["journal"]
    other.remove()
    other.remove()
    assert os.listdir(tmp_path) == []


def test_an_interrupt_while_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Workplace(tmp_path / "store")

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(workplace.shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            place.remove()
    Workplace(tmp_path / "store").remove()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_leads_to_the_new_store(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "disk").mkdir()
    if exists:
        oocload.convert(np.arange(3), tmp_path / "disk" / "real.h5")
    (tmp_path / "link.h5").symlink_to(tmp_path / "disk" / "real.h5")
    oocload.convert(np.arange(10), tmp_path / "link.h5", overwrite=exists)
    assert (tmp_path / "link.h5").is_symlink()
    assert oocload.open(tmp_path / "disk" / "real.h5").fields["x"].n_rows == 10
    assert os.listdir(tmp_path / "disk") == ["real.h5"]
