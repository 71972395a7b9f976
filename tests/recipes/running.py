"""Runs the recipes as a user would, and with wrong input in this process."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RECIPES = Path(__file__).parents[2] / "scripts" / "recipes"


def run_recipe(name: str, folder: Path, *arguments: object) -> tuple[str, dict[str, Any]]:
    """Return what a recipe prints, and its figures."""
    command = [
        sys.executable,
        str(RECIPES / f"{name}.py"),
        "--json",
        str(folder / "figures.json"),
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout, json.loads((folder / "figures.json").read_text())


def ways_of_recipe(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> dict[str, Any]:
    """Return the ways that a recipe would compare, without running any."""
    found: dict[str, Any] = {}
    module = _prepared(name, monkeypatch, *arguments)
    monkeypatch.setattr(module.side_by_side, "compare", lambda old, new, *_, **__: found.update(old | new))
    module.main()
    return found


def error_of_recipe(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """Return the one line in which a recipe ends that cannot go on."""
    module = _prepared(name, monkeypatch, *arguments)
    with pytest.raises(SystemExit) as ended:
        module.side_by_side.run(module.main)
    message = str(ended.value.code)
    assert "\n" not in message
    return message


def _prepared(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Any:
    """Return the module of a recipe, whose `main` will find these arguments."""
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    return importlib.import_module(name)
