"""Recipe 7: images and texts."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SHARED
from tests.recipes.running import error_of_recipe, run_in_turn

pytest.importorskip("tensorflow")
pytest.importorskip("keras")
pytestmark = pytest.mark.framework

MNIST = SHARED / "data" / "mnist"
MESSAGES = SHARED / "data" / "sms" / "SMSSpamCollection.tsv"
IMAGES, TEXTS = "image_classification", "text_classification"


def test_same_losses_and_accuracy(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    runs = {(IMAGES, "--rows", 4000): 0.4, (TEXTS, "--rows", 2000): 0.4}  # run: its least accuracy
    real = MNIST.is_dir() and MESSAGES.is_file()
    if real:
        some = tmp_path / "some.tsv"
        some.write_bytes(b"".join(MESSAGES.read_bytes().splitlines(keepends=True)[:2500]))
        runs[IMAGES, "--mnist", MNIST] = 0.85
        runs[TEXTS, "--messages", some, "--columns", "Label", "SMS"] = 0.95
    for (name, kind, *_), accuracy, figures in zip(runs, runs.values(), run_in_turn(tmp_path, *runs), strict=True):
        old, new = (
            figures["ways"]["arrays in memory" if name == IMAGES else "lists in memory"],
            figures["ways"]["oocload"],
        )
        assert figures["difference"] == 0
        assert old["rows"] == new["rows"] > 0
        assert new["shown"] == old["shown"]
        assert float(new["shown"]["held-out accuracy"]) > accuracy
        (first, last), _ = new["result"]
        assert last < first
        if kind == "--mnist":  # of less data, TensorFlow itself is most of either
            assert new["peak_nbytes"] < old["peak_nbytes"]
    if not real:
        pytest.skip(f"needs the MNIST files in {MNIST} and {MESSAGES} too")


def test_wrong_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def idx(name: str, array: np.ndarray) -> None:
        lengths = np.array(array.shape, ">i4").tobytes()
        with gzip.open(tmp_path / f"t10k-{name}-ubyte.gz", "wb") as file:
            file.write(bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes())

    def error() -> str:
        return error_of_recipe(IMAGES, monkeypatch, "--mnist", tmp_path)

    assert error().startswith(f"StoreNotFoundError: source must exist, got '{tmp_path}/t10k-images-idx3-ubyte.gz'")
    idx("images-idx3", np.zeros((200, 4), np.uint8))
    idx("labels-idx1", np.zeros(199, np.uint8))
    assert "fields must have the same number of rows: 'x' has 200, 'y' has 199" in error()
    idx("labels-idx1", np.zeros(200, np.uint8))
    assert "InvalidArgumentError: images must be of height × width, each at least 7, and of bytes, got (4,)" in error()
    idx("images-idx3", np.zeros((200, 8, 8), np.uint8))
    idx("labels-idx1", np.zeros((200, 2), np.uint8))
    assert "must have one class for each row" in error()


def test_wrong_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "messages.tsv"

    def error(text: str, *arguments: object) -> str:
        path.write_text(text)
        return error_of_recipe(TEXTS, monkeypatch, "--messages", path, *arguments)

    assert "StoreNotFoundError: source must exist, got 'none.tsv'" in error("", "--messages", "none.tsv")
    assert f"{path}, line 3: must have 2 columns, got 1: 'spam'" in error("label\ttext\nham\thello\nspam\n")
    assert "column 'label' must be one of those in" in error("Label\tSMS\nham\thello\n")
    assert f"{path} must begin with the names of its columns, got nothing" in error("")
