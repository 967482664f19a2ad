"""Identities, receipts, and the publishing of one item."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curation.errors import IntegrityError
from pipelines.step import Attempt, Item, Receipt, Step, Work, find_receipt, perform


def load() -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        (attempt.out / "out.txt").write_text(f"{attempt.payload['text']} {dict(attempt.condemned)}")
        return {"num_rows": 3}

    return work


STEP = Step("shout", 1, {"a": 1, "b": {"c": 2}}, load, "task", "describe")
ITEM = Item(("in-1", "in-2"), {"text": "hello"}, 3)


def test_identity_follows_what_changes_the_output_and_nothing_else() -> None:
    identity = STEP.identity(ITEM)
    assert len(identity) == 32
    for other in (
        replace(STEP, name="whisper"),
        replace(STEP, version=2),
        replace(STEP, config={"a": 1, "b": {"c": 3}}),
    ):
        assert other.identity(ITEM) != identity
    assert STEP.identity(replace(ITEM, inputs=("in-2", "in-1"))) != identity
    for same in (
        replace(STEP, threads=7, loads_model=True, kind="map", stage="judge"),
        replace(STEP, config={"b": {"c": 2}, "a": 1}),
    ):
        assert same.identity(ITEM) == identity
    assert STEP.identity(replace(ITEM, payload={"text": "elsewhere"}, num_rows=9)) == identity


def test_a_receipt_lists_what_was_published(tmp_path: Path) -> None:
    receipt = perform(load(), STEP, ITEM, run_dir=str(tmp_path))
    assert receipt.facts == {"num_rows": 3}
    path = tmp_path / receipt.folder / "out.txt"
    assert path.read_text() == "hello {}"
    assert receipt.file(str(tmp_path), "out.txt").num_bytes == path.stat().st_size
    assert find_receipt(str(tmp_path), STEP, STEP.identity(ITEM)) == receipt
    assert Receipt.from_json(receipt.to_json(), where="here") == receipt
    assert not list((tmp_path / "tmp").iterdir())


def test_the_digest_forgets_the_clock(tmp_path: Path) -> None:
    first = perform(load(), STEP, ITEM, run_dir=str(tmp_path / "a"))
    second = perform(load(), STEP, ITEM, run_dir=str(tmp_path / "b"))
    assert first.timings != second.timings
    assert first.digest == second.digest
    assert replace(first, facts={"num_rows": 4}).digest != first.digest


def test_a_twin_finds_the_first_ones_output(tmp_path: Path) -> None:
    first = perform(load(), STEP, ITEM, run_dir=str(tmp_path))
    late = perform(load(), STEP, replace(ITEM, payload={"text": "late"}), run_dir=str(tmp_path))
    assert late == first
    assert (tmp_path / first.folder / "out.txt").read_text() == "hello {}"


def test_files_without_a_receipt_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "steps" / "shout" / STEP.identity(ITEM)
    folder.mkdir(parents=True)
    (folder / "out.txt").write_text("half a f")
    perform(load(), STEP, ITEM, run_dir=str(tmp_path))
    assert (folder / "out.txt").read_text() == "hello {}"


def test_a_probe_publishes_nothing(tmp_path: Path) -> None:
    perform(load(), STEP, ITEM, run_dir=str(tmp_path), condemned={1: "skipped"}, publish=False)
    assert not (tmp_path / "steps").exists()


def test_work_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def work(attempt: Attempt) -> dict[str, Any]:
        (attempt.out / "half.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        perform(work, STEP, ITEM, run_dir=str(tmp_path))
    assert not (tmp_path / "steps").exists()
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"step": "x"', '{"files": {"a": 3}}', "\0\0\0", "null"])
def test_a_damaged_receipt_is_named(tmp_path: Path, text: str) -> None:
    receipt = perform(load(), STEP, ITEM, run_dir=str(tmp_path))
    path = tmp_path / receipt.folder / "receipt.json"
    path.write_text(text)
    with pytest.raises(IntegrityError, match=str(path)):
        find_receipt(str(tmp_path), STEP, STEP.identity(ITEM))
