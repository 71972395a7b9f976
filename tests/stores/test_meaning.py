"""What values stand for: written beside arrays and groups, read back, and never in the way of rows."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import oocload
from oocload.layout import NO_MEANING, Meaning

WORDS = ("cat", "dog", "Öl")
CONTENT = {"oocload_encoding": "ragged", "oocload_encoding_version": 1, "oocload_content": "text"}


@pytest.mark.parametrize("name", ["t.h5", "t.zarr", "v2.zarr", "p/part-*.h5"])
def test_a_vocabulary_comes_along_through_conversions(tmp_path: Path, name: str) -> None:
    first = tmp_path / "first.h5"
    with oocload.create(first, {"y": "int8", "t": (None, "int32")}, vocabulary={"y": WORDS, "t": ["", "a"]}) as writer:
        writer.append(y=(np.arange(100) % 3).astype("int8"), t=[[i % 2] * (i % 4) for i in range(100)])
    options = {"part_bytes": "4 KiB", "chunk_rows": 10} if "*" in name else {}
    oocload.convert(first, tmp_path / name, zarr_format=2 if name == "v2.zarr" else 3, dtypes={"y": "int16"}, **options)
    with oocload.open(str(tmp_path / name)) as store:
        assert store.field("y").meaning == Meaning(WORDS)
        assert store.field("t").meaning == Meaning(("", "a"))
        assert store.field("y").n_rows == 100
        assert "int16 (3 words)" in repr(store)


def test_what_other_readers_find(tmp_path: Path) -> None:
    for name in ("t.h5", "t.zarr"):
        with oocload.create(tmp_path / name, {"y": "int8"}, vocabulary={"y": WORDS}) as writer:
            writer.append(y=np.array([0, 1], "int8"))
    with h5py.File(tmp_path / "t.h5") as file:
        assert json.loads(file["y"].attrs["oocload_vocabulary"]) == [*WORDS]
    assert json.loads(zarr.open_group(tmp_path / "t.zarr", mode="r")["y"].attrs["oocload_vocabulary"]) == [*WORDS]


def test_a_vocabulary_of_any_size(tmp_path: Path) -> None:
    words = [f"word {i}" for i in range(100_000)]  # far more than an attribute of HDF5 may have
    with oocload.create(tmp_path / "t.h5", {"y": "int32"}, vocabulary={"y": words}) as writer:
        writer.append(y=np.arange(10, dtype="int32"))
    with oocload.open(tmp_path / "t.h5") as store:
        assert store.field("y").meaning.vocabulary == tuple(words)


@pytest.mark.parametrize("name", ["t.h5", "t.zarr"])
def test_a_vocabulary_that_is_no_text(tmp_path: Path, name: str) -> None:
    """Names of folders may be such."""
    words = ("\udcff", "ä")
    with oocload.create(tmp_path / name, {"y": "int32"}, vocabulary={"y": words}) as writer:
        writer.append(y=np.zeros(1, "int32"))
    with oocload.open(tmp_path / name) as store:
        assert store.field("y").meaning.vocabulary == words


def test_names_of_an_enumeration(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file.create_dataset("y", data=[1, 0], dtype=h5py.enum_dtype({"b": 1, "a": 0}, "i1"))
        file.create_dataset("gaps", data=[1, 5], dtype=h5py.enum_dtype({"b": 1, "a": 5}, "i1"))
        file.create_dataset("true", data=[True, False])
    with oocload.open(tmp_path / "e.h5") as store:
        assert store.field("y").meaning.vocabulary == ("a", "b")
        assert store.field("gaps").meaning == store.field("true").meaning == NO_MEANING


@pytest.mark.parametrize("said", ["no JSON", "[1, 2]", '{"a": 1}', b"\xff", 7])
def test_what_is_damaged_says_nothing(tmp_path: Path, said: object) -> None:
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["y"] = [0, 1]
        file["y"].attrs["oocload_vocabulary"] = said
        file["y"].attrs["oocload_content"] = "music"
    with oocload.open(tmp_path / "d.h5") as store:
        assert store.field("y").meaning == NO_MEANING


def test_content_of_ragged_rows(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.h5", "w") as file:
        group = file.create_group("t")
        group.attrs.update(CONTENT)
        group["values"], group["offsets"] = np.frombuffer(b"abc", "u1"), [0, 1, 3]
    oocload.convert(tmp_path / "t.h5", tmp_path / "t.zarr")
    for path in (tmp_path / "t.h5", tmp_path / "t.zarr"):
        with oocload.open(path) as store:
            assert store.field("t").meaning == Meaning(content="text")


def test_files_of_other_vocabularies_do_not_join(tmp_path: Path) -> None:
    for i, words in enumerate((["a", "b"], ["b", "a"])):
        with oocload.create(tmp_path / f"{i}.h5", {"y": "int8", "z": "int8"}, vocabulary={"y": words}) as writer:
            writer.append(y=np.array([0, 1], "int8"), z=np.array([0, 1], "int8"))
    with oocload.open(str(tmp_path / "*.h5")) as store:
        assert "its numbers stand for 'b', 'a', in the first for 'a', 'b'" in store.field("y").reason
        assert store.field("z").n_rows == 4
    with pytest.raises(oocload.StoreFormatError, match="field 'y' .* stand for .*; choose other fields with fields="):
        oocload.convert(str(tmp_path / "*.h5"), tmp_path / "joined.zarr")
    assert oocload.convert(str(tmp_path / "*.h5"), tmp_path / "joined.zarr", fields=["z"]).n_rows == 4


def test_bad_vocabularies(tmp_path: Path) -> None:
    for words in ("ab", [], ["a", "a"], [1]):
        with pytest.raises(oocload.InvalidArgumentError, match="must be a list of texts, each of them once"):
            oocload.create(tmp_path / "t.h5", {"y": "int8"}, vocabulary={"y": words})
    for fields in ({"y": "float32"}, {"x": "int8"}, None):
        with pytest.raises(oocload.InvalidArgumentError, match="fields of whole numbers in fields=, got 'y'"):
            oocload.create(tmp_path / "t.h5", fields, vocabulary={"y": ["a"]})
