"""Every example in the docstrings and the README runs."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    "oocload.loader.images",
    "oocload.convert.sources.image_folder",
    "oocload.convert.sources.npy_folder",
    "oocload.convert.sources.anndata",
    "oocload.convert.sources.arrow",
    "oocload.convert.sources.csv",
    "oocload.convert.sources.hugging_face",
    "oocload.convert.sources.known",
    "oocload.convert.sources.rows",
    "oocload.convert.sources.text",
    "oocload.convert.sources.tf_data",
    "oocload.convert.sources.tfrecord",
    "oocload.convert.sources.torch",
    "oocload.convert.sources.webdataset",
    "oocload.convert.sources.xarray",
    "oocload.opening",
    "oocload.stores",
    "oocload.loader.loader",
    "oocload.loader.mix",
    "oocload.ops.geometry",
    "oocload.ops.labels",
    "oocload.ops.values",
    "oocload.convert.convert",
    "oocload.convert.create",
    "oocload.statistics.stats",
    "oocload.verify.verify",
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


def blocks(language: str, file: str = "README.md") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)


@pytest.mark.framework
def test_readme_python(tmp_path: Path) -> None:
    """The blocks run one after the other, as one who reads on would run them."""
    pytest.importorskip("tensorflow")
    code = "\n".join(blocks("python"))
    assert code.count("\n") > 20
    (tmp_path / "readme.py").write_text(code)
    done = subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("file", sorted(p.name for p in (ROOT / "docs").glob("*.md")))
def test_documents(file: str, tmp_path: Path) -> None:
    code = "\n".join(blocks("python", f"docs/{file}"))
    assert code
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"])
def test_files_that_are_named(file: str) -> None:
    text = (ROOT / file).read_text()
    linked = re.findall(r"\]\((?!http)([^)#]+)", text)
    named = re.findall(r"`([\w/]+/(?:[\w]+\.\w+)?)`", text) if file == "CONTRIBUTING.md" else []
    assert linked or named
    missing = [path for path in linked if not (ROOT / file).parent.joinpath(path).exists()]
    missing += [path for path in named if not any((ROOT / top / path).exists() for top in ("", "oocload"))]
    assert missing == []


def test_readme_commands(tmp_path: Path, mnist: Path) -> None:
    """The `oocload` commands run where the arrays of the first example and the real MNIST files lie."""
    np.save(tmp_path / "images.npy", np.zeros((100, 28, 28), "uint8"))
    np.save(tmp_path / "labels.npy", np.arange(100) % 2)
    for file in mnist.glob("*.gz"):
        (tmp_path / file.name).symlink_to(file)
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("oocload ")]
    assert len(commands) >= 2
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
