"""Each recipe has a page, whose code is that of the script."""

import re
import textwrap
from pathlib import Path

import pytest

from tests.recipes.running import RECIPES

PAGES = Path(__file__).parents[2] / "docs" / "recipes"
MODULES = {  # what recipes share
    "keras_runs",
    "made_data",
    "made_h5",
    "made_messages",
    "side_by_side",
    "softmax_regression",
}
NAMES = sorted(p.stem for p in RECIPES.glob("*.py") if p.stem not in MODULES)


def test_each_script_has_a_page() -> None:
    assert sorted(p.stem for p in PAGES.glob("*.md")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_code_of_the_page(name: str) -> None:
    page, script = (PAGES / f"{name}.md").read_text(), (RECIPES / f"{name}.py").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        assert any(textwrap.indent(block, " " * n) in script for n in (0, 4, 8)), block
    assert f"python scripts/recipes/{name}.py" in page
