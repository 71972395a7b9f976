"""One helper for packages that oocload can use but does not need."""

from __future__ import annotations

import importlib
from types import ModuleType

from oocload.errors import MissingPackageError

_BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "jaxlib": "jax", "torch": "torch"}


def require_keras(purpose: str) -> ModuleType:
    """Import Keras with its backend, or raise with the exact line that installs what is missing."""
    try:
        return importlib.import_module("keras")
    except ImportError as exc:
        extra = _BACKENDS.get(str(exc.name).partition(".")[0])
        if extra is None:
            return require("keras", "tensorflow", purpose)
        raise MissingPackageError(
            f"{purpose} needs the package {exc.name!r}, which Keras is set to run on (KERAS_BACKEND) and which is not "
            f'installed; run: pip install "oocload[{extra}]"'
        ) from exc


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
