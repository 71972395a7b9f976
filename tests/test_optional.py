"""Packages that are not there: which, and what to install, from an index or a clone."""

import re
import sys
from pathlib import Path

import pytest

from oocload.errors import MissingPackageError
from oocload.optional import require


def test_the_message_names_what_pip_calls_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    message = (
        "resizing images needs the package 'pillow', which is not installed; run: pip install pillow "
        "(or install oocload with its extra 'images')"
    )
    with pytest.raises(MissingPackageError, match=re.escape(message)):
        require("PIL.Image", "images", "resizing images")


def test_a_package_that_cannot_be_imported_is_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import oocload_no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = (
        r"to_x\(\) needs the package 'half_installed', which cannot be imported here \(No module named 'oocload_no"
    )
    with pytest.raises(MissingPackageError, match=message):
        require("half_installed", "extra", "to_x()")
