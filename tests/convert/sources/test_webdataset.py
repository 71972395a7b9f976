"""WebDataset archives, made with tarfile: what is read, what is refused, and what is damaged."""

import io
import json
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oocload
from oocload.convert.fields import parse_fields
from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError
from oocload.layout import Meaning
from oocload.sources import WebDatasetSource
from tests.convert.sources.kinds import gather

N = 40
PNG = b"\x89PNG\r\n\x1a\n"


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def sample(i: int) -> dict[str, bytes]:
    return {
        "jpg" if i % 3 else "png": PNG + bytes(i),
        "cls": str(i % 10).encode(),
        "npy": npy(np.full((2, 3), i, "float32")),
        "txt": f"sämple {i}".encode(),
        "json": json.dumps({"width": i, "name": f"n{i}", "box": [i, 0.5], "more": {"a": [i, None]}}).encode(),
    }


def add(tar: tarfile.TarFile, name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    tar.addfile(info, io.BytesIO(data))


def write(path: Path, samples: Mapping[str, Mapping[str, bytes]], mode: str = "w", **options: Any) -> Path:
    with tarfile.open(path, mode, **options) as tar:
        for key, files in samples.items():
            for ending, data in files.items():
                add(tar, f"{key}.{ending}", data)
    return path


def many(n: int = N, prefix: str = "") -> dict[str, dict[str, bytes]]:
    return {f"{prefix}{i:04d}": sample(i) for i in range(n)}


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
@pytest.mark.parametrize("prefix", ["", "./some/földer/", "x" * 60 + "/" + "y" * 60 + "/"])
def test_all_kinds_of_files(tmp_path: Path, format_: int, name: str, mode: str, prefix: str) -> None:
    source = WebDatasetSource(write(tmp_path / name, many(prefix=prefix), mode, format=format_))
    assert source.specs == parse_fields(
        {
            "id": (None, "uint8"),
            "y": "int64",
            "json/width": "int64",
            "json/name": (None, "uint8"),
            "json/box": ((2,), "float64"),
            "json/more": (None, "uint8"),
            "npy": ((2, 3), "float32"),
            "x": (None, "uint8"),
            "txt": (None, "uint8"),
        }
    )
    text = dict.fromkeys(["id", "json/name", "json/more", "txt"], Meaning(content="text"))
    assert source.meanings == {**text, "x": Meaning(content="image")}
    for piece_nbytes in (1, 20_000):
        got = gather(source.batches(piece_nbytes, n_ahead=2, n_threads=2))
        folder = prefix.removeprefix("./")
        assert [bytes(row).decode() for row in got["id"]] == [f"{folder}{i:04d}" for i in range(N)]
        assert [bytes(row) for row in got["x"]] == [PNG + bytes(i) for i in range(N)]
        assert [bytes(row).decode() for row in got["txt"]] == [f"sämple {i}" for i in range(N)]
        assert [json.loads(bytes(row)) for row in got["json/more"]] == [{"a": [i, None]} for i in range(N)]
        np.testing.assert_array_equal(got["y"], np.arange(N) % 10)
        np.testing.assert_array_equal(got["json/box"], [(i, 0.5) for i in range(N)])
        np.testing.assert_array_equal(np.array(got["npy"])[:, 1, 2], np.arange(N))


def test_archives_follow_each_other(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"part-{i}.tar", {f"{i}{j}": {"npy": npy(np.zeros(3)), "cls": b"7\n"} for j in range(5)})
    report = oocload.convert(f"{tmp_path}/part-*.tar", tmp_path / "a.h5", progress=False)
    assert report.fields == ("id", "y", "x")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"].shape == (15, 3)
        assert file["id/values"][:].tobytes() == b"".join(b"%d%d" % (i, j) for i in range(3) for j in range(5))


def test_members_are_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", many())
    source = WebDatasetSource(path, members={"image": "jpg;png", "label": "cls"}, fields={"label": "uint8"})
    assert source.specs == parse_fields({"id": (None, "uint8"), "image": (None, "uint8"), "label": "uint8"})
    assert len(gather(source.batches(1000))["label"]) == N


def test_arrays_of_several_lengths(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {str(i): {"npy": npy(np.arange(i + 1))} for i in range(5)})
    with pytest.raises(
        StoreFormatError, match=r"one shape, \(1,\), got \(2,\) in .*a.tar, sample '1'; .*ragged=\['x'\]"
    ):
        gather(WebDatasetSource(path).batches(1000))
    got = gather(WebDatasetSource(path, ragged=["x"]).batches(1000))
    assert [row.tolist() for row in got["x"]] == [list(range(i + 1)) for i in range(5)]


BAD: list[tuple[dict[str, bytes], str]] = [
    ({"cls": b"3"}, r"must have a file that ends in \.npy, got \.cls"),
    ({"npy": npy(np.zeros(3))}, r"must have a file that ends in \.cls, got \.npy"),
    (
        {"npy": npy(np.zeros(3)), "cls": b"3", "txt": b"a"},
        r"has a file that ends in \.txt, and the first sample has none",
    ),
    ({"npy": npy(np.zeros(3)), "cls": b"three"}, r"ends in \.cls must be a whole number: invalid literal"),
    ({"npy": npy(np.zeros(3))[:-1], "cls": b"3"}, r"ends in \.npy must be a npy file"),
    ({"npy": b"", "cls": b"3"}, r"ends in \.npy must be a npy file"),
    ({"npy": pickle.dumps([1]), "cls": b"3"}, r"ends in \.npy must be a npy file"),
    ({"npy": npy(np.array([{}])), "cls": b"3"}, r"must be a npy file: Object arrays cannot be loaded"),
    ({"npy": npy(np.zeros((3, 1))), "cls": b"3"}, r"'x' must have rows of one shape, \(3,\), got \(3, 1\)"),
]


@pytest.mark.parametrize(("files", "message"), BAD)
def test_bad_samples(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    good = {"npy": npy(np.zeros(3)), "cls": b"3"}
    path = write(tmp_path / "a.tar", {"a": good, "b": files, "c": good})
    with pytest.raises(StoreFormatError, match=message) as caught:
        oocload.convert(path, tmp_path / "a.h5", progress=False)
    assert f"{path}, sample 'b'" in str(caught.value)
    assert not (tmp_path / "a.h5").exists()
    report = oocload.convert(path, tmp_path / "a.h5", on_error="skip", progress=False)
    assert report.n_rows == 2
    assert [s.where for s in report.skipped] == [f"{path}, sample 'b'"]


def test_a_bad_first_sample(tmp_path: Path) -> None:
    good = {"npy": npy(np.zeros(3)), "cls": b"3"}
    path = write(tmp_path / "a.tar", {"a": {"npy": b"", "cls": b"3"}, "b": good})
    assert len(gather(WebDatasetSource(path, on_error="skip").batches(100))["y"]) == 1
    path = write(tmp_path / "a.tar", {"a": {"npy": b"", "cls": b"3"}})
    with pytest.raises(StoreFormatError, match="at least one sample that can be read"):
        gather(WebDatasetSource(path, on_error="skip").batches(100))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("../out.cls", tarfile.REGTYPE, "member '../out.cls' must lie inside the archive"),
        ("a/../../out.cls", tarfile.REGTYPE, "must lie inside the archive"),
        ("/etc/out.cls", tarfile.REGTYPE, "member '/etc/out.cls' must lie inside the archive"),
        ("a.cls", tarfile.SYMTYPE, "member 'a.cls' must be a file, got a symbolic link"),
        ("a.cls", tarfile.LNKTYPE, "must be a file, got a link"),
        ("a.cls", tarfile.CHRTYPE, "must be a file, got a device"),
        ("a.cls", tarfile.FIFOTYPE, "must be a file, got a pipe"),
    ],
)
def test_members_that_are_refused(tmp_path: Path, name: str, kind: bytes, message: str, on_error: Any) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "folder", b"", tarfile.DIRTYPE)
        add(tar, "folder/0.cls", b"1")
        add(tar, name, b"", kind)
    with pytest.raises(StoreFormatError, match=message):
        oocload.convert(tmp_path / "a.tar", tmp_path / "a.h5", on_error=on_error, progress=False)
    assert not (tmp_path / "a.h5").exists()


def rows(path: Path, **options: Any) -> int:
    return len(gather(WebDatasetSource(path, **options).batches(5000))["y"])


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
def test_damage(tmp_path: Path, name: str, mode: str) -> None:
    path = write(tmp_path / name, many(), mode)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 5])
    with pytest.raises(StoreFormatError, match=f"{name}, byte .*(truncated|damaged)"):
        rows(path)
    source = WebDatasetSource(path, on_error="skip")
    assert 10 < len(gather(source.batches(5000))["y"]) < N
    assert "what follows is skipped" in source.skipped[-1].reason


def test_a_damaged_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", many())
    whole = path.read_bytes()
    at = whole.index(b"0020.cls")
    path.write_bytes(whole[:at] + b"9" + whole[at + 1 :])
    with pytest.raises(
        StoreFormatError, match=f"a.tar, byte {at + 512}: its header is damaged: the checksum is another"
    ):
        rows(path)
    assert rows(path, on_error="skip") == 20


def test_arguments(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="nothing lies there"):
        WebDatasetSource(tmp_path / "a.tar")
    path = write(tmp_path / "a.tar", many(2))
    with pytest.raises(InvalidArgumentError, match="members must map names of fields"):
        WebDatasetSource(path, members={})
    with pytest.raises(InvalidArgumentError, match="fields must name fields of the rows, got 'z'"):
        rows(path, fields={"z": "int64"})
    twice = tmp_path / "b.tar"
    with tarfile.open(twice, "w") as tar:
        add(tar, "0.cls", b"1")
        add(tar, "0.cls", b"1")
    with pytest.raises(StoreFormatError, match=r"sample '0' has two files that end in \.cls"):
        rows(twice)
