"""Recipe 4."""

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.recipes.running import error_of_recipe, run_recipe, ways_of_recipe

pytestmark = pytest.mark.framework
pytest.importorskip("keras")
pytest.importorskip("pyarrow")


def test_same_losses(tmp_path: Path) -> None:
    shown, figures = run_recipe("csv_padded_batches", tmp_path, "--rows", 3000)
    old, new, bucketed = figures["ways"].values()
    assert old["rows"] == new["rows"] == bucketed["rows"] == 3000
    assert figures["difference"] < 1e-6
    assert new["result"][1] < new["result"][0]
    assert old["shown"] == new["shown"]
    assert float(bucketed["shown"]["padding"][:-1]) < 10 < 40 < float(new["shown"]["padding"][:-1])
    assert "losses of both: " in shown


def test_files_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f'{i},"Word{i % 5}, {"and more " * (i % 4)}",{"ab"[i % 2]},{i / 100},{i % 3}\n' for i in range(300)]
    places = [0, 8, 11, 139, *range(140, 151), 300]  # more than ten files: 10 comes after 2
    for number, (start, stop) in enumerate(itertools.pairwise(places)):
        (tmp_path / f"mail-{number}.csv").write_text("size,body,kind,rank,links\n" + "".join(lines[start:stop]))
    names = ("--text", "body", "--numbers", "size", "links", "--topic", "kind", "--score", "rank")
    ways = ways_of_recipe(
        "csv_padded_batches", monkeypatch, "--files", tmp_path / "mail-*.csv", *names, "--dir", tmp_path
    )
    recipe = importlib.import_module("csv_padded_batches")
    before, (store, columns, memory) = recipe.CsvBatches(*ways["generator"].args), ways["oocload"].args
    with recipe.loader_of(store, columns, memory) as loader:
        for (x, y), (old_x, old_y) in itertools.islice(zip(itertools.chain(loader, loader), before, strict=False), 6):
            for new, old in ((x, old_x), (y, old_y)):
                assert new.keys() == old.keys()
                for name in new:
                    np.testing.assert_array_equal(new[name], old[name])
                    assert new[name].dtype == old[name].dtype
    assert recipe.sizes_of(store, columns) == (len(before.tokens) + 2, 2) == (9, 2)


def test_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(text: str, name: str = "part-1.csv") -> str:
        (tmp_path / name).write_text(text)
        return error_of_recipe("csv_padded_batches", monkeypatch, "--files", tmp_path / "part-*.csv")

    head, row = "text,hour,links,replies,topic,score\n", "a b,1,2,3,news,0.5\n"
    assert error("", "other.csv").endswith("part-*.csv'; no path matches it")
    assert "column 'score' must be one of those in" in error("text;topic\na;news\n")
    assert "line 3: must have 6 columns, got 7: 'a,b,1,2,3,news,1'" in error(head + row + "a,b,1,2,3,news,1\n")
    assert "line 2: column 'hour' must hold numbers as its first rows do, got 'one'" in error(head + "a,one,2,3,b,1\n")
    (tmp_path / "part-1.csv").write_text(head + row)
    other = error(head.replace("hour", "day") + row, "part-2.csv")
    assert "part-2.csv must have the columns of " in other
    assert "got text, day, links, replies, topic, score" in other
    for wrong in (("--score", "hour"), ("--topic", "a (kind)")):
        assert error_of_recipe("csv_padded_batches", monkeypatch, *wrong) == "2"
