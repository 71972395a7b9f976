"""Recipe 8."""

from pathlib import Path

import pytest

from tests.recipes.files import WRONG, write_wrong
from tests.recipes.running import error_of_recipe, run_recipe

pytest.importorskip("keras")
pytest.importorskip("tensorflow")


def test_same_loss_in_order_and_better_mixed(tmp_path: Path) -> None:
    shown, figures = run_recipe("tf_data_generator", tmp_path, "--rows", 2_000, "--buffer", 256)
    *old, new = (figures["ways"][n] for n in ("from_generator, rows", "from_generator, slices", "to_tf()"))
    assert figures["difference"] < 1e-6
    assert "rank correlation" in shown
    assert new["rows"] == 2_000
    classes = [float(way["shown"]["classes in a batch"]) for way in (*old, new)]
    assert classes[0] == classes[1] < classes[2]
    accuracy = [float(way["shown"]["accuracy after an epoch"]) for way in (*old, new)]
    assert max(accuracy[:2]) < 0.7 < accuracy[2]


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, message = write_wrong(tmp_path, name)
    assert error_of_recipe("tf_data_generator", monkeypatch, "--file", path).startswith(message)
