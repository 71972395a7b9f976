"""Runs the recipes as a user would, and with wrong input in this process."""

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
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


def run_in_turn(folder: Path, *runs: Sequence[object]) -> list[dict[str, Any]]:
    """Return the figures of several runs, each a name and arguments, in one process, which imports a framework once."""
    lines = ["import sys", "from parts import side_by_side"]
    for number, (name, *arguments) in enumerate(runs):
        argv = list(map(str, (name, "--json", folder / f"{number}.json", *arguments)))
        lines += [f"import {name}", f"sys.argv = {argv}", f"side_by_side.run({name}.main)"]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=RECIPES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(len(runs))]


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
