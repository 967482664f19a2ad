"""What every test shares: shapes checked at run time, and where the optional data lies."""

import sys
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests"))
# Every jaxtyping annotation of the library is checked on every call that a test makes.
install_import_hook(["curation", "pretrain"], "beartype.beartype")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of optional development data beside the repository; the test is skipped without it."""
    path = REPO.parent / "shared"
    if not (path / "real").is_dir():
        pytest.skip(
            f"needs the development data (real photographs, bad files) in {path.name}/ beside the repository"
        )
    return path
