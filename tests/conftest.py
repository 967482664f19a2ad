"""What every test shares: shapes checked at run time, and where the optional data lies."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests"))
MAX_ID_BYTES = 24  # of bytes in a test's name

from arithmetic import ARITHMETICS, force_whole_run, forced  # noqa: E402

# Tests that run side by side share the cores; torch and FAISS read this when they are imported.
if num_workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_workers)))
# Every jaxtyping annotation of the library is checked on every call that a test makes.
install_import_hook(["curation", "pretrain"], "beartype.beartype")
force_whole_run()
# How long an example takes tells of the machine, not of the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A number for long bytes: what is compressed has the time in it, and workers would see other tests."""
    return argname if isinstance(val, bytes) and len(val) > MAX_ID_BYTES else None


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of optional development data beside the repository; the test is skipped without it."""
    path = REPO.parent / "shared"
    if not (path / "real").is_dir():
        pytest.skip(
            f"needs the development data (real photographs, bad files) in {path.name}/ beside the repository"
        )
    return path


@pytest.fixture
def symbolic_sizes() -> Iterator[None]:
    """Shapes are not checked: while a model is exported, sizes are symbols, which no annotation knows."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module", params=ARITHMETICS)
def arithmetic(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each arithmetic of products in turn, on any machine, as what the machine itself would choose."""
    with forced(request.param):
        yield request.param
