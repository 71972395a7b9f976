"""Recipe 9."""

import re
from pathlib import Path

import pytest

from tests.recipes.files import WRONG, write_wrong
from tests.recipes.running import error_of_recipe, run_recipe

pytest.importorskip("keras")
pytest.importorskip("tensorflow")


def test_what_is_shown(tmp_path: Path) -> None:
    shown, figures = run_recipe("timed_batches", tmp_path, "--rows", 3_000, "--memory", "8 MiB")
    assert figures["difference"] < 1e-6
    assert {way["rows"] for way in figures["ways"].values()} == {6_000}
    assert re.search(r"^batch 1 of 12: loaded in \d\.\d{4} s$", shown, re.MULTILINE)
    assert re.search(r"epoch 3: 100%.* 12/12 .*loss \d\.\d{3}, waited \d+%", shown)
    assert re.search(r"12/12 - .* - loss: .* - data_wait: .* - rows_per_s: ", shown)
    assert "9,000 rows in 36 batches" in shown


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, message = write_wrong(tmp_path, name)
    assert error_of_recipe("timed_batches", monkeypatch, "--file", path).startswith(message)
