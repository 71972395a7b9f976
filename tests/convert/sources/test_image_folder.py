"""Folders of images, held against Pillow: what folders and CSV files say, sizes, and images that are damaged."""

import csv
import json
import struct
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pytest
from PIL import Image

import oocload
from oocload.convert.sources.resolve import resolve
from oocload.errors import InvalidArgumentError, MemoryCeilingError, StoreFormatError, StoreNotFoundError
from oocload.sources import ImageFolderSource, NpyFolderSource
from tests.convert.sources.kinds import gather

RNG = np.random.default_rng(0)


def write(folder: Path, *names: str, shape: tuple[int, ...] = (9, 7, 3)) -> dict[str, np.ndarray]:
    """Write images of noise, and return what each is."""
    pixels = {}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels[name] = RNG.integers(0, 256, shape, "u1")
        Image.fromarray(pixels[name]).save(path)
    return pixels


def fields(source: Any, piece_nbytes: int = 1000) -> dict[str, Any]:
    """Return field → rows; ids as text, codes as what they stand for."""
    rows = resolve(source, None)
    found: dict[str, Any] = gather(rows.batches(piece_nbytes, n_ahead=2))
    for name, meaning in rows.meanings.items():
        if meaning.content == "text":
            found[name] = [bytes(row).decode() for row in found[name]]
        if meaning.vocabulary:
            found[name] = [meaning.vocabulary[code] if code >= 0 else None for code in found[name]]
    return found


class TestFolders:
    def test_classes(self, tmp_path: Path) -> None:
        pixels = write(tmp_path, "dog/2.png", "dog/10.png", "cat/1.png", "cat/more/1.png", "ant/.hidden.png")
        got = fields(tmp_path)
        assert got["id"] == ["cat/1.png", "cat/more/1.png", "dog/2.png", "dog/10.png"]
        assert got["y"] == ["cat", "cat", "dog", "dog"]
        assert np.array_equal(got["x"], [pixels[name] for name in got["id"]])
        assert "split" not in got

    def test_sets(self, tmp_path: Path) -> None:
        names = ("test/b/1.png", "train/a/1.png", "train/b/2.png", "val/c/1.png")
        write(tmp_path, *names)
        got = fields(ImageFolderSource(tmp_path))
        assert got["split"] == ["test", "train", "train", "val"]
        assert got["y"] == ["b", "a", "b", "c"]
        assert ImageFolderSource(tmp_path).meanings["split"].vocabulary == ("train", "val", "test")

    def test_a_set_without_labels(self, tmp_path: Path) -> None:
        write(tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png")
        assert fields(tmp_path)["y"] == [None, "a", "b"]
        write(tmp_path, "train/2.png")
        with pytest.raises(StoreFormatError, match=r"or none, and has train/a/1.png and train/2.png"):
            fields(tmp_path)

    def test_sets_alone(self, tmp_path: Path) -> None:
        write(tmp_path, "train/1.png", "test/1.png")
        got = fields(tmp_path)
        assert got["split"] == ["test", "train"]
        assert "y" not in got

    def test_a_class_called_train(self, tmp_path: Path) -> None:
        write(tmp_path, "train/1.png", "ship/1.png")
        got = fields(tmp_path)
        assert got["y"] == ["ship", "train"]
        assert "split" not in got

    def test_flat(self, tmp_path: Path) -> None:
        write(tmp_path, "1.png", "2.png")
        assert set(fields(tmp_path)) == {"x", "id"}
        write(tmp_path, "a/3.png")
        with pytest.raises(StoreFormatError, match=r"in folders of their classes, or none, and has a/3.png and 1.png"):
            fields(tmp_path)

    def test_store(self, tmp_path: Path) -> None:
        """What h5py reads, and a loader of one set."""
        pixels = write(tmp_path / "i", *(f"{s}/{c}/{i}.png" for s in ("train", "test") for c in "ab" for i in range(4)))
        report = oocload.convert(tmp_path / "i", tmp_path / "a.h5", progress=False)
        assert report.fields == ("x", "y", "id", "split")
        with h5py.File(tmp_path / "a.h5") as file:
            assert np.array_equal(file["x"], [pixels[name] for name in sorted(pixels)])
            assert file["y"][()].tolist() == [0, 0, 0, 0, 1, 1, 1, 1] * 2
            assert file["split"].dtype == "i1"
        loader = oocload.Loader(tmp_path / "a.h5", 2, x="x", y="y", split="test", shuffle=False)
        assert np.array_equal(next(iter(loader))[0], [pixels["test/a/0.png"], pixels["test/a/1.png"]])


class TestCsv:
    def test_columns(self, tmp_path: Path) -> None:
        pixels = write(tmp_path / "i", "1.png", "b/2.png", "3.png")
        lines = [["b/2.png", "dog", "train"], ["3.png", "cat", ""], ["1.png", "dog", "held out"]]
        with open(tmp_path / "l.csv", "w", newline="") as file:
            csv.writer(file).writerows([["file", "animal", "use"], *lines])
        source = ImageFolderSource(
            tmp_path / "l.csv", path_column="file", label_column="animal", split_column="use", root=tmp_path / "i"
        )
        got = fields(source)
        assert got["id"] == [line[0] for line in lines]
        assert got["y"] == ["dog", "cat", "dog"]
        assert got["split"] == ["train", None, "held out"]
        assert np.array_equal(got["x"], [pixels[line[0]] for line in lines])

    def test_numbers(self, tmp_path: Path) -> None:
        write(tmp_path, "1.png", "2.png")
        (tmp_path / "l.csv").write_text("label,path\n0.5,2.png\n2,1.png\n")
        assert fields(ImageFolderSource(tmp_path / "l.csv"))["y"] == [0.5, 2]
        assert "y" not in fields(ImageFolderSource(tmp_path / "l.csv", label_column=None))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("path,label\n", r"l.csv must name at least one image, and has no line below the first"),
            ("file,label\n1.png,1\n", r"l.csv must have a column 'path', and its first line names file, label"),
            ("path,label\n1.png\n", r"l.csv, line 2: must have 2 values, got 1"),
            ("path,label\n1.png,1\nno.png,1\n", r"no.png cannot be read: .*No such file"),
        ],
    )
    def test_unsuitable(self, tmp_path: Path, text: str, message: str) -> None:
        write(tmp_path, "1.png")
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(StoreFormatError, match=message):
            fields(ImageFolderSource(tmp_path / "l.csv"))


class TestShapes:
    @pytest.mark.parametrize("mode", [None, "rgb", "grey"])
    @pytest.mark.parametrize("first", ["L", "RGB"])
    def test_modes(self, tmp_path: Path, mode: Any, first: str) -> None:
        write(tmp_path, "1.png", "2.png")
        with Image.open(tmp_path / "1.png") as image:
            image.convert(first).save(tmp_path / "1.png")
        wanted = {"rgb": "RGB", "grey": "L", None: first}[mode]
        for path, row in zip(["1.png", "2.png"], fields(ImageFolderSource(tmp_path, mode=mode))["x"], strict=True):
            with Image.open(tmp_path / path) as image:
                assert np.array_equal(row, image.convert(wanted))

    @pytest.mark.parametrize("piece_nbytes", [1, 10**6])
    def test_one_size(self, tmp_path: Path, piece_nbytes: int) -> None:
        """Of images of all shapes and formats, each after the beginning of its file has been looked at."""
        names = ["1.png", "2.jpg", "3.webp", "4.bmp", "5.gif", "6.tiff"]
        for i, name in enumerate(names):
            write(tmp_path, name, shape=(20 + 3 * i, 40 - i, 3))
        got = fields(ImageFolderSource(tmp_path, size=(8, 6), mode="rgb"), piece_nbytes)
        for name, row in zip(names, got["x"], strict=True):
            with Image.open(tmp_path / name) as image:
                assert np.array_equal(row, image.convert("RGB").resize((6, 8), Image.Resampling.BILINEAR)), name

    def test_several_shapes(self, tmp_path: Path) -> None:
        write(tmp_path, "a/1.png", "a/3.png")
        write(tmp_path, "a/2.png", shape=(9, 8, 3))
        message = (
            r"2.png must have the shape of .*1.png, \(9, 7, 3\), and has \(9, 8, 3\); give all images one with size="
        )
        with pytest.raises(StoreFormatError, match=message):
            fields(tmp_path)
        assert fields(ImageFolderSource(tmp_path, on_error="skip"))["id"] == ["a/1.png", "a/3.png"]

    def test_large_ones_among_small_ones(self, tmp_path: Path) -> None:
        """A piece has as many images as fit beside what decoding the largest of them takes."""
        write(tmp_path, *(f"{i}.png" for i in range(40)), shape=(10, 10, 3))
        write(tmp_path, "20.png", shape=(200, 300, 3))
        source = ImageFolderSource(tmp_path, size=(10, 10))
        least = source.least_piece_nbytes
        assert 12 * 200 * 300 < least < 14 * 200 * 300 + 200 * 300 * 4
        pieces = list(source.pieces(least, 0, None))
        assert [stop - start for start, stop in pieces] == [20, 1, 19]
        assert len(list(source.pieces(2 * least, 0, None))) == 1
        with pytest.raises(MemoryCeilingError, match=r"20.png takes most of it; raise memory="):
            oocload.convert(source, tmp_path / "a.h5", memory="1 MiB")


class TestEncoded:
    def test_files_as_they_are(self, tmp_path: Path) -> None:
        names = ["a/1.png", "a/2.jpg", "b/3.gif"]
        write(tmp_path / "i", *names)
        source = ImageFolderSource(tmp_path / "i", encoded=True, size=(5, 4), mode="grey")
        assert source.meanings["x"].content == "image"
        assert source.meanings["x"].shape == (5, 4)
        oocload.convert(source, tmp_path / "a.h5", progress=False)
        with h5py.File(tmp_path / "a.h5") as file:
            values, offsets = file["x/values"][()], file["x/offsets"][()]
        got = [values[a:b].tobytes() for a, b in pairwise(offsets)]
        assert got == [(tmp_path / "i" / name).read_bytes() for name in names]

    def test_what_is_no_image(self, tmp_path: Path) -> None:
        write(tmp_path, "1.png", "2.png", "3.png")
        (tmp_path / "2.png").write_bytes(b"GIF? no")
        with pytest.raises(StoreFormatError, match=r"2.png must be an image, and begins with b'GIF\? no'"):
            fields(ImageFolderSource(tmp_path, encoded=True))
        assert fields(ImageFolderSource(tmp_path, encoded=True, on_error="skip"))["id"] == ["1.png", "3.png"]

    def test_shapes(self, tmp_path: Path) -> None:
        write(tmp_path, "1.png")
        shapes = {
            mode: ImageFolderSource(tmp_path, encoded=True, size=(5, 4), mode=mode).meanings["x"].shape
            for mode in ("rgb", "grey", None)
        }
        assert shapes == {"rgb": (5, 4, 3), "grey": (5, 4), None: (5, 4, 3)}
        assert ImageFolderSource(tmp_path, encoded=True).meanings["x"].shape == ()


class TestDamaged:
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda raw: raw[:-30], "cannot be decoded"),
            (lambda raw: b"", "must be an image, and begins with b''"),
            (lambda raw: raw[:20], "is truncated"),
        ],
    )
    @pytest.mark.parametrize("number", [0, 3])
    @pytest.mark.parametrize("size", [None, (4, 4)])
    def test_named_or_skipped(self, tmp_path: Path, change: Any, reason: str, number: int, size: Any) -> None:
        pixels = write(tmp_path / "i", *(f"{c}/{i}.png" for c in "ab" for i in range(3)))
        names = list(pixels)
        path = tmp_path / "i" / names[number]
        path.write_bytes(change(path.read_bytes()))
        source = ImageFolderSource(tmp_path / "i", size=size)
        with pytest.raises(StoreFormatError, match=f"{names[number]} {reason}"):
            oocload.convert(source, tmp_path / "a.h5", progress=False)
        assert not (tmp_path / "a.h5").exists()
        report = oocload.convert(source, tmp_path / "b.h5", progress=False, on_error="skip")
        assert [Path(where).name for where, _ in report.skipped] == [Path(names[number]).name]
        assert reason in report.skipped[0].reason
        with h5py.File(tmp_path / "b.h5") as file:
            left = [i for i in range(6) if i != number]
            assert file["y"][()].tolist() == [i // 3 for i in left]
            if size is None:
                assert np.array_equal(file["x"], [pixels[names[i]] for i in left])

    def test_none_is_left(self, tmp_path: Path) -> None:
        (tmp_path / "1.png").write_bytes(b"no")
        with pytest.raises(StoreFormatError, match=r"must have a file that can be read, and none of 1 can"):
            fields(ImageFolderSource(tmp_path, on_error="skip"))


class TestMaking:
    def test_arguments(self, tmp_path: Path) -> None:
        with pytest.raises(StoreNotFoundError, match=r"source must exist, got .*none"):
            ImageFolderSource(tmp_path / "none")
        with pytest.raises(StoreFormatError, match=r"must hold files that end in .jpg, .*, and holds none"):
            ImageFolderSource(tmp_path)
        with pytest.raises(InvalidArgumentError, match=r"size must be \(height, width\)"):
            ImageFolderSource(tmp_path, size=3)
        with pytest.raises(InvalidArgumentError, match=r"root must be left out unless path is a CSV file, got 'a'"):
            ImageFolderSource(tmp_path, root="a")
        with pytest.raises(InvalidArgumentError, match=r"source must be one folder of images, got 2"):
            ImageFolderSource.from_paths(["a", "b"])

    def test_which_folders(self, tmp_path: Path) -> None:
        write(tmp_path, "images/a/1.JPG", "images/a/2.png")
        (tmp_path / "npy" / "a").mkdir(parents=True)
        np.save(tmp_path / "npy" / "a" / "1.npy", 1)
        oocload.convert(np.zeros((4, 2)), tmp_path / "a.zarr")
        kinds = {path: [k.recognises(str(tmp_path / path)) for k in (ImageFolderSource, NpyFolderSource)] for path in (
            "images", "npy", "a.zarr", "images/a/2.png", "none", "a.zarr/x")}  # fmt: skip
        assert kinds.pop("images") == [True, False]
        assert kinds.pop("npy") == [False, True]
        assert all(found == [False, False] for found in kinds.values())

    def test_other_options_are_another_source(self, tmp_path: Path) -> None:
        write(tmp_path, "a/1.png")
        options = ({}, {"size": (4, 4)}, {"size": (4, 4), "fit": "crop"}, {"mode": "grey"}, {"encoded": True})
        assert len({json.dumps(ImageFolderSource(tmp_path, **given).identity()) for given in options}) == len(options)


class TestBeforeDecoding:
    """What the head of a file says is heeded before there is memory for its pixels."""

    def png(self, height: int, width: int) -> bytes:
        """Return a file that claims a size, and has no pixels."""
        data = bytearray(imagecodecs.png_encode(np.zeros((1, 1), np.uint8)))
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        return bytes(data)

    def test_an_image_of_another_shape_is_not_decoded(self, tmp_path: Path) -> None:
        write(tmp_path, "1.png")
        (tmp_path / "2.png").write_bytes(self.png(30_000, 30_000))
        with pytest.raises(StoreFormatError, match=r"2.png must have the shape of .*1.png, .* has \(30000, 30000, 3\)"):
            fields(tmp_path)

    def test_the_first_is_not_decoded_to_know_its_mode(self, tmp_path: Path) -> None:
        (tmp_path / "1.png").write_bytes(self.png(30_000, 30_000))
        source = ImageFolderSource(tmp_path, size=(8, 8))
        assert source.record_specs["x"].row_shape == (8, 8)
        with pytest.raises(MemoryCeilingError, match=r"1.png takes most of it"):
            oocload.convert(source, tmp_path / "a.h5", memory="32 MiB")

    def test_pillow_tells_the_size_of_what_only_it_knows(self, tmp_path: Path) -> None:
        pillow = pytest.importorskip("PIL.Image")
        pillow.new("L", (3000, 2000)).save(tmp_path / "1.tif", compression="tiff_lzw")
        source = ImageFolderSource(tmp_path, size=(8, 8))
        assert source.least_piece_nbytes > 3000 * 2000
        assert source.record_specs["x"].row_shape == (8, 8)


@pytest.mark.parametrize("name", ["encoded", "orient", "draft"])
def test_text_is_no_bool(tmp_path: Path, name: str) -> None:
    write(tmp_path, "1.png")
    with pytest.raises(InvalidArgumentError, match=f"{name} must be True or False, got 'no'"):
        ImageFolderSource(tmp_path, **{name: "no"})


def test_an_empty_label_of_a_csv_file_is_none(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.png")
    (tmp_path / "l.csv").write_text("path,label\n1.png,\n2.png,cat\n")
    assert fields(ImageFolderSource(tmp_path / "l.csv"))["y"] == [None, "cat"]
