"""The structure that DESIGN and CONTRIBUTING promise, held against the code's own imports."""

import ast
import subprocess
import sys
from pathlib import Path

import oocload

PACKAGE = Path(oocload.__file__).parent

# Each part may import those to its left, and itself. `convert` and `loader` never meet.
ORDER = ["errors", "units", "optional", "forks", "available", "layout", "ops", "plan", "stores", "chunks"]
ALLOWED = {part: set(ORDER[:i]) for i, part in enumerate(ORDER)}
ALLOWED["plan"] = ALLOWED["ops"] = {"errors"}
ALLOWED["convert"] = {*ORDER} - {"ops", "plan"}
ALLOWED["verify"] = {*ORDER, "convert"} - {"ops", "plan"}  # a store is compared with any source of a conversion
ALLOWED["statistics"] = {*ORDER} - {"ops"}
ALLOWED["loader"] = {
    *ORDER,
    "statistics",
    "adapters",
}  # `to_keras` and `to_tf` import their adapter when they are called
ALLOWED["adapters"] = {"errors", "optional", "forks", "chunks", "layout", "loader"}


def imports(path: Path) -> set[str]:
    """Return the parts of oocload that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name and name.startswith("oocload.")}
    return found


def test_imports_run_one_way() -> None:
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part in ALLOWED:
            assert imports(path) <= ALLOWED[part] | {part}, path


def test_the_plan_opens_nothing() -> None:
    for path in (PACKAGE / "plan").glob("*.py"):
        text = path.read_text()
        assert "open(" not in text
        assert "h5py" not in text
        assert "zarr" not in text


def test_import_is_light() -> None:
    code = (
        "import sys, oocload; print([m for m in ('tensorflow', 'keras', 'torch', 'jax', 'dask') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_public_names_are_listed_and_sorted() -> None:
    assert oocload.__all__ == sorted(oocload.__all__)
    assert all(hasattr(oocload, name) for name in oocload.__all__)
    for name in ("Loader", "Shuffle", "convert", "create", "open"):
        assert name in oocload.__all__


def test_errors_are_also_builtins() -> None:
    from oocload import errors

    for cls in vars(errors).values():
        if isinstance(cls, type) and issubclass(cls, errors.OocloadError) and cls is not errors.OocloadError:
            assert any(base.__module__ == "builtins" for base in cls.__mro__ if base not in (Exception, object))


def test_every_module_says_what_it_is() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path
