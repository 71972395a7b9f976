"""Recipe 6."""

from pathlib import Path

import numpy as np
import pytest

from tests.recipes.running import run_recipe
from tests.recipes.stores import check_refusals


def test_labels_in_runs_are_mixed_better(tmp_path: Path) -> None:
    shown, figures = run_recipe("shuffle_buffer", tmp_path, "--rows", 12_000, "--memory", "10 MiB")
    buffer, windows = (figures["ways"][name] for name in ("shuffle buffer", "oocload"))
    assert buffer["rows"] == windows["rows"] == 24_000
    assert buffer["result"]["label_entropy"] < 0.7 < 0.8 < windows["result"]["label_entropy"] <= 1.01
    assert buffer["result"]["rank_correlation"] > 0.8 > 0.3 > abs(windows["result"]["rank_correlation"])
    assert buffer["result"]["displacement"] < 0.5 < 0.9 < windows["result"]["displacement"] < 1.1
    assert buffer["result"]["accuracy"] < windows["result"]["accuracy"]
    assert figures["data_nbytes"] > max(way["peak_nbytes"] for way in (buffer, windows))
    assert "every row came exactly once an epoch; a shuffle of the whole store has 14" in shown


def test_mixing_is_counted_from_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts" / "recipes"))
    from parts import mixing

    labels = np.arange(6000) // 2000
    batches = lambda order: np.split(np.asarray(order), range(100, 6000, 100))  # noqa: E731

    def found(order: np.ndarray, given: np.ndarray = labels) -> mixing.Mixing:
        of_each = batches(order)
        return mixing.mixing(mixing.Delivered(of_each, [given[rows] for rows in of_each]), labels, chunk_rows=50)

    in_order = found(np.arange(6000))
    assert (in_order.chunks_per_batch, in_order.label_entropy, in_order.displacement) == (2, 0, 0)
    assert in_order.rank_correlation == pytest.approx(1)
    shuffled = found(np.random.default_rng(1).permutation(6000))
    assert shuffled.label_entropy == pytest.approx(1, abs=0.01)
    assert shuffled.displacement == pytest.approx(1, abs=0.05)
    assert abs(shuffled.rank_correlation) < 0.05
    with pytest.raises(ValueError, match="every row must come exactly once"):
        found(np.r_[0, np.arange(5999)])
    with pytest.raises(ValueError, match="every row must come with its label"):
        found(np.arange(6000), labels[::-1])


def test_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_refusals("shuffle_buffer", tmp_path, monkeypatch)
