"""Files decoded while loading are the images that Pillow reads, whatever batches look like and wherever it runs."""

import pickle
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

import oocload
from oocload.errors import InvalidArgumentError, StoreFormatError
from oocload.loader.padding import Ragged

N = 21
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (N, 12, 10, 3), "u1")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for i, pixels in enumerate(PIXELS):
        path = folder / "files" / str(i % 3) / f"{i}.{'png' if i % 2 else 'bmp'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    source = oocload.sources.ImageFolderSource(folder / "files", encoded=True, size=(12, 10))
    oocload.convert(source, folder / "files.h5", progress=False)
    return folder / "files.h5"


def order() -> list[int]:
    return [i for y in range(3) for i in range(y, N, 3)]


@pytest.mark.parametrize("workers", [None, 0, "threads", 2])
def test_where_it_runs(store: Path, workers: Any) -> None:
    transform = oocload.DecodeImages()
    options = {"transform": transform, "transform_workers": workers}
    with oocload.Loader(store, 8, x="x", y="y", shuffle=False, **options) as loader:
        batches = [(x.copy(), y.copy()) for x, y in loader]
    assert np.array_equal(np.concatenate([x for x, _ in batches]), PIXELS[order()])
    assert np.array_equal(np.concatenate([y for _, y in batches]), np.arange(N) // 7)


@pytest.mark.parametrize(
    ("options", "pick"),
    [
        ({"x": "x"}, lambda batch: batch),
        ({"x": "x", "y": "y"}, lambda batch: batch[0]),
        ({"x": ["x", "y"], "y": "y"}, lambda batch: batch[0]["x"]),
        ({}, lambda batch: batch[0] if isinstance(batch, tuple) else batch["x"]),
    ],
)
def test_shapes_of_batches(store: Path, options: Any, pick: Any) -> None:
    loader = oocload.Loader(store, 5, shuffle=False, transform=oocload.DecodeImages(), **options)
    assert np.array_equal(pick(next(iter(loader))), PIXELS[order()[:5]])


def test_as_pillow(store: Path) -> None:
    decode = pickle.loads(pickle.dumps(oocload.DecodeImages(size=[6, 8], fit="crop", mode="grey")))
    assert decode.size == (6, 8)
    loader = oocload.Loader(store, 5, x="x", shuffle=False, transform=decode)
    for images, i in zip(next(iter(loader)), order(), strict=False):
        wanted = ImageOps.fit(Image.fromarray(PIXELS[i]).convert("L"), (8, 6), Image.Resampling.BILINEAR)
        assert np.array_equal(images, wanted)


def ragged(*files: bytes) -> Ragged:
    return Ragged(np.frombuffer(b"".join(files), np.uint8), np.cumsum([0, *map(len, files)]))


PNG = imagecodecs.png_encode(PIXELS[0])
OTHER = imagecodecs.png_encode(PIXELS[0, :5])


def test_no_rows() -> None:
    assert oocload.DecodeImages()(ragged()).shape == (0,)
    assert oocload.DecodeImages(size=(2, 3))(ragged()).shape == (0, 2, 3, 3)


@pytest.mark.parametrize(
    ("batch", "message", "error"),
    [
        (
            ragged(PNG, OTHER),
            r"image 1 of the batch must have the shape of the first, \(12, 10, 3\), .* DecodeImages\(size=",
            StoreFormatError,
        ),
        (ragged(PNG, b"text"), r"image 1 of the batch must be an image, and begins with b'text'", StoreFormatError),
        (ragged(PNG, PNG[:-30]), r"image 1 of the batch cannot be decoded", StoreFormatError),
        ({"a": ragged(PNG)}, r"field must be one whose rows are files, got 'x' of a dict of 'a'", InvalidArgumentError),
        (([1], [2]), r"field must be one whose rows are files, got 'x' of list", InvalidArgumentError),
        ({"x": np.zeros(3)}, r"field 'x' must have the bytes of files .* got ndarray of float64", InvalidArgumentError),
        ({"x": Ragged(np.zeros(3), np.array([0, 3]))}, r"got Ragged of float64", InvalidArgumentError),
    ],
)
def test_what_is_no_image(batch: Any, message: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=message):
        oocload.DecodeImages()(batch)


def test_options() -> None:
    with pytest.raises(InvalidArgumentError, match=r"mode must be 'rgb' or 'grey', got None"):
        oocload.DecodeImages(mode=None)
    with pytest.raises(InvalidArgumentError, match=r"size must be \(height, width\) or None, got 5"):
        oocload.DecodeImages(size=5)
