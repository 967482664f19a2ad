"""What is wrong with a config, a line for each field."""

from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.config.faults import fault_lines, secret_lines
from pipelines.config.run_config import RunConfig

POOL = {"role": "uncurated", "sources": [{"kind": "folder", "path": "x"}]}


def _lines(change: dict[str, Any]) -> list[str]:
    data = {"run_dir": "r", "pools": {"web": POOL}, **change}
    with pytest.raises(ValidationError) as error:
        RunConfig.model_validate(data)
    return fault_lines(error.value, RunConfig, data)


def _pool(**fields: Any) -> dict[str, Any]:
    return {"pools": {"web": {**POOL, **fields}}}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"dedup": {"cosine_treshold": 1}},
            "dedup.cosine_treshold: there is no such field; did you mean cosine_t",
        ),
        ({"run_dir": 7}, "run_dir: text is expected (got 7); put it in quotes"),
        ({"run_dir": None}, "run_dir: text is expected (got YAML's null, which a bare ~ and an empty value"),
        ({"pools": {"web": {"sources": POOL["sources"]}}}, "pools.web.role is missing"),
        (
            _pool(sources=[{"path": "x"}]),
            "pools.web.sources.0.kind is missing; it is one of folder, huggingface,",
        ),
        (
            _pool(sources=[{"kind": "tars", "path": "x", "image": 1}]),
            "pools.web.sources.0.image: there is no such",
        ),
        (_pool(role="holdout"), "the config: every pool is a holdout, so nothing could be selected"),
        ({"seed": "http://u:secret@h"}, "(got 'http://***@h')"),
    ],
)
def test_each_field_is_named_as_the_command_line_names_it(change: dict[str, Any], line: str) -> None:
    [found] = _lines(change)
    assert line in found


def test_many_faults_are_counted() -> None:
    lines = _lines({f"wrong_{i}": i for i in range(25)})
    assert len(lines) == 21
    assert lines[-1] == "and 5 more"


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("s3://key:secret@bucket/x", "AWS_ACCESS_KEY_ID"),
        ("gs://bucket/x?token=secret", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://c/x?sig=secret", "AZURE_STORAGE_ACCOUNT_NAME"),
        ("https://u:secret@host/x", "download what it names"),
    ],
)
def test_credentials_are_found_where_they_stand_and_not_shown(url: str, remedy: str) -> None:
    [line] = secret_lines({"pools": {"web": {"sources": [{"path": "plain"}, {"path": url}]}}})
    assert line.startswith("pools.web.sources.1.path: it carries credentials")
    assert remedy in line
    assert "secret" not in line
    assert secret_lines({"a": ["plain", 1, None]}) == []
