"""Each recipe has a page, whose code is that of the script."""

import re
from pathlib import Path

import pytest

from tests.recipes.running import RECIPES

PAGES = Path(__file__).parents[2] / "docs" / "recipes"
NUMBERS = {p.stem: int(n[1]) for p in RECIPES.glob("*.py") if (n := re.match(r'"""Recipe ([0-9]+): ', p.read_text()))}
NAMES = sorted(NUMBERS)


def test_each_script_has_a_page() -> None:
    assert sorted(p.stem for p in PAGES.glob("*.md")) == NAMES
    assert sorted(set(NUMBERS.values())) == list(range(1, 11))


def without_layout(code: str) -> str:
    return re.sub(r"\s+", "", code).replace(",)", ")")  # pages are formatted too, at an indentation of their own


@pytest.mark.parametrize("name", NAMES)
def test_code_of_the_page(name: str) -> None:
    page, script = (PAGES / f"{name}.md").read_text(), without_layout((RECIPES / f"{name}.py").read_text())
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        assert without_layout(block) in script, block
    command = rf"python scripts/recipes/{name}\.py --rows [0-9]+[^`]* --rounds 3"
    assert re.search(rf"`(OMP_NUM_THREADS=1 )?{command}`(.+\n)+\n```\n", page), "its output must stand right below"
