"""A key that two images share is told before it gives one of them the other's vector."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation import storage
from curation.errors import ConfigError, SourceError
from curation.schema import IMAGES
from pipelines.cli import main as cli
from pipelines.engine.step import FileRef
from pipelines.rows import unique_keys
from pipelines.rows.parts import Part
from pipelines.rows.unique_keys import require_rows, require_unique_keys


def make_parts(folder: Path, *listed: tuple[str, list[str]], root: str = "") -> list[Part]:
    """Parts of (pool, keys); the file of a key lies below the part's own folder, or all below `root`."""
    parts: list[Part] = []
    for number, (pool, keys) in enumerate(listed):
        paths = [f"{root or f'/{pool}-{number}'}/{key}" for key in keys]
        given: dict[str, Any] = {"key": keys, "uri": paths, "path": paths, "offset": [0] * len(keys)}
        blank = {"string": "", "int64": 0}
        columns = [
            pa.array(
                given.get(field.name) or [None if field.nullable else blank.get(str(field.type))] * len(keys),
                field.type,
            )
            for field in IMAGES
        ]
        path = folder / f"{number}.parquet"
        storage.write_table(path, pa.table(columns, schema=IMAGES))
        sha256, num_bytes = storage.sha256_file(str(path))
        offset = sum(part.num_rows for part in parts)
        parts.append(
            Part(number, pool, "uncurated", offset, len(keys), FileRef(str(path), num_bytes, sha256))
        )
    return parts


def test_keys_that_differ_pass(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, ("a", ["1.jpg", "2.jpg"]), ("a", ["3.jpg"]), ("b", ["4.jpg"]))
    require_unique_keys(parts, has_pool_column=False)
    require_unique_keys(parts, has_pool_column=True)
    require_unique_keys([], has_pool_column=True)


@pytest.mark.parametrize("has_pool_column", [False, True])
def test_a_key_twice_within_a_pool(tmp_path: Path, has_pool_column: bool) -> None:
    parts = make_parts(tmp_path, ("a", ["1.jpg", "2.jpg"]), ("b", ["3.jpg"]), ("a", ["9.jpg", "2.jpg"]))
    with pytest.raises(ConfigError, match=r"'2\.jpg' names two images") as caught:
        require_unique_keys(parts, has_pool_column=has_pool_column)
    assert "/a-0/2.jpg in pool a, /a-2/2.jpg in pool a" in str(caught.value)
    assert "key_prefix" in str(caught.value)


def test_a_key_in_two_pools_needs_a_pool_column(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, ("a", ["1.jpg", "2.jpg"]), ("b", ["2.jpg", "1.jpg"]))
    require_unique_keys(parts, has_pool_column=True)
    with pytest.raises(ConfigError, match=r"1 other keys are shared too.*column `pool`"):
        require_unique_keys(parts, has_pool_column=False)


def test_one_file_in_two_pools_is_one_image(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, ("a", ["1.jpg"]), ("b", ["1.jpg"]), root="/same")
    require_unique_keys(parts, has_pool_column=False)


def test_equal_hashes_of_different_keys_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = make_parts(tmp_path, ("a", ["1.jpg", "2.jpg"]))
    monkeypatch.setattr(unique_keys, "_hashes", lambda *_, **__: np.zeros(2, np.uint64))
    require_unique_keys(parts, has_pool_column=False)


def test_no_rows_at_all(tmp_path: Path) -> None:
    require_rows(make_parts(tmp_path, ("a", []), ("b", ["1.jpg"])))
    for parts in ([], make_parts(tmp_path, ("a", []))):
        with pytest.raises(SourceError, match="no image"):
            require_rows(parts)


def finding(what: str, path: str, offset: int | None = None) -> dict[str, Any]:
    return {"path": path, "what": what, "detail": "starts with b'<html>'", "offset": offset}


def test_no_rows_are_told_with_the_first_findings(tmp_path: Path) -> None:
    """The first thing that was not read, the first note of each kind, and how many there are beside them."""
    unread = [
        finding("not_a_tar", "/a/1.tar", 0),
        finding("not_a_tar", "/a/2.tar"),
        finding("zeros", "/a/3.tar"),
    ]
    notes = [
        finding(what, path) for what, path in (("hidden", "/a/.x"), ("hidden", "/a/.y"), ("odd_text", "/b"))
    ]
    parts = make_parts(tmp_path, ("a", []))
    with pytest.raises(SourceError) as raised:
        require_rows(parts, unread, notes)
    assert raised.value.got == (
        "no rows from any pool; "
        "not read: /a/1.tar: not_a_tar at byte 0: starts with b'<html>' (and 2 more); "
        "odd: /a/.x: hidden: starts with b'<html>', /b: odd_text: starts with b'<html>' (and 1 more)"
    )
    assert "Mend or replace what could not be read" in raised.value.remedy
    with pytest.raises(SourceError) as raised:
        require_rows(parts, [], notes[:1])
    assert raised.value.got == "no rows from any pool; odd: /a/.x: hidden: starts with b'<html>'"


@pytest.mark.parametrize(
    ("kind", "what"), [("tars", "not_a_tar at byte 0: starts with b'<html>"), ("parquet", "not_parquet")]
)
def test_a_run_over_nothing_but_damage_says_what_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, what: str
) -> None:
    suffix = {"tars": "tar", "parquet": "parquet"}[kind]
    for number in range(3):
        (tmp_path / f"{number}.{suffix}").write_bytes(b"<html>" * 1000)
    config = {
        "run_dir": str(tmp_path / "run"),
        "pools": {
            "web": {"role": "uncurated", "sources": [{"kind": kind, "path": f"{tmp_path}/*.{suffix}"}]}
        },
        "describe": {"embed": {"embedder": "gist"}},
        "executor": {"kind": "local"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for _ in range(2):  # a rerun has the receipts alone
        assert cli.main(["run", str(tmp_path / "config.json")]) == 1
        told = " ".join(capfd.readouterr().err.split())
        assert f"{tmp_path}/0.{suffix}: {what}" in told
        assert "(and 2 more)" in told
