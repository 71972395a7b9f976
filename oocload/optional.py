"""One helper for packages that oocload can use but does not need."""

from __future__ import annotations

import importlib
from types import ModuleType

from oocload.errors import MissingPackageError

_BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "jaxlib": "jax", "torch": "torch"}
_DISTRIBUTIONS = {"PIL": "pillow"}  # of modules that are called something else


def require_keras(purpose: str) -> ModuleType:
    """Import Keras with its backend, or raise with the exact line that installs what is missing."""
    try:
        return importlib.import_module("keras")
    except ImportError as exc:
        missing = _package_of(str(exc.name))
        extra = _BACKENDS.get(missing)
        if extra is None:
            return require("keras", "tensorflow", purpose)
        raise MissingPackageError(
            f"{purpose} needs the package {missing!r}, which Keras is set to run on (KERAS_BACKEND) and which is not "
            f"installed; {_remedy(extra, extra)}"
        ) from exc


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or raise with the exact line that installs it.

    Raises
    ------
    MissingPackageError
        If the package is not installed, or cannot be imported.

    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        package = _package_of(module)
        name = _DISTRIBUTIONS.get(package, package)
        is_there = exc.name is None or _package_of(exc.name) != package
        problem = f"cannot be imported here ({exc})" if is_there else "is not installed"
        raise MissingPackageError(
            f"{purpose} needs the package {name!r}, which {problem}; {_remedy(name, extra)}"
        ) from exc


def _package_of(module: str) -> str:
    return module.partition(".")[0]


def _remedy(name: str, extra: str) -> str:
    return f"run: pip install {name} (or install oocload with its extra {extra!r})"
