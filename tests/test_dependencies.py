"""What is imported is declared: by the project, or by an extra where a user chooses it."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
OURS = {"curation", "pipelines", "pretrain"}
# Both wheels bring it.
PROVIDED = {"faiss": {"faiss-cpu", "faiss-gpu"}}


def names_of(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements}


DECLARED = names_of(PROJECT["dependencies"])
EXTRAS = {name: names_of(extra) for name, extra in PROJECT["optional-dependencies"].items()}
OPTIONAL = set().union(*(names for extra, names in EXTRAS.items() if extra not in ("dev", "docs")))


def imports_of(package: str) -> dict[str, list[Path]]:
    """The modules of others that a package imports, wherever in a file, and the files."""
    found: dict[str, list[Path]] = {}
    for path in (REPO / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                found.setdefault(name.partition(".")[0], []).append(path.relative_to(REPO))
    return {name: files for name, files in found.items() if name not in {*OURS, *sys.stdlib_module_names}}


def distributions_of(module: str) -> set[str]:
    found = packages_distributions().get(module, [module])
    return PROVIDED.get(module) or {canonicalize_name(name) for name in found}


@pytest.mark.parametrize("package", sorted(OURS))
def test_every_import_is_declared(package: str) -> None:
    for module, files in imports_of(package).items():
        assert distributions_of(module) & (DECLARED | OPTIONAL), f"{files[0]}: {module}"


def test_what_is_declared_is_imported() -> None:
    used = {name for package in OURS for module in imports_of(package) for name in distributions_of(module)}
    by_name = {"s3fs"}  # loaded by fsspec
    assert (DECLARED | OPTIONAL) - used - by_name == set()
