"""One helper for packages that oocload can use but does not need."""

from __future__ import annotations

import importlib
from types import ModuleType

from oocload.errors import MissingPackageError


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or raise with the exact line that installs it.

    Raises
    ------
    MissingPackageError
        If the package is not installed.

    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise MissingPackageError(
            f'{purpose} needs the package {module!r}, which is not installed; run: pip install "oocload[{extra}]"'
        ) from exc
