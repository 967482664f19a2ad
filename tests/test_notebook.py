"""The notebook of docs/ runs from its first cell to its last, and prints what its page says."""

import io
import re
import runpy
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.answers.verify import verify

DOCS = Path(__file__).resolve().parents[1] / "docs"


@dataclass(frozen=True)
class Ran:
    """Where the notebook ran, its names at the end, and what it printed."""

    folder: Path
    names: dict[str, Any]
    printed: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder, printed = tmp_path_factory.mktemp("notebook"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.chdir(folder)
        names = runpy.run_path(str(DOCS / "notebook.py"))
    return Ran(folder, names, printed.getvalue())


def test_it_finds_what_was_planted(ran: Ran) -> None:
    reasons = Counter(ran.names["lineage"]["reason"].to_pylist())
    assert reasons["exact_copy"] == 3
    assert reasons["near_copy"] == 25
    assert reasons["leaks_holdout"] == 19
    assert ran.names["story"]["decision"] == "dropped"
    assert len(ran.names["chosen"]) == 40
    assert ran.names["nearest"].index.shape == (39, 6)
    assert verify(str(ran.folder / "runs/notebook/run")) == []


def test_its_page_shows_what_it_prints(ran: Ran) -> None:
    page = (DOCS / "notebook.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    printed = ran.printed.replace(str(ran.folder.resolve()), "/home/you")
    assert printed == shown, "paste into docs/notebook.md what docs/notebook.py prints"
