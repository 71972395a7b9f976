"""Recipe 2."""

from pathlib import Path

import pytest

from tests.recipes.running import error_of_recipe, run_recipe

pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytest.importorskip("pyarrow")

MIB = 2**20


def test_same_losses(tmp_path: Path) -> None:
    shown, figures = run_recipe("endless_generator", tmp_path, "--rows", 1_500, "--memory", "8 MiB")
    old, *new = (figures["ways"][name] for name in ("endless generator", "forever()", "to_keras()"))
    assert figures["difference"] < 1e-6
    assert "losses of all: " in shown
    assert old["result"][2] < old["result"][0]
    for way in new:
        assert way["rows"] == old["rows"] == 3_000
        assert len(set(way["shown"].values())) == 1  # Keras validated on all rows, in the last epoch too
        assert way["peak_nbytes"] < old["peak_nbytes"] + 2 * 8 * MIB + 16 * MIB  # of two loaders; and what wavers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "StoreNotFoundError: source must exist, got '{}'; no file lies at that path"),
        (b"text\nhello\n", "StoreFormatError: {}, line 2: must have 2 columns, got 1: 'hello'"),
        (b"label\ttext\nspam\tfree\tnow\n", "StoreFormatError: {}, line 2: must have 2 columns, got 3: "),
        (b"label\ttext\neggs\tno\n", "StoreFormatError: {}, line 2: column 'label' must be a word of the vocabulary"),
        (b"\x89HDF\r\n\x1a\n\xff\xfe\t\x00\n", "StoreFormatError: {}, line 2: must have 2 columns, got 1: "),
        (
            b"label\ttext\nham\thi\nspam\tfree\n",
            "InvalidArgumentError: fractions must leave each part a row, and 0.2 of 2 rows is none",
        ),
    ],
)
def test_wrong_input(content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "messages.tsv"
    if content is not None:
        path.write_bytes(content)
    error = error_of_recipe("endless_generator", monkeypatch, "--messages", path)
    assert error.startswith(message.format(path))
