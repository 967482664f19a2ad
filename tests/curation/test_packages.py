"""packages: an import that fails is told to be ours or others' by what is missing."""

import pytest

from curation.packages import is_of_ours


@pytest.mark.parametrize(
    ("line", "is_ours"),
    [
        ("import no_such_package", False),
        ("from json import no_such_name", False),
        ("import curation.no_such_module", True),
        ("from pipelines.cli import no_such_name", True),
        ("import curationist", False),
    ],
)
def test_whose_import_fails(line: str, is_ours: bool) -> None:
    with pytest.raises(ImportError) as failed:
        exec(line, {})
    assert is_of_ours(failed.value) is is_ours
