"""The names of `curation` and `pipelines`: light to import, shown to editors as they are, and all there."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "scipy", "faiss", "ray", "pyarrow", "numpy", "pandas", "timm", "open_clip", "pydantic")
FACES = ("curation", "pipelines")


def shown(face: str) -> dict[str, tuple[str, str]]:
    """What the block of `TYPE_CHECKING` imports: under which name, from which module, called what there."""
    tree = ast.parse((REPO / face / "__init__.py").read_text())
    [block] = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("face", FACES)
def test_it_is_light(face: str) -> None:
    code = f"import sys, {face}; dir({face}); print(*set({HEAVY}) & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=REPO
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("face", FACES)
def test_editors_see_what_is_there(face: str) -> None:
    package, names = importlib.import_module(face), shown(face)
    assert sorted(names) == sorted(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for name, (module, original) in names.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), original)


@pytest.mark.parametrize("face", FACES)
def test_no_name_is_a_module_of_the_package(face: str) -> None:
    """Else it would be the one or the other, by what was imported first."""
    modules = {path.stem for path in (REPO / face).iterdir()}
    assert not modules & set(importlib.import_module(face).__all__)


@pytest.mark.parametrize("face", FACES)
def test_another_name_is_an_error(face: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{face}' has no attribute 'clusterise'"):
        _ = importlib.import_module(face).clusterise


@pytest.mark.parametrize("face", FACES)
def test_every_name_has_a_docstring(face: str) -> None:
    package = importlib.import_module(face)
    assert [name for name in package.__all__ if not (getattr(package, name).__doc__ or "").strip()] == []
