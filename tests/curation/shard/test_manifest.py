"""A manifest is read as it was written, or refused with what is wrong and what to do."""

import json
from typing import Any

import pytest

from curation.errors import IntegrityError
from curation.sealed import seal
from curation.shard.manifest import DATASET_KEYS, MANIFEST_SCHEMA, RUN_KEYS, parse_manifest

WHOLE: dict[str, Any] = {
    "schema": MANIFEST_SCHEMA, "dataset_dir": "dataset-1", "shards": [], "config_sha256": "0",
    "complete": True, "unread": [], "counts": {}, "funnel": [], "lineage": [], "selection": [],
}  # fmt: skip


def parse(text: str, **more: Any) -> dict[str, Any]:
    return parse_manifest(text.encode(), where="x/manifest.json", remedy="Do something", **more)


def test_one_is_read_as_it_was_written() -> None:
    assert parse(seal(WHOLE), keys=RUN_KEYS) == WHOLE
    assert parse(json.dumps(WHOLE), keys=RUN_KEYS) == WHOLE  # an earlier version had no seal
    old = {name: WHOLE[name] for name in DATASET_KEYS}
    assert parse(json.dumps(old)) == old  # nor a schema


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", seal(WHOLE).replace("dataset-1", "dataset-2"), seal(WHOLE)[:-9]]
)
def test_one_that_is_damaged_is_none(text: str) -> None:
    with pytest.raises(IntegrityError, match=r"x/manifest\.json is no manifest.*Do something"):
        parse(text)


def test_one_of_another_version_is_not_guessed_at() -> None:
    with pytest.raises(IntegrityError, match=r"schema 2.*version that wrote it"):
        parse(seal(WHOLE | {"schema": 2}))


@pytest.mark.parametrize("name", RUN_KEYS)
def test_what_is_missing_or_of_another_kind_is_named(name: str) -> None:
    without = {key: value for key, value in WHOLE.items() if key != name}
    with pytest.raises(IntegrityError, match=f"Got: nothing for {name}"):
        parse(seal(without), keys=RUN_KEYS)
    with pytest.raises(IntegrityError, match=f"Got: NoneType for {name}.*a {RUN_KEYS[name].__name__}"):
        parse(seal(WHOLE | {name: None}), keys=RUN_KEYS)
