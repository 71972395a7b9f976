"""Real digits as one file each, PNG and .npy, become the same rows as the IDX files that they come from."""

from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pytest

import oocload
from tests.conftest import SHARED

N = 1000
MNIST = SHARED / "data" / "mnist"

pytestmark = pytest.mark.skipif(not MNIST.is_dir(), reason=f"needs the MNIST files in {MNIST}")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """Return a folder of both kinds of files, and the rows of the IDX files."""
    folder = tmp_path_factory.mktemp("digits")
    source = {"x": MNIST / "t10k-images-idx3-ubyte.gz", "y": MNIST / "t10k-labels-idx1-ubyte.gz"}
    oocload.convert(source, folder / "idx.h5", progress=False)
    (folder / "npy").mkdir()
    with h5py.File(folder / "idx.h5") as file:
        x, y = file["x"][:N], file["y"][:N]
    for number, (image, label) in enumerate(zip(x, y, strict=True)):
        (folder / "png" / str(label)).mkdir(parents=True, exist_ok=True)
        (folder / "png" / str(label) / f"{number}.png").write_bytes(imagecodecs.png_encode(image))
        np.save(folder / "npy" / f"{number}.npy", image)
    return folder, x, y


def test_npy(digits: tuple[Path, Any, Any]) -> None:
    folder, x, y = digits
    source = oocload.sources.NpyFolderSource(folder / "npy", labels=dict(enumerate(y)))
    oocload.convert(source, folder / "npy.h5", progress=False)
    with h5py.File(folder / "npy.h5") as file:
        assert np.array_equal(file["x"], x)
        assert np.array_equal(file["y"], y)
        assert file["y"].dtype == y.dtype


@pytest.mark.parametrize("encoded", [False, True])
def test_png(digits: tuple[Path, Any, Any], encoded: bool) -> None:
    folder, x, y = digits
    order = np.argsort(y, kind="stable")  # by class, then by number
    target = folder / f"png-{encoded}.zarr"
    oocload.convert(oocload.sources.ImageFolderSource(folder / "png", encoded=encoded), target, progress=False)
    assert oocload.open(target).field("y").meaning.vocabulary == tuple("0123456789")
    decode = oocload.DecodeImages(mode="grey") if encoded else None
    options: dict[str, Any] = {"transform": decode, "transform_workers": "threads"} if encoded else {}
    with oocload.Loader(target, 100, x="x", y="y", shuffle=False, **options) as loader:
        batches = [(images.copy(), labels.copy()) for images, labels in loader]
    assert np.array_equal(np.concatenate([images for images, _ in batches]), x[order])
    assert np.array_equal(np.concatenate([labels for _, labels in batches]), y[order])
