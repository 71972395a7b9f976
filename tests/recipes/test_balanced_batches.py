"""Recipe 10."""

from pathlib import Path

import pytest

from tests.recipes.running import run_recipe
from tests.recipes.stores import check_refusals


def test_no_class_is_exhausted(tmp_path: Path) -> None:
    _, figures = run_recipe("balanced_batches", tmp_path, "--rows", 8000, "--memory", "12 MiB")
    ways = figures["ways"]
    ended, drawn, plain, balanced = (
        ways[name]
        for name in (
            "balanced, until one is exhausted",
            "balanced, with replacement",
            "not balanced",
            "oocload, balanced",
        )
    )
    assert all(len(set(of_epoch)) == 1 for of_epoch in balanced["result"]["rows"])
    n_rows = sum(plain["result"]["rows"][0])
    of_each = balanced["result"]["rows"][0][0]
    assert n_rows <= 3 * of_each < n_rows + 255  # as many batches as without
    assert max(ended["result"]["rows"][0]) <= min(plain["result"]["rows"][0]) < of_each
    assert balanced["result"]["distinct"][0] == of_each > drawn["result"]["distinct"][0]  # none twice in an epoch
    assert balanced["result"]["distinct"][-1] > drawn["result"]["distinct"][-1] > ended["result"]["distinct"][-1]
    assert balanced["result"]["recall"][2] > 0.6 > 0.3 > plain["result"]["recall"][2]
    assert ended["peak_nbytes"] > 0.95 * figures["data_nbytes"]  # the kernel counts roughly
    assert ended["peak_nbytes"] > balanced["peak_nbytes"]
    assert 1 <= float(balanced["shown"]["reads of a block"]) < 1.5


def test_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_refusals("balanced_batches", tmp_path, monkeypatch)
